//! The greatest or the mean of a window, for each channel. NHWC.

use crate::isa::{Body, Isa, LANES};
use crate::out::{Out, Sink};
use crate::shape::{Image, Window};
use crate::{Cpu, IsaToken};

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
pub fn pool<'a>(cpu: Cpu<'_>, pool: Pool, window: &Window, image: Image, xs: &[f32], out: impl Into<Out<'a>>) {
    let (output, out) = (window.output(image), &out.into());
    if image.is_empty() || xs.is_empty() {
        return assert!(xs.is_empty() && out.is_empty(), "there is no image");
    }
    assert!(xs.len().is_multiple_of(image.len()), "{} values are no images of {image:?}", xs.len());
    assert_eq!(out.len(), xs.len() / image.len() * output.len(), "one output image per image");
    let lines = TASK.div_ceil(output.width * output.channels * window.kernel[0] * window.kernel[1]);
    let all = xs.len() / image.len() * output.height;
    cpu.threads.run(all.div_ceil(lines), &|task| {
        for line in task * lines..all.min((task + 1) * lines) {
            let xs = &xs[line / output.height * image.len()..][..image.len()];
            let y = line % output.height;
            Line { pool, window, image, xs, held: image.height, y, line }.run(cpu.isa, out);
        }
    });
}

/// The mean of each channel of each image; `out` is `(batch, channels)`.
///
/// # Panics
/// If a length differs.
pub fn global_average<'a>(cpu: Cpu<'_>, image: Image, xs: &[f32], out: impl Into<Out<'a>>) {
    let window = Window { kernel: [image.height, image.width], stride: [1, 1], padding: [0; 4] };
    pool(cpu, Pool::Average, &window, image, xs, out);
}

/// One line of an output image.
pub(crate) struct Line<'a> {
    pub pool: Pool,
    pub window: &'a Window,
    pub image: Image,
    /// Lines of the image: all, or a ring of those that are held. Line `y` is the `y % held`-th.
    pub xs: &'a [f32],
    pub held: usize,
    /// In the output image.
    pub y: usize,
    /// In the output of the batch. Nobody else writes it.
    pub line: usize,
}

impl Line<'_> {
    pub(crate) fn run(self, isa: IsaToken, out: &Out<'_>) {
        match out.only_floats() {
            Some(out) => isa.run(To { line: self, out }),
            None => isa.run(To { line: self, out: out.ends() }),
        }
    }
}

struct To<'a, S> {
    line: Line<'a>,
    out: S,
}

impl<S: Sink> Body for To<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { line, out } = self;
        let Image { height, width, channels } = line.image;
        let output = line.window.output(line.image).width;
        assert!(line.xs.len() >= line.held * width * channels && line.held > 0, "lines that are held");
        assert!((line.line + 1) * output * channels <= out.len(), "a line of the output");
        let (rows, top) = line.window.inside(0, line.y, height);
        let top = top % line.held;
        for x in 0..output {
            let (columns, left) = line.window.inside(1, x, width);
            let area = Area { top, left, height: rows.len(), width: columns.len() };
            for channel in (0..channels).step_by(LANES) {
                let n = LANES.min(channels - channel);
                let y = line.pool_one(isa, &area, channel, n);
                let at = (line.line * output + x) * channels + channel;
                // SAFETY: the line is inside, and this body's alone.
                unsafe { out.write(isa, y, at..at + n) };
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

impl Line<'_> {
    #[inline(always)]
    fn pool_one<I: Isa>(&self, isa: I, area: &Area, channel: usize, n: usize) -> I::F {
        let Image { width, channels, .. } = self.image;
        let is_max = self.pool == Pool::Max;
        let mut y = isa.splat(if is_max { f32::NEG_INFINITY } else { 0.0 });
        let mut row = area.top;
        for _ in 0..area.height {
            for column in area.left..area.left + area.width {
                let at = (row * width + column) * channels + channel;
                let x = isa.read(&self.xs[at..at + n], 0.0);
                y = if is_max { isa.max(x, y) } else { isa.add(y, x) };
            }
            row = if row + 1 == self.held { 0 } else { row + 1 };
        }
        let count = match self.pool {
            Pool::Max => return y,
            Pool::Average => area.height * area.width,
            Pool::AverageWithPadding => self.window.kernel[0] * self.window.kernel[1],
        };
        isa.div(y, isa.splat(count as f32))
    }
}
