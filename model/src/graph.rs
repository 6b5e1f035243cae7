//! A network with every shape known: what is trained, served and counted.

use crate::architecture::Activation;

#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Without the batch.
    pub input: Vec<usize>,
    /// In the order of computation; each reads the one before it.
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    pub op: Op,
    /// Of the output, without the batch.
    pub shape: Vec<usize>,
    pub parameters: Vec<Parameter>,
    /// Floating-point operations for one input; a multiplication with its addition counts as two.
    pub flops: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Conv2d { kernel: (usize, usize), stride: (usize, usize), pad: Pad, activation: Activation },
    MaxPool2d { size: (usize, usize), stride: (usize, usize) },
    Flatten,
    Dense { activation: Activation },
    Activation(Activation),
    Dropout { rate: f32 },
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    Zeros,
    /// Uniform in ±√(6 / (in + out)), as Keras initialises kernels.
    GlorotUniform {
        fan_in: usize,
        fan_out: usize,
    },
}

impl Node {
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

    pub fn flops(&self) -> u64 {
        self.nodes.iter().map(|node| node.flops).sum()
    }

    pub fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.nodes.iter().flat_map(|node| &node.parameters)
    }

    /// How many numbers are learned.
    pub fn parameter_count(&self) -> usize {
        self.parameters().map(|parameter| parameter.shape.iter().product::<usize>()).sum()
    }

    /// The largest activation of one input, in elements.
    pub fn largest_activation(&self) -> usize {
        self.nodes.iter().map(|node| node.shape.iter().product()).max().unwrap_or_default()
    }

    /// Whether the network ends in a softmax: a classification, whose training works on logits.
    pub fn classifies(&self) -> bool {
        let last = self.nodes.last().map(|node| &node.op);
        matches!(
            last,
            Some(
                Op::Dense { activation: Activation::Softmax }
                    | Op::Conv2d { activation: Activation::Softmax, .. }
                    | Op::Activation(Activation::Softmax)
            )
        )
    }
}
