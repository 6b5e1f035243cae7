//! The gradient of the weights: of each place of the tiles, a product of what images have there and what the outputs' gradient has.

use std::ops::Range;

use super::sums::Bring;
use super::{BLOCK, PLACES, SIDE, STEP, Tiles, split, tiles};
use crate::Cpu;
use crate::isa::{Body, Isa, LANES};
use crate::threads::Shared;

/// Tiles under way together, at least, where sums leave the second-level cache from one to the next so many.
const LEAST: usize = 128;

/// Values that [`gradient`] needs beside its output, for so many images.
pub fn gradient_work(of: &Tiles, images: usize) -> usize {
    at_once(of, images) * of.of_tile() + PLACES * of_place(of) + 2 * PLACES * LANES
}

fn at_once(of: &Tiles, images: usize) -> usize {
    let least = if PLACES * of_place(of) > BLOCK { LEAST } else { 1 };
    of.at_once(images * tiles(of.output), least)
}

/// From the sums of one place to those of the next: a line more, as in a cache they would be in each other's way.
fn of_place(of: &Tiles) -> usize {
    of.image.channels * of.output.channels + LANES
}

/// `out` is `(channel, kernel row, kernel column, output)`: the gradient of the weights of a convolution in tiles, given the images
/// and the gradient of its outputs, both NHWC. What is in `work` does not matter; it is at least [`gradient_work`] long.
///
/// # Panics
/// If a length differs.
pub fn gradient(cpu: Cpu<'_>, of: &Tiles, xs: &[f32], gradient: &[f32], work: &mut [f32], out: &mut [f32]) {
    let (image, output) = (of.image, of.output);
    let (channels, outputs) = (image.channels, output.channels);
    assert!(xs.len().is_multiple_of(image.len()), "{} values are no images of {image:?}", xs.len());
    let images = xs.len() / image.len();
    assert_eq!(gradient.len(), images * output.len(), "one output image per image");
    assert_eq!(out.len(), 9 * channels * outputs, "one weight for each tap, channel and output");
    assert!(work.len() >= gradient_work(of, images), "work for {images} images");
    let all = images * tiles(output);
    if all == 0 {
        out.fill(0.0);
        return;
    }
    let at_once = at_once(of, images);
    let strides = [channels, outputs].map(|channels| [at_once * channels + LANES, LANES, at_once * LANES]);
    let (sums, work) = work.split_at_mut(PLACES * of_place(of));
    let (values, slopes) = work.split_at_mut(PLACES * strides[0][0]);
    for first in (0..all).step_by(at_once) {
        let block = first..all.min(first + at_once);
        let shared = Shared::new(values);
        split(cpu, block.clone(), channels, &|tiles| {
            cpu.isa.run(Bring { of, xs, tiles, first, values: shared, strides: strides[0] });
        });
        let shared = Shared::new(slopes);
        split(cpu, block.clone(), outputs, &|tiles| {
            cpu.isa.run(Spread { of, gradient, tiles, first, slopes: shared, strides: strides[1] });
        });
        let (values, slopes, shared) = (&*values, &*slopes, Shared::new(sums));
        cpu.threads.run(PLACES, &|place| {
            let start = place * of_place(of);
            // SAFETY: each place has sums of its own.
            let sums = unsafe { shared.part(start..start + channels * outputs) };
            let (values, slopes) = (&values[place * strides[0][0]..], &slopes[place * strides[1][0]..]);
            let panels = [strides[0][2], strides[1][2]];
            cpu.isa.run(Products { values, slopes, panels, tiles: block.len(), outputs, goes_on: first > 0, sums });
        });
    }
    let (sums, shared) = (&*sums, Shared::new(out));
    split(cpu, 0..channels, outputs, &|channels| {
        cpu.isa.run(Gather { sums, of_place: of_place(of), channels, outputs, out: shared });
    });
}

/// From the gradient of the outputs of tiles to that of the products that they are made of.
struct Spread<'a> {
    of: &'a Tiles,
    gradient: &'a [f32],
    tiles: Range<usize>,
    /// Of the block.
    first: usize,
    slopes: Shared<'a, f32>,
    /// As in [`Bring`].
    strides: [usize; 3],
}

impl Body for Spread<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn run<I: Isa>(self, isa: I) {
        let Self { of: Tiles { output, zeros, .. }, gradient, slopes, strides: [of_place, of_tile, of_lanes], .. } =
            self;
        for tile in self.tiles.clone() {
            let (index, y, x) = self.of.place(tile);
            let pixel = |row: usize, column: usize| match (y + row < output.height, x + column < output.width) {
                (true, true) => {
                    &gradient[((index * output.height + y + row) * output.width + x + column) * output.channels..]
                        [..output.channels]
                }
                _ => &zeros[..output.channels],
            };
            let pixels = [pixel(0, 0), pixel(0, 1), pixel(1, 0), pixel(1, 1)];
            for channel in (0..output.channels).step_by(LANES) {
                let mut d = [isa.splat(0.0); STEP * STEP];
                for at in 0..STEP * STEP {
                    d[at] = isa.read(&pixels[at][channel..], 0.0);
                }
                let columns = [parted(isa, [d[0], d[2]]), parted(isa, [d[1], d[3]])];
                let at = (tile - self.first) * of_tile + channel / LANES * of_lanes;
                for row in 0..SIDE {
                    let line = parted(isa, [columns[0][row], columns[1][row]]);
                    for column in 0..SIDE {
                        let at = (row * SIDE + column) * of_place + at;
                        // SAFETY: what becomes of the tile is nobody else's, and there is one for each place and channel.
                        isa.write(line[column], unsafe { slopes.part(at..at + LANES) });
                    }
                }
            }
        }
    }
}

/// Along one side of a tile: the adjoint of what makes two outputs of four products.
#[inline(always)]
fn parted<I: Isa>(isa: I, [a, b]: [I::F; STEP]) -> [I::F; SIDE] {
    [a, isa.add(a, b), isa.sub(a, b), isa.sub(isa.splat(0.0), b)]
}

/// Of one place: each channel with each output, over all tiles of a block.
struct Products<'a> {
    /// For each sixteen channels, those of each tile.
    values: &'a [f32],
    slopes: &'a [f32],
    /// From sixteen channels to the next, of either.
    panels: [usize; 2],
    tiles: usize,
    outputs: usize,
    /// Whether sums of blocks before are in `sums`.
    goes_on: bool,
    /// `(channel, output)`.
    sums: &'a mut [f32],
}

impl Body for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let (channels, panels) = (self.sums.len() / self.outputs, self.outputs / LANES);
        let mut panel = 0;
        while panel < panels {
            let wide = match panels - panel {
                4.. if I::SUMS >= 16 => 4,
                2.. => 2,
                _ => 1,
            };
            for channel in (0..channels).step_by(if I::SUMS >= 16 { 4 } else { 2 }) {
                match wide {
                    4 => self.tile::<I, 4, 4>(isa, channel, panel),
                    2 if I::SUMS >= 16 => self.tile::<I, 4, 2>(isa, channel, panel),
                    2 => self.tile::<I, 2, 2>(isa, channel, panel),
                    _ if I::SUMS >= 16 => self.tile::<I, 4, 1>(isa, channel, panel),
                    _ => self.tile::<I, 2, 1>(isa, channel, panel),
                }
            }
            panel += wide;
        }
    }
}

impl Products<'_> {
    /// Of `R` channels, which are among sixteen, and `P` panels of outputs.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn tile<I: Isa, const R: usize, const P: usize>(&mut self, isa: I, channel: usize, panel: usize) {
        let values = &self.values[channel / LANES * self.panels[0]..][..self.tiles * LANES];
        let mut slopes = [values; P];
        for p in 0..P {
            slopes[p] = &self.slopes[(panel + p) * self.panels[1]..][..self.tiles * LANES];
        }
        let mut sums = [[isa.splat(0.0); P]; R];
        if self.goes_on {
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = isa.read(&self.sums[(channel + r) * self.outputs + (panel + p) * LANES..], 0.0);
                }
            }
        }
        for tile in 0..self.tiles {
            let mut slope = [isa.splat(0.0); P];
            for p in 0..P {
                // SAFETY: each panel has sixteen for each tile.
                slope[p] = isa.load(unsafe { &*slopes[p].as_ptr().add(tile * LANES).cast() });
            }
            for r in 0..R {
                // SAFETY: as above; the channel and those behind it are among the sixteen.
                let x = isa.splat(unsafe { *values.as_ptr().add(tile * LANES + channel % LANES + r) });
                for p in 0..P {
                    sums[r][p] = isa.fma(x, slope[p], sums[r][p]);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                isa.write(sums[r][p], &mut self.sums[(channel + r) * self.outputs + (panel + p) * LANES..][..LANES]);
            }
        }
    }
}

/// From places to the taps of kernels.
struct Gather<'a> {
    sums: &'a [f32],
    of_place: usize,
    channels: Range<usize>,
    outputs: usize,
    out: Shared<'a, f32>,
}

impl Body for Gather<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn run<I: Isa>(self, isa: I) {
        let Self { sums, of_place, outputs, out, .. } = self;
        for channel in self.channels {
            for output in (0..outputs).step_by(LANES) {
                let mut lines = [[isa.splat(0.0); SIDE]; 3];
                for column in 0..SIDE {
                    let mut of_column = [isa.splat(0.0); SIDE];
                    for row in 0..SIDE {
                        let at = (row * SIDE + column) * of_place + channel * outputs + output;
                        of_column[row] = isa.read(&sums[at..], 0.0);
                    }
                    let taps = gathered(isa, of_column);
                    for row in 0..3 {
                        lines[row][column] = taps[row];
                    }
                }
                for row in 0..3 {
                    let taps = gathered(isa, lines[row]);
                    for column in 0..3 {
                        let at = (channel * 9 + row * 3 + column) * outputs + output;
                        // SAFETY: the channel is this body's alone.
                        isa.write(taps[column], unsafe { out.part(at..at + LANES) });
                    }
                }
            }
        }
    }
}

/// Along one side of kernels: the adjoint of what makes four places of three taps.
#[inline(always)]
fn gathered<I: Isa>(isa: I, [a, b, c, d]: [I::F; SIDE]) -> [I::F; 3] {
    let half = isa.splat(0.5);
    let both = isa.mul(half, isa.add(b, c));
    [isa.add(a, both), isa.mul(half, isa.sub(b, c)), isa.add(both, d)]
}
