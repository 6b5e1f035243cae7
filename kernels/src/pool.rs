//! The greatest or the mean of a window, for each channel. NHWC.

use std::ops::Range;

use crate::Cpu;
use crate::isa::{Body, Isa, LANES};
use crate::shape::{Image, Window};

/// Values in one task of a thread, at least.
const TASK: usize = 1 << 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Padding is never the greatest. NaN is.
    Max,
    /// Of what lies inside the image.
    Average,
    /// With the padding as zeros, as PyTorch does unless told otherwise.
    AverageWithPadding,
}

/// Pools each image of a batch; `out` is `(batch, height, width, channels)` of [`Window::output`].
///
/// # Panics
/// If a length differs, or as [`Window::output`].
pub fn pool(cpu: Cpu<'_>, pool: Pool, window: &Window, image: Image, xs: &[f32], out: &mut [f32]) {
    let output = window.output(image);
    if image.is_empty() || xs.is_empty() {
        return assert!(xs.is_empty() && out.is_empty(), "there is no image");
    }
    assert!(xs.len().is_multiple_of(image.len()), "{} values are no images of {image:?}", xs.len());
    assert_eq!(out.len(), xs.len() / image.len() * output.len(), "one output image per image");
    let line = output.width * output.channels;
    let lines = TASK.div_ceil(line * window.kernel[0] * window.kernel[1]);
    cpu.threads.chunks(out, lines * line, |index, out| {
        cpu.isa.run(Lines { pool, window, image, output, xs, first: index * lines, out });
    });
}

/// The mean of each channel of each image; `out` is `(batch, channels)`.
///
/// # Panics
/// If a length differs.
pub fn global_average(cpu: Cpu<'_>, image: Image, xs: &[f32], out: &mut [f32]) {
    let window = Window { kernel: [image.height, image.width], stride: [1, 1], padding: [0; 4] };
    pool(cpu, Pool::Average, &window, image, xs, out);
}

/// Lines of output images, from line `first` of the batch on.
struct Lines<'a> {
    pool: Pool,
    window: &'a Window,
    image: Image,
    output: Image,
    xs: &'a [f32],
    first: usize,
    out: &'a mut [f32],
}

impl Body for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let Image { width, channels, .. } = self.image;
        for (line, out) in std::mem::take(&mut self.out).chunks_mut(self.output.width * channels).enumerate() {
            let (image, y) = ((self.first + line) / self.output.height, (self.first + line) % self.output.height);
            let xs = &self.xs[image * self.image.len()..][..self.image.len()];
            let (rows, top) = self.window.inside(0, y, self.image.height);
            for (x, out) in out.chunks_mut(channels).enumerate() {
                let (columns, left) = self.window.inside(1, x, width);
                let area = Area { top, left, height: rows.len(), width: columns.len() };
                for (at, out) in out.chunks_mut(LANES).enumerate() {
                    let channel = at * LANES..at * LANES + out.len();
                    isa.write(self.pool_one(isa, xs, &area, channel), out);
                }
            }
        }
    }
}

struct Area {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Lines<'_> {
    #[inline(always)]
    fn pool_one<I: Isa>(&self, isa: I, xs: &[f32], area: &Area, channel: Range<usize>) -> I::F {
        let Image { width, channels, .. } = self.image;
        let is_max = self.pool == Pool::Max;
        let mut y = isa.splat(if is_max { f32::NEG_INFINITY } else { 0.0 });
        for row in area.top..area.top + area.height {
            for column in area.left..area.left + area.width {
                let pixel = (row * width + column) * channels;
                let x = isa.read(&xs[pixel + channel.start..pixel + channel.end], 0.0);
                y = if is_max { isa.max(x, y) } else { isa.add(y, x) };
            }
        }
        let count = match self.pool {
            Pool::Max => return y,
            Pool::Average => area.height * area.width,
            Pool::AverageWithPadding => self.window.kernel[0] * self.window.kernel[1],
        };
        isa.div(y, isa.splat(count as f32))
    }
}
