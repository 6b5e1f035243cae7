//! A network compiled for the CPU: weights packed once, activations in buffers that are laid out once, layers fused.
//!
//! Images lie channels last (NHWC) inside a plan; at its doors they lie as the graph says, channels first.

mod compile;
mod run;

pub use run::Scratch;

use crate::network::Network;
use crate::ops::lend;
use crate::variant::Arithmetic;
use candle_core::{Device, Result, Tensor};
use sconce_kernels::gates::Function;
use sconce_kernels::pack::{Packed, PackedI8};
use sconce_kernels::pool::Pool;
use sconce_kernels::quantise::Scaling;
use sconce_kernels::rows::Taps;
use sconce_kernels::{Activation, Cpu, Image, Window};
use std::fmt;

/// Immutable; shared by all that serve the model. What changes during a run is in a [`Scratch`].
#[derive(Debug)]
pub struct Plan {
    /// Without the batch.
    input: Vec<usize>,
    output: Vec<usize>,
    steps: Vec<Step>,
    /// Values of the largest activation of one input.
    largest: usize,
    /// Values of the largest activation that becomes bytes.
    largest_in_bytes: usize,
}

/// One pass over the activations.
#[derive(Debug)]
pub struct Step {
    /// The graph's nodes that it does, such as `conv2d_1`.
    pub nodes: Vec<String>,
    kernel: Kernel,
    /// Values that it leaves for one input.
    values: usize,
}

#[derive(Debug)]
enum Kernel {
    /// From channels first to channels last.
    ChannelsLast(Image),
    /// From channels last to channels first.
    ChannelsFirst(Image),
    Product(Product),
    Pool {
        pool: Pool,
        window: Window,
        image: Image,
    },
    /// In place: at least zero, at most so much.
    Clamp(f32),
    /// In place, value by value.
    Map(Function),
    /// In place, over rows of so many values.
    Softmax(usize),
}

#[derive(Debug)]
struct Product {
    /// From where a convolution takes its rows; a dense layer has them as they lie.
    taps: Option<Taps>,
    weights: Weights,
    bias: Option<Vec<f32>>,
    activation: Activation,
}

/// With what stands in the padding of a convolution.
#[derive(Debug)]
enum Weights {
    Float { packed: Packed, padding: Vec<f32> },
    Bytes { packed: PackedI8, padding: Vec<u8>, input: Scaling },
}

impl Plan {
    /// Packs the weights of `network` and fuses its layers.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn compile(network: &Network, arithmetic: &Arithmetic) -> Result<Self> {
        compile::compile(network, arithmetic)
    }

    /// Shape of one input, without the batch.
    pub fn input(&self) -> &[usize] {
        &self.input
    }

    /// Shape of one output, without the batch.
    pub fn output(&self) -> &[usize] {
        &self.output
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Buffers for batches of up to `rows`.
    pub fn scratch(&self, rows: usize) -> Scratch {
        Scratch::new(self.largest * rows, self.largest_in_bytes * rows)
    }

    /// Answers several requests as one batch: each of `xs` is `(rows, ..input)`, its answer `(rows, ..output)`. The same row
    /// gives the same bits in any batch, on any number of threads, on any instruction set.
    ///
    /// # Errors
    /// If one of `xs` is of another shape or type.
    ///
    /// # Panics
    /// If `scratch` was made for fewer rows.
    pub fn infer(&self, cpu: Cpu<'_>, xs: &[&Tensor], scratch: &mut Scratch) -> Result<Vec<Tensor>> {
        let mut values = 0;
        for xs in xs {
            if xs.dims().get(1..) != Some(&self.input[..]) {
                candle_core::bail!("the plan needs (batch, {:?}), got {:?}", self.input, xs.dims());
            }
            values = lend(xs, |xs| Ok(scratch.fill(values, xs)))?;
        }
        let mut ys = run::run(self, cpu, values, scratch);
        let answer = |xs: &&Tensor| {
            let shape: Vec<usize> = std::iter::once(xs.dims()[0]).chain(self.output.iter().copied()).collect();
            let (mine, others) = ys.split_at(shape.iter().product());
            ys = others;
            Tensor::from_slice(mine, shape, &Device::Cpu)
        };
        xs.iter().map(answer).collect()
    }
}

impl fmt::Display for Step {
    /// Such as `conv2d_1: convolution + relu, 676 × 32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.nodes.join(" + "))?;
        match &self.kernel {
            Kernel::ChannelsLast(_) => write!(f, "channels last"),
            Kernel::ChannelsFirst(_) => write!(f, "channels first"),
            Kernel::Product(product) => write!(f, "{product}"),
            Kernel::Pool { pool, .. } => write!(f, "{pool:?} pool"),
            Kernel::Clamp(most) if most.is_finite() => write!(f, "relu{most}"),
            Kernel::Clamp(_) => write!(f, "relu"),
            Kernel::Map(function) => write!(f, "{function:?}"),
            Kernel::Softmax(_) => write!(f, "softmax"),
        }?;
        write!(f, ", {} values", self.values)
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.taps.is_some() { "convolution" } else { "product" };
        let form = match &self.weights {
            Weights::Float { packed, .. } if packed.is_f16() => " of f16",
            Weights::Float { .. } => "",
            Weights::Bytes { .. } => " of int8",
        };
        let bias = if self.bias.is_some() { " + bias" } else { "" };
        let activation = if self.activation == Activation::Relu { " + relu" } else { "" };
        write!(f, "{what}{form}{bias}{activation}")
    }
}

#[cfg(test)]
mod tests;
