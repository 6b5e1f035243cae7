//! Convolution of each channel with its own kernel. NHWC.
//!
//! An output is one chain of fused multiply-adds, over the taps inside the image in their order, then the bias; some of those outside
//! it may take part, as zeros, where that is faster.

mod bytes;
#[cfg(target_arch = "x86_64")]
mod quads;

use std::ops::Range;

use crate::epilogue::{Epilogue, Finish};
use crate::isa::{Body, Isa, LANES};
use crate::out::{Out, Sink};
use crate::shape::{Image, Window};
use crate::{Cpu, IsaToken};
use bytes::Bytes;
pub use bytes::{DepthwiseI8, MAX_TAPS_I8};

/// Products in one task of a thread, at least.
const TASK: usize = 1 << 16;

/// Outputs side by side whose sums are under way together, in a 3×3 kernel.
const ABREAST: usize = 4;

/// Convolves each image of a batch. `weights` is `(kernel height, kernel width, channels)`, `out` is
/// `(batch, height, width, channels)` of [`Window::output`].
///
/// # Panics
/// If a length differs, or as [`Window::output`].
pub fn depthwise<'a>(
    cpu: Cpu<'_>,
    window: &Window,
    image: Image,
    xs: &[f32],
    weights: &[f32],
    epilogue: Epilogue<'_>,
    out: impl Into<Out<'a>>,
) {
    run(cpu, &Depthwise { window, image, xs: Floats(xs), weights, epilogue, out: &out.into() });
}

/// The same for bytes. Sums are exact.
///
/// # Panics
/// If a length differs, the weights are of another kernel or number of channels, or as [`Window::output`].
pub fn depthwise_i8<'a>(
    cpu: Cpu<'_>,
    window: &Window,
    image: Image,
    xs: &[u8],
    weights: &DepthwiseI8,
    epilogue: Epilogue<'_>,
    out: impl Into<Out<'a>>,
) {
    assert!(weights.are_for(window, image), "weights of another convolution than {window:?} over {image:?}");
    let (values, taps, out) = (Bytes { xs, weights }, &weights.taps, &out.into());
    run(cpu, &Depthwise { window, image, xs: values, weights: taps, epilogue, out });
}

fn run(cpu: Cpu<'_>, convolution: &Depthwise<'_, impl Values>) {
    let Depthwise { window, image, xs, weights, epilogue, out } = convolution;
    let output = window.output(*image);
    if image.is_empty() || xs.len() == 0 {
        return assert!(xs.len() == 0 && out.is_empty(), "there is no image");
    }
    assert!(xs.len().is_multiple_of(image.len()), "{} values are no images of {image:?}", xs.len());
    assert_eq!(out.len(), xs.len() / image.len() * output.len(), "one output image per image");
    let taps = window.kernel[0] * window.kernel[1];
    assert_eq!(weights.len(), taps * image.channels, "a weight per tap and channel");
    epilogue.check(image.channels, out.len());
    let all = xs.len() / image.len() * output.height;
    let lines = TASK.div_ceil(output.width * output.channels * taps);
    cpu.threads.run(all.div_ceil(lines), &|task| {
        let lines = task * lines..all.min((task + 1) * lines);
        if xs.in_quads(cpu.isa, convolution, output, &lines) {
            return;
        }
        Lines { convolution, output, lines, held: image.height, image: image.len() }.run(cpu.isa);
    });
}

/// What is convolved.
pub(crate) trait Values: Copy + Sync {
    fn len(&self) -> usize;
    /// Convolves these lines with the products of four bytes that the CPU has; returns whether that could be done.
    fn in_quads(&self, _: IsaToken, _: &Depthwise<'_, Self>, _output: Image, _lines: &Range<usize>) -> bool {
        false
    }
    /// Up to sixteen values from `at` on, as they are multiplied.
    fn read<I: Isa>(&self, isa: I, at: usize, n: usize) -> I::F;
    /// Sixteen.
    ///
    /// # Safety
    /// They are there.
    unsafe fn load<I: Isa>(&self, isa: I, at: usize) -> I::F;
    /// What a sum of the channels from `channel` on is, with their bias.
    fn finish<I: Isa>(&self, isa: I, sum: I::F, bias: I::F, channel: usize) -> I::F;
}

#[derive(Clone, Copy)]
pub(crate) struct Floats<'a>(pub &'a [f32]);

impl Values for Floats<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn read<I: Isa>(&self, isa: I, at: usize, n: usize) -> I::F {
        isa.read(&self.0[at..at + n], 0.0)
    }
    #[inline(always)]
    unsafe fn load<I: Isa>(&self, isa: I, at: usize) -> I::F {
        // SAFETY: the caller's promise.
        isa.load(unsafe { &*self.0.as_ptr().add(at).cast() })
    }
    #[inline(always)]
    fn finish<I: Isa>(&self, isa: I, sum: I::F, bias: I::F, _: usize) -> I::F {
        isa.add(sum, bias)
    }
}

pub(crate) struct Depthwise<'a, V> {
    pub window: &'a Window,
    pub image: Image,
    pub xs: V,
    pub weights: &'a [f32],
    pub epilogue: Epilogue<'a>,
    pub out: &'a Out<'a>,
}

impl<'a> Depthwise<'a, Floats<'a>> {
    /// One line of the output of a batch, from a ring that holds so many lines of the image that it is of: line `y` is the `y % held`-th.
    pub(crate) fn line(&self, isa: IsaToken, held: usize, line: usize) {
        let (convolution, output) = (self, self.window.output(self.image));
        let Image { width, channels, .. } = self.image;
        assert!(self.xs.len() >= held * width * channels && held > 0, "lines that are held");
        assert!((line + 1) * output.width * channels <= self.out.len(), "a line of the output");
        assert_eq!(self.weights.len(), self.window.kernel[0] * self.window.kernel[1] * channels, "a weight per tap");
        Lines { convolution, output, lines: line..line + 1, held, image: 0 }.run(isa);
    }
}

/// Lines of the output images of a batch.
struct Lines<'a, V> {
    convolution: &'a Depthwise<'a, V>,
    output: Image,
    lines: Range<usize>,
    /// Lines of an image that there are: all, or a ring of some.
    held: usize,
    /// From one image to the next: nothing in a ring, which is of one.
    image: usize,
}

impl<V: Values> Lines<'_, V> {
    fn run(self, isa: IsaToken) {
        match self.convolution.out.only_floats() {
            Some(out) => isa.run(To { of: self, out }),
            None => {
                let out = self.convolution.out.ends();
                isa.run(To { of: self, out });
            }
        }
    }
}

struct To<'a, V, S> {
    of: Lines<'a, V>,
    out: S,
}

impl<V: Values, S: Sink> Body for To<'_, V, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let window = self.of.convolution.window;
        for line in self.of.lines.clone() {
            match (window.kernel[1], window.stride[1]) {
                (3, 1) => self.line::<I, 1>(isa, line),
                (3, 2) => self.line::<I, 2>(isa, line),
                _ => self.line::<I, 0>(isa, line),
            }
        }
    }
}

/// The rows of the kernel that lie inside, and where the lines of the image are that they meet.
struct Inside {
    rows: Range<usize>,
    /// Where the first line begins.
    start: usize,
    /// Lines from there to the end of the ring, and its values.
    left: usize,
    ring: usize,
}

impl<V: Values, O: Sink> To<'_, V, O> {
    /// One line. `S` is the stride if the kernel is three wide, else 0.
    #[inline(always)]
    fn line<I: Isa, const S: usize>(&self, isa: I, line: usize) {
        let Lines { convolution, output, held, image, .. } = self.of;
        let Depthwise { window, image: Image { width, height, channels }, epilogue, .. } = *convolution;
        let (rows, top) = window.inside(0, line % output.height, height);
        let (top, ring) = (top % held, held * width * channels);
        let start = line / output.height * image + top * width * channels;
        let inside = Inside { rows, start, left: held - top, ring };
        let finish = epilogue.finish(isa);
        let many = if S > 0 && output.width >= ABREAST { ABREAST } else { 1 };
        for x in (0..output.width).step_by(many) {
            // The last ones overlap those before: a value computed twice is cheaper than alone.
            let x = x.min(output.width - many);
            let at = (line * output.width + x) * channels;
            // To the left of the image a column is out of range as well.
            let left = (x * S).wrapping_sub(window.padding[1]);
            let is_whole = left < width && left + (ABREAST - 1) * S + 3 <= width;
            let full = if many == ABREAST { channels / LANES * LANES } else { 0 };
            for channel in (0..full).step_by(LANES) {
                let at = at + channel;
                // SAFETY: the rows are inside, and so are the columns where all are said to be.
                let sums = unsafe {
                    if is_whole {
                        self.abreast::<I, S, true>(isa, &inside, left, channel)
                    } else {
                        self.abreast::<I, S, false>(isa, &inside, left, channel)
                    }
                };
                // Not in a loop: what a loop indexes may not stay in registers.
                let [first, second, third, fourth] = sums;
                self.store(isa, &finish, first, at, LANES);
                self.store(isa, &finish, second, at + channels, LANES);
                self.store(isa, &finish, third, at + 2 * channels, LANES);
                self.store(isa, &finish, fourth, at + 3 * channels, LANES);
            }
            for channel in (full..channels).step_by(LANES) {
                let n = LANES.min(channels - channel);
                for i in 0..many {
                    let sum = self.single(isa, &inside, x + i, channel..channel + n);
                    self.store(isa, &finish, sum, at + i * channels + channel, n);
                }
            }
        }
    }

    #[inline(always)]
    fn store<I: Isa>(&self, isa: I, finish: &Finish<'_, I>, sum: I::F, at: usize, n: usize) {
        let y = finish.of(isa, sum, at, n);
        // SAFETY: the line is inside, and this body's alone.
        unsafe { self.out.write(isa, y, at..at + n) };
    }

    #[inline(always)]
    fn single<I: Isa>(&self, isa: I, inside: &Inside, x: usize, channel: Range<usize>) -> I::F {
        let Depthwise { window, image: Image { width, channels, .. }, xs, weights, epilogue, .. } =
            *self.of.convolution;
        let (columns, left) = window.inside(1, x, width);
        let mut sum = isa.splat(0.0);
        for (i, row) in inside.rows.clone().enumerate() {
            let line = inside.start + i * width * channels - if i < inside.left { 0 } else { inside.ring };
            for (j, column) in columns.clone().enumerate() {
                let tap = (row * window.kernel[1] + column) * channels;
                let pixel = line + (left + j) * channels;
                let weight = isa.read(&weights[tap + channel.start..tap + channel.end], 0.0);
                sum = isa.fma(xs.read(isa, pixel + channel.start, channel.len()), weight, sum);
            }
        }
        xs.finish(isa, sum, epilogue.bias(isa, channel.start), channel.start)
    }

    /// Sixteen channels of outputs side by side, whose columns begin at `left`: a value is read once for all. Columns that are not
    /// inside are zeros.
    ///
    /// # Safety
    /// So many channels and the rows are there; if `WHOLE`, the columns too.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    unsafe fn abreast<I: Isa, const S: usize, const WHOLE: bool>(
        &self,
        isa: I,
        inside: &Inside,
        left: usize,
        channel: usize,
    ) -> [I::F; ABREAST] {
        let Depthwise { image: Image { width, channels, .. }, xs, weights, epilogue, .. } = *self.of.convolution;
        let mut sums = [isa.splat(0.0); ABREAST];
        let mut taps = weights.as_ptr().wrapping_add(inside.rows.start * 3 * channels + channel);
        let mut line = inside.start + channel;
        for row in 0..inside.rows.len() {
            if row == inside.left {
                line -= inside.ring;
            }
            // Stride 2 reads most.
            let mut x = [isa.splat(0.0); (ABREAST - 1) * 2 + 3];
            let mut w = [isa.splat(0.0); 3];
            for j in 0..3 {
                // SAFETY: the tap and so many channels are there.
                w[j] = isa.load(unsafe { &*taps.wrapping_add(j * channels).cast() });
            }
            for column in 0..(ABREAST - 1) * S + 3 {
                let at = left.wrapping_add(column);
                if WHOLE || at < width {
                    // SAFETY: the row and the column are inside.
                    x[column] = unsafe { xs.load(isa, line + at * channels) };
                }
            }
            for output in 0..ABREAST {
                for j in 0..3 {
                    sums[output] = isa.fma(x[output * S + j], w[j], sums[output]);
                }
            }
            taps = taps.wrapping_add(3 * channels);
            line += width * channels;
        }
        let bias = epilogue.bias(isa, channel);
        for output in 0..ABREAST {
            sums[output] = xs.finish(isa, sums[output], bias, channel);
        }
        sums
    }
}
