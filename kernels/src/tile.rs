//! One tile of a product: the sums of some rows and panels in registers, then what they become in memory.

use crate::epilogue::Epilogue;
use crate::gemm::{Keep, To};
use crate::isa::{Isa, LANES};
use crate::out::Sink;
use crate::pack::PackedI8;
use crate::quantise::Scaling;
use crate::rows::Rows;

/// A product that can be worked off in tiles of some rows by some panels.
pub(crate) trait Product: Sync {
    /// Running sums of sixteen outputs that the registers hold.
    fn sums<I: Isa>(&self) -> usize;
    fn rows(&self) -> usize;
    fn outputs(&self) -> usize;
    fn panel_bytes(&self) -> usize;
    fn depth(&self) -> usize;
    fn to(&self) -> &To<'_>;

    /// The sums of one tile, with the bias.
    ///
    /// # Safety
    /// Those rows and panels exist.
    unsafe fn tile<I: Isa, const R: usize, const P: usize>(&self, isa: I, row: usize, panel: usize) -> Tile<R, P>;
}

/// For each row, for each panel. In memory: the loop that stores it is too long to be unrolled, and what a loop indexes does not
/// stay in registers, not even before it.
pub(crate) type Tile<const R: usize, const P: usize> = [[[f32; LANES]; P]; R];

/// From the size of a tile to the code for it. Tiles that the registers cannot hold are not compiled.
///
/// # Safety
/// Those rows and panels exist, and nobody else touches these outputs.
#[inline(always)]
pub(crate) unsafe fn tile<I: Isa, T: Product>(isa: I, product: &T, (row, panel): (usize, usize), size: (usize, usize)) {
    macro_rules! tiles {
        ($(($rows:literal, $panels:literal))*) => {
            match size {
                // SAFETY: the caller's promise.
                $(($rows, $panels) if $rows * $panels <= product.sums::<I>() => unsafe {
                    let ys = product.tile::<I, $rows, $panels>(isa, row, panel);
                    store(isa, &ys, product.to(), (row, panel), product.outputs());
                },)*
                // Two by two, where the registers cannot hold the sums of four.
                // SAFETY: the caller's promise.
                (4, 1) => unsafe {
                    let [first, second] = product.tile::<I, 2, 1>(isa, row, panel);
                    let [third, fourth] = product.tile::<I, 2, 1>(isa, row + 2, panel);
                    store(isa, &[first, second, third, fourth], product.to(), (row, panel), product.outputs());
                },
                _ => unreachable!("a tile of {size:?}"),
            }
        };
    }
    tiles! {
        (1, 1) (2, 1) (4, 1) (6, 1) (8, 1) (12, 1)
        (1, 2) (2, 2) (4, 2) (6, 2) (8, 2) (12, 2)
        (1, 3) (2, 3) (4, 3) (6, 3) (8, 3)
        (1, 4) (2, 4) (4, 4) (6, 4)
        (1, 8)
    }
}

/// In the order of a pool, which decides between zeros.
#[inline(always)]
fn greatest<I: Isa, const R: usize, const P: usize>(isa: I, ys: &Tile<R, P>) -> [[f32; LANES]; P] {
    let mut greatest = ys[0];
    for (p, greatest) in greatest.iter_mut().enumerate() {
        let mut y = isa.load(greatest);
        for ys in &ys[1..] {
            y = isa.max(isa.load(&ys[p]), y);
        }
        isa.store(y, greatest);
    }
    greatest
}

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
}

impl<W: Stored> Product for Float<'_, W> {
    #[inline(always)]
    fn sums<I: Isa>(&self) -> usize {
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
    unsafe fn tile<I: Isa, const R: usize, const P: usize>(&self, isa: I, row: usize, panel: usize) -> Tile<R, P> {
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
        let bias = self.to.epilogue.biases::<I, P>(isa, panel * LANES);
        let mut ys = [[[0.0; LANES]; P]; R];
        for r in 0..R {
            for p in 0..P {
                isa.store(isa.add(sums[r][p], isa.load(&bias[p])), &mut ys[r][p]);
            }
        }
        ys
    }
}

/// Finishes and stores a tile, or what four rows leave.
///
/// # Safety
/// Those rows and panels exist, and nobody else touches what they leave.
#[inline(always)]
unsafe fn store<I: Isa, const R: usize, const P: usize>(
    isa: I,
    ys: &Tile<R, P>,
    To { epilogue, keep, out }: &To<'_>,
    (row, panel): (usize, usize),
    outputs: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match (keep, out.only_floats()) {
            (Keep::GreatestOfFour, _) if R == 4 && P <= 2 => {
                store_to(isa, &[greatest(isa, ys)], epilogue, *out, (row / 4, panel), outputs);
            }
            (Keep::GreatestOfFour, _) => unreachable!("a tile of {R} rows and {P} panels leaves one of four"),
            (Keep::Each, Some(floats)) => store_to(isa, ys, epilogue, floats, (row, panel), outputs),
            (Keep::Each, None) => store_to(isa, ys, epilogue, *out, (row, panel), outputs),
        }
    }
}

/// # Safety
/// As [`store`].
#[inline(always)]
unsafe fn store_to<I: Isa, const R: usize, const P: usize>(
    isa: I,
    ys: &Tile<R, P>,
    epilogue: &Epilogue<'_>,
    out: impl Sink,
    (row, panel): (usize, usize),
    outputs: usize,
) {
    // A copy, which no store can change: it need not be read again after each.
    let epilogue = *epilogue;
    for (r, ys) in ys.iter().enumerate() {
        for (p, y) in ys.iter().enumerate() {
            let channel = (panel + p) * LANES;
            let at = (row + r) * outputs + channel;
            let n = LANES.min(outputs - channel);
            let y = epilogue.finish(isa, isa.load(y), at, n);
            // SAFETY: the caller's promise.
            unsafe { out.write(isa, y, at..at + n) };
        }
    }
}

pub(crate) struct Bytes<'a> {
    pub rows: Rows<'a, u8>,
    pub scalings: &'a [Scaling],
    pub rows_per_scaling: usize,
    pub weights: &'a PackedI8,
    pub to: To<'a>,
}

impl Product for Bytes<'_> {
    #[inline(always)]
    fn sums<I: Isa>(&self) -> usize {
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
    unsafe fn tile<I: Isa, const R: usize, const P: usize>(&self, isa: I, row: usize, panel: usize) -> Tile<R, P> {
        let (taps, depth) = (self.weights.taps, self.weights.depth);
        let panel_len = self.panel_bytes();
        let mut accs = [[isa.zero(); P]; R];
        let mut weights = self.weights.panels.values()[panel * panel_len..(panel + P) * panel_len].as_ptr();
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
        let bias = self.to.epilogue.biases::<I, P>(isa, panel * LANES);
        let mut factors = [(0.0, 0); R];
        let (mut index, mut within) = (row / self.rows_per_scaling, row % self.rows_per_scaling);
        for factor in &mut factors {
            let scaling = self.scalings[index];
            *factor = (scaling.scale, I::SHIFT - i32::from(scaling.zero_point));
            within += 1;
            if within == self.rows_per_scaling {
                (index, within) = (index + 1, 0);
            }
        }
        let channels = panel * LANES..(panel + P) * LANES;
        let (scales, _) = self.weights.scales[channels.clone()].as_chunks::<LANES>();
        let (weight_sums, _) = self.weights.sums[channels].as_chunks::<LANES>();
        let mut ys = [[[0.0; LANES]; P]; R];
        for r in 0..R {
            let (scale, factor) = factors[r];
            for p in 0..P {
                let sum = isa.finish(accs[r][p], factor, &weight_sums[p]);
                let scale = isa.mul(isa.splat(scale), isa.load(&scales[p]));
                isa.store(isa.fma(sum, scale, isa.load(&bias[p])), &mut ys[r][p]);
            }
        }
        ys
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
