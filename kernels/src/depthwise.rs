//! Convolution of each channel with its own kernel. NHWC.
//!
//! An output is one chain of fused multiply-adds, over the taps inside the image in their order, then the bias.

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
        let inside = self.window.inside(0, y, self.image.height);
        let padding = self.window.padding[1];
        // From the first to the last place whose outputs side by side have all columns inside.
        let first = padding.div_ceil(S.max(1));
        let last = (width + padding).checked_sub((ABREAST - 1) * S + 3).map(|most| most / S.max(1));
        let last = last.zip(self.output.width.checked_sub(ABREAST)).map(|(last, fits)| last.min(fits));
        let mut x = 0;
        while x < self.output.width {
            // The last ones overlap those before: a value computed twice is cheaper than alone.
            let at =
                last.filter(|last| S > 0 && x >= first && *last >= first && x < last + ABREAST).map(|last| x.min(last));
            let (from, to) = at.map_or((x, x + 1), |at| (at, at + ABREAST));
            for channel in (0..channels).step_by(LANES) {
                let n = LANES.min(channels - channel);
                let bias = self.epilogue.bias(isa, channel);
                let at = (line * self.output.width + from) * channels + channel;
                if to > from + 1 && n == LANES {
                    let sums = self.abreast::<I, S>(isa, xs, &inside, from * S - padding, channel, bias);
                    for (i, sum) in sums.iter().enumerate() {
                        self.store(isa, isa.load(sum), at + i * channels, n);
                    }
                    continue;
                }
                for i in 0..to - from {
                    let sum = self.single(isa, xs, &inside, from + i, channel..channel + n);
                    self.store(isa, isa.add(sum, bias), at + i * channels, n);
                }
            }
            x = to;
        }
    }

    #[inline(always)]
    fn store<I: Isa>(&mut self, isa: I, sum: I::F, at: usize, n: usize) {
        let batch_at = self.first * self.output.width * self.output.channels + at;
        self.epilogue.store(isa, sum, batch_at, &mut self.out[at..at + n]);
    }

    #[inline(always)]
    fn single<I: Isa>(
        &self,
        isa: I,
        xs: &[f32],
        (rows, top): &(Range<usize>, usize),
        x: usize,
        channel: Range<usize>,
    ) -> I::F {
        let Image { width, channels, .. } = self.image;
        let (columns, left) = self.window.inside(1, x, width);
        let mut sum = isa.splat(0.0);
        for (i, row) in rows.clone().enumerate() {
            for (j, column) in columns.clone().enumerate() {
                let tap = (row * self.window.kernel[1] + column) * channels;
                let pixel = ((top + i) * width + left + j) * channels;
                let weight = isa.read(&self.weights[tap + channel.start..tap + channel.end], 0.0);
                sum = isa.fma(isa.read(&xs[pixel + channel.start..pixel + channel.end], 0.0), weight, sum);
            }
        }
        sum
    }

    /// Sixteen channels of outputs side by side, all of whose columns lie inside from `left` on: a value is read once for all.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn abreast<I: Isa, const S: usize>(
        &self,
        isa: I,
        xs: &[f32],
        (rows, top): &(Range<usize>, usize),
        left: usize,
        channel: usize,
        bias: I::F,
    ) -> [[f32; LANES]; ABREAST] {
        let Image { width, channels, .. } = self.image;
        let mut sums = [isa.splat(0.0); ABREAST];
        for (i, row) in rows.clone().enumerate() {
            let taps = &self.weights[row * 3 * channels + channel..][..2 * channels + LANES];
            let span = (ABREAST - 1) * S + 3;
            let line = &xs[((top + i) * width + left) * channels + channel..][..(span - 1) * channels + LANES];
            // Stride 2 reads most.
            let mut x = [isa.splat(0.0); (ABREAST - 1) * 2 + 3];
            let mut weights = [isa.splat(0.0); 3];
            // SAFETY: the last tap and the last column end with their slices.
            unsafe {
                for j in 0..3 {
                    weights[j] = isa.load(&*taps.as_ptr().add(j * channels).cast());
                }
                for column in 0..span {
                    x[column] = isa.load(&*line.as_ptr().add(column * channels).cast());
                }
            }
            for output in 0..ABREAST {
                for j in 0..3 {
                    sums[output] = isa.fma(x[output * S + j], weights[j], sums[output]);
                }
            }
        }
        let mut lanes = [[0.0; LANES]; ABREAST];
        for output in 0..ABREAST {
            isa.store(isa.add(sums[output], bias), &mut lanes[output]);
        }
        lanes
    }
}
