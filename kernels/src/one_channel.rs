//! A convolution of 3×3 over images of one channel, and of each four pixels the greatest: the first layers of a small network. The
//! weights of two panels, and the sums of four pixels, stay in registers; of the sixteen values under a window each is read once.
//!
//! Each output takes the same steps as in [`crate::tile`].

use std::ops::Range;

use crate::Cpu;
use crate::epilogue::Epilogue;
use crate::gemm::{self, Factors, To};
use crate::isa::{Body, Isa, LANES};
use crate::out::Sink;
use crate::pack::Panels;
use crate::shape::{Image, Window};
use crate::sums::{Bytes, Float, Panel, Stored};
use crate::tile::Product;

/// Products in one task of a thread, at least.
const TASK: usize = 1 << 16;

/// Whether this is for a convolution `by` its window over `source`, given that of four pixels the greatest is left.
pub(crate) fn suits(source: Image, by: &Window, factors: &Factors<'_>) -> bool {
    // At the end of an image a byte more than it has is read.
    let is_readable = !matches!(factors, Factors::Bytes(rows, ..) if !rows.is_ample());
    is_readable && source.channels == 1 && (by.kernel, by.stride, by.padding) == ([3, 3], [1, 1], [0; 4])
}

/// As [`crate::gemm::work`].
///
/// # Panics
/// If a length differs.
pub(crate) fn run(cpu: Cpu<'_>, factors: Factors<'_>, source: Image, output: Image, to: To<'_>) {
    gemm::check(&factors, to);
    let images = factors.rows() / 4 / (output.height * output.width);
    let (values, is_of_kernel) = match factors {
        Factors::Floats(rows, weights) => (rows.values().len(), weights.depth == 9),
        Factors::Bytes(rows, _, weights) => (rows.values().len(), (weights.taps, weights.depth) == (3, 3)),
    };
    let is_whole = factors.rows() == 4 * images * output.height * output.width;
    assert!(is_whole && values == images * source.len(), "rows of {images} images of {source:?}, of each all");
    assert!(is_of_kernel, "weights of 3×3");
    match factors {
        Factors::Floats(rows, weights) => {
            let outputs = weights.outputs;
            match &weights.panels {
                Panels::F32(panels) => each(cpu, &Float { rows, panels, outputs, to, asks: false }, source, output),
                Panels::F16(panels) => each(cpu, &Float { rows, panels, outputs, to, asks: false }, source, output),
            }
        }
        Factors::Bytes(rows, scaling, weights) => each(cpu, &Bytes { rows, scaling, weights, to }, source, output),
    }
}

fn each(cpu: Cpu<'_>, product: &impl OneChannel, source: Image, output: Image) {
    let windows = product.rows() / 4;
    let all = windows / output.width;
    let lines = TASK.div_ceil(4 * 9 * output.width * product.outputs().next_multiple_of(LANES));
    let out = product.to().out;
    cpu.threads.run(all.div_ceil(lines), &|task| {
        let lines = task * lines..all.min((task + 1) * lines);
        match out.only_floats() {
            Some(out) => cpu.isa.run(Lines { product, source, output, lines, out }),
            None => cpu.isa.run(Lines { product, source, output, lines, out: out.ends() }),
        }
    });
}

/// A product whose rows are the pixels of windows, each of 3×3 values of one channel.
trait OneChannel: Product {
    /// The weights of `P` panels.
    type Held<I: Isa, const P: usize>: Copy;

    fn hold<I: Isa, const P: usize>(&self, isa: I, panel: usize) -> Self::Held<I, P>;

    /// The sums of the four pixels whose 4×4 values begin at `at`, in lines of `width`.
    ///
    /// # Safety
    /// Those values exist, and of bytes one more.
    unsafe fn four<I: Isa, const P: usize>(
        &self,
        isa: I,
        held: &Self::Held<I, P>,
        at: usize,
        width: usize,
    ) -> [[Self::Sum<I>; P]; 4];

    /// Whether the greatest sum is the greatest value, for each output of a panel.
    fn is_rising(&self, panel: usize) -> bool;
    /// The value of the greatest sum.
    fn greatest<I: Isa>(isa: I, sums: [Self::Sum<I>; 4], panel: &Self::Panel<I>) -> I::F;
}

impl<W: Stored> OneChannel for Float<'_, W> {
    type Held<I: Isa, const P: usize> = [[I::F; P]; 9];

    #[inline(always)]
    fn hold<I: Isa, const P: usize>(&self, isa: I, panel: usize) -> [[I::F; P]; 9] {
        let mut held = [[isa.splat(0.0); P]; 9];
        let (vectors, _) = self.panels.as_chunks::<LANES>();
        for (k, held) in held.iter_mut().enumerate() {
            for (p, held) in held.iter_mut().enumerate() {
                *held = W::load(isa, &vectors[(panel + p) * 9 + k]);
            }
        }
        held
    }

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    unsafe fn four<I: Isa, const P: usize>(
        &self,
        isa: I,
        held: &[[I::F; P]; 9],
        at: usize,
        width: usize,
    ) -> [[I::F; P]; 4] {
        let mut sums = [[isa.splat(0.0); P]; 4];
        for line in 0..4 {
            let mut xs = [isa.splat(0.0); 4];
            for column in 0..4 {
                // SAFETY: the caller's promise.
                xs[column] = isa.splat(unsafe { *self.rows.values().get_unchecked(at + line * width + column) });
            }
            for column in 0..3 {
                // The line is one of the upper pixels' kernels, and of the lower ones' the one before.
                for lower in 0..2 {
                    if line >= lower && line < lower + 3 {
                        for right in 0..2 {
                            for p in 0..P {
                                let weight = held[3 * (line - lower) + column][p];
                                let sum = &mut sums[2 * lower + right][p];
                                *sum = isa.fma(xs[column + right], weight, *sum);
                            }
                        }
                    }
                }
            }
        }
        sums
    }

    fn is_rising(&self, _: usize) -> bool {
        true
    }
    #[inline(always)]
    fn greatest<I: Isa>(isa: I, sums: [I::F; 4], bias: &I::F) -> I::F {
        let [a, b, c, d] = sums;
        // In the order of a pool, which decides between zeros.
        isa.add(isa.max(d, isa.max(c, isa.max(b, a))), *bias)
    }
}

impl OneChannel for Bytes<'_> {
    /// The first panel, for weights are read as they are multiplied; and what sums begin with.
    type Held<I: Isa, const P: usize> = (usize, [I::Acc; P]);

    #[inline(always)]
    fn hold<I: Isa, const P: usize>(&self, isa: I, panel: usize) -> (usize, [I::Acc; P]) {
        let mut begin = [self.begin(isa, panel); P];
        for (p, begin) in begin.iter_mut().enumerate() {
            *begin = self.begin(isa, panel + p);
        }
        (panel, begin)
    }

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    unsafe fn four<I: Isa, const P: usize>(
        &self,
        isa: I,
        (panel, begin): &(usize, [I::Acc; P]),
        at: usize,
        width: usize,
    ) -> [[I::Acc; P]; 4] {
        let mut sums = [*begin; 4];
        let panels = self.weights.panels.as_ptr();
        for line in 0..4 {
            for right in 0..2 {
                // SAFETY: the caller's promise. The fourth byte meets a weight that is 0.
                let x = unsafe { self.rows.values().as_ptr().add(at + line * width + right).cast::<u32>() };
                // SAFETY: as above.
                let x = u32::from_le(unsafe { x.read_unaligned() });
                for lower in 0..2 {
                    if line >= lower && line < lower + 3 {
                        for p in 0..P {
                            let vector = ((panel + p) * 3 + line - lower) * 4 * LANES;
                            let sum = &mut sums[2 * lower + right][p];
                            // SAFETY: a panel has three lines of the kernel, each filled up to four weights.
                            *sum = isa.dot4(*sum, x, unsafe { &*panels.add(vector).cast() });
                        }
                    }
                }
            }
        }
        sums
    }

    fn is_rising(&self, panel: usize) -> bool {
        // Of what is behind the last output scales are 0. By an infinite one a sum of 0 is NaN.
        let scales = &self.weights.scales.as_chunks::<LANES>().0[panel];
        scales.iter().all(|scale| (0.0..f32::INFINITY).contains(&(self.scaling.scale * scale)))
    }
    #[inline(always)]
    fn greatest<I: Isa>(isa: I, sums: [I::Acc; 4], panel: &Panel<I>) -> I::F {
        isa.fma(isa.finish_greatest(sums), panel.scales, panel.bias)
    }
}

/// Lines of windows, of the images of a batch.
struct Lines<'a, T, S> {
    product: &'a T,
    source: Image,
    output: Image,
    lines: Range<usize>,
    out: S,
}

impl<T: OneChannel, S: Sink> Body for Lines<'_, T, S> {
    type Output = ();
    const MULTIPLIES_BYTES: bool = T::ARE_BYTES;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let panels = self.product.outputs().div_ceil(LANES);
        let two = if self.product.at_once::<I>() >= 8 { panels / 2 * 2 } else { 0 };
        for panel in (0..two).step_by(2) {
            self.panels::<I, 2>(isa, panel);
        }
        for panel in two..panels {
            self.panels::<I, 1>(isa, panel);
        }
    }
}

impl<T: OneChannel, S: Sink> Lines<'_, T, S> {
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn panels<I: Isa, const P: usize>(&self, isa: I, first: usize) {
        let Self { product, source, output, ref lines, out } = *self;
        let (outputs, epilogue): (usize, Epilogue<'_>) = (product.outputs(), product.to().epilogue);
        let finish = epilogue.finish(isa);
        let held = product.hold::<I, P>(isa, first);
        let is_rising = (first..first + P).all(|panel| product.is_rising(panel));
        let mut of_panels = [product.panel(isa, first); P];
        for p in 1..P {
            of_panels[p] = product.panel(isa, first + p);
        }
        for line in lines.clone() {
            let (image, y) = (line / output.height, line % output.height);
            let start = image * source.len() + 2 * y * source.width;
            for x in 0..output.width {
                // SAFETY: the window's pixels are inside the image, so are their values; `suits` saw that a byte follows.
                let sums = unsafe { product.four::<I, P>(isa, &held, start + 2 * x, source.width) };
                for p in 0..P {
                    let mut greatest = T::value(isa, sums[0][p], &of_panels[p]);
                    if is_rising {
                        greatest = T::greatest(isa, [sums[0][p], sums[1][p], sums[2][p], sums[3][p]], &of_panels[p]);
                    } else {
                        for pixel in 1..4 {
                            greatest = isa.max(T::value(isa, sums[pixel][p], &of_panels[p]), greatest);
                        }
                    }
                    let channel = (first + p) * LANES;
                    let at = (line * output.width + x) * outputs + channel;
                    let n = LANES.min(outputs - channel);
                    // SAFETY: the window is inside, and this body's alone.
                    unsafe { out.write(isa, finish.clamp(isa, greatest), at..at + n) };
                }
            }
        }
    }
}
