//! The sums before and behind the products of tiles: of weights, of what an image has, of products.

use std::ops::Range;

use super::{PLACES, SIDE, STEP, Winograd};
use crate::epilogue::Epilogue;
use crate::isa::{Body, Isa, LANES};
use crate::out::Sink;
use crate::threads::Shared;

/// The weights of sixteen outputs.
type Lanes = [f32; LANES];

/// From the nine taps of kernels to the sixteen places.
pub(super) fn spread(taps: [Lanes; 9]) -> [Lanes; PLACES] {
    let of_line = |line: usize| along([&taps[3 * line], &taps[3 * line + 1], &taps[3 * line + 2]]);
    let lines: [_; 3] = std::array::from_fn(of_line);
    let mut places = [[0.0; LANES]; PLACES];
    for column in 0..SIDE {
        let of_column = along([&lines[0][column], &lines[1][column], &lines[2][column]]);
        for (row, place) in of_column.into_iter().enumerate() {
            places[row * SIDE + column] = place;
        }
    }
    places
}

/// Along one side of kernels.
fn along([a, b, c]: [&Lanes; 3]) -> [Lanes; SIDE] {
    let ends: Lanes = std::array::from_fn(|lane| a[lane] + c[lane]);
    let sum = std::array::from_fn(|lane| 0.5 * (ends[lane] + b[lane]));
    [*a, sum, std::array::from_fn(|lane| 0.5 * (ends[lane] - b[lane])), *c]
}

/// From images to the values of tiles.
pub(super) struct Bring<'a> {
    pub by: &'a Winograd,
    pub xs: &'a [f32],
    pub tiles: Range<usize>,
    /// Of the block.
    pub first: usize,
    pub values: Shared<'a, f32>,
    /// From one place to the next.
    pub stride: usize,
}

impl Body for Bring<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn run<I: Isa>(self, isa: I) {
        let Self { by: Winograd { image, window, zeros, .. }, xs, values, stride, .. } = self;
        for tile in self.tiles.clone() {
            let (index, y, x) = self.by.place(tile);
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
                let at = (tile - self.first) * image.channels + channel;
                for row in 0..SIDE {
                    let line = brought(isa, [d[row * SIDE], d[row * SIDE + 1], d[row * SIDE + 2], d[row * SIDE + 3]]);
                    for column in 0..SIDE {
                        let at = (row * SIDE + column) * stride + at;
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
    pub by: &'a Winograd,
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
        let Self { by: Winograd { output, .. }, epilogue, products, stride, out, .. } = self;
        let finish = epilogue.finish(isa);
        for tile in self.tiles.clone() {
            let (index, y, x) = self.by.place(tile);
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
