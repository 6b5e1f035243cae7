//! A network compiled for the CPU: weights packed once, activations in buffers that are laid out once, layers fused.
//!
//! Images lie channels last (NHWC) inside a plan; at its doors they lie as the graph says, channels first.

mod buffers;
mod compile;
mod fallback;
mod fuse;
mod recurrent;
mod run;
mod segments;
mod time;
mod weights;

pub(crate) use compile::has_no_kernel;
pub use run::Scratch;

use crate::architecture;
use crate::graph::Cell;
use crate::network::Network;
use crate::variant::Arithmetic;
use buffers::{Layout, Pair, Span};
use candle_core::{Device, Result, Tensor};
use fallback::Fallback;
use recurrent::Recurrence;
use sconce_kernels::cache;
use sconce_kernels::conv_depthwise::Expanded;
use sconce_kernels::conv_pool::Pooled;
use sconce_kernels::depthwise::DepthwiseI8;
use sconce_kernels::gates::Function;
use sconce_kernels::gru::Gru;
use sconce_kernels::pack::{Packed, PackedI8};
use sconce_kernels::pool::Pool;
use sconce_kernels::quantise::Scaling;
use sconce_kernels::rows::Taps;
use sconce_kernels::winograd::Winograd;
use sconce_kernels::{Activation, Aligned, Cpu, Image, Window};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Immutable; shared by all that serve the model. What changes during a run is in a [`Scratch`].
#[derive(Debug)]
pub struct Plan {
    /// Without the batch.
    input: Vec<usize>,
    output: Vec<usize>,
    /// Steps that a sequence may have; those of `input` are the most. None if all inputs have as many.
    lengths: Option<RangeInclusive<usize>>,
    steps: Vec<Step>,
    /// What is read first, and what is there after all steps.
    ends: [Span; 2],
}

/// One pass over the activations.
#[derive(Debug)]
pub struct Step {
    /// The graph's nodes that it does, such as `conv2d_1`.
    pub nodes: Vec<String>,
    kernel: Arc<Kernel>,
    /// What it reads, the residual of a product last.
    reads: Vec<Span>,
    writes: Writes,
    /// What it needs beside.
    work: Pair<Span>,
}

/// What a step leaves: what others read as numbers, as bytes, or each as one of them.
#[derive(Clone, Copy, Debug)]
struct Writes {
    floats: Option<Span>,
    bytes: Option<(Span, Scaling)>,
}

impl Writes {
    fn spans(&self) -> impl Iterator<Item = Span> {
        self.floats.into_iter().chain(self.bytes.map(|(span, _)| span))
    }
}

#[derive(Debug)]
enum Kernel {
    /// From channels first to channels last, with so many zeros around: top, left, bottom, right.
    ChannelsLast {
        image: Image,
        padding: [usize; 4],
    },
    /// From channels last to channels first.
    ChannelsFirst(Image),
    Product(Product),
    Depthwise(Depthwise),
    Expansion(Box<Expansion>),
    Recurrence(Recurrence),
    /// From numbers to bytes, where what wrote them could not.
    Quantise(Scaling),
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
    /// In place, value by value, in plain code.
    Activate(architecture::Activation),
    /// In place, over rows of so many values.
    Softmax(usize),
    /// Of two values of a row each, how likely the first is the second again, and how likely not; alike at this mean square.
    Anomaly {
        threshold: f32,
    },
    /// What has no kernel.
    Fallback(Box<Fallback>),
}

impl Kernel {
    /// What it needs for one row beside what it reads and writes.
    fn work(&self) -> Pair<Span> {
        let (floats, bytes) = match self {
            Self::Product(Product { pooled: Some(pooled), .. }) => (pooled.work(), 0),
            Self::Expansion(both) => (both.expanded.work(), 0),
            Self::Product(Product { weights: Weights::Tiles(tiles), .. }) => (tiles.work(1), 0),
            Self::Recurrence(recurrence) => recurrence.work(),
            _ => (0, 0),
        };
        Pair { floats: Span::floats(0, floats), bytes: Span::bytes(0, bytes) }
    }

    /// What the bytes stand for that it reads first.
    fn input(&self) -> Option<Scaling> {
        match self {
            Self::Product(product) => product.input(),
            Self::Depthwise(Depthwise { weights: Kernels::Bytes(weights), .. }) => Some(weights.input()),
            _ => None,
        }
    }

    /// Whether it can leave bytes.
    fn leaves_bytes(&self) -> bool {
        let is_under_window = matches!(self, Self::Pool { .. } | Self::GlobalAverage(_));
        is_under_window || matches!(self, Self::Product(_) | Self::Depthwise(_) | Self::Expansion(_))
    }

    fn is_in_place(&self) -> bool {
        matches!(self, Self::MultiplyAdd { .. } | Self::Clamp(_) | Self::Map(_) | Self::Activate(_) | Self::Softmax(_))
    }
}

#[derive(Debug)]
struct Product {
    /// From where a convolution takes its rows; a dense layer has them as they lie.
    taps: Option<Taps>,
    /// Of a convolution over time, what it slides over: an image of one column.
    over: Option<(Image, Window)>,
    weights: Weights,
    bias: Option<Vec<f32>>,
    activation: Activation,
    /// What a convolution does with its lines before it leaves them.
    pooled: Option<Box<Pooled>>,
}

#[derive(Debug)]
struct Depthwise {
    window: Window,
    image: Image,
    weights: Kernels,
    bias: Option<Vec<f32>>,
    activation: Activation,
}

/// A product of each pixel, and the depthwise convolution that alone reads what it makes.
#[derive(Debug)]
struct Expansion {
    product: Product,
    depthwise: Depthwise,
    expanded: Expanded,
}

/// One for each channel.
#[derive(Debug)]
enum Kernels {
    /// `(kernel height, kernel width, channels)`.
    Floats(Aligned<f32>),
    Bytes(DepthwiseI8),
}

/// With what stands in the padding of a convolution.
#[derive(Clone, Debug)]
enum Weights {
    Float {
        packed: Arc<Packed>,
        padding: Vec<f32>,
    },
    Bytes {
        packed: Arc<PackedI8>,
        padding: Vec<u8>,
        input: Scaling,
    },
    /// Of a convolution that is done in tiles.
    Tiles(Arc<Winograd>),
    /// Of the state of a GRU, with their bias: products and gates are one pass.
    Gru(Arc<Gru>),
}

impl Plan {
    /// Packs the weights of `network` and fuses its layers.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn compile(network: &Network, arithmetic: &Arithmetic) -> Result<Self> {
        compile::compile(network, arithmetic)
    }

    /// Shape of one input, without the batch; of the longest sequence, where [`Plan::lengths`] says that others are shorter.
    pub fn input(&self) -> &[usize] {
        &self.input
    }

    /// Shape of one output, without the batch.
    pub fn output(&self) -> &[usize] {
        &self.output
    }

    /// How many steps a sequence may have; none if that is no choice.
    pub fn lengths(&self) -> Option<RangeInclusive<usize>> {
        self.lengths.clone()
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Buffers for batches of up to `rows`, which go through in groups that this CPU's second-level cache holds.
    pub fn scratch(&self, rows: usize) -> Scratch {
        self.scratch_for(rows, cache::second_level())
    }

    fn scratch_for(&self, rows: usize, cache: usize) -> Scratch {
        Scratch::new(self, rows, cache)
    }

    fn layout(&self, rows: usize, cache: usize) -> Layout {
        let segments = segments::split(&self.steps, self.ends[1], rows, cache);
        Layout::new(&self.steps, self.ends, rows, segments)
    }

    /// Bytes of a [`Scratch`] for one row; for more on any CPU about so many times as much, or less.
    pub fn scratch_bytes(&self) -> usize {
        Layout::new(&self.steps, self.ends, 1, segments::alone(0..self.steps.len(), 1)).size()
    }

    /// Bytes by which weights are more in memory than in a file: those of tiles are 16 for 9.
    pub fn weight_bytes_beyond_files(&self) -> usize {
        let beyond = |step: &Step| match &*step.kernel {
            Kernel::Product(Product { weights: Weights::Tiles(tiles), .. }) => tiles.bytes() / 16 * 7,
            _ => 0,
        };
        self.steps.iter().map(beyond).sum()
    }

    /// Answers several requests as one batch: each of `xs` is `(rows, ..input)`, its answer `(rows, ..output)`. The same row
    /// gives the same bits in any batch, on any number of threads, on any instruction set. Sequences of different lengths, where
    /// they may differ, go through one length after the other.
    ///
    /// # Errors
    /// If one of `xs` is of another shape or type, or names a word that an embedding does not know.
    ///
    /// # Panics
    /// If `scratch` was made for fewer rows.
    pub fn infer(&self, cpu: Cpu<'_>, xs: &[&Tensor], scratch: &mut Scratch) -> Result<Vec<Tensor>> {
        self.check(xs)?;
        if self.lengths.is_none() {
            return self.alike(cpu, xs, scratch);
        }
        let mut order: Vec<usize> = (0..xs.len()).collect();
        order.sort_by_key(|index| xs[*index].dims()[1]);
        let mut answers: Vec<(usize, Tensor)> = Vec::with_capacity(xs.len());
        for indices in order.chunk_by(|one, other| xs[*one].dims()[1] == xs[*other].dims()[1]) {
            let of_length: Vec<&Tensor> = indices.iter().map(|index| xs[*index]).collect();
            answers.extend(indices.iter().copied().zip(self.alike(cpu, &of_length, scratch)?));
        }
        answers.sort_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Inputs of one length.
    fn alike(&self, cpu: Cpu<'_>, xs: &[&Tensor], scratch: &mut Scratch) -> Result<Vec<Tensor>> {
        let mut ys = run::run(self, cpu, xs, scratch, |_| ())?;
        let answer = |xs: &&Tensor| {
            let shape: Vec<usize> = std::iter::once(xs.dims()[0]).chain(self.output.iter().copied()).collect();
            let (mine, others) = ys.split_at(shape.iter().product());
            ys = others;
            Tensor::from_slice(mine, shape, &Device::Cpu)
        };
        xs.iter().map(answer).collect()
    }

    /// Bytes that say from where convolutions take their rows.
    fn taps_bytes(&self) -> usize {
        let of = |step: &Step| match &*step.kernel {
            Kernel::Product(Product { taps: Some(taps), .. }) => taps.bytes(),
            _ => 0,
        };
        self.steps.iter().map(of).sum()
    }

    /// How long each of the [`Plan::steps`] takes in one run: where the time goes.
    ///
    /// # Errors
    /// As [`Plan::infer`].
    ///
    /// # Panics
    /// As [`Plan::infer`].
    pub fn times(&self, cpu: Cpu<'_>, xs: &Tensor, scratch: &mut Scratch) -> Result<Vec<Duration>> {
        self.check(&[xs])?;
        let (mut times, mut before) = (vec![Duration::ZERO; self.steps.len()], Instant::now());
        run::run(self, cpu, &[xs], scratch, |step| {
            let now = Instant::now();
            times[step] += now - before;
            before = now;
        })?;
        Ok(times)
    }

    /// Whether all are inputs.
    fn check(&self, xs: &[&Tensor]) -> Result<()> {
        for xs in xs {
            let fits = match (xs.dims(), &self.lengths) {
                ([_, time, rest @ ..], Some(lengths)) => lengths.contains(time) && rest == &self.input[1..],
                (dims, _) => dims.get(1..) == Some(&self.input[..]),
            };
            match &self.lengths {
                _ if fits => {}
                None => candle_core::bail!("the plan needs (batch, {:?}), got {:?}", self.input, xs.dims()),
                Some(lengths) => candle_core::bail!(
                    "the plan needs (batch, {:?}) or sequences from {} steps on, got {:?}",
                    self.input,
                    lengths.start(),
                    xs.dims()
                ),
            }
        }
        Ok(())
    }
}

impl Step {
    /// Whether candle computes it, for want of a kernel.
    pub fn falls_back(&self) -> bool {
        matches!(*self.kernel, Kernel::Fallback(_))
    }

    /// Multiplications for one row.
    pub fn multiplications(&self) -> usize {
        let reads = self.reads[0].values;
        match &*self.kernel {
            Kernel::Product(product) => product.multiplications(reads),
            Kernel::Depthwise(convolution) => convolution.multiplications(),
            Kernel::Expansion(both) => both.product.multiplications(reads) + both.depthwise.multiplications(),
            Kernel::Recurrence(Recurrence { time, directions, .. }) => {
                directions.iter().map(|direction| time * direction.product.weights.multiplications()).sum()
            }
            _ => 0,
        }
    }

    /// Bytes of weights that it reads, each time.
    fn weight_bytes(&self) -> usize {
        match &*self.kernel {
            Kernel::Product(product) => product.weights.bytes(),
            Kernel::Depthwise(convolution) => convolution.weight_bytes(),
            Kernel::Expansion(both) => both.product.weights.bytes() + both.depthwise.weight_bytes(),
            Kernel::Recurrence(recurrence) => recurrence.weight_bytes(),
            _ => 0,
        }
    }
}

impl Weights {
    /// In a row of the product.
    fn depth(&self) -> usize {
        match self {
            Self::Float { packed, .. } => packed.depth(),
            Self::Bytes { packed, .. } => packed.depth(),
            Self::Tiles(tiles) => tiles.depth(),
            Self::Gru(gru) => gru.units(),
        }
    }

    /// Of one row.
    fn multiplications(&self) -> usize {
        let outputs = match self {
            Self::Float { packed, .. } => packed.outputs(),
            Self::Bytes { packed, .. } => packed.outputs(),
            Self::Tiles(tiles) => tiles.output().channels,
            Self::Gru(gru) => Cell::Gru.gates() * gru.units(),
        };
        self.depth() * outputs
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Float { packed, .. } => packed.bytes(),
            Self::Bytes { packed, .. } => packed.bytes(),
            Self::Tiles(tiles) => tiles.bytes(),
            Self::Gru(gru) => gru.bytes(),
        }
    }
}

impl Depthwise {
    fn multiplications(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * self.window.output(self.image).len()
    }

    fn weight_bytes(&self) -> usize {
        match &self.weights {
            Kernels::Floats(weights) => size_of_val(&weights[..]),
            Kernels::Bytes(weights) => weights.bytes(),
        }
    }
}

impl Product {
    /// For one row, in which so many values are read.
    fn multiplications(&self, reads: usize) -> usize {
        match (&self.taps, &self.weights) {
            (Some(taps), weights) => taps.rows() * weights.multiplications(),
            // As many as without tiles.
            (None, Weights::Tiles(tiles)) => tiles.depth() * tiles.output().len(),
            (None, weights) => reads / weights.depth() * weights.multiplications(),
        }
    }

    /// What the bytes stand for that it reads.
    fn input(&self) -> Option<Scaling> {
        match &self.weights {
            Weights::Float { .. } | Weights::Tiles(_) | Weights::Gru(_) => None,
            Weights::Bytes { input, .. } => Some(*input),
        }
    }
}

impl fmt::Display for Step {
    /// Such as `conv2d_1 + conv2d_1_bn: convolution + bias + relu, 21632 values`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.nodes.join(" + "))?;
        let residual = if self.reads.len() > 1 { " + residual" } else { "" };
        match &*self.kernel {
            Kernel::ChannelsLast { .. } => write!(f, "channels last"),
            Kernel::ChannelsFirst(_) => write!(f, "channels first"),
            Kernel::Product(product) => {
                let pool = match product.pooled.as_ref().map(|pooled| pooled.pool()) {
                    Some(Pool::Max) => " + max pool",
                    Some(_) => " + average pool",
                    None => "",
                };
                write!(f, "{product}{}{residual}{}{pool}", bias(&product.bias), activation(product.activation))
            }
            Kernel::Depthwise(convolution) => write!(f, "{convolution}{residual}"),
            Kernel::Expansion(both) => {
                let Expansion { product, depthwise, .. } = &**both;
                write!(f, "{product}{}{}, {depthwise}", bias(&product.bias), activation(product.activation))
            }
            Kernel::Recurrence(recurrence) => write!(f, "{recurrence}"),
            Kernel::Pool { pool, .. } => write!(f, "{pool:?} pool"),
            Kernel::GlobalAverage(_) => write!(f, "global average"),
            Kernel::Quantise(_) => write!(f, "quantised"),
            Kernel::Add => write!(f, "sum of {}", self.reads.len()),
            Kernel::MultiplyAdd { .. } => write!(f, "multiply-add"),
            Kernel::Clamp(most) if most.is_finite() => write!(f, "relu{most}"),
            Kernel::Clamp(_) => write!(f, "relu"),
            Kernel::Map(function) => write!(f, "{function:?}"),
            Kernel::Activate(activation) => write!(f, "{activation:?}"),
            Kernel::Fallback(_) => write!(f, "by candle, for want of a kernel"),
            Kernel::Softmax(_) => write!(f, "softmax"),
            Kernel::Anomaly { threshold } => write!(f, "anomaly from {threshold} on"),
        }?;
        match (self.writes.floats, self.writes.bytes) {
            (Some(floats), None) => write!(f, ", {} values", floats.values),
            (Some(floats), Some(_)) => write!(f, ", {} values and bytes", floats.values),
            (None, bytes) => write!(f, ", {} bytes", bytes.map_or(0, |(bytes, _)| bytes.values)),
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_convolution = self.taps.is_some() || matches!(self.weights, Weights::Tiles(_));
        let what = if is_convolution { "convolution" } else { "product" };
        write!(f, "{what}{}", self.weights)
    }
}

impl fmt::Display for Depthwise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if matches!(self.weights, Kernels::Bytes(_)) { " of int8" } else { "" };
        write!(f, "depthwise convolution{of}{}{}", bias(&self.bias), activation(self.activation))
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Weights::Float { packed, .. } if packed.is_f16() => " of f16",
            Weights::Float { .. } => "",
            Weights::Bytes { .. } => " of int8",
            Weights::Tiles(_) => " in tiles",
            Weights::Gru(gru) if gru.is_f16() => " of f16",
            Weights::Gru(_) => "",
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
