//! What may be said of each kind of layer, with the defaults.

use serde::{Deserialize, Serialize};

/// A size of both axes, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Pair {
    Both(usize),
    Each([usize; 2]),
}

impl Pair {
    pub fn sizes(self) -> (usize, usize) {
        match self {
            Pair::Both(size) => (size, size),
            Pair::Each([height, width]) => (height, width),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Activation {
    #[default]
    None,
    Relu,
    /// At least 0, at most 6.
    Relu6,
    /// A hundredth of what is below 0.
    LeakyRelu,
    /// `x · relu6(x + 3) / 6`.
    HardSwish,
    /// `x · sigmoid(x)`.
    Silu,
    Tanh,
    Sigmoid,
    Softmax,
}

impl Activation {
    /// As it is typed.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::LeakyRelu => "leakyRelu",
            Self::HardSwish => "hardSwish",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
            Self::Softmax => "softmax",
        }
    }
}

/// How the borders of an image are filled: with zeros, and below a maximum with nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Padding {
    #[default]
    Valid,
    /// The output is as large as the input divided by the stride, rounded up; asymmetric as in TensorFlow.
    Same,
    /// Of a conv1d: all of it before the first step, so that no output sees a later one.
    Causal,
    /// So many on each side.
    #[serde(untagged)]
    Zeros(usize),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conv2d {
    pub filters: usize,
    pub kernel: Pair,
    #[serde(default = "one")]
    pub stride: Pair,
    #[serde(default)]
    pub padding: Padding,
    /// How far apart the pixels under the kernel are.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub dilation: Pair,
    /// Channels and filters fall into so many parts, each of which knows nothing of the others; divides both.
    #[serde(default = "single", skip_serializing_if = "is_single")]
    pub groups: usize,
    /// Default: unless a batch norm follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_bias: Option<bool>,
    /// Before the activation.
    #[serde(default, skip_serializing_if = "is_no")]
    pub batch_norm: bool,
    #[serde(default)]
    pub activation: Activation,
}

/// Kernels for each channel on its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DepthwiseConv2d {
    pub kernel: Pair,
    #[serde(default = "one")]
    pub stride: Pair,
    #[serde(default)]
    pub padding: Padding,
    /// Filters for each channel.
    #[serde(default = "single", skip_serializing_if = "is_single")]
    pub multiplier: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_bias: Option<bool>,
    #[serde(default, skip_serializing_if = "is_no")]
    pub batch_norm: bool,
    #[serde(default)]
    pub activation: Activation,
}

/// Along the time of a sequence `[time, features]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conv1d {
    pub filters: usize,
    pub kernel: usize,
    #[serde(default = "single")]
    pub stride: usize,
    #[serde(default)]
    pub padding: Padding,
    #[serde(default = "single", skip_serializing_if = "is_single")]
    pub dilation: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_bias: Option<bool>,
    #[serde(default, skip_serializing_if = "is_no")]
    pub batch_norm: bool,
    #[serde(default)]
    pub activation: Activation,
}

/// A kernel for each channel, then 1×1 over all of them; expands into both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeparableConv2d {
    pub filters: usize,
    pub kernel: Pair,
    #[serde(default = "one")]
    pub stride: Pair,
    #[serde(default)]
    pub padding: Padding,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_bias: Option<bool>,
    #[serde(default, skip_serializing_if = "is_no")]
    pub batch_norm: bool,
    #[serde(default)]
    pub activation: Activation,
}

/// Along the time of a sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool1d {
    #[serde(default = "pair")]
    pub size: usize,
    /// Default: `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    #[serde(default, skip_serializing_if = "is_valid")]
    pub padding: Padding,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool2d {
    #[serde(default = "two")]
    pub size: Pair,
    /// Default: `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<Pair>,
    /// Never the greatest, and not counted in a mean.
    #[serde(default, skip_serializing_if = "is_valid")]
    pub padding: Padding,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f32,
    /// How much of each batch goes into the running statistics, as in PyTorch.
    pub momentum: f32,
}

impl Default for BatchNorm {
    fn default() -> Self {
        Self { eps: 1e-5, momentum: 0.1 }
    }
}

/// Over the features, row by row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
}

impl Default for LayerNorm {
    fn default() -> Self {
        Self { eps: 1e-5 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reshape {
    /// As many values as before.
    pub shape: Vec<usize>,
}

/// A learned row for each word of a vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Embedding {
    pub vocabulary: usize,
    pub dimension: usize,
    /// Stands where there is no word; its row stays zero.
    #[serde(default)]
    pub padding_id: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Concat {
    /// Of the shape without the batch.
    #[serde(default)]
    pub axis: usize,
}

/// Each pixel becomes a square of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Upsample2d {
    pub factor: usize,
}

impl Default for Upsample2d {
    fn default() -> Self {
        Self { factor: 2 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dense {
    pub units: usize,
    #[serde(default = "yes")]
    pub use_bias: bool,
    #[serde(default)]
    pub activation: Activation,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dropout {
    /// Share of activations that training sets to zero, in `[0, 1)`.
    pub rate: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recurrent {
    pub units: usize,
    #[serde(default = "single")]
    pub layers: usize,
    #[serde(default)]
    pub bidirectional: bool,
    /// The states of all steps, else those after the last one.
    #[serde(default)]
    pub return_sequences: bool,
    /// Share of the states between two layers that training sets to zero.
    #[serde(default, skip_serializing_if = "is_none")]
    pub dropout: f32,
    /// Of an rnn: tanh (if not said), sigmoid or relu.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Add {
    #[serde(default)]
    pub activation: Activation,
}

/// Blocks with a way around them; expands into convolutions with batch norms, and sums.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Residual {
    /// Channels that come out.
    pub filters: usize,
    /// Of the first block.
    #[serde(default = "single")]
    pub stride: usize,
    #[serde(default = "single")]
    pub repeat: usize,
    #[serde(default)]
    pub block: Block,
    /// Of an inverted block: how many times the channels are widened inside; 6 if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Block {
    /// Two convolutions of 3×3, as in ResNet-18.
    #[default]
    Basic,
    /// 1×1 to a quarter of the filters, 3×3, 1×1 back, as in ResNet-50.
    Bottleneck,
    /// 1×1 to more channels, depthwise 3×3, 1×1 to the filters, as in MobileNetV2.
    Inverted,
}

fn single() -> usize {
    1
}

fn is_single(count: &usize) -> bool {
    *count == 1
}

fn one() -> Pair {
    Pair::Both(1)
}

fn is_one(pair: &Pair) -> bool {
    pair.sizes() == (1, 1)
}

fn is_none(share: &f32) -> bool {
    *share == 0.0
}

fn pair() -> usize {
    2
}

fn two() -> Pair {
    Pair::Both(2)
}

fn yes() -> bool {
    true
}

fn is_no(said: &bool) -> bool {
    !said
}

fn is_valid(padding: &Padding) -> bool {
    *padding == Padding::Valid
}
