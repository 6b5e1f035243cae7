//! `EdgeNode`: what a node's agent has measured. The one place where observations enter the API.

use crate::amounts::*;
use crate::common::*;
use crate::dataset::Collected;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One node's measurements; named as the node. It has no wishes: `spec` is empty.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "sconce.dev",
    version = "v1alpha1",
    kind = "EdgeNode",
    plural = "edgenodes",
    status = "EdgeNodeStatus",
    derive = "PartialEq",
    shortname = "en",
    category = "sconce",
    doc = "What a node's agent has measured. Written by that agent alone.",
    printcolumn(name = "Tier", type_ = "string", json_path = ".metadata.labels.sconce\\.dev/tier"),
    printcolumn(name = "Site", type_ = "string", json_path = ".metadata.labels.sconce\\.dev/site"),
    printcolumn(name = "Class", type_ = "string", json_path = ".status.hardware.class"),
    printcolumn(name = "Cores", type_ = "integer", json_path = ".status.hardware.cores"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.hardware.memory"),
    printcolumn(name = "GFLOPS", type_ = "integer", json_path = ".status.hardware.gflops"),
    printcolumn(name = "Busy", type_ = "string", json_path = ".status.usage.cpuBusyP95"),
    printcolumn(name = "RTT-P99", type_ = "string", json_path = ".status.link.roundTrip.p99"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeNodeSpec {}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeNodeStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// The node's link to the Service sconce-cloud; absent on a node that has not reached it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<NodeLink>,
    /// A call to the server of a model on this node and back, or to the node's router until there is one; what a model adds to it is
    /// its own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_round_trip: Option<RoundTrip>,
    /// What others take of the node: all that is no model of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<NodeUsage>,
    /// How fast the variants of models are here, measured while the node did little else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub profiles: Vec<NodeProfile>,
    /// What clients of the node's router waited in the last five minutes, by model and the tier that answered; the busiest
    /// first, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub models: Vec<ObservedModel>,
    /// What the node's collector has counted, by dataset, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub collect: Vec<Collected>,
    /// Ready; Profiled once there is a model that may run here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// Nodes of one class run a model alike: architecture, best instruction set and cores, such as amd64-avx512vnni-2.
    #[schemars(length(max = 63))]
    pub class: String,
    /// As in kubernetes.io/arch.
    #[schemars(length(max = 16))]
    pub architecture: String,
    /// Instruction sets that matter to inference, such as avx2 or asimddp.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 32)))]
    pub isa: Vec<String>,
    /// Speed of one core: one 512x512x512 product of f32 matrices, timed when the agent starts; two digits.
    #[schemars(range(min = 0))]
    pub gflops: i64,
    #[schemars(length(max = 128))]
    pub cpu_model: String,
    #[schemars(range(min = 0))]
    pub cores: i64,
    pub memory: Amount,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeLink {
    pub round_trip: RoundTrip,
    /// Bits per second that the node sends, two digits, at most 1000M; absent until it is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Amount>,
}

/// What everything else than our models takes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeUsage {
    /// Busy cores, 95th percentile over the last hour, two digits, such as 1100m.
    pub cpu_busy_p95: Amount,
    /// Memory in use, that of our models too, two digits, such as 1200Mi.
    pub memory_used: Amount,
}

/// How long one variant of an artifact takes on this node.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeProfile {
    /// Digest of the artifact's manifest.
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[a-f0-9]{64}$"))]
    pub digest: String,
    #[schemars(length(max = 63))]
    pub variant: String,
    /// That one batch is computed with.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: i64,
    /// By size, ascending.
    #[schemars(length(min = 1, max = 6))]
    pub batches: Vec<BatchTime>,
}

/// What a node's clients waited for one model, as the router saw it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObservedModel {
    #[schemars(length(max = 63))]
    pub namespace: String,
    #[schemars(length(max = 63))]
    pub name: String,
    /// That answered; absent for requests that nobody answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    #[serde(flatten)]
    pub waited: Waited,
    /// Answers of variants that say of late something else than they said of held-out samples.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub drifted: i64,
}
