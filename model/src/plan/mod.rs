//! A network compiled for the CPU: weights packed once, activations in buffers that are laid out once, layers fused.
//!
//! Images lie channels last (NHWC) inside a plan; at its doors they lie as the graph says, channels first.

mod compile;
mod run;

pub use run::Scratch;

use crate::network::Network;
use crate::ops::lend;
use candle_core::{Device, Result, Tensor};
use sconce_kernels::gates::Function;
use sconce_kernels::pack::Packed;
use sconce_kernels::pool::Pool;
use sconce_kernels::rows::Taps;
use sconce_kernels::{Activation, Cpu, Image, Window};
use std::fmt;

/// How weights are stored. Arithmetic is f32 in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    F32,
    /// Each weight is rounded to the nearest f16: half the memory to read.
    F16,
}

/// Immutable; shared by all that serve the model. What changes during a run is in a [`Scratch`].
#[derive(Debug)]
pub struct Plan {
    /// Without the batch.
    input: Vec<usize>,
    output: Vec<usize>,
    steps: Vec<Step>,
    /// Values of the largest activation of one input.
    largest: usize,
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
    Convolution {
        taps: Taps,
        padding: Vec<f32>,
        product: Product,
    },
    Pool {
        pool: Pool,
        window: Window,
        image: Image,
    },
    Dense(Product),
    /// In place, value by value.
    Relu,
    /// In place, value by value.
    Map(Function),
    /// In place, over rows of so many values.
    Softmax(usize),
}

#[derive(Debug)]
struct Product {
    weights: Packed,
    bias: Option<Vec<f32>>,
    activation: Activation,
}

impl Plan {
    /// Packs the weights of `network` and fuses its layers.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn compile(network: &Network, precision: Precision) -> Result<Self> {
        compile::compile(network, precision)
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
        Scratch::new(self.largest * rows)
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
            Kernel::Convolution { product, .. } => write!(f, "convolution{product}"),
            Kernel::Pool { pool, .. } => write!(f, "{pool:?} pool"),
            Kernel::Dense(product) => write!(f, "product{product}"),
            Kernel::Relu => write!(f, "relu"),
            Kernel::Map(function) => write!(f, "{function:?}"),
            Kernel::Softmax(_) => write!(f, "softmax"),
        }?;
        write!(f, ", {} values", self.values)
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bias = if self.bias.is_some() { " + bias" } else { "" };
        let activation = if self.activation == Activation::Relu { " + relu" } else { "" };
        write!(f, "{bias}{activation}")
    }
}

#[cfg(test)]
mod tests;
