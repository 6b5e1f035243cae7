//! The language in which networks are written: a flat list of layers. Text → [`Graph`], pure, without candle.

mod error;
mod infer;
mod layer;

pub use error::{ArchitectureError, Dims};
pub use layer::{Activation, Conv2d, Dense, Dropout, Kind, Layer, MaxPool2d, Padding, Pair};

use crate::graph::Graph;
use serde::{Deserialize, Serialize};

/// A network as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Architecture {
    pub input: Input,
    pub layers: Vec<Layer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// Channels first, without the batch.
    pub shape: Dims,
}

impl Architecture {
    /// Wires the layers and infers every shape.
    ///
    /// # Errors
    /// Names the first layer that does not fit what comes before it.
    pub fn graph(&self) -> Result<Graph, ArchitectureError> {
        infer::graph(self)
    }
}
