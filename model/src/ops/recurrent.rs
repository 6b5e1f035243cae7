//! One direction of a recurrent layer, with its gradient through time.
//!
//! Per step, with `h` the state before it, `i = W_ih · x + b_ih` and `s = W_hh · h + b_hh`, in PyTorch's order of gates:
//! - rnn: `h' = f(i + s)`
//! - gru: `r, z = σ(i + s)`, `n = tanh(i + r · s)`, `h' = n + z · (h − n)`
//! - lstm: `i, f, o = σ(i + s)`, `g = tanh(i + s)`, `c' = f · c + i · g`, `h' = o · tanh(c')`

use super::activation::{self, isa};
use super::dense::column_sums;
use super::record::{elements, learns, like, record};
use crate::architecture::Activation;
use crate::graph::Cell;
use candle_core::{Result, Tensor};
use sconce_kernels::gates::{Function, map};
use sconce_kernels::{IsaToken, Matrix, matmul};
use std::iter::Rev;
use std::ops::Range;

/// How a sequence is read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub cell: Cell,
    /// Of a plain recurrent layer.
    pub activation: Activation,
    /// From the last valid step to the first.
    pub reverse: bool,
    /// How many steps of each sequence are valid; all, if not said. States of others are zero.
    pub lengths: Option<Vec<usize>>,
}

/// `xs` is `(batch, time, features)`, `weight` `(gates, features + units)`: what is multiplied with the input, then with the state;
/// `bias` `(2 · gates)` likewise. Returns the states of all steps, `(batch, time, units)`.
pub fn recurrent(xs: &Tensor, weight: &Tensor, bias: &Tensor, reading: Reading) -> Result<Tensor> {
    let (xs, weight, bias) = (xs.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let (batch, time, features) = xs.dims3()?;
    let (gates, both) = weight.dims2()?;
    let units = both - features;
    let size = Size { batch, time, features, units, gates };
    let (states, kept) = forward(&size, &elements(&xs)?, &elements(&weight)?, &elements(&bias)?, &reading)?;
    record("recurrent", [&xs, &weight, &bias], states, (batch, time, units), move |[xs, weight, bias], ys, gradient| {
        let (of_xs, weights) = (elements(xs)?, elements(weight)?);
        let (states, gradient) = (elements(ys)?, elements(gradient)?);
        let slopes = through_time(&size, &weights, &states, &kept, &gradient, &reading);
        let dx = learns(xs).then(|| size.input_gradient(&weights, &slopes)).map_or(Ok(None), |dx| like(dx, xs))?;
        let dw = like(size.weight_gradient(&of_xs, &states, &slopes, reading.reverse), weight)?;
        let sums = [column_sums(&slopes.input, gates)?, column_sums(slopes.recurrent(), gates)?];
        Ok([dx, dw, like(sums.concat(), bias)?])
    })
}

#[derive(Clone, Copy)]
struct Size {
    batch: usize,
    time: usize,
    features: usize,
    units: usize,
    gates: usize,
}

/// What the backward pass reads of the forward pass, `(batch, time, ..)` each.
struct Kept {
    /// After their functions.
    gates: Vec<f32>,
    /// Of an LSTM its cells; of a GRU the products of the state with the third gate's weights.
    inner: Vec<f32>,
}

/// Gradients of all that goes into the gates.
struct Slopes {
    input: Vec<f32>,
    /// Of the products with the state, where they are not the same: in a GRU.
    state: Option<Vec<f32>>,
}

impl Slopes {
    fn recurrent(&self) -> &[f32] {
        self.state.as_deref().unwrap_or(&self.input)
    }
}

/// The steps in the order in which they are read.
enum Steps {
    Forward(Range<usize>),
    Reverse(Rev<Range<usize>>),
}

impl Iterator for Steps {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Self::Forward(steps) => steps.next(),
            Self::Reverse(steps) => steps.next(),
        }
    }
}

impl Size {
    fn steps(&self, reverse: bool) -> Steps {
        if reverse { Steps::Reverse((0..self.time).rev()) } else { Steps::Forward(0..self.time) }
    }

    /// The step whose state is read at `step`.
    fn before(&self, step: usize, reverse: bool) -> Option<usize> {
        if reverse { Some(step + 1).filter(|step| *step < self.time) } else { step.checked_sub(1) }
    }

    fn of_input<'a>(&self, weight: &'a [f32]) -> Matrix<'a> {
        Matrix::strided(weight, self.gates, self.features, self.features + self.units)
    }

    fn of_state<'a>(&self, weight: &'a [f32]) -> Matrix<'a> {
        Matrix::strided(&weight[self.features..], self.gates, self.units, self.features + self.units)
    }

    /// One step of all sequences.
    fn step<'a>(&self, values: &'a [f32], step: usize, wide: usize) -> Matrix<'a> {
        Matrix::strided(&values[step * wide..], self.batch, wide, self.time * wide)
    }

    fn rows(&self) -> usize {
        self.batch * self.time
    }

    fn input_gradient(&self, weight: &[f32], slopes: &Slopes) -> Vec<f32> {
        let mut dx = vec![0.0; self.rows() * self.features];
        matmul(Matrix::new(&slopes.input, self.rows(), self.gates), self.of_input(weight), &mut dx, false);
        dx
    }

    fn weight_gradient(&self, xs: &[f32], states: &[f32], slopes: &Slopes, reverse: bool) -> Vec<f32> {
        let (rows, units, features) = (self.rows(), self.units, self.features);
        let mut before = vec![0.0; states.len()];
        let sequences = before.chunks_exact_mut(self.time * units).zip(states.chunks_exact(self.time * units));
        for (before, states) in sequences {
            let all = states.len();
            if reverse {
                before[..all - units].copy_from_slice(&states[units..]);
            } else {
                before[units..].copy_from_slice(&states[..all - units]);
            }
        }
        let product = |slopes: &[f32], of: Matrix<'_>, wide: usize| {
            let mut out = vec![0.0; self.gates * wide];
            matmul(Matrix::new(slopes, rows, self.gates).t(), of, &mut out, false);
            out
        };
        let of_input = product(&slopes.input, Matrix::new(xs, rows, features), features);
        let of_state = product(slopes.recurrent(), Matrix::new(&before, rows, units), units);
        let rows = of_input.chunks_exact(features).zip(of_state.chunks_exact(units));
        rows.flat_map(|(input, state)| input.iter().chain(state).copied()).collect()
    }
}

impl Reading {
    fn is_valid(&self, sample: usize, step: usize) -> bool {
        self.lengths.as_ref().is_none_or(|lengths| step < lengths[sample])
    }
}

fn forward(size: &Size, xs: &[f32], weight: &[f32], bias: &[f32], reading: &Reading) -> Result<(Vec<f32>, Kept)> {
    let Size { batch, time, features, units, gates } = *size;
    let isa = isa()?;
    let (of_input, of_state) = bias.split_at(gates);
    let mut projected = of_input.repeat(size.rows());
    matmul(Matrix::new(xs, size.rows(), features), size.of_input(weight).t(), &mut projected, true);
    let mut states = vec![0.0; size.rows() * units];
    let mut kept =
        Kept { gates: projected, inner: vec![0.0; if reading.cell == Cell::Rnn { 0 } else { states.len() }] };
    let mut products = vec![0.0; batch * gates];
    let zeros = vec![0.0; units];
    for step in size.steps(reading.reverse) {
        let before = size.before(step, reading.reverse);
        products.chunks_exact_mut(gates).for_each(|row| row.copy_from_slice(of_state));
        if let Some(before) = before {
            matmul(size.step(&states, before, units), size.of_state(weight).t(), &mut products, true);
        }
        for (sample, products) in products.chunks_exact(gates).enumerate() {
            let row = sample * time + step;
            let of_gates = &mut kept.gates[row * gates..][..gates];
            if !reading.is_valid(sample, step) {
                of_gates.fill(0.0);
                continue;
            }
            let of = |step: usize| (sample * time + step) * units..(sample * time + step + 1) * units;
            match reading.cell {
                Cell::Rnn => {
                    sum(of_gates, products);
                    activation::apply(reading.activation, of_gates)?;
                    states[of(step)].copy_from_slice(of_gates);
                }
                Cell::Gru => {
                    let inner = &mut kept.inner[of(step)];
                    gru(isa, of_gates, products, inner);
                    let h = before.map_or_else(|| zeros.clone(), |before| states[of(before)].to_vec());
                    let (z, n) = of_gates[units..].split_at(units);
                    let values = states[of(step)].iter_mut().zip(&h).zip(z.iter().zip(n));
                    values.for_each(|((y, h), (z, n))| *y = n + z * (h - n));
                }
                Cell::Lstm => {
                    sum(of_gates, products);
                    map(isa, Function::Sigmoid, &mut of_gates[..2 * units]);
                    map(isa, Function::Tanh, &mut of_gates[2 * units..3 * units]);
                    map(isa, Function::Sigmoid, &mut of_gates[3 * units..]);
                    let c = before.map_or_else(|| zeros.clone(), |before| kept.inner[of(before)].to_vec());
                    let cells = &mut kept.inner[of(step)];
                    let (i, f, g, o) = quarters(of_gates, units);
                    for unit in 0..units {
                        cells[unit] = f[unit] * c[unit] + i[unit] * g[unit];
                    }
                    let state = &mut states[of(step)];
                    state.copy_from_slice(cells);
                    map(isa, Function::Tanh, state);
                    state.iter_mut().zip(o).for_each(|(y, o)| *y *= o);
                }
            }
        }
    }
    Ok((states, kept))
}

fn sum(into: &mut [f32], xs: &[f32]) {
    into.iter_mut().zip(xs).for_each(|(y, x)| *y += x);
}

fn quarters(gates: &[f32], units: usize) -> (&[f32], &[f32], &[f32], &[f32]) {
    let (first, last) = gates.split_at(2 * units);
    (&first[..units], &first[units..], &last[..units], &last[units..])
}

/// From products to gates; `inner` keeps what the third of the state's is.
fn gru(isa: IsaToken, gates: &mut [f32], products: &[f32], inner: &mut [f32]) {
    let units = inner.len();
    let (of_state, of_new) = products.split_at(2 * units);
    let (reset_update, new) = gates.split_at_mut(2 * units);
    sum(reset_update, of_state);
    map(isa, Function::Sigmoid, reset_update);
    inner.copy_from_slice(of_new);
    new.iter_mut().zip(reset_update.iter().zip(of_new)).for_each(|(n, (r, s))| *n += r * s);
    map(isa, Function::Tanh, new);
}

fn through_time(
    size: &Size,
    weight: &[f32],
    states: &[f32],
    kept: &Kept,
    gradient: &[f32],
    reading: &Reading,
) -> Slopes {
    let Size { batch, time, units, gates, .. } = *size;
    let mut input = vec![0.0; size.rows() * gates];
    let mut state = if reading.cell == Cell::Gru { vec![0.0; input.len()] } else { Vec::new() };
    // Of the state that was read, and of an LSTM's cell.
    let (mut dh, mut dc) = (vec![0.0; batch * units], vec![0.0; batch * units]);
    let zeros = vec![0.0; units];
    for step in size.steps(!reading.reverse) {
        let before = size.before(step, reading.reverse);
        for (sample, (dh, dc)) in dh.chunks_exact_mut(units).zip(dc.chunks_exact_mut(units)).enumerate() {
            let row = sample * time + step;
            if !reading.is_valid(sample, step) {
                dh.fill(0.0);
                dc.fill(0.0);
                continue;
            }
            sum(dh, &gradient[row * units..][..units]);
            let of_gates = &kept.gates[row * gates..][..gates];
            let slopes = &mut input[row * gates..][..gates];
            let of = |values: &'_ [f32], step: Option<usize>| -> Vec<f32> {
                step.map_or_else(|| zeros.clone(), |step| values[(sample * time + step) * units..][..units].to_vec())
            };
            match reading.cell {
                Cell::Rnn => {
                    for ((slope, dh), y) in slopes.iter_mut().zip(dh).zip(of_gates) {
                        *slope = *dh * activation::slope_of_output(reading.activation, *y);
                        *dh = 0.0;
                    }
                }
                Cell::Gru => {
                    let slopes_state = &mut state[row * gates..][..gates];
                    let (h, inner) = (of(states, before), &kept.inner[row * units..][..units]);
                    gru_slopes(of_gates, &h, inner, dh, slopes, slopes_state);
                }
                Cell::Lstm => {
                    let (c, cells) = (of(&kept.inner, before), &kept.inner[row * units..][..units]);
                    let ys = &states[row * units..][..units];
                    lstm_slopes(of_gates, (&c, cells, ys), dh, dc, slopes);
                }
            }
        }
        if before.is_some() {
            let slopes = if reading.cell == Cell::Gru { &state } else { &input };
            matmul(size.step(slopes, step, gates), size.of_state(weight), &mut dh, true);
        }
    }
    Slopes { input, state: (reading.cell == Cell::Gru).then_some(state) }
}

/// `dh` comes as the gradient of the state after the step, and goes as what of it reaches the state before it directly.
fn gru_slopes(gates: &[f32], h: &[f32], inner: &[f32], dh: &mut [f32], slopes: &mut [f32], slopes_state: &mut [f32]) {
    let units = h.len();
    let (r, rest) = gates.split_at(units);
    let (z, n) = rest.split_at(units);
    let (dr, rest) = slopes.split_at_mut(units);
    let (dz, dn) = rest.split_at_mut(units);
    let (r, z, n, inner, dh) = (&r[..units], &z[..units], &n[..units], &inner[..units], &mut dh[..units]);
    let (dr, dz, dn) = (&mut dr[..units], &mut dz[..units], &mut dn[..units]);
    for u in 0..units {
        let q = dh[u];
        dn[u] = q * (1.0 - z[u]) * (1.0 - n[u] * n[u]);
        dz[u] = q * (h[u] - n[u]) * z[u] * (1.0 - z[u]);
        dr[u] = dn[u] * inner[u] * r[u] * (1.0 - r[u]);
        dh[u] = q * z[u];
    }
    slopes_state[..units].copy_from_slice(dr);
    slopes_state[units..2 * units].copy_from_slice(dz);
    slopes_state[2 * units..].iter_mut().zip(dn.iter().zip(r)).for_each(|(s, (dn, r))| *s = dn * r);
}

/// As [`gru_slopes`], for the state and for the cell: that before the step, that after it, and the state after it.
fn lstm_slopes(
    gates: &[f32],
    (c, cells, ys): (&[f32], &[f32], &[f32]),
    dh: &mut [f32],
    dc: &mut [f32],
    slopes: &mut [f32],
) {
    let units = c.len();
    let (i, f, g, o) = quarters(gates, units);
    for u in 0..units {
        // The cell's tanh is what the state is of its gate; where the gate is shut, it is computed.
        let tanh = if o[u] > 1e-3 { ys[u] / o[u] } else { cells[u].tanh() };
        let d = dc[u] + dh[u] * o[u] * (1.0 - tanh * tanh);
        slopes[u] = d * g[u] * i[u] * (1.0 - i[u]);
        slopes[units + u] = d * c[u] * f[u] * (1.0 - f[u]);
        slopes[2 * units + u] = d * i[u] * (1.0 - g[u] * g[u]);
        slopes[3 * units + u] = dh[u] * tanh * o[u] * (1.0 - o[u]);
        dc[u] = d * f[u];
        dh[u] = 0.0;
    }
}
