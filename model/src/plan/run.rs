//! Steps over a few buffers: each reads some and fills another, or works in place.

use super::buffers::{Layout, Place, Places};
use super::segments::Segment;
use super::{Depthwise, Kernel, Plan, Product, Step, Weights};
use sconce_kernels::depthwise::depthwise;
use sconce_kernels::rows::{AMPLE, Rows};
use sconce_kernels::{Cpu, Epilogue, gates, gemm, pool, quantise};
use std::mem::take;
use std::ops::Range;

/// Buffers of one runner. Made once, used for every batch.
#[derive(Debug)]
pub struct Scratch {
    layout: Layout,
    buffers: Vec<Vec<f32>>,
    /// What a product of bytes reads.
    bytes: Vec<u8>,
}

impl Scratch {
    pub(super) fn new(layout: Layout, bytes: usize) -> Self {
        let buffers = layout.sizes.iter().map(|size| vec![0.0; *size]).collect();
        Self { layout, buffers, bytes: vec![0; bytes + AMPLE] }
    }

    /// Takes the rows of an input, behind the `filled` values that are there; returns how many there are now.
    pub(super) fn fill(&mut self, filled: usize, xs: &[f32]) -> usize {
        let end = filled + xs.len();
        self.buffers[self.layout.input.buffer][filled..end].copy_from_slice(xs);
        end
    }

    #[cfg(test)]
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Runs on the first `values` of `scratch`, which are whole rows; returns the outputs.
pub(super) fn run<'a>(plan: &Plan, cpu: Cpu<'_>, values: usize, scratch: &'a mut Scratch) -> &'a [f32] {
    let Scratch { layout, buffers, bytes } = scratch;
    let rows = values / plan.input.iter().product::<usize>();
    for Segment { steps, group } in &layout.segments {
        for first in (0..rows).step_by(*group) {
            let rows = first..rows.min(first + group);
            for (step, places) in plan.steps[steps.clone()].iter().zip(&layout.steps[steps.clone()]) {
                step.run(cpu, &rows, places, buffers, bytes);
            }
        }
    }
    &buffers[layout.output.buffer][layout.output.of(&(0..rows))]
}

impl Step {
    /// For these rows of the batch.
    fn run(&self, cpu: Cpu<'_>, rows: &Range<usize>, places: &Places, buffers: &mut [Vec<f32>], bytes: &mut [u8]) {
        // What a step writes is taken out meanwhile, so that it can read the others.
        let mut written = take(&mut buffers[places.writes.buffer]);
        let mut work = places.work.map(|work| take(&mut buffers[work.buffer]));
        let ys = &mut written[places.writes.of(rows)];
        let read = |index: usize| {
            let place: Place = places.reads[index];
            &buffers[place.buffer][place.of(rows)]
        };
        let residual = || (self.reads.len() > 1).then(|| read(1));
        if self.kernel.is_in_place() && places.reads[0] != places.writes {
            ys.copy_from_slice(read(0));
        }
        match &self.kernel {
            // Not `max` and `min`, which would hide a NaN.
            Kernel::Clamp(most) => ys.iter_mut().for_each(|y| *y = y.clamp(0.0, *most)),
            Kernel::Map(function) => gates::map(cpu.isa, *function, ys),
            Kernel::Softmax(width) => gates::softmax(cpu.isa, *width, ys),
            Kernel::MultiplyAdd { scale, shift } => {
                for ys in ys.chunks_exact_mut(scale.len()) {
                    ys.iter_mut().zip(scale.iter().zip(shift)).for_each(|(y, (scale, shift))| *y = *y * scale + shift);
                }
            }
            Kernel::Add => {
                ys.copy_from_slice(read(0));
                for index in 1..self.reads.len() {
                    ys.iter_mut().zip(read(index)).for_each(|(y, x)| *y += x);
                }
            }
            Kernel::ChannelsLast(image) => transpose(image.channels, image.height * image.width, read(0), ys),
            Kernel::ChannelsFirst(image) => transpose(image.height * image.width, image.channels, read(0), ys),
            Kernel::Product(product) => product.run(cpu, read(0), bytes, residual(), ys),
            Kernel::Depthwise(convolution) => convolution.run(cpu, read(0), residual(), ys),
            Kernel::Pool { pool, window, image } => pool::pool(cpu, *pool, window, *image, read(0), ys),
            Kernel::GlobalAverage(image) => pool::global_average(cpu, *image, read(0), ys),
            Kernel::Recurrence(recurrence) => {
                let work = places.work.iter().zip(&mut work).map(|(place, work)| &mut work[place.of(rows)]).next();
                recurrence.run(cpu, rows.len(), read(0), work.unwrap_or_default(), bytes, ys);
            }
        }
        buffers[places.writes.buffer] = written;
        if let Some((place, work)) = places.work.zip(work) {
            buffers[place.buffer] = work;
        }
    }
}

impl Product {
    pub(super) fn run(&self, cpu: Cpu<'_>, xs: &[f32], bytes: &mut [u8], residual: Option<&[f32]>, ys: &mut [f32]) {
        let epilogue = Epilogue { bias: self.bias.as_deref(), activation: self.activation, residual };
        match &self.weights {
            Weights::Float { packed, padding } => {
                let rows = match &self.taps {
                    Some(taps) => Rows::indirect(xs, taps, padding),
                    None => Rows::dense(xs, packed.depth()),
                };
                gemm::gemm(cpu, rows, packed, epilogue, ys);
            }
            Weights::Bytes { packed, padding, input } => {
                quantise::quantise(cpu.isa, xs, *input, &mut bytes[..xs.len()]);
                let rows = match &self.taps {
                    Some(taps) => Rows::ample(bytes, xs.len(), taps, padding),
                    None => Rows::dense(&bytes[..xs.len()], packed.depth()),
                };
                gemm::gemm_i8(cpu, rows, &[*input], packed, epilogue, ys);
            }
        }
    }
}

impl Depthwise {
    fn run(&self, cpu: Cpu<'_>, xs: &[f32], residual: Option<&[f32]>, ys: &mut [f32]) {
        let epilogue = Epilogue { bias: self.bias.as_deref(), activation: self.activation, residual };
        depthwise(cpu, &self.window, self.image, xs, &self.weights, epilogue, ys);
    }
}

/// Of each `(rows, columns)`.
fn transpose(rows: usize, columns: usize, xs: &[f32], ys: &mut [f32]) {
    for (xs, ys) in xs.chunks_exact(rows * columns).zip(ys.chunks_exact_mut(rows * columns)) {
        for (column, ys) in ys.chunks_exact_mut(rows).enumerate() {
            for (row, y) in ys.iter_mut().enumerate() {
                *y = xs[row * columns + column];
            }
        }
    }
}
