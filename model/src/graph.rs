//! A network with every shape known: what is trained, served and counted.

use crate::architecture::{Activation, Output, Task};
use crate::ops::Loss;
use std::ops::RangeInclusive;
use thiserror::Error;

#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Without the batch.
    pub input: Vec<usize>,
    /// The first size of the input is that of the longest sequences, and of their time those of nodes: others are shorter.
    pub any_time: bool,
    /// In an order of computation: each reads the input or nodes before it. The last is the output.
    pub nodes: Vec<Node>,
    /// As typed.
    pub output: Output,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    pub op: Op,
    /// One, but several for [`Op::Add`] and [`Op::Concat`], and two for [`Op::Anomaly`].
    pub inputs: Vec<Source>,
    /// Of the output, without the batch.
    pub shape: Vec<usize>,
    pub parameters: Vec<Parameter>,
    /// Floating-point operations for one input; a multiplication with its addition counts as two.
    pub flops: u64,
}

/// Where a node reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The network's input.
    Input,
    /// The output of the node with this index.
    Node(usize),
}

/// Images are `[channels, height, width]`, sequences `[time, features]`; pairs are `(height, width)`.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Conv2d {
        kernel: (usize, usize),
        stride: (usize, usize),
        pad: Pad,
        dilation: (usize, usize),
        /// Channels and filters fall into so many parts.
        groups: usize,
        activation: Activation,
    },
    /// Each channel with a kernel of its own.
    DepthwiseConv2d {
        kernel: (usize, usize),
        stride: (usize, usize),
        pad: Pad,
        activation: Activation,
    },
    /// Along the time of a sequence; `pad` is zeros before and after.
    Conv1d {
        kernel: usize,
        stride: usize,
        pad: (usize, usize),
        dilation: usize,
        activation: Activation,
    },
    /// Along the time.
    MaxPool1d {
        size: usize,
        stride: usize,
        pad: (usize, usize),
    },
    /// Padding is never the greatest.
    MaxPool2d {
        size: (usize, usize),
        stride: (usize, usize),
        pad: Pad,
    },
    /// The mean of what lies inside the image.
    AvgPool2d {
        size: (usize, usize),
        stride: (usize, usize),
        pad: Pad,
    },
    /// The mean of each channel of an image, or of each feature over the time.
    GlobalAvgPool,
    /// The greatest likewise.
    GlobalMaxPool,
    /// The means likewise, then the deviations.
    StatsPool,
    /// Per channel of an image, else per value of the last axis.
    BatchNorm {
        epsilon: f32,
        /// How much of each batch goes into the running statistics.
        momentum: f32,
        activation: Activation,
    },
    /// Over the last axis.
    LayerNorm {
        epsilon: f32,
    },
    Flatten,
    Reshape,
    /// A row of the weights for each whole number of the input; that of `padding` is not learned.
    Embedding {
        padding: usize,
    },
    /// Over the last axis.
    Dense {
        activation: Activation,
    },
    Activation(Activation),
    Dropout {
        rate: f32,
    },
    Recurrent(Recurrent),
    /// The sum of two or more of the same shape.
    Add {
        activation: Activation,
    },
    /// Two or more side by side.
    Concat {
        /// Of the shape without the batch.
        axis: usize,
    },
    /// Each pixel as a square of them.
    Upsample2d {
        factor: usize,
    },
    /// Of what should be the input again, and the input: how likely it is normal, and how likely an anomaly. At a mean square between
    /// both of `threshold`, its only parameter, the two are equal. In training it is left out: what it reads is compared.
    Anomaly,
}

/// A stack of recurrent layers, with PyTorch's parameters and order of gates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recurrent {
    pub cell: Cell,
    /// Of the state.
    pub units: usize,
    pub layers: usize,
    /// Each layer reads the sequence from its end too; both outputs lie side by side.
    pub bidirectional: bool,
    /// Returns the states of all steps, else those after the last one.
    pub return_sequences: bool,
    /// Share of the states between two layers that training sets to zero.
    pub dropout: f32,
    /// Of an rnn.
    pub activation: Activation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Rnn,
    Gru,
    Lstm,
}

impl Cell {
    pub fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }
}

impl Recurrent {
    /// The ends of the names of each direction's parameters: one, or two if it is read from the end too.
    pub fn directions(&self) -> &'static [&'static str] {
        if self.bidirectional { &["", "_reverse"] } else { &[""] }
    }
}

/// Zeros before and after, per axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pad {
    pub top: usize,
    pub bottom: usize,
    pub left: usize,
    pub right: usize,
}

/// A tensor that is learned, named as PyTorch would: `conv2d_1.weight`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub init: Init,
    pub role: Role,
}

impl Parameter {
    /// Whether values are multiplied with it and summed up: what smaller forms of a network store with fewer bits.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() > 1
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Moved by its gradient.
    Weight,
    /// Gathered from what passes: the mean and the variance of a batch norm, the threshold of anomalies.
    Statistic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    Zeros,
    Ones,
    /// Uniform in ±√(6 / (in + out)), as Keras initialises kernels.
    GlorotUniform {
        fan_in: usize,
        fan_out: usize,
    },
    /// Columns at right angles, of length one, as Keras initialises what is multiplied with a state.
    Orthogonal,
    /// Uniform in ±1/20, as Keras initialises embeddings; zero for the word that stands where none is.
    Words {
        padding: usize,
    },
    /// The second of four gates is one, the rest zero: an LSTM begins by remembering.
    ForgetGate,
}

/// A network in which nothing is learned.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("no layer learns anything; training needs at least one with weights, such as dense")]
pub struct Untrainable;

impl Op {
    /// What the layer applies to each of its values at the end.
    pub fn activation(&self) -> Activation {
        match self {
            Op::Conv2d { activation, .. }
            | Op::DepthwiseConv2d { activation, .. }
            | Op::Conv1d { activation, .. }
            | Op::BatchNorm { activation, .. }
            | Op::Dense { activation }
            | Op::Activation(activation)
            | Op::Add { activation } => *activation,
            Op::MaxPool2d { .. }
            | Op::AvgPool2d { .. }
            | Op::MaxPool1d { .. }
            | Op::GlobalAvgPool
            | Op::GlobalMaxPool
            | Op::StatsPool
            | Op::LayerNorm { .. }
            | Op::Flatten
            | Op::Reshape
            | Op::Embedding { .. }
            | Op::Dropout { .. }
            | Op::Recurrent(_)
            | Op::Concat { .. }
            | Op::Upsample2d { .. }
            | Op::Anomaly => Activation::None,
        }
    }
}

impl Node {
    /// The weights that values are multiplied with: none, one, or those of a recurrent layer.
    pub fn matrices(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|parameter| parameter.is_matrix())
    }

    /// Whether it gives a sequence where it reads one, step by step or window by window.
    pub fn keeps_time(&self) -> bool {
        match &self.op {
            Op::GlobalAvgPool | Op::GlobalMaxPool | Op::StatsPool | Op::Flatten | Op::Reshape | Op::Anomaly => false,
            Op::Concat { axis } => *axis > 0,
            Op::Recurrent(recurrent) => recurrent.return_sequences,
            _ => true,
        }
    }

    /// Windows over the time: how many steps one spans, how many are between two, and how many of padding there are.
    pub fn windows(&self) -> Option<(usize, usize, usize)> {
        match self.op {
            Op::Conv1d { kernel, stride, pad, dilation, .. } => {
                Some((dilation * (kernel - 1) + 1, stride, pad.0 + pad.1))
            }
            Op::MaxPool1d { size, stride, pad } => Some((size, stride, pad.0 + pad.1)),
            _ => None,
        }
    }

    /// Steps that it gives of a sequence of so many; none if no window fits.
    pub fn steps_after(&self, steps: usize) -> Option<usize> {
        let Some((reach, stride, padding)) = self.windows() else { return Some(steps) };
        Some((steps + padding).checked_sub(reach)? / stride + 1)
    }

    /// The name of its weights, if it has some.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }
}

impl Graph {
    /// Size of the output's last axis.
    pub fn units(&self) -> usize {
        self.nodes.last().and_then(|node| node.shape.last()).copied().unwrap_or_default()
    }

    /// How many words the input may name, from 0 on, where it names words: all that read it know so many.
    pub fn words(&self) -> Option<usize> {
        let embeddings = self.nodes.iter().filter(|node| matches!(node.op, Op::Embedding { .. }));
        embeddings.filter_map(|node| node.parameters.first()?.shape.first().copied()).min()
    }

    /// How many steps a sequence may have, where that is not said; none where it is, or there is none.
    pub fn lengths(&self) -> Option<RangeInclusive<usize>> {
        let longest = *self.input.first().filter(|_| self.any_time)?;
        let shortest = (1..=longest).find(|steps| self.steps(*steps).is_some())?;
        Some(shortest..=longest)
    }

    /// How many steps each node gives of a sequence of so many, if it gives any; none if a window does not fit.
    pub fn steps(&self, steps: usize) -> Option<Vec<Option<usize>>> {
        let mut after: Vec<Option<usize>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let read = match node.inputs.first() {
                Some(Source::Node(index)) => after[*index],
                _ => Some(steps),
            };
            after.push(match read.filter(|_| node.keeps_time()) {
                Some(steps) => Some(node.steps_after(steps)?),
                None => None,
            });
        }
        Some(after)
    }

    pub fn flops(&self) -> u64 {
        self.nodes.iter().fold(0, |flops, node| flops.saturating_add(node.flops))
    }

    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.nodes.iter().flat_map(|node| &node.parameters)
    }

    /// How many numbers are learned.
    pub fn parameter_count(&self) -> usize {
        let learned = self.parameters().filter(|parameter| parameter.role == Role::Weight);
        learned.map(|parameter| parameter.shape.iter().product::<usize>()).sum()
    }

    /// Without the batch.
    pub fn shape(&self, source: Source) -> &[usize] {
        match source {
            Source::Input => &self.input,
            Source::Node(index) => &self.nodes[index].shape,
        }
    }

    /// For each node, the nodes that read it, once for each time that they do.
    pub fn readers(&self) -> Vec<Vec<usize>> {
        let mut readers = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for source in &node.inputs {
                if let Source::Node(read) = source {
                    readers[*read].push(index);
                }
            }
        }
        readers
    }

    /// The node that the head begins with: the last one that multiplies what it reads with weights. What comes before it is the
    /// backbone, which makes of an input what the head judges; all after it belongs to the head. None if no node has such weights, or
    /// what the network says is held against its input.
    pub fn head(&self) -> Option<&str> {
        if self.task() == Task::Anomaly {
            return None;
        }
        self.nodes.iter().rfind(|node| node.matrices().next().is_some()).map(|node| node.name.as_str())
    }

    /// The nodes before this one, in their order: the backbone of the head that begins with it. None if there is no such node.
    pub fn before(&self, head: &str) -> Option<&[Node]> {
        self.nodes.iter().position(|node| node.name == head).map(|head| &self.nodes[..head])
    }

    /// Whether the network ends in a softmax: a classification, whose training works on logits.
    pub fn classifies(&self) -> bool {
        self.last_activation() == Activation::Softmax
    }

    /// What the last layer does to what it computed.
    pub fn last_activation(&self) -> Activation {
        self.nodes.last().map_or(Activation::None, |node| node.op.activation())
    }

    /// What it is for: as typed, or as it ends.
    pub fn task(&self) -> Task {
        self.output.task.unwrap_or_else(|| Task::after(self.last_activation()))
    }

    /// What training makes small.
    pub fn loss(&self) -> Loss {
        self.output.loss.unwrap_or(self.task().losses()[0]).into()
    }

    /// Names of the values of the output's last axis: as typed, or the numbers of classes; none where neither is.
    pub fn labels(&self) -> Vec<String> {
        match &self.output.labels[..] {
            [] if self.task() == Task::Anomaly => ["normal", "anomaly"].map(String::from).into(),
            [] if self.classifies() => (0..self.units()).map(|class| class.to_string()).collect(),
            labels => labels.to_vec(),
        }
    }

    /// What the last layer does to what it computed, if training leaves it to the loss: a softmax, or the sigmoid of a multilabel.
    /// Of another task a sigmoid is a part of what is compared.
    pub fn closing(&self) -> Activation {
        match self.task() {
            Task::Classification | Task::Multilabel => self.last_activation(),
            Task::Regression | Task::Count | Task::Anomaly => Activation::None,
        }
    }

    /// Whether there is something to train: every layer has a gradient that is known to be right.
    ///
    /// # Errors
    /// If no layer has weights.
    pub fn trainable(&self) -> Result<(), Untrainable> {
        let learns = self.parameters().any(|parameter| parameter.role == Role::Weight);
        if learns { Ok(()) } else { Err(Untrainable) }
    }
}
