//! Convolution of each channel with its own kernel. NHWC.
//!
//! An output is one chain of fused multiply-adds, over the taps inside the image in their order, then the bias; some of those outside
//! it may take part, as zeros, where that is faster.

use std::ops::Range;

use crate::Cpu;
use crate::epilogue::{Epilogue, Finish};
use crate::isa::{Body, Isa, LANES};
use crate::out::{Out, Sink};
use crate::quantise::Scaling;
use crate::shape::{Image, Window};

/// Products in one task of a thread, at least.
const TASK: usize = 1 << 16;

/// Outputs side by side whose sums are under way together, in a 3×3 kernel.
const ABREAST: usize = 4;

/// The most taps whose sum of products of bytes an `f32` surely holds.
pub const MAX_TAPS_I8: usize = (1 << 24) / (255 * 127);

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

/// The same for bytes, quantised by `scaling`. `weights` are whole numbers in -127..=127, and `scales` what 1 is of each channel's.
/// In `f32` their sums are exact.
///
/// # Panics
/// If a length differs, the kernel has more than [`MAX_TAPS_I8`] taps, or as [`Window::output`].
#[expect(clippy::too_many_arguments, reason = "those of `depthwise`, and what bytes stand for")]
pub fn depthwise_i8<'a>(
    cpu: Cpu<'_>,
    window: &Window,
    image: Image,
    (xs, scaling): (&[u8], Scaling),
    weights: &[f32],
    scales: &[f32],
    epilogue: Epilogue<'_>,
    out: impl Into<Out<'a>>,
) {
    assert_eq!(scales.len(), image.channels, "a scale per channel");
    assert!(window.kernel[0] * window.kernel[1] <= MAX_TAPS_I8, "{window:?}: sums would not be exact");
    run(cpu, &Depthwise { window, image, xs: Bytes { xs, scaling, scales }, weights, epilogue, out: &out.into() });
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
        match out.only_floats() {
            Some(out) => cpu.isa.run(Lines { convolution, output, lines, out }),
            None => cpu.isa.run(Lines { convolution, output, lines, out: out.ends() }),
        }
    });
}

/// What is convolved.
trait Values: Copy + Sync {
    fn len(&self) -> usize;
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
struct Floats<'a>(&'a [f32]);

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

#[derive(Clone, Copy)]
struct Bytes<'a> {
    xs: &'a [u8],
    scaling: Scaling,
    scales: &'a [f32],
}

impl Bytes<'_> {
    /// Whole numbers, less the zero point.
    #[inline(always)]
    fn centred<I: Isa>(&self, isa: I, x: I::F) -> I::F {
        isa.sub(x, isa.splat(f32::from(self.scaling.zero_point)))
    }
}

impl Values for Bytes<'_> {
    fn len(&self) -> usize {
        self.xs.len()
    }
    #[inline(always)]
    fn read<I: Isa>(&self, isa: I, at: usize, n: usize) -> I::F {
        self.centred(isa, isa.read_u8(&self.xs[at..at + n]))
    }
    #[inline(always)]
    unsafe fn load<I: Isa>(&self, isa: I, at: usize) -> I::F {
        // SAFETY: the caller's promise.
        self.centred(isa, isa.load_u8(unsafe { &*self.xs.as_ptr().add(at).cast() }))
    }
    #[inline(always)]
    fn finish<I: Isa>(&self, isa: I, sum: I::F, bias: I::F, channel: usize) -> I::F {
        let scale = isa.mul(isa.splat(self.scaling.scale), isa.read(&self.scales[channel..], 0.0));
        isa.fma(sum, scale, bias)
    }
}

struct Depthwise<'a, V> {
    window: &'a Window,
    image: Image,
    xs: V,
    weights: &'a [f32],
    epilogue: Epilogue<'a>,
    out: &'a Out<'a>,
}

/// Lines of the output images of a batch.
struct Lines<'a, V, S> {
    convolution: &'a Depthwise<'a, V>,
    output: Image,
    lines: Range<usize>,
    out: S,
}

impl<V: Values, S: Sink> Body for Lines<'_, V, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let window = self.convolution.window;
        for line in self.lines.clone() {
            match (window.kernel[1], window.stride[1]) {
                (3, 1) => self.line::<I, 1>(isa, line),
                (3, 2) => self.line::<I, 2>(isa, line),
                _ => self.line::<I, 0>(isa, line),
            }
        }
    }
}

impl<V: Values, O: Sink> Lines<'_, V, O> {
    /// One line. `S` is the stride if the kernel is three wide, else 0.
    #[inline(always)]
    fn line<I: Isa, const S: usize>(&self, isa: I, line: usize) {
        let Depthwise { window, image: Image { width, height, channels }, epilogue, .. } = *self.convolution;
        let (image, y) = (line / self.output.height, line % self.output.height);
        let (start, inside) = (image * self.convolution.image.len(), window.inside(0, y, height));
        let finish = epilogue.finish(isa);
        let many = if S > 0 && self.output.width >= ABREAST { ABREAST } else { 1 };
        for x in (0..self.output.width).step_by(many) {
            // The last ones overlap those before: a value computed twice is cheaper than alone.
            let x = x.min(self.output.width - many);
            let at = (line * self.output.width + x) * channels;
            // To the left of the image a column is out of range as well.
            let left = (x * S).wrapping_sub(window.padding[1]);
            let is_whole = left < width && left + (ABREAST - 1) * S + 3 <= width;
            let full = if many == ABREAST { channels / LANES * LANES } else { 0 };
            for channel in (0..full).step_by(LANES) {
                let at = at + channel;
                // SAFETY: the rows are inside, and so are the columns where all are said to be.
                let sums = unsafe {
                    if is_whole {
                        self.abreast::<I, S, true>(isa, start, &inside, left, channel)
                    } else {
                        self.abreast::<I, S, false>(isa, start, &inside, left, channel)
                    }
                };
                for (i, sum) in sums.iter().enumerate() {
                    self.store(isa, &finish, isa.load(sum), at + i * channels, LANES);
                }
            }
            for channel in (full..channels).step_by(LANES) {
                let n = LANES.min(channels - channel);
                for i in 0..many {
                    let sum = self.single(isa, start, &inside, x + i, channel..channel + n);
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
    fn single<I: Isa>(
        &self,
        isa: I,
        start: usize,
        (rows, top): &(Range<usize>, usize),
        x: usize,
        channel: Range<usize>,
    ) -> I::F {
        let Depthwise { window, image: Image { width, channels, .. }, xs, weights, epilogue, .. } = *self.convolution;
        let (columns, left) = window.inside(1, x, width);
        let mut sum = isa.splat(0.0);
        for (i, row) in rows.clone().enumerate() {
            for (j, column) in columns.clone().enumerate() {
                let tap = (row * window.kernel[1] + column) * channels;
                let pixel = start + ((top + i) * width + left + j) * channels;
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
        start: usize,
        (rows, top): &(Range<usize>, usize),
        left: usize,
        channel: usize,
    ) -> [[f32; LANES]; ABREAST] {
        let Depthwise { image: Image { width, channels, .. }, xs, weights, epilogue, .. } = *self.convolution;
        let mut sums = [isa.splat(0.0); ABREAST];
        let mut taps = weights.as_ptr().wrapping_add(rows.start * 3 * channels + channel);
        let mut line = start + top * width * channels + channel;
        for _ in rows.clone() {
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
        let mut lanes = [[0.0; LANES]; ABREAST];
        for output in 0..ABREAST {
            isa.store(xs.finish(isa, sums[output], bias, channel), &mut lanes[output]);
        }
        lanes
    }
}
