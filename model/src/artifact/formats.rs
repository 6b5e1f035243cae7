//! The JSON files of an artifact.

use crate::drift::Reference;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `config.json`: what a version is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    pub schema: u32,
    /// The word of a [`crate::architecture::Task`].
    pub task: String,
    /// One per class, or per value that has a name, in the order of the output.
    pub labels: Vec<String>,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// As typed: read strictly by whoever builds the network.
    pub architecture: serde_json::Value,
    /// The node that the head begins with: what comes before it can be what another version has, byte for byte. Artifacts whose
    /// variants are one file each do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
}

/// A tensor on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    pub name: String,
    /// As the Open Inference Protocol writes it: `FP32`.
    pub datatype: String,
    /// With the batch, -1, in front.
    pub shape: Vec<i64>,
}

/// `variants.json`: the forms that a version comes in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Variants {
    pub schema: u32,
    pub variants: Vec<VariantEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantEntry {
    pub name: String,
    /// `f32`, `f16` or `i8-exact`.
    pub arithmetic: String,
    /// Of a variant that is a network of its own, as typed: it reads and says what the version's does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<serde_json::Value>,
    /// Paths in the artifact.
    pub files: Vec<String>,
    /// Of its files.
    pub bytes: u64,
    /// That serving takes for weights and activations.
    pub memory_bytes: u64,
    /// Of which each row of a batch takes so much; it is reckoned with 16 of them. Artifacts of before do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_bytes: Option<u64>,
    /// Floating-point operations for one input.
    pub flops: u64,
    /// Of products that are computed with bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<QuantisationEntry>,
    /// What it said of held-out samples: who serves it holds what it says there against that. Artifacts of before do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantisationEntry {
    /// `symmetricPerChannel`: the scales lie beside the weights.
    pub weights: String,
    /// What the input of a product becomes, by the node's name.
    pub activations: BTreeMap<String, ScalingEntry>,
}

/// A byte stands for `scale * (byte - zeroPoint)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingEntry {
    pub scale: f32,
    pub zero_point: u8,
}

/// `evaluation.json`: what the variants can do, on samples that training has not seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    pub schema: u32,
    pub dataset: DataSet,
    /// How often the test split was read: once.
    pub test_reads: u32,
    pub variants: BTreeMap<String, Result>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSet {
    pub name: String,
    pub digest: String,
    /// Samples in the test split.
    pub n: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Result {
    /// By which arithmetic it was measured: the one that serves. Artifacts of before there were several do not say it.
    #[serde(default)]
    pub path: String,
    /// `accuracy`: the share of samples of which all is said right. `r2`, of amounts: the share of their variance that is explained, the
    /// mean over the values of the output.
    pub metric: String,
    pub value: f64,
    /// Of a share Wilson's interval; of `r2` 1.96 standard errors to either side.
    pub wilson95: (f64, f64),
    /// How far confidence is from the share of right answers, in the mean over bins of confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ece: Option<f64>,
    /// `confusion[label][answer]` counts samples; none where they have no class.
    pub confusion: Vec<Vec<u64>>,
    /// Of each label, where each is said on its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub f1: Vec<f64>,
    /// Of each value of the output, where they are amounts, and in these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean_absolute_error: Vec<f64>,
    /// Beside the variant that training made, on the same samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired: Option<Paired>,
}

/// What compression spoilt, and what it mended by chance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paired {
    /// The other variant.
    pub against: String,
    pub right_to_wrong: u64,
    pub wrong_to_right: u64,
    /// With 95 % confidence the share of right answers fell by no more than this.
    pub drop_upper95: f64,
}
