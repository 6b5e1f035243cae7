//! `EdgePlacement`: the decision for one model at one site, with its reasons in numbers.

use crate::common::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The decision for one model at one site. Written by the operator.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sconce.dev",
    version = "v1alpha1",
    kind = "EdgePlacement",
    plural = "edgeplacements",
    namespaced,
    status = "EdgePlacementStatus",
    derive = "PartialEq",
    shortname = "ep",
    category = "sconce",
    doc = "Where one model runs for one site, and why. Written by the operator: edit the EdgeModel.",
    selectable = ".spec.siteRef.name",
    selectable = ".spec.modelRef.name",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelRef.name"),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.siteRef.name"),
    printcolumn(name = "Tier", type_ = "string", json_path = ".status.decision.tier"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.decision.nodes[0]"),
    printcolumn(name = "Variant", type_ = "string", json_path = ".status.decision.variant"),
    printcolumn(name = "P99", type_ = "string", json_path = ".status.predicted.p99"),
    printcolumn(name = "Bound", type_ = "string", json_path = ".status.predicted.bound"),
    printcolumn(name = "Budget", type_ = "string", json_path = ".status.budget"),
    printcolumn(name = "Basis", type_ = "string", json_path = ".status.predicted.basis"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Placed\")].reason"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Placed\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.siteRef.name == oldSelf.siteRef.name && self.modelRef.name == oldSelf.modelRef.name").message("modelRef and siteRef are immutable").reason(Reason::FieldValueForbidden))]
pub struct EdgePlacementSpec {
    pub model_ref: NameRef,
    pub site_ref: NameRef,
    /// The version that the site runs.
    pub version_ref: NameRef,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgePlacementStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the model runs for the site; absent = nowhere, the condition Placed says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The budget that the decision was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<DurationText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Prediction>,
    /// Cost of the decision in points per hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Amount>,
    /// Where routers send requests, in order of preference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub endpoints: Vec<Endpoint>,
    /// Places that were not chosen, the best first, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub rejected: Vec<Rejection>,
    /// Ready, Placed, Serving; Reconciling only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    pub tier: Tier,
    /// The edge node; empty for the cloud pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub nodes: Vec<String>,
    pub variant: String,
    pub replicas: i64,
    /// Outcome, such as ChosenAtEdge or BestEffort.
    pub reason: String,
    pub since: Time,
}

/// What a client at the site is predicted to wait: the four terms, their p99 together, and their bound.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    pub link: Term,
    pub transfer: Term,
    pub queue: Term,
    pub compute: Term,
    /// Sum of medians plus the root of the squared tails.
    pub p99: DurationText,
    /// Sum of the terms' p99: no client in a hundred should wait longer.
    pub bound: DurationText,
    /// The least trusted basis of the four.
    pub basis: Basis,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Term {
    pub p50: DurationText,
    pub p99: DurationText,
    pub basis: Basis,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub tier: Tier,
    /// IP address of a pod, or of the cloud pool's Service.
    #[schemars(length(max = 63))]
    pub address: String,
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// TIER/VARIANT on NODE.
    #[schemars(length(max = 320))]
    pub candidate: String,
    pub reason: String,
    #[schemars(length(max = 256))]
    pub message: String,
}
