//! What can be wrong with a description: each error says which layer, what it got, what it needs, and how to mend it.

use thiserror::Error;

/// A shape without the batch, as people write it: `[32, 13, 13]`.
pub type Dims = Vec<usize>;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum ArchitectureError {
    #[error("layers: none; a network has at least one")]
    Empty,
    #[error("layers: {got}; at most {limit}")]
    TooManyLayers { got: usize, limit: usize },
    #[error("layers[{index}] \"{name}\": more than {limit} layers once residual blocks are expanded; repeat them less")]
    TooManyNodes { index: usize, name: String, limit: usize },
    #[error(
        "input.shape: {got:?}; need 1 to 4 sizes of at least 1, channels first, without the batch; the time of [time] or [time, features] may be -1"
    )]
    Input { got: Vec<i64> },
    #[error("input.maxLength: {got}; need 1 to 65,536 steps")]
    MaxLength { got: usize },
    #[error("layers[{index}] \"{name}\": {kind} over time -1; {advice}")]
    OverTime { index: usize, name: String, kind: &'static str, advice: &'static str },
    #[error("layers[{index}] \"{name}\": two layers have this name")]
    Name { index: usize, name: String },
    #[error("layers[{index}] from: no earlier layer \"{got}\"; {advice}")]
    From { index: usize, got: String, advice: String },
    #[error("layers[{index}] from: {kind} reads {need}, got {got}")]
    Sources { index: usize, kind: &'static str, need: &'static str, got: usize },
    #[error("layers[{index}] add: {first:?} and {other:?} differ; stride 2 on one branch?")]
    Add { index: usize, first: Dims, other: Dims },
    #[error("node \"{name}\" is never used; name it in from of a later layer, or leave it out")]
    Unused { name: String },
    #[error("layers[{index}] \"{name}\": {kind} after {got:?}; {advice}")]
    Rank { index: usize, name: String, kind: &'static str, got: Dims, advice: &'static str },
    #[error("layers[{index}] \"{name}\": kernel {}\u{d7}{} does not fit {}\u{d7}{} with padding {padding}", kernel.0, kernel.1, got.0, got.1)]
    Kernel { index: usize, name: String, kernel: (usize, usize), got: (usize, usize), padding: String },
    #[error("layers[{index}] \"{name}\": {field} is {got}; need {need}")]
    Value { index: usize, name: String, field: &'static str, got: String, need: &'static str },
    #[error("layers[{index}] \"{name}\": softmax in the middle; only the last layer may have it")]
    Softmax { index: usize, name: String },
    #[error("layers[{index}] \"{name}\": {what} beyond {limit}; make the layer smaller")]
    TooLarge { index: usize, name: String, what: &'static str, limit: usize },
    #[error("layers[{index}] \"{name}\": groups {groups} does not divide {what} {got}")]
    Groups { index: usize, name: String, groups: usize, what: &'static str, got: usize },
    #[error(
        "layers[{index}] \"{name}\": embedding needs dtype u32, got f32; say dtype: u32 in input, and let it read that"
    )]
    Words { index: usize, name: String },
    #[error("layers[{index}] \"{name}\": {kind} reads words, dtype u32; only an embedding does")]
    Numbers { index: usize, name: String, kind: &'static str },
    #[error("layers[{index}] concat: {first:?} and {other:?} differ in more than axis {axis}")]
    Concat { index: usize, first: Dims, other: Dims, axis: usize },
    #[error("layers[{index}] \"{name}\": reshape from {from:?} to {to:?}; need as many values")]
    Reshape { index: usize, name: String, from: Dims, to: Dims },
    #[error("output: {units} units, {labels} labels")]
    Labels { units: usize, labels: usize },
    #[error("output.{field}: {got}; need {need}")]
    Output { field: String, got: String, need: String },
}
