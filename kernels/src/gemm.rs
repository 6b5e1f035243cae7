//! Rows times weights: dense layers, convolutions, the projections of recurrent layers.
//!
//! Each output is one chain of fused multiply-adds in the order of its weights, then the bias. How many outputs are under way
//! at once depends on the CPU and on the shape; what any of them becomes does not.

use std::ops::Range;

use crate::epilogue::Epilogue;
use crate::isa::{Body, Isa, LANES};
use crate::out::Out;
use crate::pack::{Packed, PackedI8, Panels};
use crate::quantise::Scaling;
use crate::rows::Rows;
use crate::sums::{Bytes, Float};
use crate::tile::{Product, tile};
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
    /// The scaling says how rows were quantised. In the padding of indirect rows stands its zero point.
    Bytes(Rows<'a, u8>, Scaling, &'a PackedI8),
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
    scaling: Scaling,
    weights: &PackedI8,
    epilogue: Epilogue<'_>,
    out: impl Into<Out<'a>>,
) {
    multiply(cpu, Factors::Bytes(rows, scaling, weights), epilogue, out);
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
    check(&factors, to);
    factors.with(to, Split { cpu });
}

/// # Panics
/// If a length differs.
pub(crate) fn check(factors: &Factors<'_>, To { epilogue, keep, out }: To<'_>) {
    let (rows, kept) = (factors.rows(), keep.rows());
    assert!(rows.is_multiple_of(kept), "{rows} rows, of which {kept} leave one");
    assert_eq!((rows / kept).checked_mul(factors.outputs()), Some(out.len()), "rows times outputs are the output");
    epilogue.check(factors.outputs(), out.len());
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

    /// Whether the pixels of a pool's window follow each other.
    pub(crate) fn are_of_windows(&self) -> bool {
        match self {
            Self::Floats(rows, _) => rows.are_of_windows(),
            Self::Bytes(rows, ..) => rows.are_of_windows(),
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
            Self::Bytes(rows, scaling, weights) => Self::Bytes(rows.part(range), scaling, weights),
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
                    Panels::F32(panels) => by.work(&Float { rows, panels, outputs, to, asks: false }),
                    Panels::F16(panels) => by.work(&Float { rows, panels, outputs, to, asks: false }),
                }
            }
            Self::Bytes(rows, scaling, weights) => {
                assert_eq!(
                    (rows.taps(), rows.depth()),
                    (weights.taps, weights.depth),
                    "runs are as the weights were packed for"
                );
                by.work(&Bytes { rows, scaling, weights, to });
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
    const MULTIPLIES_BYTES: bool = T::ARE_BYTES;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { product, rows, panels } = self;
        let sums = product.at_once::<I>();
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
