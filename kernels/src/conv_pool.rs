//! A convolution and the pool behind it in one pass. Where windows of four pixels lie side by side, these are under way at once,
//! and their greatest alone leaves the registers; else a line is pooled as soon as those under its window are there.

use std::ops::Range;

use crate::Cpu;
use crate::epilogue::{Activation, Epilogue};
use crate::gemm::{self, Alone, Factors, Keep, To};
use crate::one_channel;
use crate::out::Out;
use crate::pool::{Line, Pool};
use crate::rows::Taps;
use crate::shape::{Image, Window};
use crate::strips::{BANDS, Strips};
use crate::threads::Shared;

/// Products in one task of a thread, at least.
const TASK: usize = 1 << 16;
/// Values of lines that are held together, about: half of a first-level cache.
const RING: usize = 6 << 10;

/// Bytes of weights that are read for each line again, at most.
const MOST_WEIGHTS: usize = 400_000;

/// Tiles of four rows are slower than larger ones by a tenth; so short a row gains more from leaving one pixel of four.
const SHORT: usize = 128;

/// A pool over what a convolution gives.
#[derive(Clone, Copy, Debug)]
pub struct Pooled {
    pool: Pool,
    window: Window,
    /// Of the convolution, what it reads and what it gives.
    by: Window,
    source: Image,
    image: Image,
}

impl Pooled {
    /// Of what a convolution `by` its window over `source` gives: `outputs` channels.
    ///
    /// # Panics
    /// As [`Window::output`], of either window.
    pub fn new(pool: Pool, window: Window, by: Window, source: Image, outputs: usize) -> Self {
        let image = Image { channels: outputs, ..by.output(source) };
        window.output(image);
        Self { pool, window, by, source, image }
    }

    pub fn pool(&self) -> Pool {
        self.pool
    }

    pub fn output(&self) -> Image {
        self.window.output(self.image)
    }

    /// Whether the greatest of four pixels is taken in registers: where no other window has them, and rows are short.
    fn is_of_four(&self) -> bool {
        let Window { kernel, stride, padding } = self.window;
        let is_short = self.by.kernel[0] * self.by.kernel[1] * self.source.channels <= SHORT;
        is_short && self.pool == Pool::Max && kernel == [2, 2] && stride == kernel && padding == [0; 4]
    }

    /// From where the convolution takes its rows, if not in the order of its lines: the pixels of a window follow each other.
    ///
    /// # Panics
    /// As [`Taps::convolution`].
    pub fn taps(&self) -> Option<Taps> {
        let Image { height, width, .. } = self.output();
        let windows = (0..height).flat_map(|y| (0..width).map(move |x| (2 * y, 2 * x)));
        let pixels = windows.flat_map(|(y, x)| [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)]);
        self.is_of_four().then(|| Taps::of_windows(self.source, &self.by, pixels))
    }

    fn strips(&self) -> Strips {
        Strips::new(self.window, self.image, RING)
    }

    /// Lines of the output in one task.
    fn band(&self, cost: usize) -> usize {
        let output = self.output();
        let line = cost.saturating_mul(self.image.width * self.window.stride[0]).max(1);
        TASK.div_ceil(line).max(output.height.div_ceil(BANDS))
    }

    /// Values that [`convolve_and_pool`] needs beside its output, for one image.
    pub fn work(&self) -> usize {
        if self.is_of_four() { 0 } else { self.strips().ring() * BANDS }
    }

    /// Whether so many bytes of weights are few enough to be read for each line again; where four pixels are pooled at once they
    /// are not.
    pub fn suits(&self, weights: usize) -> bool {
        self.is_of_four() || weights <= MOST_WEIGHTS
    }
}

/// As [`crate::gemm::gemm`] of a convolution's rows with bias and activation, and then [`crate::pool::pool`]. Where there are
/// [`Pooled::taps`], they put the rows together. What is in `work` does not matter; it is [`Pooled::work`] long for each image.
///
/// # Panics
/// If a length differs, or the rows are in another order.
pub fn convolve_and_pool<'a>(
    cpu: Cpu<'_>,
    factors: Factors<'_>,
    bias: Option<&[f32]>,
    activation: Activation,
    pooled: &Pooled,
    work: &mut [f32],
    out: impl Into<Out<'a>>,
) {
    let image = &pooled.image;
    let (output, out) = (pooled.output(), &out.into());
    let of_four = pooled.is_of_four();
    assert_eq!(factors.are_of_windows(), of_four, "rows are put together by the taps of the pool, if it has some");
    let epilogue = Epilogue { bias, activation, residual: None };
    if of_four {
        assert_eq!(factors.outputs(), image.channels, "outputs are the channels of {image:?}");
        let to = To { epilogue, keep: Keep::GreatestOfFour, out };
        if one_channel::suits(pooled.source, &pooled.by, &factors) {
            return one_channel::run(cpu, factors, pooled.source, output, to);
        }
        return gemm::work(cpu, factors, to);
    }
    let rows = image.height * image.width;
    assert!(factors.outputs() == image.channels && factors.rows().is_multiple_of(rows), "rows are those of {image:?}");
    let images = factors.rows() / rows;
    assert_eq!(out.len(), images * output.len(), "one output image per image");
    assert!(work.len() >= images * pooled.work(), "a ring of lines for each task");
    epilogue.check(image.channels, out.len());
    let band = pooled.band(factors.cost());
    let strips = pooled.strips();
    let (bands, ring, work) = (output.height.div_ceil(band), strips.ring(), Shared::new(work));
    cpu.threads.run(images * bands, &|task| {
        let (index, first) = (task / bands, task % bands * band);
        let factors = factors.part(index * rows..(index + 1) * rows);
        // SAFETY: there are as many rings as tasks, and each has its own.
        let ring = unsafe { work.part(task * ring..(task + 1) * ring) };
        let lines = first..output.height.min(first + band);
        let make = |line: &mut [f32], lines: Range<usize>| {
            let factors = factors.part(lines.start * image.width..lines.end * image.width);
            factors.with(To { epilogue, keep: Keep::Each, out: &line.into() }, Alone { isa: cpu.isa });
        };
        let Pooled { pool, ref window, image, .. } = *pooled;
        let (held, before) = (strips.held(), index * output.height);
        strips.walk(lines, ring, make, |xs, y| {
            Line { pool, window, image, xs, held, y, line: before + y }.run(cpu.isa, out);
        });
    });
}
