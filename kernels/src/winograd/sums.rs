//! The sums before and behind the products of tiles: of weights, of what an image has, of products.

use std::ops::Range;

use super::{PLACES, SIDE, STEP, Tiles};
use crate::epilogue::Epilogue;
use crate::isa::{Body, Isa, LANES};
use crate::out::Sink;
use crate::threads::Shared;

/// From the nine taps of kernels to the sixteen places.
pub(super) struct Weigh<'a> {
    /// `(channel, tap, output)`.
    pub lines: &'a [f32],
    pub outputs: usize,
    /// For each place, for each sixteen outputs, for each channel.
    pub panels: &'a mut [f32],
}

impl Body for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn run<I: Isa>(self, isa: I) {
        let Self { lines, outputs, panels } = self;
        let channels = lines.len() / (9 * outputs);
        for (channel, taps) in lines.chunks_exact(9 * outputs).enumerate() {
            for first in (0..outputs).step_by(LANES) {
                let mut columns = [[isa.splat(0.0); 3]; SIDE];
                for line in 0..3 {
                    let mut of_line = [isa.splat(0.0); 3];
                    for tap in 0..3 {
                        of_line[tap] = isa.read(&taps[(3 * line + tap) * outputs + first..], 0.0);
                    }
                    let spread = weighed(isa, of_line);
                    for column in 0..SIDE {
                        columns[column][line] = spread[column];
                    }
                }
                for column in 0..SIDE {
                    let places = weighed(isa, columns[column]);
                    for row in 0..SIDE {
                        let at = (row * SIDE + column) * channels * outputs + first * channels + channel * LANES;
                        isa.write(places[row], &mut panels[at..at + LANES]);
                    }
                }
            }
        }
    }
}

/// Along one side of kernels.
#[inline(always)]
fn weighed<I: Isa>(isa: I, [a, b, c]: [I::F; 3]) -> [I::F; SIDE] {
    let (half, ends) = (isa.splat(0.5), isa.add(a, c));
    [a, isa.mul(half, isa.add(ends, b)), isa.mul(half, isa.sub(ends, b)), c]
}

/// From images to the values of tiles.
pub(super) struct Bring<'a> {
    pub of: &'a Tiles,
    pub xs: &'a [f32],
    pub tiles: Range<usize>,
    /// Of the block.
    pub first: usize,
    pub values: Shared<'a, f32>,
    /// From one place to the next, from one tile, and from sixteen channels.
    pub strides: [usize; 3],
}

impl Body for Bring<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn run<I: Isa>(self, isa: I) {
        let Self { of: Tiles { image, window, zeros, .. }, xs, values, strides: [of_place, of_tile, of_lanes], .. } =
            self;
        for tile in self.tiles.clone() {
            let (index, y, x) = self.of.place(tile);
            let pixel = |row: usize, column: usize| {
                let row = (y + row).checked_sub(window.padding[0]).filter(|row| *row < image.height);
                let column = (x + column).checked_sub(window.padding[1]).filter(|column| *column < image.width);
                match (row, column) {
                    (Some(row), Some(column)) => {
                        &xs[((index * image.height + row) * image.width + column) * image.channels..][..image.channels]
                    }
                    _ => &zeros[..image.channels],
                }
            };
            let mut pixels = [zeros.as_ptr(); PLACES];
            for (place, start) in pixels.iter_mut().enumerate() {
                *start = pixel(place / SIDE, place % SIDE).as_ptr();
            }
            for channel in (0..image.channels).step_by(LANES) {
                let mut d = [isa.splat(0.0); PLACES];
                for place in 0..PLACES {
                    // SAFETY: a pixel has a multiple of sixteen channels.
                    d[place] = isa.load(unsafe { &*pixels[place].add(channel).cast() });
                }
                for column in 0..SIDE {
                    let line = brought(isa, [d[column], d[SIDE + column], d[2 * SIDE + column], d[3 * SIDE + column]]);
                    for row in 0..SIDE {
                        d[row * SIDE + column] = line[row];
                    }
                }
                let at = (tile - self.first) * of_tile + channel / LANES * of_lanes;
                for row in 0..SIDE {
                    let line = brought(isa, [d[row * SIDE], d[row * SIDE + 1], d[row * SIDE + 2], d[row * SIDE + 3]]);
                    for column in 0..SIDE {
                        let at = (row * SIDE + column) * of_place + at;
                        // SAFETY: the tile's values are nobody else's, and there is one for each place and channel.
                        isa.write(line[column], unsafe { values.part(at..at + LANES) });
                    }
                }
            }
        }
    }
}

/// Along one side of a tile.
#[inline(always)]
fn brought<I: Isa>(isa: I, [a, b, c, d]: [I::F; SIDE]) -> [I::F; SIDE] {
    [isa.sub(a, c), isa.add(b, c), isa.sub(c, b), isa.sub(b, d)]
}

/// Along one side of a tile.
#[inline(always)]
fn left<I: Isa>(isa: I, [a, b, c, d]: [I::F; SIDE]) -> [I::F; STEP] {
    [isa.add(isa.add(a, b), c), isa.sub(isa.sub(b, c), d)]
}

/// From products to outputs.
pub(super) struct Leave<'a, S> {
    pub of: &'a Tiles,
    pub epilogue: Epilogue<'a>,
    pub tiles: Range<usize>,
    /// Of the block.
    pub first: usize,
    pub products: &'a [f32],
    /// From one place to the next.
    pub stride: usize,
    pub out: S,
}

impl<S: Sink> Body for Leave<'_, S> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn run<I: Isa>(self, isa: I) {
        let Self { of: Tiles { output, .. }, epilogue, products, stride, out, .. } = self;
        let finish = epilogue.finish(isa);
        for tile in self.tiles.clone() {
            let (index, y, x) = self.of.place(tile);
            for channel in (0..output.channels).step_by(LANES) {
                let bias = epilogue.bias(isa, channel);
                let start = (tile - self.first) * output.channels + channel;
                let mut lines = [[bias; SIDE]; STEP];
                for column in 0..SIDE {
                    let mut of_column = [bias; SIDE];
                    for row in 0..SIDE {
                        let at = (row * SIDE + column) * stride + start;
                        of_column[row] = isa.read(&products[at..at + LANES], 0.0);
                    }
                    let [first, second] = left(isa, of_column);
                    (lines[0][column], lines[1][column]) = (first, second);
                }
                for row in 0..STEP {
                    let sums = left(isa, lines[row]);
                    for column in 0..STEP {
                        if y + row < output.height && x + column < output.width {
                            let pixel = (index * output.height + y + row) * output.width + x + column;
                            let at = pixel * output.channels + channel;
                            // SAFETY: the pixel is inside, and its tile this body's alone.
                            unsafe {
                                out.write(isa, finish.of(isa, isa.add(sums[column], bias), at, LANES), at..at + LANES)
                            };
                        }
                    }
                }
            }
        }
    }
}
