//! Kernels three wide over bytes, where the CPU sums four products of bytes at once: in a lane, of four columns of one channel.
//! Integers are exact, so the bits are those of the other way.

use std::ops::Range;

use super::Depthwise;
use super::bytes::Bytes;
use crate::IsaToken;
use crate::aligned::Aligned;
use crate::isa::{Dots, DotsBody, LANES};
use crate::quantise::Steps;
use crate::shape::Image;
use crate::threads::Shared;

/// Channels at once: of one place, or half as many of two, side by side.
const WIDE: usize = 4 * LANES;
const HALF: usize = WIDE / 2;
/// Columns that are read together: those of four outputs side by side, or of two by strides of two.
const COLUMNS: usize = 6;

/// Weights of a kernel three wide, for blocks of [`WIDE`] channels, or of [`HALF`] where there are no more. The last block overlaps
/// the one before: what is computed twice is cheaper than what is computed alone.
#[derive(Clone, Debug)]
pub(super) struct Quads {
    blocks: Vec<Block>,
    zero_point: u8,
}

#[derive(Clone, Debug)]
struct Block {
    /// Its first channel.
    first: usize,
    /// For each row of the kernel, of each channel: its weights and a zero; and then a zero and its weights, for the next output.
    weights: Aligned<i8>,
    /// What a sum begins with, for bytes are not less their zero point.
    starts: [i32; WIDE],
}

impl Quads {
    pub(super) fn new(
        zero_point: u8,
        [rows, width]: [usize; 2],
        channels: usize,
        weight: impl Fn(usize, usize) -> i8,
    ) -> Option<Self> {
        if width != 3 || channels < HALF {
            return None;
        }
        let at_once = if channels < WIDE { HALF } else { WIDE };
        let block = |first: usize| {
            let (mut weights, mut starts) = (Aligned::zeros(rows * 8 * WIDE), [0; WIDE]);
            for channel in 0..WIDE {
                for tap in 0..rows * 3 {
                    let (row, column, weight) = (tap / 3, tap % 3, weight(tap, first + channel % at_once));
                    let at = (row * 2 * WIDE + place(channel)) * 4 + column;
                    weights[at] = weight;
                    weights[at + 4 * WIDE + 1] = weight;
                    starts[place(channel)] -= i32::from(zero_point) * i32::from(weight);
                }
            }
            Block { first, weights, starts }
        };
        let firsts = (0..channels).step_by(at_once).map(|first| first.min(channels - at_once));
        Some(Self { blocks: firsts.map(block).collect(), zero_point })
    }
}

/// The lane of a channel, as [`Dots::fours`] leaves them.
fn place(channel: usize) -> usize {
    channel % 16 / 4 * LANES + channel / 16 * 4 + channel % 4
}

/// Lines of the output images of a batch; returns whether this could be done.
pub(super) fn convolve(
    isa: IsaToken,
    convolution: &Depthwise<'_, Bytes<'_>>,
    output: Image,
    lines: &Range<usize>,
) -> bool {
    let Depthwise { window, image, xs, ref epilogue, out, .. } = *convolution;
    let (Some(quads), Some((out, steps))) = (&xs.weights.quads, out.only_bytes()) else { return false };
    let outputs = match window.stride[1] {
        1 => 4,
        2 => 2,
        _ => return false,
    };
    let places = if image.channels < WIDE { 2 } else { 1 };
    if output.width < places * outputs || epilogue.residual.is_some() {
        return false;
    }
    isa.run_dots(Lines { convolution, quads, output, lines: lines.clone(), out, steps })
}

struct Lines<'a> {
    convolution: &'a Depthwise<'a, Bytes<'a>>,
    quads: &'a Quads,
    output: Image,
    lines: Range<usize>,
    out: Shared<'a, u8>,
    steps: Steps,
}

impl DotsBody for Lines<'_> {
    #[inline(always)]
    fn run<I: Dots>(self, isa: I) {
        let half = self.convolution.image.channels < WIDE;
        for line in self.lines.clone() {
            match (self.convolution.window.stride[1], half) {
                (1, false) => self.line::<I, 1, 4, 1>(isa, line),
                (1, true) => self.line::<I, 1, 4, 2>(isa, line),
                (_, false) => self.line::<I, 2, 2, 1>(isa, line),
                (_, true) => self.line::<I, 2, 2, 2>(isa, line),
            }
        }
    }
}

impl Lines<'_> {
    /// `S` is the stride, `N` the outputs at once, at each of `P` places.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn line<I: Dots, const S: usize, const N: usize, const P: usize>(&self, isa: I, line: usize) {
        let Depthwise { window, image: Image { width, height, channels }, ref xs, epilogue, .. } = *self.convolution;
        let (image, y) = (line / self.output.height, line % self.output.height);
        let padding = [self.quads.zero_point; HALF];
        // Above and to the left of the image out of range as well.
        let top = (y * window.stride[0]).wrapping_sub(window.padding[0]);
        let image = xs.xs.as_ptr().wrapping_add(image * height * width * channels);
        let (low, high) = epilogue.activation.range();
        let (low, high) = (isa.splat(low), isa.splat(high));
        for x in (0..self.output.width).step_by(N * P) {
            // The last ones overlap those before.
            let x = x.min(self.output.width - N * P);
            let left = (x * S).wrapping_sub(window.padding[1]);
            for Block { first, weights, starts } in &self.quads.blocks {
                let mut sums = [isa.begin_fours(starts); N];
                for (row, weights) in weights.as_chunks::<{ 4 * WIDE }>().0.as_chunks::<2>().0.iter().enumerate() {
                    let y = top.wrapping_add(row);
                    let mut columns = [isa.bytes(&padding, &padding); COLUMNS];
                    for column in 0..COLUMNS {
                        let mut halves = [&padding; 2];
                        for half in 0..2 {
                            // Of the second place, or of the same.
                            let (place, channel) = if P == 1 { (0, half * HALF) } else { (half, 0) };
                            let x = left.wrapping_add(place * N * S + column);
                            if x < width && y < height {
                                let at = (y * width + x) * channels + first + channel;
                                // SAFETY: the pixel is inside, and so are the block's channels of it.
                                halves[half] = unsafe { &*image.wrapping_add(at).cast() };
                            }
                        }
                        columns[column] = isa.bytes(halves[0], halves[1]);
                    }
                    let [a, b, c, d, e, f] = columns;
                    let (middle, left) = (isa.pairs(c, d), isa.pairs(a, b));
                    let (left, right) = (isa.fours(left, middle), isa.fours(middle, isa.pairs(e, f)));
                    if S == 1 {
                        sums[0] = isa.dot_fours(sums[0], left, &weights[0]);
                        sums[1] = isa.dot_fours(sums[1], left, &weights[1]);
                        sums[N - 2] = isa.dot_fours(sums[N - 2], right, &weights[0]);
                        sums[N - 1] = isa.dot_fours(sums[N - 1], right, &weights[1]);
                    } else {
                        sums[0] = isa.dot_fours(sums[0], left, &weights[0]);
                        sums[1] = isa.dot_fours(sums[1], right, &weights[0]);
                    }
                }
                let scales = of_channels::<I, P>(isa, &xs.weights.scales[*first..]);
                let bias = match epilogue.bias {
                    Some(bias) => of_channels::<I, P>(isa, &bias[*first..]),
                    None => [isa.splat(0.0); 4],
                };
                for i in 0..N {
                    let mut ys = isa.numbers(sums[i]);
                    for j in 0..4 {
                        let y = isa.fma(ys[j], scales[j], bias[j]);
                        ys[j] = isa.at_most(isa.at_least(y, low), high);
                    }
                    let at = (line * self.output.width + x + i) * channels + first;
                    let next = if P == 1 { at + HALF } else { at + N * channels };
                    // SAFETY: the line is inside, and this body's alone; the two do not overlap.
                    let (out, next) = unsafe { (self.out.part(at..at + HALF), self.out.part(next..next + HALF)) };
                    if let (Some(out), Some(next)) = (out.first_chunk_mut(), next.first_chunk_mut()) {
                        isa.write_fours(ys, self.steps, out, next);
                    }
                }
            }
        }
    }
}

/// One number of each channel of a block, for each of `P` places.
#[inline(always)]
fn of_channels<I: Dots, const P: usize>(isa: I, xs: &[f32]) -> [I::F; 4] {
    let halves = xs.as_chunks::<HALF>().0;
    isa.in_fours(&halves[0], &halves[if P == 1 { 1 } else { 0 }])
}
