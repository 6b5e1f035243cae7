//! Convolution of each channel with its own kernel. NHWC.
//!
//! An output is one chain of fused multiply-adds, begun by the bias, over the taps inside the image in their order.

use std::ops::Range;

use crate::Cpu;
use crate::epilogue::Epilogue;
use crate::isa::{Body, Isa, LANES};
use crate::shape::{Image, Window};

/// Products in one task of a thread, at least.
const TASK: usize = 1 << 16;

/// Outputs side by side whose sums are under way together, in a 3×3 kernel.
const ABREAST: usize = 4;

/// Convolves each image of a batch. `weights` is `(kernel height, kernel width, channels)`, `out` is
/// `(batch, height, width, channels)` of [`Window::output`].
///
/// # Panics
/// If a length differs, or as [`Window::output`].
pub fn depthwise(
    cpu: Cpu<'_>,
    window: &Window,
    image: Image,
    xs: &[f32],
    weights: &[f32],
    epilogue: Epilogue<'_>,
    out: &mut [f32],
) {
    let output = window.output(image);
    if image.is_empty() || xs.is_empty() {
        return assert!(xs.is_empty() && out.is_empty(), "there is no image");
    }
    assert!(xs.len().is_multiple_of(image.len()), "{} values are no images of {image:?}", xs.len());
    assert_eq!(out.len(), xs.len() / image.len() * output.len(), "one output image per image");
    let taps = window.kernel[0] * window.kernel[1];
    assert_eq!(weights.len(), taps * image.channels, "a weight per tap and channel");
    epilogue.check(image.channels, out);
    let line = output.width * output.channels;
    let lines = TASK.div_ceil(line * taps);
    cpu.threads.chunks(out, lines * line, |index, out| {
        cpu.isa.run(Lines { window, image, output, xs, weights, epilogue, first: index * lines, out });
    });
}

/// Lines of output images, from line `first` of the batch on.
struct Lines<'a> {
    window: &'a Window,
    image: Image,
    output: Image,
    xs: &'a [f32],
    weights: &'a [f32],
    epilogue: Epilogue<'a>,
    first: usize,
    out: &'a mut [f32],
}

impl Body for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let lines = self.out.len() / (self.output.width * self.image.channels);
        for line in 0..lines {
            match (self.window.kernel[1], self.window.stride[1]) {
                (3, 1) => self.line::<I, 1>(isa, line),
                (3, 2) => self.line::<I, 2>(isa, line),
                _ => self.line::<I, 0>(isa, line),
            }
        }
    }
}

impl Lines<'_> {
    /// One line. `S` is the stride if the kernel is three wide, else 0.
    #[inline(always)]
    fn line<I: Isa, const S: usize>(&mut self, isa: I, line: usize) {
        let Image { width, channels, .. } = self.image;
        let (image, y) = ((self.first + line) / self.output.height, (self.first + line) % self.output.height);
        let xs = &self.xs[image * self.image.len()..][..self.image.len()];
        let mut x = 0;
        while x < self.output.width {
            let left = (x * S).wrapping_sub(self.window.padding[1]);
            let is_inside = left < width && left + (ABREAST - 1) * S + 3 <= width && x + ABREAST <= self.output.width;
            let abreast = if S > 0 && is_inside { ABREAST } else { 1 };
            let at = (line * self.output.width + x) * channels;
            for first in (0..channels).step_by(LANES) {
                let channel = first..channels.min(first + LANES);
                let bias = self.epilogue.bias(isa, first);
                if abreast == ABREAST {
                    let sums = self.abreast::<I, S>(isa, xs, y, left, channel.clone(), bias);
                    for (i, sum) in sums.into_iter().enumerate() {
                        self.store(isa, sum, at + i * channels + first, channel.len());
                    }
                } else {
                    let sum = self.single(isa, xs, (y, x), channel.clone(), bias);
                    self.store(isa, sum, at + first, channel.len());
                }
            }
            x += abreast;
        }
    }

    #[inline(always)]
    fn store<I: Isa>(&mut self, isa: I, sum: I::F, at: usize, n: usize) {
        let batch_at = self.first * self.output.width * self.output.channels + at;
        self.epilogue.store(isa, sum, batch_at, &mut self.out[at..at + n]);
    }

    #[inline(always)]
    fn single<I: Isa>(&self, isa: I, xs: &[f32], (y, x): (usize, usize), channel: Range<usize>, bias: I::F) -> I::F {
        let Image { height, width, channels } = self.image;
        let (rows, top) = self.window.inside(0, y, height);
        let (columns, left) = self.window.inside(1, x, width);
        let mut sum = bias;
        for (i, row) in rows.enumerate() {
            for (j, column) in columns.clone().enumerate() {
                let tap = (row * self.window.kernel[1] + column) * channels;
                let pixel = ((top + i) * width + left + j) * channels;
                let weight = isa.read(&self.weights[tap + channel.start..tap + channel.end], 0.0);
                sum = isa.fma(isa.read(&xs[pixel + channel.start..pixel + channel.end], 0.0), weight, sum);
            }
        }
        sum
    }

    /// The sums of outputs side by side, all of whose columns lie inside from `left` on: a value is read once for all of them.
    #[inline(always)]
    fn abreast<I: Isa, const S: usize>(
        &self,
        isa: I,
        xs: &[f32],
        y: usize,
        left: usize,
        channel: Range<usize>,
        bias: I::F,
    ) -> [I::F; ABREAST] {
        let Image { height, width, channels } = self.image;
        let (rows, top) = self.window.inside(0, y, height);
        let mut sums = [bias; ABREAST];
        for (i, row) in rows.enumerate() {
            let mut weights = [bias; 3];
            for (j, weight) in weights.iter_mut().enumerate() {
                let tap = (row * 3 + j) * channels;
                *weight = isa.read(&self.weights[tap + channel.start..tap + channel.end], 0.0);
            }
            let line = ((top + i) * width + left) * channels + channel.start;
            for column in 0..(ABREAST - 1) * S + 3 {
                let x = isa.read(&xs[line + column * channels..][..channel.len()], 0.0);
                for (j, weight) in weights.into_iter().enumerate() {
                    let output = column.wrapping_sub(j) / S.max(1);
                    if output < ABREAST && output * S + j == column {
                        sums[output] = isa.fma(x, weight, sums[output]);
                    }
                }
            }
        }
        sums
    }
}
