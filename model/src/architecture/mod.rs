//! The language in which networks are written: a flat list of layers. Text → [`Graph`], pure, without candle.

mod attributes;
mod error;
mod expand;
mod infer;
mod layer;
mod output;
mod time;
mod wire;

pub use attributes::{
    Activation, Add, BatchNorm, Block, Concat, Conv1d, Conv2d, Dense, DepthwiseConv2d, Dropout, Embedding, LayerNorm,
    Padding, Pair, Pool1d, Pool2d, Recurrent, Reshape, Residual, SeparableConv2d, Upsample2d,
};
pub use error::{ArchitectureError, Dims};
pub use layer::{Kind, Layer};
pub use output::{Output, OutputLoss, Task};

use crate::graph::Graph;
use serde::{Deserialize, Serialize};

/// A network as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Architecture {
    pub input: Input,
    pub layers: Vec<Layer>,
    #[serde(default, skip_serializing_if = "is_unsaid")]
    pub output: Output,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// Channels first, without the batch. [`ANY_TIME`] for the time of sequences of any length: `[-1]` or `[-1, features]`.
    pub shape: Vec<i64>,
    /// Steps of the longest sequence, where the time is any.
    #[serde(default = "max_length", skip_serializing_if = "is_max_length")]
    pub max_length: usize,
    #[serde(default, skip_serializing_if = "is_f32")]
    pub dtype: InputType,
}

/// The first of a shape whose sequences may have any number of steps, up to a longest.
pub const ANY_TIME: i64 = -1;

pub(crate) fn max_length() -> usize {
    512
}

fn is_max_length(steps: &usize) -> bool {
    *steps == max_length()
}

fn is_unsaid(output: &Output) -> bool {
    *output == Output::default()
}

fn is_f32(dtype: &InputType) -> bool {
    *dtype == InputType::F32
}

/// What an input is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InputType {
    #[default]
    F32,
    /// Whole numbers, which name words: for an embedding.
    U32,
}

impl Architecture {
    /// Expands and wires the layers and infers every shape.
    ///
    /// # Errors
    /// Names the first layer that does not fit what comes before it, or what is said of the output and does not fit that.
    pub fn graph(&self) -> Result<Graph, ArchitectureError> {
        wire::graph(self).map(|(graph, _)| graph)
    }

    /// The network with other layers in the place of those from node `head` on, and the node that they begin with. A layer that
    /// becomes several nodes is replaced as a whole. What was said of the output was said of the layers that go.
    ///
    /// # Errors
    /// Names the first layer that does not fit; there is none if the network has no such node.
    pub fn with_head(&self, head: &str, layers: &[Layer]) -> Result<Option<(Self, String)>, ArchitectureError> {
        let (graph, origins) = wire::graph(self)?;
        let Some(backbone) = graph.before(head) else { return Ok(None) };
        let kept = origins[backbone.len()];
        let layers = self.layers[..kept].iter().chain(layers).cloned().collect();
        let changed = Self { layers, output: Output::default(), input: self.input.clone() };
        let (graph, origins) = wire::graph(&changed)?;
        let first = origins.iter().position(|origin| *origin >= kept);
        Ok(first.map(|first| (changed, graph.nodes[first].name.clone())))
    }

    /// The layers that the nodes before `head` come from, as typed. There are none if the network has no such node.
    ///
    /// # Errors
    /// As [`Architecture::graph`].
    pub fn before(&self, head: &str) -> Result<Option<&[Layer]>, ArchitectureError> {
        let (graph, origins) = wire::graph(self)?;
        let nodes = graph.before(head).map(<[_]>::len);
        Ok(nodes.map(|nodes| &self.layers[..nodes.checked_sub(1).map_or(0, |last| origins[last] + 1)]))
    }
}

#[cfg(test)]
mod tests;
