//! Rows times weights: dense layers, convolutions, the projections of recurrent layers.
//!
//! Each output is one chain of fused multiply-adds in the order of its weights, then the bias. How many outputs are under way
//! at once depends on the CPU and on the shape; what any of them becomes does not.

use std::ops::Range;

use crate::epilogue::Epilogue;
use crate::isa::{Body, Isa, LANES};
use crate::out::{Out, Sink};
use crate::pack::{Packed, PackedI8, Panels};
use crate::quantise::Scaling;
use crate::rows::Rows;
use crate::{Cpu, IsaToken};

/// Products in one task of a thread, at least: a microsecond or so, ten times what it costs to take the task.
const TASK: usize = 1 << 16;
/// Weights larger than this are read once for all rows, instead of once for each [`ROWS`].
const SMALL_WEIGHTS: usize = 400_000;
/// Four panels larger than this leave the second-level cache between two blocks of rows; two may not.
const LARGE_PANELS: usize = 600_000;
/// Rows that stay in the first-level cache while small weights pass by. Divides by each number of rows in a tile but the tails'.
const ROWS: usize = 24;

/// Rows and weights that are multiplied.
#[derive(Clone, Copy, Debug)]
pub enum Factors<'a> {
    Floats(Rows<'a, f32>, &'a Packed),
    /// The scalings say how rows were quantised: one for all, one for each, or one for each run of equally many. In the padding
    /// of indirect rows stands the zero point.
    Bytes(Rows<'a, u8>, &'a [Scaling], &'a PackedI8),
}

/// `out = activation(rows · weights + bias + residual)`, `out` being `(rows, outputs)`.
///
/// # Panics
/// If a length differs.
pub fn gemm<'a>(cpu: Cpu<'_>, rows: Rows<'_, f32>, weights: &Packed, epilogue: Epilogue<'_>, out: impl Into<Out<'a>>) {
    multiply(cpu, Factors::Floats(rows, weights), epilogue, out);
}

/// The same for bytes; see [`Factors::Bytes`].
///
/// # Panics
/// If a length differs.
pub fn gemm_i8<'a>(
    cpu: Cpu<'_>,
    rows: Rows<'_, u8>,
    scalings: &[Scaling],
    weights: &PackedI8,
    epilogue: Epilogue<'_>,
    out: impl Into<Out<'a>>,
) {
    multiply(cpu, Factors::Bytes(rows, scalings, weights), epilogue, out);
}

/// Either.
///
/// # Panics
/// If a length differs.
pub fn multiply<'a>(cpu: Cpu<'_>, factors: Factors<'_>, epilogue: Epilogue<'_>, out: impl Into<Out<'a>>) {
    work(cpu, factors, To { epilogue, keep: Keep::Each, out: &out.into() });
}

/// Not generic: what it calls is large, and compiled once.
///
/// # Panics
/// If a length differs.
pub(crate) fn work(cpu: Cpu<'_>, factors: Factors<'_>, to: To<'_>) {
    let To { epilogue, keep, out } = to;
    let (rows, kept) = (factors.rows(), keep.rows());
    assert!(rows.is_multiple_of(kept), "{rows} rows, of which {kept} leave one");
    assert_eq!((rows / kept).checked_mul(factors.outputs()), Some(out.len()), "rows times outputs are the output");
    epilogue.check(factors.outputs(), out.len());
    factors.with(to, Split { cpu });
}

/// What becomes of sums, and where it goes.
#[derive(Clone, Copy)]
pub(crate) struct To<'a> {
    pub epilogue: Epilogue<'a>,
    pub keep: Keep,
    pub out: &'a Out<'a>,
}

/// Which rows leave something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Each,
    /// Of each four that follow each other, for each output.
    GreatestOfFour,
}

impl Keep {
    /// That leave one.
    fn rows(self) -> usize {
        match self {
            Self::Each => 1,
            Self::GreatestOfFour => 4,
        }
    }
}

impl<'a> Factors<'a> {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Floats(rows, _) => rows.count(),
            Self::Bytes(rows, ..) => rows.count(),
        }
    }

    pub(crate) fn outputs(&self) -> usize {
        match self {
            Self::Floats(_, weights) => weights.outputs,
            Self::Bytes(.., weights) => weights.outputs,
        }
    }

    /// Multiplications in one row.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::Floats(_, weights) => weights.depth * weights.outputs.next_multiple_of(LANES),
            Self::Bytes(.., weights) => weights.depth() * weights.outputs.next_multiple_of(LANES),
        }
    }

    /// Some of the rows.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        match *self {
            Self::Floats(rows, weights) => Self::Floats(rows.part(range), weights),
            Self::Bytes(rows, scalings, weights) => {
                assert_eq!(scalings.len(), 1, "some of the rows: one scaling for all");
                Self::Bytes(rows.part(range), scalings, weights)
            }
        }
    }

    /// Has the product done, by what works it off.
    ///
    /// # Panics
    /// If a length differs.
    pub(crate) fn with(self, to: To<'_>, by: impl By) {
        match self {
            Self::Floats(rows, weights) => {
                assert_eq!(rows.taps() * rows.depth(), weights.depth, "a row is as long as the weights of an output");
                let outputs = weights.outputs;
                match &weights.panels {
                    Panels::F32(panels) => by.work(&Float { rows, panels: panels.values(), outputs, to }),
                    Panels::F16(panels) => by.work(&Float { rows, panels: panels.values(), outputs, to }),
                }
            }
            Self::Bytes(rows, scalings, weights) => {
                assert_eq!(
                    (rows.taps(), rows.depth()),
                    (weights.taps, weights.depth),
                    "runs are as the weights were packed for"
                );
                assert!(
                    !scalings.is_empty() && rows.count().is_multiple_of(scalings.len()),
                    "scalings: each of as many rows"
                );
                let rows_per_scaling = (rows.count() / scalings.len()).max(1);
                by.work(&Bytes { rows, scalings, rows_per_scaling, weights, to });
            }
        }
    }
}

/// What works a product off.
pub(crate) trait By {
    fn work(self, product: &impl Product);
}

/// All that helps, each a part.
struct Split<'a> {
    cpu: Cpu<'a>,
}

impl By for Split<'_> {
    fn work(self, product: &impl Product) {
        run(self.cpu, product);
    }
}

/// The caller alone.
pub(crate) struct Alone {
    pub isa: IsaToken,
}

impl By for Alone {
    fn work(self, product: &impl Product) {
        let (rows, panels) = (0..product.rows(), 0..product.outputs().div_ceil(LANES));
        self.isa.run(Walk { product, rows, panels });
    }
}

/// A product that can be worked off in tiles of some rows by some panels.
pub(crate) trait Product: Sync {
    /// Running sums of sixteen outputs that the registers hold.
    fn sums<I: Isa>(&self) -> usize;
    fn rows(&self) -> usize;
    fn outputs(&self) -> usize;
    fn panel_bytes(&self) -> usize;
    fn depth(&self) -> usize;
    fn to(&self) -> &To<'_>;

    /// The sums of one tile, with the bias.
    ///
    /// # Safety
    /// Those rows and panels exist.
    unsafe fn tile<I: Isa, const R: usize, const P: usize>(&self, isa: I, row: usize, panel: usize) -> Tile<R, P>;
}

/// For each row, for each panel. In memory: the loop that stores it is too long to be unrolled, and what a loop indexes does not
/// stay in registers, not even before it.
type Tile<const R: usize, const P: usize> = [[[f32; LANES]; P]; R];

/// Splits the outputs by size: along the side that gives more parts, but never so that large weights are read for each of them.
fn run(cpu: Cpu<'_>, product: &impl Product) {
    let (rows, panels) = (product.rows(), product.outputs().div_ceil(LANES));
    let (row_parts, panel_parts) = (rows.div_ceil(ROWS), panels.div_ceil(4));
    let is_small = product.panel_bytes() * panels <= SMALL_WEIGHTS;
    let by_rows = panel_parts <= 1 || (is_small && row_parts >= panel_parts);
    let (unit, extent, other) = if by_rows { (ROWS, rows, panels) } else { (4, panels, rows) };
    let part = unit * TASK.div_ceil((unit * other * LANES * product.depth()).max(1));
    cpu.threads.run(extent.div_ceil(part), &|task| {
        let part = task * part..((task + 1) * part).min(extent);
        let (rows, panels) = if by_rows { (part, 0..panels) } else { (0..rows, part) };
        cpu.isa.run(Walk { product, rows, panels });
    });
}

struct Walk<'a, P> {
    product: &'a P,
    rows: Range<usize>,
    panels: Range<usize>,
}

impl<T: Product> Body for Walk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { product, rows, panels } = self;
        let sums = product.sums::<I>();
        let small = product.panel_bytes() * panels.len() <= SMALL_WEIGHTS;
        let block = if small { ROWS } else { rows.len().max(1) };
        // One row is slowest where few sums are under way: a sum waits for its last step.
        let most = match rows.len() {
            1 => 8,
            _ if product.panel_bytes() * 4 > LARGE_PANELS => 2,
            _ => 4,
        };
        let keep = product.to().keep;
        let group = match keep {
            Keep::Each => at_once(&[8, 4, 3, 2, 1], most.min(sums / rows.len().clamp(1, 6))),
            Keep::GreatestOfFour => at_once(&[2, 1], sums / 4),
        };
        for first in rows.clone().step_by(block) {
            let last = (first + block).min(rows.end);
            let mut panel = panels.start;
            while panel < panels.end {
                let wide = at_once(&[8, 4, 3, 2, 1], group.min(panels.end - panel));
                let mut row = first;
                while row < last {
                    let high = match keep {
                        Keep::Each => at_once(&[12, 8, 6, 4, 2, 1], (sums / wide).min(last - row)),
                        Keep::GreatestOfFour => 4,
                    };
                    // SAFETY: the tile lies inside the rows and panels, which are nobody else's. Where four rows leave one, all
                    // are a multiple of four, and so is each part of them.
                    unsafe { tile::<I, T>(isa, product, (row, panel), (high, wide)) };
                    row += high;
                }
                panel += wide;
            }
        }
    }
}

/// The greatest of `sizes`, which fall to 1, that is not above `limit`.
#[inline(always)]
fn at_once(sizes: &[usize], limit: usize) -> usize {
    sizes.iter().copied().find(|size| *size <= limit).unwrap_or(1)
}

/// From the size of a tile to the code for it. Tiles that the registers cannot hold are not compiled.
///
/// # Safety
/// Those rows and panels exist, and nobody else touches these outputs.
#[inline(always)]
unsafe fn tile<I: Isa, T: Product>(isa: I, product: &T, (row, panel): (usize, usize), size: (usize, usize)) {
    macro_rules! tiles {
        ($(($rows:literal, $panels:literal))*) => {
            match size {
                // SAFETY: the caller's promise.
                $(($rows, $panels) if $rows * $panels <= product.sums::<I>() => unsafe {
                    let ys = product.tile::<I, $rows, $panels>(isa, row, panel);
                    store(isa, &ys, product.to(), (row, panel), product.outputs());
                },)*
                // Two by two, where the registers cannot hold the sums of four.
                // SAFETY: the caller's promise.
                (4, 1) => unsafe {
                    let [first, second] = product.tile::<I, 2, 1>(isa, row, panel);
                    let [third, fourth] = product.tile::<I, 2, 1>(isa, row + 2, panel);
                    store(isa, &[first, second, third, fourth], product.to(), (row, panel), product.outputs());
                },
                _ => unreachable!("a tile of {size:?}"),
            }
        };
    }
    tiles! {
        (1, 1) (2, 1) (4, 1) (6, 1) (8, 1) (12, 1)
        (1, 2) (2, 2) (4, 2) (6, 2) (8, 2) (12, 2)
        (1, 3) (2, 3) (4, 3) (6, 3) (8, 3)
        (1, 4) (2, 4) (4, 4) (6, 4)
        (1, 8)
    }
}

/// In the order of a pool, which decides between zeros.
#[inline(always)]
fn greatest<I: Isa, const R: usize, const P: usize>(isa: I, ys: &Tile<R, P>) -> [[f32; LANES]; P] {
    let mut greatest = ys[0];
    for (p, greatest) in greatest.iter_mut().enumerate() {
        let mut y = isa.load(greatest);
        for ys in &ys[1..] {
            y = isa.max(isa.load(&ys[p]), y);
        }
        isa.store(y, greatest);
    }
    greatest
}

/// How a weight lies in memory; it is multiplied as `f32`.
trait Stored: Copy + Sync {
    fn load<I: Isa>(isa: I, weights: &[Self; LANES]) -> I::F;
}

impl Stored for f32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, weights: &[f32; LANES]) -> I::F {
        isa.load(weights)
    }
}

impl Stored for u16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, weights: &[u16; LANES]) -> I::F {
        isa.load_f16(weights)
    }
}

struct Float<'a, W> {
    rows: Rows<'a, f32>,
    panels: &'a [W],
    outputs: usize,
    to: To<'a>,
}

impl<W: Stored> Product for Float<'_, W> {
    #[inline(always)]
    fn sums<I: Isa>(&self) -> usize {
        I::SUMS
    }
    fn rows(&self) -> usize {
        self.rows.count()
    }
    fn outputs(&self) -> usize {
        self.outputs
    }
    #[inline(always)]
    fn panel_bytes(&self) -> usize {
        self.depth() * LANES * size_of::<W>()
    }
    #[inline(always)]
    fn depth(&self) -> usize {
        self.rows.taps() * self.rows.depth()
    }
    #[inline(always)]
    fn to(&self) -> &To<'_> {
        &self.to
    }

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    unsafe fn tile<I: Isa, const R: usize, const P: usize>(&self, isa: I, row: usize, panel: usize) -> Tile<R, P> {
        let (taps, depth) = (self.rows.taps(), self.rows.depth());
        let panel_len = taps * depth * LANES;
        let mut sums = [[isa.splat(0.0); P]; R];
        let mut weights = self.panels[panel * panel_len..(panel + P) * panel_len].as_ptr();
        // SAFETY: the rows exist.
        let rows = unsafe { self.rows.few::<R>(row) };
        for tap in 0..taps {
            // SAFETY: the tap exists; a line is `depth` long, a panel `taps * depth` vectors, of which one is taken a step.
            unsafe {
                let lines = rows.lines(tap);
                for k in 0..depth {
                    let mut w = [isa.splat(0.0); P];
                    for p in 0..P {
                        w[p] = W::load(isa, &*weights.add(p * panel_len).cast());
                    }
                    for r in 0..R {
                        let x = isa.splat(*lines[r].add(k));
                        for p in 0..P {
                            sums[r][p] = isa.fma(x, w[p], sums[r][p]);
                        }
                    }
                    weights = weights.add(LANES);
                }
            }
        }
        let bias = self.to.epilogue.biases::<I, P>(isa, panel * LANES);
        let mut ys = [[[0.0; LANES]; P]; R];
        for r in 0..R {
            for p in 0..P {
                isa.store(isa.add(sums[r][p], isa.load(&bias[p])), &mut ys[r][p]);
            }
        }
        ys
    }
}

/// Finishes and stores a tile, or what four rows leave.
///
/// # Safety
/// Those rows and panels exist, and nobody else touches what they leave.
#[inline(always)]
unsafe fn store<I: Isa, const R: usize, const P: usize>(
    isa: I,
    ys: &Tile<R, P>,
    To { epilogue, keep, out }: &To<'_>,
    (row, panel): (usize, usize),
    outputs: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match (keep, out.only_floats()) {
            (Keep::GreatestOfFour, _) if R == 4 && P <= 2 => {
                store_to(isa, &[greatest(isa, ys)], epilogue, *out, (row / 4, panel), outputs);
            }
            (Keep::GreatestOfFour, _) => unreachable!("a tile of {R} rows and {P} panels leaves one of four"),
            (Keep::Each, Some(floats)) => store_to(isa, ys, epilogue, floats, (row, panel), outputs),
            (Keep::Each, None) => store_to(isa, ys, epilogue, *out, (row, panel), outputs),
        }
    }
}

/// # Safety
/// As [`store`].
#[inline(always)]
unsafe fn store_to<I: Isa, const R: usize, const P: usize>(
    isa: I,
    ys: &Tile<R, P>,
    epilogue: &Epilogue<'_>,
    out: impl Sink,
    (row, panel): (usize, usize),
    outputs: usize,
) {
    // A copy, which no store can change: it need not be read again after each.
    let epilogue = *epilogue;
    for (r, ys) in ys.iter().enumerate() {
        for (p, y) in ys.iter().enumerate() {
            let channel = (panel + p) * LANES;
            let at = (row + r) * outputs + channel;
            let n = LANES.min(outputs - channel);
            let y = epilogue.finish(isa, isa.load(y), at, n);
            // SAFETY: the caller's promise.
            unsafe { out.write(isa, y, at..at + n) };
        }
    }
}

struct Bytes<'a> {
    rows: Rows<'a, u8>,
    scalings: &'a [Scaling],
    rows_per_scaling: usize,
    weights: &'a PackedI8,
    to: To<'a>,
}

impl Product for Bytes<'_> {
    #[inline(always)]
    fn sums<I: Isa>(&self) -> usize {
        I::ACCS
    }
    fn rows(&self) -> usize {
        self.rows.count()
    }
    fn outputs(&self) -> usize {
        self.weights.outputs
    }
    #[inline(always)]
    fn panel_bytes(&self) -> usize {
        self.depth() * LANES
    }
    #[inline(always)]
    fn depth(&self) -> usize {
        self.weights.taps * self.weights.depth.next_multiple_of(4)
    }
    #[inline(always)]
    fn to(&self) -> &To<'_> {
        &self.to
    }

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    unsafe fn tile<I: Isa, const R: usize, const P: usize>(&self, isa: I, row: usize, panel: usize) -> Tile<R, P> {
        let (taps, depth) = (self.weights.taps, self.weights.depth);
        let panel_len = self.panel_bytes();
        let mut accs = [[isa.zero(); P]; R];
        let mut weights = self.weights.panels.values()[panel * panel_len..(panel + P) * panel_len].as_ptr();
        // What is read behind a run meets the zeros that its weights are filled up with.
        let readable = if self.rows.is_ample() { depth.next_multiple_of(4) } else { depth };
        // SAFETY: the rows exist.
        let rows = unsafe { self.rows.few::<R>(row) };
        for tap in 0..taps {
            // SAFETY: the tap exists; a line is `depth` long, and three more where rows are ample; a panel holds `taps` runs of
            // `depth` and on to a multiple of 4, of which four are taken a step.
            unsafe {
                let lines = rows.lines(tap);
                for k in (0..depth).step_by(4) {
                    for r in 0..R {
                        let x = four(lines[r].add(k), readable - k);
                        for p in 0..P {
                            accs[r][p] = isa.dot4(accs[r][p], x, &*weights.add(p * panel_len).cast());
                        }
                    }
                    weights = weights.add(4 * LANES);
                }
            }
        }
        let bias = self.to.epilogue.biases::<I, P>(isa, panel * LANES);
        let mut factors = [(0.0, 0); R];
        let (mut index, mut within) = (row / self.rows_per_scaling, row % self.rows_per_scaling);
        for factor in &mut factors {
            let scaling = self.scalings[index];
            *factor = (scaling.scale, I::SHIFT - i32::from(scaling.zero_point));
            within += 1;
            if within == self.rows_per_scaling {
                (index, within) = (index + 1, 0);
            }
        }
        let channels = panel * LANES..(panel + P) * LANES;
        let (scales, _) = self.weights.scales[channels.clone()].as_chunks::<LANES>();
        let (weight_sums, _) = self.weights.sums[channels].as_chunks::<LANES>();
        let mut ys = [[[0.0; LANES]; P]; R];
        for r in 0..R {
            let (scale, factor) = factors[r];
            for p in 0..P {
                let sum = isa.finish(accs[r][p], factor, &weight_sums[p]);
                let scale = isa.mul(isa.splat(scale), isa.load(&scales[p]));
                isa.store(isa.fma(sum, scale, isa.load(&bias[p])), &mut ys[r][p]);
            }
        }
        ys
    }
}

/// Four bytes, or the last few and zeros. Without a loop, which would become a call of `memcpy`, around which no sum stays in a
/// register.
///
/// # Safety
/// `left` bytes can be read, and there is one.
#[inline(always)]
unsafe fn four(bytes: *const u8, left: usize) -> u32 {
    if left >= 4 {
        // SAFETY: four can be read.
        return u32::from_le(unsafe { bytes.cast::<u32>().read_unaligned() });
    }
    // SAFETY: what is read is left.
    let byte = |i: usize| if i < left { u32::from(unsafe { *bytes.add(i) }) << (8 * i) } else { 0 };
    byte(0) | byte(1) | byte(2)
}
