//! The two kinds of products, of floats and of bytes: the sums of a tile in registers, and what one of them is worth.

use crate::gemm::To;
use crate::isa::{Isa, LANES};
use crate::pack::PackedI8;
use crate::quantise::Scaling;
use crate::rows::Rows;
use crate::tile::Product;

/// How a weight lies in memory; it is multiplied as `f32`.
pub(crate) trait Stored: Copy + Sync {
    fn load<I: Isa>(isa: I, weights: &[Self; LANES]) -> I::F;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, weights: &[f32; LANES]) -> I::F {
        isa.load(weights)
    }
}

impl Stored for u16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, weights: &[u16; LANES]) -> I::F {
        isa.load_f16(weights)
    }
}

pub(crate) struct Float<'a, W> {
    pub rows: Rows<'a, f32>,
    pub panels: &'a [W],
    pub outputs: usize,
    pub to: To<'a>,
    /// Whether panels are asked for while those before them are multiplied: short ones, which no cache holds.
    pub asks: bool,
}

impl<W: Stored> Product for Float<'_, W> {
    type Sum<I: Isa> = I::F;
    type Panel<I: Isa> = I::F;
    const FROM_REGISTERS: bool = true;

    #[inline(always)]
    fn at_once<I: Isa>(&self) -> usize {
        I::SUMS
    }
    fn rows(&self) -> usize {
        self.rows.count()
    }
    fn outputs(&self) -> usize {
        self.outputs
    }
    #[inline(always)]
    fn panel_bytes(&self) -> usize {
        self.depth() * LANES * size_of::<W>()
    }
    #[inline(always)]
    fn depth(&self) -> usize {
        self.rows.taps() * self.rows.depth()
    }
    #[inline(always)]
    fn to(&self) -> &To<'_> {
        &self.to
    }

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    unsafe fn sums<I: Isa, const R: usize, const P: usize>(&self, isa: I, row: usize, panel: usize) -> [[I::F; P]; R] {
        let (taps, depth) = (self.rows.taps(), self.rows.depth());
        let panel_len = taps * depth * LANES;
        let mut sums = [[isa.splat(0.0); P]; R];
        let mut weights = self.panels[panel * panel_len..(panel + P) * panel_len].as_ptr();
        // SAFETY: the rows exist.
        let rows = unsafe { self.rows.few::<R>(row) };
        for tap in 0..taps {
            // SAFETY: the tap exists; a line is `depth` long, a panel `taps * depth` vectors, of which one is taken a step.
            unsafe {
                let lines = rows.lines(tap);
                for k in 0..depth {
                    let mut w = [isa.splat(0.0); P];
                    for p in 0..P {
                        w[p] = W::load(isa, &*weights.add(p * panel_len).cast());
                        if self.asks {
                            isa.prefetch(weights.wrapping_add((p + P) * panel_len));
                        }
                    }
                    for r in 0..R {
                        let x = isa.splat(*lines[r].add(k));
                        for p in 0..P {
                            sums[r][p] = isa.fma(x, w[p], sums[r][p]);
                        }
                    }
                    weights = weights.add(LANES);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn panel<I: Isa>(&self, isa: I, panel: usize) -> I::F {
        self.to.epilogue.bias(isa, panel * LANES)
    }
    #[inline(always)]
    fn value<I: Isa>(isa: I, sum: I::F, bias: &I::F) -> I::F {
        isa.add(sum, *bias)
    }
}

pub(crate) struct Bytes<'a> {
    pub rows: Rows<'a, u8>,
    pub scaling: Scaling,
    pub weights: &'a PackedI8,
    pub to: To<'a>,
}

impl Product for Bytes<'_> {
    type Sum<I: Isa> = I::Acc;
    type Panel<I: Isa> = Panel<I>;
    const FROM_REGISTERS: bool = false;
    const ARE_BYTES: bool = true;

    #[inline(always)]
    fn at_once<I: Isa>(&self) -> usize {
        I::ACCS
    }
    fn rows(&self) -> usize {
        self.rows.count()
    }
    fn outputs(&self) -> usize {
        self.weights.outputs
    }
    #[inline(always)]
    fn panel_bytes(&self) -> usize {
        self.depth() * LANES
    }
    #[inline(always)]
    fn depth(&self) -> usize {
        self.weights.taps * self.weights.depth.next_multiple_of(4)
    }
    #[inline(always)]
    fn to(&self) -> &To<'_> {
        &self.to
    }

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    unsafe fn sums<I: Isa, const R: usize, const P: usize>(
        &self,
        isa: I,
        row: usize,
        panel: usize,
    ) -> [[I::Acc; P]; R] {
        let (taps, depth) = (self.weights.taps, self.weights.depth);
        let panel_len = self.panel_bytes();
        let mut accs = [[self.begin(isa, panel); P]; R];
        for p in 1..P {
            let begin = self.begin(isa, panel + p);
            for r in 0..R {
                accs[r][p] = begin;
            }
        }
        let mut weights = self.weights.panels[panel * panel_len..(panel + P) * panel_len].as_ptr();
        // What is read behind a run meets the zeros that its weights are filled up with.
        let readable = if self.rows.is_ample() { depth.next_multiple_of(4) } else { depth };
        // SAFETY: the rows exist.
        let rows = unsafe { self.rows.few::<R>(row) };
        for tap in 0..taps {
            // SAFETY: the tap exists; a line is `depth` long, and three more where rows are ample; a panel holds `taps` runs of
            // `depth` and on to a multiple of 4, of which four are taken a step.
            unsafe {
                let lines = rows.lines(tap);
                for k in (0..depth).step_by(4) {
                    for r in 0..R {
                        let x = four(lines[r].add(k), readable - k);
                        for p in 0..P {
                            accs[r][p] = isa.dot4(accs[r][p], x, &*weights.add(p * panel_len).cast());
                        }
                    }
                    weights = weights.add(4 * LANES);
                }
            }
        }
        accs
    }

    #[inline(always)]
    fn panel<I: Isa>(&self, isa: I, panel: usize) -> Panel<I> {
        let scales = &self.weights.scales.as_chunks::<LANES>().0[panel];
        Panel {
            scales: isa.mul(isa.splat(self.scaling.scale), isa.load(scales)),
            bias: self.to.epilogue.bias(isa, panel * LANES),
        }
    }
    #[inline(always)]
    fn value<I: Isa>(isa: I, sum: I::Acc, panel: &Panel<I>) -> I::F {
        isa.fma(isa.finish(sum), panel.scales, panel.bias)
    }
}

/// Of sixteen outputs.
#[derive(Clone, Copy)]
pub(crate) struct Panel<I: Isa> {
    /// What 1 of a sum is.
    pub scales: I::F,
    pub bias: I::F,
}

impl Bytes<'_> {
    /// Bytes are multiplied as they are: sums of a panel begin without what their zero point, times the output's weights, adds to them.
    #[inline(always)]
    pub(crate) fn begin<I: Isa>(&self, isa: I, panel: usize) -> I::Acc {
        let factor = I::SHIFT - i32::from(self.scaling.zero_point);
        isa.begin(factor, &self.weights.sums.as_chunks::<LANES>().0[panel])
    }
}

/// Four bytes, or the last few and zeros. Without a loop, which would become a call of `memcpy`, around which no sum stays in a
/// register.
///
/// # Safety
/// `left` bytes can be read, and there is one.
#[inline(always)]
unsafe fn four(bytes: *const u8, left: usize) -> u32 {
    if left >= 4 {
        // SAFETY: four can be read.
        return u32::from_le(unsafe { bytes.cast::<u32>().read_unaligned() });
    }
    // SAFETY: what is read is left.
    let byte = |i: usize| if i < left { u32::from(unsafe { *bytes.add(i) }) << (8 * i) } else { 0 };
    byte(0) | byte(1) | byte(2)
}
