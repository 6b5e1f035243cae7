//! Steps over two buffers: each step reads one and fills the other, or works in place.

use super::{Kernel, Plan, Product, Weights};
use sconce_kernels::rows::Rows;
use sconce_kernels::{Cpu, Epilogue, gates, gemm, pool, quantise};

/// Buffers of one runner. Made once, used for every batch.
#[derive(Debug)]
pub struct Scratch {
    front: Vec<f32>,
    back: Vec<f32>,
    /// What a product of bytes reads.
    bytes: Vec<u8>,
}

impl Scratch {
    pub(super) fn new(values: usize, bytes: usize) -> Self {
        Self { front: vec![0.0; values], back: vec![0.0; values], bytes: vec![0; bytes] }
    }

    /// Takes the rows of an input, behind the `filled` values that are there; returns how many there are now.
    pub(super) fn fill(&mut self, filled: usize, xs: &[f32]) -> usize {
        let end = filled + xs.len();
        self.front[filled..end].copy_from_slice(xs);
        end
    }
}

/// Runs on the first `values` of `scratch`, which are whole rows; returns the outputs.
pub(super) fn run<'a>(plan: &Plan, cpu: Cpu<'_>, values: usize, scratch: &'a mut Scratch) -> &'a [f32] {
    let Scratch { front, back, bytes } = scratch;
    let rows = values / plan.input.iter().product::<usize>();
    let mut values = values;
    for step in &plan.steps {
        let (xs, ys) = (&mut front[..values], &mut back[..rows * step.values]);
        values = ys.len();
        match &step.kernel {
            Kernel::Clamp(most) => {
                // Not `max` and `min`, which would hide a NaN.
                xs.iter_mut().for_each(|x| *x = x.clamp(0.0, *most));
                continue;
            }
            Kernel::Map(function) => {
                gates::map(cpu.isa, *function, xs);
                continue;
            }
            Kernel::Softmax(width) => {
                gates::softmax(cpu.isa, *width, xs);
                continue;
            }
            Kernel::ChannelsLast(image) => transpose(image.channels, image.height * image.width, xs, ys),
            Kernel::ChannelsFirst(image) => transpose(image.height * image.width, image.channels, xs, ys),
            Kernel::Product(product) => product.run(cpu, xs, bytes, ys),
            Kernel::Pool { pool, window, image } => pool::pool(cpu, *pool, window, *image, xs, ys),
        }
        std::mem::swap(front, back);
    }
    &front[..values]
}

impl Product {
    fn run(&self, cpu: Cpu<'_>, xs: &[f32], bytes: &mut [u8], ys: &mut [f32]) {
        match &self.weights {
            Weights::Float { packed, padding } => {
                let rows = match &self.taps {
                    Some(taps) => Rows::indirect(xs, taps, padding),
                    None => Rows::dense(xs, packed.depth()),
                };
                gemm::gemm(cpu, rows, packed, self.epilogue(), ys);
            }
            Weights::Bytes { packed, padding, input } => {
                let bytes = &mut bytes[..xs.len()];
                quantise::quantise(cpu.isa, xs, *input, bytes);
                let rows = match &self.taps {
                    Some(taps) => Rows::indirect(bytes, taps, padding),
                    None => Rows::dense(bytes, packed.depth()),
                };
                gemm::gemm_i8(cpu, rows, &[*input], packed, self.epilogue(), ys);
            }
        }
    }

    fn epilogue(&self) -> Epilogue<'_> {
        Epilogue { bias: self.bias.as_deref(), activation: self.activation, residual: None }
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
