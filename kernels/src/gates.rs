//! Sigmoid, tanh, exp and softmax, and one step of a recurrent layer after its products. Gates are in PyTorch's order.
//!
//! NaN stays NaN. Against exact results: exp and tanh within 4 units in the last place, sigmoid within 8; softmax within 8 · 2⁻²³,
//! and half of that for each sixteen values of a row that is long.

use crate::IsaToken;
use crate::isa::{Body, Isa, LANES, times_pow2};

/// A function of each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// 0 below -86.99, a little before results would be subnormal; infinite from 89 on.
    Exp,
    Sigmoid,
    Tanh,
}

/// Applies `function` to each value, in place.
pub fn map(isa: IsaToken, function: Function, xs: &mut [f32]) {
    isa.run(Map { function, xs });
}

/// Softmax of each row of `width` values, in place.
///
/// # Panics
/// If the last row is not whole.
pub fn softmax(isa: IsaToken, width: usize, xs: &mut [f32]) {
    assert!(width > 0 && xs.len().is_multiple_of(width), "{} values are no rows of {width}", xs.len());
    isa.run(Softmax { width, xs });
}

/// The products of one time step, one row per sequence: `inputs` of the layer's input (rows `stride` apart, so a step of a whole
/// projected sequence can be taken as it lies), `recurrent` of its state (rows close together). Biases are in them.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    pub inputs: &'a [f32],
    pub stride: usize,
    pub recurrent: &'a [f32],
}

impl Step<'_> {
    /// # Panics
    /// If a length does not fit `gates` gates of `hidden` for each row of the state.
    fn check(&self, gates: usize, hidden: usize, state: &[f32]) {
        assert!(hidden > 0 && state.len().is_multiple_of(hidden), "{} values are no states of {hidden}", state.len());
        let rows = state.len() / hidden;
        assert_eq!(self.recurrent.len(), rows * gates * hidden, "recurrent: {gates} gates of {hidden} per row");
        let reach =
            rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(self.stride)?.checked_add(gates * hidden));
        assert!(reach.is_some_and(|reach| reach <= self.inputs.len()), "inputs: {gates} gates of {hidden} per row");
    }

    /// The `gate`-th of both, for sixteen units from `at` on of a row.
    #[inline(always)]
    fn read<I: Isa>(
        &self,
        isa: I,
        (gates, hidden): (usize, usize),
        row: usize,
        gate: usize,
        at: usize,
    ) -> (I::F, I::F) {
        let unit = gate * hidden + at;
        let n = LANES.min(hidden - at);
        let inputs = &self.inputs[row * self.stride + unit..][..n];
        let recurrent = &self.recurrent[row * gates * hidden + unit..][..n];
        (isa.read(inputs, 0.0), isa.read(recurrent, 0.0))
    }
}

/// GRU, gates r, z, n: `n = tanh(input_n + r · recurrent_n)`, `state = (1 - z) · n + z · state`. `state` is `(rows, hidden)`.
///
/// # Panics
/// If a length differs.
pub fn gru(isa: IsaToken, step: Step<'_>, hidden: usize, state: &mut [f32]) {
    step.check(3, hidden, state);
    isa.run(Gru { step, hidden, state });
}

/// LSTM, gates i, f, g, o: `cell = f · cell + i · g`, `state = o · tanh(cell)`. Both are `(rows, hidden)`.
///
/// # Panics
/// If a length differs.
pub fn lstm(isa: IsaToken, step: Step<'_>, hidden: usize, cell: &mut [f32], state: &mut [f32]) {
    step.check(4, hidden, state);
    assert_eq!(cell.len(), state.len(), "a cell per state");
    isa.run(Lstm { step, hidden, cell, state });
}

/// The plain recurrent layer: `state = tanh(input + recurrent)`. `state` is `(rows, hidden)`.
///
/// # Panics
/// If a length differs.
pub fn rnn(isa: IsaToken, step: Step<'_>, hidden: usize, state: &mut [f32]) {
    step.check(1, hidden, state);
    isa.run(Rnn { step, hidden, state });
}

#[inline(always)]
fn exp<I: Isa>(isa: I, x: I::F) -> I::F {
    let (y, n) = exp_of(isa, x);
    times_pow2(isa, y, n)
}

/// The exponential as `(y, n)`: `y · 2ⁿ`.
#[inline(always)]
fn exp_of<I: Isa>(isa: I, x: I::F) -> (I::F, I::F) {
    // From the lower bound on the last factor is 0; at the upper one the product overflows.
    let x = isa.at_most(isa.at_least(x, isa.splat(-87.68)), isa.splat(89.0));
    let n = isa.round(isa.mul(x, isa.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first with so few bits that its product with `n` is exact (Cephes, as are the coefficients).
    let r = isa.fma(n, isa.splat(-0.693_359_4), x);
    let r = isa.fma(n, isa.splat(2.121_944_4e-4), r);
    let mut p = isa.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = isa.fma(p, r, isa.splat(c));
    }
    (isa.add(isa.fma(p, isa.mul(r, r), r), isa.splat(1.0)), n)
}

#[inline(always)]
fn sigmoid<I: Isa>(isa: I, x: I::F) -> I::F {
    let one = isa.splat(1.0);
    let (y, n) = exp_of(isa, isa.sub(isa.splat(0.0), x));
    isa.div(one, isa.add(one, isa.times_pow2(y, n)))
}

/// A quotient of polynomials (Eigen's), within 4 ulp also near 0, where `1 - 2 / (1 + exp(2x))` loses all digits.
#[inline(always)]
fn tanh<I: Isa>(isa: I, x: I::F) -> I::F {
    let end = 7.905_311;
    let x = isa.at_most(isa.at_least(x, isa.splat(-end)), isa.splat(end));
    let square = isa.mul(x, x);
    let mut p = isa.splat(-2.760_768_5e-16);
    for c in [2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619e-4, 4.893_524_5e-3] {
        p = isa.fma(p, square, isa.splat(c));
    }
    let mut q = isa.splat(1.198_258_4e-6);
    for c in [1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3] {
        q = isa.fma(q, square, isa.splat(c));
    }
    isa.div(isa.mul(x, p), q)
}

struct Map<'a> {
    function: Function,
    xs: &'a mut [f32],
}

impl Body for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for xs in self.xs.chunks_mut(LANES) {
            let x = isa.read(xs, 0.0);
            let y = match self.function {
                Function::Exp => exp(isa, x),
                Function::Sigmoid => sigmoid(isa, x),
                Function::Tanh => tanh(isa, x),
            };
            isa.write(y, xs);
        }
    }
}

struct Softmax<'a> {
    width: usize,
    xs: &'a mut [f32],
}

impl Body for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for row in self.xs.chunks_mut(self.width) {
            let mut max = isa.splat(f32::NEG_INFINITY);
            for xs in row.chunks(LANES) {
                max = isa.max(isa.read(xs, f32::NEG_INFINITY), max);
            }
            let max = isa.splat(isa.fold(max, |a, b| if a > b || a.is_nan() { a } else { b }));
            let mut sum = isa.splat(0.0);
            for xs in row.chunks_mut(LANES) {
                let y = exp(isa, isa.sub(isa.read(xs, f32::NEG_INFINITY), max));
                sum = isa.add(sum, y);
                isa.write(y, xs);
            }
            let sum = isa.splat(isa.fold(sum, |a, b| a + b));
            for xs in row.chunks_mut(LANES) {
                isa.write(isa.div(isa.read(xs, 0.0), sum), xs);
            }
        }
    }
}

struct Gru<'a> {
    step: Step<'a>,
    hidden: usize,
    state: &'a mut [f32],
}

impl Body for Gru<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { step, hidden, state } = self;
        for (row, state) in state.chunks_mut(hidden).enumerate() {
            for at in (0..hidden).step_by(LANES) {
                let state = &mut state[at..hidden.min(at + LANES)];
                let r = step.read(isa, (3, hidden), row, 0, at);
                let z = step.read(isa, (3, hidden), row, 1, at);
                let n = step.read(isa, (3, hidden), row, 2, at);
                let open = [open(isa, r.0, r.1), open(isa, z.0, z.1)];
                isa.write(pass(isa, open, n.0, n.1, isa.read(state, 0.0)), state);
            }
        }
    }
}

/// How far sixteen of a GRU's first two gates are open.
#[inline(always)]
pub(crate) fn open<I: Isa>(isa: I, input: I::F, recurrent: I::F) -> I::F {
    sigmoid(isa, isa.add(input, recurrent))
}

/// The states of sixteen units, by these gates.
#[inline(always)]
pub(crate) fn pass<I: Isa>(isa: I, [r, z]: [I::F; 2], input: I::F, recurrent: I::F, before: I::F) -> I::F {
    let n = tanh(isa, isa.fma(r, recurrent, input));
    isa.fma(z, isa.sub(before, n), n)
}

struct Lstm<'a> {
    step: Step<'a>,
    hidden: usize,
    cell: &'a mut [f32],
    state: &'a mut [f32],
}

impl Body for Lstm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { step, hidden, cell, state } = self;
        for (row, (cell, state)) in cell.chunks_mut(hidden).zip(state.chunks_mut(hidden)).enumerate() {
            for at in (0..hidden).step_by(LANES) {
                let cell = &mut cell[at..hidden.min(at + LANES)];
                let (input, recurrent) = step.read(isa, (4, hidden), row, 0, at);
                let i = sigmoid(isa, isa.add(input, recurrent));
                let (input, recurrent) = step.read(isa, (4, hidden), row, 1, at);
                let f = sigmoid(isa, isa.add(input, recurrent));
                let (input, recurrent) = step.read(isa, (4, hidden), row, 2, at);
                let g = tanh(isa, isa.add(input, recurrent));
                let (input, recurrent) = step.read(isa, (4, hidden), row, 3, at);
                let o = sigmoid(isa, isa.add(input, recurrent));
                let c = isa.fma(f, isa.read(cell, 0.0), isa.mul(i, g));
                isa.write(c, cell);
                isa.write(isa.mul(o, tanh(isa, c)), &mut state[at..hidden.min(at + LANES)]);
            }
        }
    }
}

struct Rnn<'a> {
    step: Step<'a>,
    hidden: usize,
    state: &'a mut [f32],
}

impl Body for Rnn<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { step, hidden, state } = self;
        for (row, state) in state.chunks_mut(hidden).enumerate() {
            for at in (0..hidden).step_by(LANES) {
                let (input, recurrent) = step.read(isa, (1, hidden), row, 0, at);
                isa.write(tanh(isa, isa.add(input, recurrent)), &mut state[at..hidden.min(at + LANES)]);
            }
        }
    }
}
