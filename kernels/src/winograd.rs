//! A convolution of 3×3 by strides of one, four outputs at a time: 16 products for each instead of 36 (Winograd's F(2×2, 3×3)). NHWC.
//!
//! A tile of 4×4 values becomes sixteen others, by sums alone, and so do the weights, once. Values of one place in their tiles are the
//! rows of a product with the weights of that place; of the sixteen products of a tile, sums make its 2×2 outputs. Each output takes
//! the same steps in any batch and on any instruction set, but not those of [`crate::gemm::gemm`]: its last bits differ.

mod gradient;
mod sums;

pub use gradient::{gradient, gradient_work};

use std::ops::Range;

use crate::aligned::Aligned;
use crate::epilogue::Epilogue;
use crate::gemm::{Alone, By, Keep, To};
use crate::isa::LANES;
use crate::out::Out;
use crate::rows::Rows;
use crate::shape::{Image, Window};
use crate::sums::Float;
use crate::threads::Shared;
use crate::{Cpu, IsaToken};
use sums::{Bring, Leave, Weigh};

/// Outputs along a side of a tile, and values that they are made of.
const STEP: usize = 2;
const SIDE: usize = 4;
const PLACES: usize = SIDE * SIDE;
/// Values that are brought in, and products, of the tiles that are under way together, about: half of a second-level cache.
const BLOCK: usize = 160_000;
/// Tiles under way together are a multiple of the rows that a product takes at once.
const ROWS: usize = 24;
/// Bytes of weights that no second-level cache holds beside the rest.
const LARGE: usize = 600_000;
/// Vectors in one task of a thread, at least, as tiles are brought in, or outputs made of them.
const TASK: usize = 128;
/// Fewer tiles would wait for their weights, of which there are 16 for 9.
const FEWEST_TILES: usize = 12;
/// Of fewer channels products are so short that sums before and behind them take as long as they save.
const FEWEST_CHANNELS: usize = 32;

/// What such a convolution is of, in tiles.
#[derive(Clone, Debug)]
pub struct Tiles {
    image: Image,
    window: Window,
    /// With the outputs as channels.
    output: Image,
    /// What stands in the padding.
    zeros: Vec<f32>,
}

impl Tiles {
    /// # Panics
    /// If the kernel is not 3×3 by strides of one, channels or outputs are no multiple of 16, or as [`Window::output`].
    pub fn new(image: Image, window: Window, outputs: usize) -> Self {
        assert_eq!((window.kernel, window.stride), ([3, 3], [1, 1]), "a kernel of 3×3 by strides of one");
        let (channels, output) = (image.channels, Image { channels: outputs, ..window.output(image) });
        assert!(channels.is_multiple_of(LANES) && outputs.is_multiple_of(LANES), "{channels} to {outputs} channels");
        Self { image, window, output, zeros: vec![0.0; channels.max(outputs)] }
    }

    /// Where a tile begins: its image, and the outputs that it makes.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (across, of_image) = (self.output.width.div_ceil(STEP), tiles(self.output));
        let (image, within) = (tile / of_image, tile % of_image);
        (image, within / across * STEP, within % across * STEP)
    }

    /// Values of one tile, and products, or as many others.
    fn of_tile(&self) -> usize {
        PLACES * (self.image.channels + self.output.channels)
    }

    /// Tiles that are under way together, of which there are so many, and at least so many wanted.
    fn at_once(&self, all: usize, least: usize) -> usize {
        let most = (BLOCK / self.of_tile() / ROWS).max(1) * ROWS;
        most.max(least).min(all)
    }
}

/// The weights of such a convolution, and what it is of.
#[derive(Clone, Debug)]
pub struct Winograd {
    tiles: Tiles,
    /// For each place, panels as [`crate::pack::Packed`] has them.
    panels: Aligned<f32>,
}

impl Winograd {
    /// Whether it is faster than a product of rows, for so many images at once.
    pub fn suits(images: usize, image: Image, window: &Window, outputs: usize) -> bool {
        let are_whole = [image.channels, outputs].iter().all(|n| n.is_multiple_of(LANES) && *n >= FEWEST_CHANNELS);
        let is_kernel = (window.kernel, window.stride) == ([3, 3], [1, 1]);
        is_kernel && are_whole && images * tiles(window.output(image)) >= FEWEST_TILES
    }

    /// `weight(output, k)` is as for rows of [`crate::rows::Taps::convolution`]: `k` is (kernel row, kernel column, channel).
    ///
    /// # Panics
    /// As [`Tiles::new`].
    pub fn new(image: Image, window: Window, outputs: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        let channels = image.channels;
        let lines = (0..channels).flat_map(|channel| (0..9).map(move |tap| tap * channels + channel));
        let lines: Vec<f32> = lines
            .flat_map(|k| (0..outputs).map(move |output| (output, k)))
            .map(|(output, k)| weight(output, k))
            .collect();
        Self::of_lines(IsaToken::all_present()[0], image, window, outputs, &lines)
    }

    /// The same of weights as `(channel, kernel row, kernel column, output)`.
    ///
    /// # Panics
    /// As [`Tiles::new`], or if there are not as many.
    pub fn of_lines(isa: IsaToken, image: Image, window: Window, outputs: usize, lines: &[f32]) -> Self {
        let (tiles, channels) = (Tiles::new(image, window, outputs), image.channels);
        assert_eq!(lines.len(), 9 * channels * outputs, "one weight for each tap, channel and output");
        let mut panels = Aligned::zeros(PLACES * channels * outputs);
        isa.run(Weigh { lines, outputs, panels: &mut panels });
        Self { tiles, panels }
    }

    /// Weights of one output, as the network has them.
    pub fn depth(&self) -> usize {
        9 * self.tiles.image.channels
    }

    pub fn input(&self) -> Image {
        self.tiles.image
    }

    pub fn output(&self) -> Image {
        self.tiles.output
    }

    /// In memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.panels)
    }

    /// Values that [`convolve`] needs beside its output, for so many images: at most so many times what one needs.
    pub fn work(&self, images: usize) -> usize {
        self.at_once(images) * self.tiles.of_tile() + 2 * PLACES * LANES
    }

    fn at_once(&self, images: usize) -> usize {
        self.tiles.at_once(images * tiles(self.tiles.output), 1)
    }
}

/// That cover an image.
fn tiles(output: Image) -> usize {
    output.height.div_ceil(STEP) * output.width.div_ceil(STEP)
}

/// Convolves each image of a batch. What is in `work` does not matter; it is at least [`Winograd::work`] long.
///
/// # Panics
/// If a length differs.
pub fn convolve<'a>(
    cpu: Cpu<'_>,
    by: &Winograd,
    xs: &[f32],
    epilogue: Epilogue<'_>,
    work: &mut [f32],
    out: impl Into<Out<'a>>,
) {
    let (image, output, out) = (by.tiles.image, by.tiles.output, &out.into());
    assert!(xs.len().is_multiple_of(image.len()), "{} values are no images of {image:?}", xs.len());
    let images = xs.len() / image.len();
    assert_eq!(out.len(), images * output.len(), "one output image per image");
    assert!(work.len() >= by.work(images), "work for {images} images");
    epilogue.check(output.channels, out.len());
    let (all, at_once) = (images * tiles(output), by.at_once(images));
    if all == 0 {
        return;
    }
    // A line more for each place: else, in a cache, all places of a tile might be in each other's way.
    let strides = [image.channels, output.channels].map(|channels| at_once * channels + LANES);
    let (values, products) = work.split_at_mut(PLACES * strides[0]);
    for first in (0..all).step_by(at_once) {
        let block = first..all.min(first + at_once);
        let tiles = |channels, run: &(dyn Fn(_) + Sync)| split(cpu, block.clone(), channels, run);
        let (stride, shared) = (strides[0], Shared::new(values));
        tiles(image.channels, &|tiles| {
            cpu.isa.run(Bring {
                of: &by.tiles,
                xs,
                tiles,
                first,
                values: shared,
                strides: [stride, image.channels, LANES],
            })
        });
        multiply(cpu, by, block.len(), values, products, strides);
        let (stride, products) = (strides[1], &*products);
        tiles(output.channels, &|tiles| match out.only_floats() {
            Some(out) => cpu.isa.run(Leave { of: &by.tiles, epilogue, tiles, first, products, stride, out }),
            None => cpu.isa.run(Leave { of: &by.tiles, epilogue, tiles, first, products, stride, out: out.ends() }),
        });
    }
}

/// Tiles, or what else is of so many channels, in parts for the threads.
fn split(cpu: Cpu<'_>, all: Range<usize>, channels: usize, run: &(dyn Fn(Range<usize>) + Sync)) {
    let part = TASK.div_ceil(channels / LANES);
    cpu.threads.run(all.len().div_ceil(part), &|task| {
        let first = all.start + task * part;
        run(first..all.end.min(first + part));
    });
}

/// The values of so many tiles with the weights, place by place.
fn multiply(cpu: Cpu<'_>, by: &Winograd, tiles: usize, values: &[f32], products: &mut [f32], strides: [usize; 2]) {
    let (depth, outputs) = (by.tiles.image.channels, by.tiles.output.channels);
    let products = Shared::new(products);
    cpu.threads.run(PLACES, &|place| {
        let rows = Rows::dense(&values[place * strides[0]..][..tiles * depth], depth);
        let start = place * strides[1];
        // SAFETY: each place has products of its own; the caller has room for all.
        let products = unsafe { products.part(start..start + tiles * outputs) };
        let panels = &by.panels[place * depth * outputs..][..depth * outputs];
        let to = To { epilogue: Epilogue::default(), keep: Keep::Each, out: &products.into() };
        Alone { isa: cpu.isa }.work(&Float { rows, panels, outputs, to, asks: by.bytes() > LARGE });
    });
}
