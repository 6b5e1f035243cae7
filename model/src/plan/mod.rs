//! A network compiled for the CPU: weights packed once, activations in buffers that are laid out once, layers fused.
//!
//! Images lie channels last (NHWC) inside a plan; at its doors they lie as the graph says, channels first.

mod buffers;
mod compile;
mod fuse;
mod recurrent;
mod run;
mod segments;
mod weights;

pub use run::Scratch;

use crate::network::Network;
use crate::ops::lend;
use crate::variant::Arithmetic;
use buffers::{Layout, Span};
use candle_core::{Device, Result, Tensor};
use recurrent::Recurrence;
use sconce_kernels::cache;
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
    /// What is read first, and what is there after all steps.
    ends: [Span; 2],
    /// Values of the largest activation that becomes bytes.
    largest_in_bytes: usize,
}

/// One pass over the activations.
#[derive(Debug)]
pub struct Step {
    /// The graph's nodes that it does, such as `conv2d_1`.
    pub nodes: Vec<String>,
    kernel: Kernel,
    /// What it reads, the residual of a product last.
    reads: Vec<Span>,
    writes: Span,
    /// What it needs beside.
    work: Span,
}

#[derive(Debug)]
enum Kernel {
    /// From channels first to channels last.
    ChannelsLast(Image),
    /// From channels last to channels first.
    ChannelsFirst(Image),
    Product(Product),
    Depthwise(Depthwise),
    Recurrence(Recurrence),
    Pool {
        pool: Pool,
        window: Window,
        image: Image,
    },
    GlobalAverage(Image),
    /// Of all that it reads.
    Add,
    /// In place, over rows of as many values.
    MultiplyAdd {
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    /// In place: at least zero, at most so much.
    Clamp(f32),
    /// In place, value by value.
    Map(Function),
    /// In place, over rows of so many values.
    Softmax(usize),
}

impl Kernel {
    /// Values for one input that it needs beside what it reads and writes.
    fn work(&self) -> usize {
        if let Self::Recurrence(recurrence) = self { recurrence.work() } else { 0 }
    }

    fn is_in_place(&self) -> bool {
        matches!(self, Self::MultiplyAdd { .. } | Self::Clamp(_) | Self::Map(_) | Self::Softmax(_))
    }
}

#[derive(Debug)]
struct Product {
    /// From where a convolution takes its rows; a dense layer has them as they lie.
    taps: Option<Taps>,
    weights: Weights,
    bias: Option<Vec<f32>>,
    activation: Activation,
}

/// Always f32: there is too little of it to gain by less.
#[derive(Debug)]
struct Depthwise {
    window: Window,
    image: Image,
    /// `(kernel height, kernel width, channels)`.
    weights: Vec<f32>,
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

    /// Buffers for batches of up to `rows`, which go through in groups that this CPU's second-level cache holds.
    pub fn scratch(&self, rows: usize) -> Scratch {
        self.scratch_for(rows, cache::second_level())
    }

    fn scratch_for(&self, rows: usize, cache: usize) -> Scratch {
        let segments = segments::split(&self.steps, self.ends[1], rows, cache);
        Scratch::new(Layout::new(&self.steps, self.ends, rows, segments), self.largest_in_bytes * rows)
    }

    /// Bytes of a [`Scratch`] for one row; for more on any CPU about so many times as much, or less.
    pub fn scratch_bytes(&self) -> usize {
        let layout = Layout::new(&self.steps, self.ends, 1, segments::alone(0..self.steps.len(), 1));
        layout.sizes.iter().sum::<usize>() * size_of::<f32>() + self.largest_in_bytes
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

impl Step {
    /// Values that it makes bytes of at once, for one input.
    fn in_bytes(&self) -> usize {
        match &self.kernel {
            Kernel::Product(product) if product.is_of_bytes() => self.reads[0].values,
            Kernel::Recurrence(recurrence) if recurrence.is_of_bytes() => recurrence.units,
            _ => 0,
        }
    }
}

impl Step {
    /// Bytes of weights that it reads, each time.
    fn weight_bytes(&self) -> usize {
        match &self.kernel {
            Kernel::Product(product) => product.weights.bytes(),
            Kernel::Depthwise(convolution) => size_of_val(&convolution.weights[..]),
            Kernel::Recurrence(recurrence) => recurrence.weight_bytes(),
            _ => 0,
        }
    }
}

impl Weights {
    fn bytes(&self) -> usize {
        match self {
            Self::Float { packed, .. } => packed.bytes(),
            Self::Bytes { packed, .. } => packed.bytes(),
        }
    }
}

impl Product {
    fn is_of_bytes(&self) -> bool {
        matches!(self.weights, Weights::Bytes { .. })
    }

    fn outputs(&self) -> usize {
        match &self.weights {
            Weights::Float { packed, .. } => packed.outputs(),
            Weights::Bytes { packed, .. } => packed.outputs(),
        }
    }
}

impl fmt::Display for Step {
    /// Such as `conv2d_1 + conv2d_1_bn: convolution + bias + relu, 21632 values`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.nodes.join(" + "))?;
        let residual = if self.reads.len() > 1 { " + residual" } else { "" };
        match &self.kernel {
            Kernel::ChannelsLast(_) => write!(f, "channels last"),
            Kernel::ChannelsFirst(_) => write!(f, "channels first"),
            Kernel::Product(product) => {
                write!(f, "{product}{}{residual}{}", bias(&product.bias), activation(product.activation))
            }
            Kernel::Depthwise(convolution) => write!(
                f,
                "depthwise convolution{}{residual}{}",
                bias(&convolution.bias),
                activation(convolution.activation)
            ),
            Kernel::Recurrence(recurrence) => write!(f, "{recurrence}"),
            Kernel::Pool { pool, .. } => write!(f, "{pool:?} pool"),
            Kernel::GlobalAverage(_) => write!(f, "global average"),
            Kernel::Add => write!(f, "sum of {}", self.reads.len()),
            Kernel::MultiplyAdd { .. } => write!(f, "multiply-add"),
            Kernel::Clamp(most) if most.is_finite() => write!(f, "relu{most}"),
            Kernel::Clamp(_) => write!(f, "relu"),
            Kernel::Map(function) => write!(f, "{function:?}"),
            Kernel::Softmax(_) => write!(f, "softmax"),
        }?;
        write!(f, ", {} values", self.writes.values)
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.taps.is_some() { "convolution" } else { "product" };
        write!(f, "{what}{}", self.weights)
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Weights::Float { packed, .. } if packed.is_f16() => " of f16",
            Weights::Float { .. } => "",
            Weights::Bytes { .. } => " of int8",
        })
    }
}

impl fmt::Display for Recurrence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = if self.directions.len() > 1 { " both ways" } else { "" };
        let weights = &self.directions[0].product.weights;
        write!(f, "{} steps of {:?}{weights}{both}", self.time, self.cell)
    }
}

fn bias(bias: &Option<Vec<f32>>) -> &'static str {
    if bias.is_some() { " + bias" } else { "" }
}

fn activation(activation: Activation) -> &'static str {
    match activation {
        Activation::None => "",
        Activation::Relu => " + relu",
        Activation::Relu6 => " + relu6",
    }
}

#[cfg(test)]
mod tests;
