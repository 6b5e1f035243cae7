//! A time step of a GRU in one pass: the products with the state go from registers into the gates. While those of some units are
//! computed the weights of the next are on their way, so that one sequence alone waits for nothing but the second-level cache.
//!
//! Each state takes the same steps as in [`crate::gemm::gemm`] and [`crate::gates::gru`].

use std::ops::Range;

use crate::Cpu;
use crate::gates;
use crate::isa::{Body, Isa, LANES};
use crate::pack::{Packed, Panels};
use crate::sums::Stored;
use crate::threads::Shared;

const GATES: usize = 3;

/// Times sixteen units whose weights lie side by side: three sums of one row would wait for each other.
const BLOCKS: usize = 2;

/// Products in one task of a thread, at least.
const TASK: usize = 1 << 16;

/// Rows in one task, where there are so many: whole tiles.
const ROWS: usize = 24;

/// What the state of a GRU is multiplied with.
#[derive(Clone, Debug)]
pub struct Gru {
    /// For each two times sixteen units, for each unit of the state, those of each gate; filled up with zeros.
    weights: Packed,
    /// For each sixteen units, of each gate, likewise.
    bias: Vec<[[f32; LANES]; GATES]>,
    units: usize,
}

impl Gru {
    /// `weight(output, k)` is as for [`Packed::f32`], or, if they are `halved`, for [`Packed::f16`]; outputs, and `bias`, are
    /// `(gates, units)`. Gates are r, z, n.
    ///
    /// # Panics
    /// If the bias is not as long.
    pub fn new(units: usize, halved: bool, weight: impl Fn(usize, usize) -> f32, bias: &[f32]) -> Self {
        assert_eq!(bias.len(), GATES * units, "{GATES} gates of {units} units");
        let groups = units.div_ceil(BLOCKS * LANES);
        let weight = |lane: usize, at: usize| {
            let (k, block, gate) = (at / (BLOCKS * GATES), at / GATES % BLOCKS, at % GATES);
            let unit = (lane / LANES * BLOCKS + block) * LANES + lane % LANES;
            if unit < units { weight(gate * units + unit, k) } else { 0.0 }
        };
        let pack = if halved { Packed::f16 } else { Packed::f32 };
        let weights = pack(groups * LANES, BLOCKS * GATES * units, weight);
        let mut by_block = vec![[[0.0; LANES]; GATES]; groups * BLOCKS];
        for (at, bias) in bias.iter().enumerate() {
            by_block[at % units / LANES][at / units][at % units % LANES] = *bias;
        }
        Self { weights, bias: by_block, units }
    }

    pub fn units(&self) -> usize {
        self.units
    }

    /// Of weights, in memory.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    pub fn is_f16(&self) -> bool {
        self.weights.is_f16()
    }
}

/// The states `to` after one time step, of those before it, both `(rows, units)`. `inputs` are the products with the layer's input,
/// as for [`gates::Step`], rows `stride` apart. Every other step shall go `backwards` over the units: it then begins with the weights
/// that the first-level cache still has. What comes out is the same.
///
/// # Panics
/// If a length does not fit.
pub fn step(cpu: Cpu<'_>, by: &Gru, (inputs, stride): (&[f32], usize), backwards: bool, from: &[f32], to: &mut [f32]) {
    let units = by.units;
    assert!(units > 0 && from.len().is_multiple_of(units), "{} values are no states of {units}", from.len());
    assert_eq!(from.len(), to.len(), "as many states as before");
    let rows = from.len() / units;
    let reach = rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(GATES * units));
    assert!(reach.is_some_and(|reach| reach <= inputs.len()), "inputs: {GATES} gates of {units} per row");
    let groups = units.div_ceil(BLOCKS * LANES);
    let part = TASK.div_ceil(BLOCKS * GATES * LANES * units * rows.clamp(1, ROWS));
    let (parts, bias, to) = (groups.div_ceil(part), &by.bias[..], Shared::new(to));
    cpu.threads.run(parts * rows.div_ceil(ROWS), &|task| {
        let (first, row) = (task % parts * part, task / parts * ROWS);
        let (groups, rows) = (first..groups.min(first + part), row..rows.min(row + ROWS));
        match &by.weights.panels {
            Panels::F32(weights) => {
                cpu.isa.run(Step { weights, bias, units, inputs, stride, backwards, from, to, groups, rows });
            }
            Panels::F16(weights) => {
                cpu.isa.run(Step { weights, bias, units, inputs, stride, backwards, from, to, groups, rows });
            }
        }
    });
}

/// Of some rows and units. All lengths fit.
struct Step<'a, W> {
    weights: &'a [W],
    bias: &'a [[[f32; LANES]; GATES]],
    units: usize,
    inputs: &'a [f32],
    stride: usize,
    backwards: bool,
    from: &'a [f32],
    to: Shared<'a, f32>,
    /// Of two times sixteen units.
    groups: Range<usize>,
    rows: Range<usize>,
}

impl<W: Stored> Body for Step<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Range { start, end } = self.groups.clone();
        for index in start..end {
            let group = if self.backwards { start + end - 1 - index } else { index };
            if (group + 1) * BLOCKS * LANES <= self.units {
                self.group::<I, true>(isa, group)
            } else {
                self.group::<I, false>(isa, group)
            }
        }
    }
}

impl<W: Stored> Step<'_, W> {
    /// Two times sixteen units, or, if they are not `WHOLE`, fewer.
    #[inline(always)]
    fn group<I: Isa, const WHOLE: bool>(&self, isa: I, group: usize) {
        let (Range { start, mut end }, first) = (self.rows.clone(), group * BLOCKS);
        let blocks = if WHOLE { BLOCKS } else { (self.units - first * LANES).div_ceil(LANES) };
        if (end - start) % 2 == 1 && blocks == BLOCKS {
            end -= 1;
            self.tile::<I, 1, BLOCKS, WHOLE>(isa, end, first);
        }
        for block in first..first + blocks {
            let mut row = start;
            while row < end {
                row += match end - row {
                    8.. if I::SUMS >= 8 * GATES => self.tile::<I, 8, 1, WHOLE>(isa, row, block),
                    4.. if I::SUMS >= 4 * GATES => self.tile::<I, 4, 1, WHOLE>(isa, row, block),
                    2.. => self.tile::<I, 2, 1, WHOLE>(isa, row, block),
                    _ => self.tile::<I, 1, 1, WHOLE>(isa, row, block),
                };
            }
        }
    }

    /// `R` rows of `B` times sixteen units; returns how many rows.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn tile<I: Isa, const R: usize, const B: usize, const WHOLE: bool>(
        &self,
        isa: I,
        row: usize,
        block: usize,
    ) -> usize {
        const STEP: usize = BLOCKS * GATES * LANES;
        let Self { units, stride, .. } = *self;
        let weights = &self.weights[block / BLOCKS * units * STEP..][..units * STEP];
        let mut weights = weights[block % BLOCKS * GATES * LANES..].as_ptr();
        let states = self.from[row * units..(row + R) * units].as_ptr();
        let mut sums = [[[isa.splat(0.0); GATES]; B]; R];
        for k in 0..units {
            // SAFETY: a group has so many vectors for each unit of the state, from its first block on; there are so many states.
            unsafe {
                let mut w = [[isa.splat(0.0); GATES]; B];
                for b in 0..B {
                    for gate in 0..GATES {
                        w[b][gate] = W::load(isa, &*weights.add((b * GATES + gate) * LANES).cast());
                    }
                }
                for r in 0..R {
                    let x = isa.splat(*states.add(r * units + k));
                    for b in 0..B {
                        for gate in 0..GATES {
                            sums[r][b][gate] = isa.fma(x, w[b][gate], sums[r][b][gate]);
                        }
                    }
                }
                weights = weights.wrapping_add(STEP);
            }
        }
        // Through memory: what a loop indexes that is too long to be unrolled does not stay in registers, not even before it.
        let mut products = [[[[0.0; LANES]; GATES]; B]; R];
        for r in 0..R {
            for b in 0..B {
                for gate in 0..GATES {
                    isa.store(sums[r][b][gate], &mut products[r][b][gate]);
                }
            }
        }
        for b in 0..B {
            let (unit, bias) = ((block + b) * LANES, &self.bias[block + b]);
            let n = if WHOLE { LANES } else { LANES.min(units - unit) };
            // In two passes: each alone is so short that the CPU has several rows under way.
            for r in 0..R {
                for gate in 0..2 {
                    let product = &mut products[r][b][gate];
                    let recurrent = isa.add(isa.load(product), isa.load(&bias[gate]));
                    // SAFETY: each row has so many values of each gate.
                    let input = unsafe { part(self.inputs, (row + r) * stride + gate * units + unit, n) };
                    isa.store(gates::open(isa, isa.read(input, 0.0), recurrent), product);
                }
            }
            for r in 0..R {
                let [reset, update, product] = &products[r][b];
                let recurrent = isa.add(isa.load(product), isa.load(&bias[2]));
                let at = (row + r) * units + unit;
                // SAFETY: the row is there, with so many units, and so many values of each gate.
                let (input, before) =
                    unsafe { (part(self.inputs, (row + r) * stride + 2 * units + unit, n), part(self.from, at, n)) };
                let open = [isa.load(reset), isa.load(update)];
                let after = gates::pass(isa, open, isa.read(input, 0.0), recurrent, isa.read(before, 0.0));
                // SAFETY: as above; these units are this body's alone.
                isa.write(after, unsafe { self.to.part(at..at + n) });
            }
        }
        R
    }
}

/// `n` of `values` from `at` on, without asking.
///
/// # Safety
/// They are there.
#[inline(always)]
unsafe fn part(values: &[f32], at: usize, n: usize) -> &[f32] {
    debug_assert!(at + n <= values.len());
    // SAFETY: the caller's promise.
    unsafe { values.get_unchecked(at..at + n) }
}
