//! `EdgeModelVersion`: what one immutable artifact is.

use crate::amounts::*;
use crate::common::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One version of a model, named by the digest of its artifact. Written by the operator.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sconce.dev",
    version = "v1alpha1",
    kind = "EdgeModelVersion",
    plural = "edgemodelversions",
    namespaced,
    status = "EdgeModelVersionStatus",
    derive = "PartialEq",
    shortname = "emv",
    category = "sconce",
    doc = "One immutable version of a model. Written by the operator: edit the EdgeModel.",
    selectable = ".spec.modelRef.name",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelRef.name"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".spec.digest"),
    printcolumn(name = "Accuracy", type_ = "string", json_path = ".status.variants[0].accuracy"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.digest == oldSelf.digest && self.modelRef.name == oldSelf.modelRef.name").message("a version is immutable").reason(Reason::FieldValueForbidden))]
pub struct EdgeModelVersionSpec {
    /// The EdgeModel, in the same namespace. Immutable.
    pub model_ref: NameRef,
    /// The artifact by digest: oci://HOST/REPOSITORY@sha256:…
    #[schemars(length(max = 640))]
    pub uri: String,
    /// Digest of the artifact's manifest. Immutable.
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[a-f0-9]{64}$"))]
    pub digest: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeModelVersionStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactFacts>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub variants: Vec<VariantFacts>,
    /// How fast the variants are on nodes of a hardware class: medians over at least three nodes that measured them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 96))]
    pub profiles: Vec<ClassProfile>,
    /// Ready; Stalled only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactFacts {
    /// Kinds of the network's layers, such as conv2d,maxPool2d,flatten,dense,dense.
    #[schemars(length(max = 512))]
    pub architecture: String,
    #[schemars(length(max = 16))]
    pub inputs: Vec<TensorFacts>,
    #[schemars(length(max = 16))]
    pub outputs: Vec<TensorFacts>,
    /// Bytes of one request and of its answer, from the tensors' shapes and the protocol's overhead.
    pub request_bytes: i64,
    pub response_bytes: i64,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TensorFacts {
    #[schemars(length(max = 63))]
    pub name: String,
    #[schemars(length(max = 16))]
    pub datatype: String,
    #[schemars(length(max = 8))]
    pub shape: Vec<i64>,
}

/// One form of the version.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VariantFacts {
    #[schemars(length(max = 63))]
    pub name: String,
    /// Bytes of its files.
    pub bytes: i64,
    /// Bytes of memory that serving it takes, in batches of 16.
    pub memory: i64,
    /// Bytes of `memory` that each row of a batch takes; absent = not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<i64>,
    /// Floating-point operations for one input.
    pub flops: i64,
    /// What `accuracy` measures; absent = never evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub metric: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Percent>,
    /// 95 % interval of `accuracy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<AccuracyInterval>,
    /// Held-out answers that its answers are held against where it serves; absent = whether it drifts cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<i64>,
    /// Held-out samples that `accuracy` was measured on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<i64>,
}

/// How long one variant takes on the nodes of a class.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClassProfile {
    #[schemars(length(max = 63))]
    pub variant: String,
    /// As in EdgeNode.status.hardware.class.
    #[schemars(length(max = 63))]
    pub class: String,
    /// That one batch is computed with.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: i64,
    /// Measured: an estimate is made where it is needed, and not written.
    pub basis: Basis,
    /// How many nodes measured it, rounded to two digits.
    #[schemars(range(min = 3))]
    pub nodes: i64,
    /// By size, ascending.
    #[schemars(length(min = 1, max = 6))]
    pub batches: Vec<BatchTime>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccuracyInterval {
    pub low: Percent,
    pub high: Percent,
}
