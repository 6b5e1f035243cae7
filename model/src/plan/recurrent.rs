//! The steps of a recurrent layer, whose products with the input are done already.

use super::run::Values;
use super::{Product, Weights};
use crate::graph::Cell;
use sconce_kernels::quantise::quantise;
use sconce_kernels::{Cpu, gates, gru};
use std::mem::swap;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Recurrence {
    pub cell: Cell,
    pub units: usize,
    pub time: usize,
    /// One, or forwards and backwards.
    pub directions: Arc<[Direction]>,
    /// Leaves the states of all steps, else those after the last one.
    pub every: bool,
}

#[derive(Debug)]
pub(super) struct Direction {
    /// Of the state with its weights.
    pub product: Product,
    pub reverse: bool,
}

impl Recurrence {
    /// Numbers that a run needs for one row beside what it reads and leaves: a state, a cell or the state after a step, and
    /// their products where they are not made in one pass; and bytes for a state, if those are multiplied. It stays f32 where it is
    /// remembered.
    pub(super) fn work(&self) -> (usize, usize) {
        let Product { weights, .. } = &self.directions[0].product;
        let products = if matches!(weights, Weights::Gru(_)) { 0 } else { self.cell.gates() };
        let is_of_bytes = self.directions[0].product.input().is_some();
        (self.units * (2 + products), if is_of_bytes { self.units } else { 0 })
    }

    /// That are read in all steps together.
    pub(super) fn weight_bytes(&self) -> usize {
        self.directions.iter().map(|direction| direction.product.weights.bytes()).sum::<usize>() * self.time
    }

    /// `xs` is `(rows, time, directions, gates, units)`, `ys` `(rows, time, directions, units)`, or without time.
    pub(super) fn run(
        &self,
        cpu: Cpu<'_>,
        rows: usize,
        xs: &[f32],
        (work, bytes): (&mut [f32], &mut [u8]),
        ys: &mut [f32],
    ) {
        let Self { cell, units, time, .. } = *self;
        let (wide, gates) = (self.directions.len() * units, self.cell.gates() * units);
        let stride = time * self.directions.len() * gates;
        let (mut state, work) = work.split_at_mut(rows * units);
        let (mut memory, products) = work.split_at_mut(rows * units);
        for (index, Direction { product, reverse }) in self.directions.iter().enumerate() {
            state.fill(0.0);
            memory.fill(0.0);
            for step in 0..time {
                let step = if *reverse { time - 1 - step } else { step };
                let inputs = &xs[(step * self.directions.len() + index) * gates..];
                if let Weights::Gru(by) = &product.weights {
                    gru::step(cpu, by, (inputs, stride), step % 2 == 1, state, memory);
                    swap(&mut state, &mut memory);
                    self.leave_step(state, index, step, ys);
                    continue;
                }
                let read = match product.input() {
                    Some(scaling) => {
                        quantise(cpu.isa, state, scaling, &mut bytes[..state.len()]);
                        Values::Bytes { buffer: bytes, len: state.len() }
                    }
                    None => Values::Floats(state),
                };
                product.run(cpu, read, None, &mut [], (&mut *products).into());
                let gates = gates::Step { inputs, stride, recurrent: products };
                match cell {
                    Cell::Rnn => gates::rnn(cpu.isa, gates, units, state),
                    Cell::Gru => gates::gru(cpu.isa, gates, units, state),
                    Cell::Lstm => gates::lstm(cpu.isa, gates, units, memory, state),
                }
                self.leave_step(state, index, step, ys);
            }
            if !self.every {
                leave(state, units, &mut ys[index * units..], wide);
            }
        }
    }

    /// The states after one step, of the direction of this index, where all are left.
    fn leave_step(&self, state: &[f32], index: usize, step: usize, ys: &mut [f32]) {
        let wide = self.directions.len() * self.units;
        if self.every {
            leave(state, self.units, &mut ys[step * wide + index * self.units..], self.time * wide);
        }
    }
}

/// The state of each row, `stride` apart.
fn leave(state: &[f32], units: usize, ys: &mut [f32], stride: usize) {
    for (state, ys) in state.chunks_exact(units).zip(ys.chunks_mut(stride)) {
        ys[..units].copy_from_slice(state);
    }
}
