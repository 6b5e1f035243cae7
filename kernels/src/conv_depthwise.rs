//! A product and the depthwise convolution behind it in one pass: what the product makes of a large image is more than a second-level
//! cache holds, and is read before it has left it.

use std::ops::Range;

use crate::Cpu;
use crate::depthwise::{self, Depthwise};
use crate::epilogue::Epilogue;
use crate::gemm::{Alone, Factors, Keep, To};
use crate::out::Out;
use crate::shape::{Image, Window};
use crate::strips::{BANDS, Strips};
use crate::threads::Shared;

/// Values of lines that are held together, about: less than half of a second-level cache of a megabyte.
const RING: usize = 96 << 10;
/// Bytes of weights that are read for each few lines again, at most.
const MOST_WEIGHTS: usize = 400_000;
/// Products in one task of a thread, at least.
const TASK: usize = 1 << 16;

/// A depthwise convolution over what a product makes of each pixel.
#[derive(Clone, Copy, Debug)]
pub struct Expanded {
    strips: Strips,
}

impl Expanded {
    /// Over `image`, whose channels are the outputs of the product.
    ///
    /// # Panics
    /// As [`Window::output`].
    pub fn new(window: Window, image: Image) -> Self {
        Self { strips: Strips::new(window, image, RING) }
    }

    /// Whether one pass is faster, given the bytes of the product's weights: where the image is more than a cache holds, a few of its
    /// lines are not, and weights are few enough.
    pub fn suits(&self, weights: usize) -> bool {
        self.strips.image.len() > 2 * RING && self.strips.ring() <= 2 * RING && weights <= MOST_WEIGHTS
    }

    pub fn window(&self) -> Window {
        self.strips.window
    }

    pub fn output(&self) -> Image {
        self.strips.output()
    }

    /// Values that [`expand_and_convolve`] needs beside its output, for one image.
    pub fn work(&self) -> usize {
        self.strips.ring() * BANDS
    }
}

/// As [`crate::gemm::multiply`] and then [`crate::depthwise::depthwise`] with `weights`. What is in `work` does not matter; it is
/// [`Expanded::work`] long for each image.
///
/// # Panics
/// If a length differs, an epilogue has a residual, or the rows are in the order of a pool.
pub fn expand_and_convolve<'a>(
    cpu: Cpu<'_>,
    factors: Factors<'_>,
    expanded: &Expanded,
    weights: &[f32],
    [of_product, epilogue]: [Epilogue<'_>; 2],
    work: &mut [f32],
    out: impl Into<Out<'a>>,
) {
    let (strips, output, out) = (&expanded.strips, expanded.output(), &out.into());
    let Strips { ref window, image, .. } = *strips;
    let rows = image.height * image.width;
    assert!(factors.outputs() == image.channels && factors.rows().is_multiple_of(rows), "rows are those of {image:?}");
    let images = factors.rows() / rows;
    assert_eq!(out.len(), images * output.len(), "one output image per image");
    assert_eq!(weights.len(), window.kernel[0] * window.kernel[1] * image.channels, "a weight per tap and channel");
    assert!(work.len() >= images * expanded.work(), "a ring of lines for each task");
    assert!(!factors.are_of_windows(), "rows are in the order of lines");
    assert!(of_product.residual.is_none() && epilogue.residual.is_none(), "no residual");
    of_product.check(image.channels, 0);
    epilogue.check(image.channels, out.len());
    let line = factors.cost().saturating_mul(image.width * window.stride[0]).max(1);
    // Each band makes lines again: there are no more than all that help need, and who is alone has one of an image.
    let most = BANDS.min(cpu.threads.count().div_ceil(images.max(1)));
    let band = TASK.div_ceil(line).max(output.height.div_ceil(most));
    let (bands, ring, work) = (output.height.div_ceil(band), strips.ring(), Shared::new(work));
    assert!(bands <= BANDS, "a ring for each band");
    cpu.threads.run(images * bands, &|task| {
        let (index, first) = (task / bands, task % bands * band);
        let factors = factors.part(index * rows..(index + 1) * rows);
        // SAFETY: there are as many rings as tasks, and each has its own.
        let ring = unsafe { work.part(task * ring..(task + 1) * ring) };
        let make = |line: &mut [f32], lines: Range<usize>| {
            let factors = factors.part(lines.start * image.width..lines.end * image.width);
            factors.with(To { epilogue: of_product, keep: Keep::Each, out: &line.into() }, Alone { isa: cpu.isa });
        };
        strips.walk(first..output.height.min(first + band), ring, make, |xs, y| {
            let convolution = Depthwise { window, image, xs: depthwise::Floats(xs), weights, epilogue, out };
            convolution.line(cpu.isa, strips.held(), index * output.height + y);
        });
    });
}
