//! `EdgePlacement`: the decision for one model at one site, with its reasons in numbers.

use crate::amounts::*;
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
    shortname = "epl",
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
    printcolumn(name = "Observed", type_ = "string", json_path = ".status.observed.p99"),
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
    /// The EdgeModel, in the same namespace. Immutable.
    pub model_ref: NameRef,
    /// The EdgeSite. Immutable.
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
    /// The model's override that applies at the site.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub overridden_by: Option<String>,
    /// What a client at the site is predicted to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Prediction>,
    /// What clients of the site's routers waited for answers of the decided tier: the worst node's quantiles, all nodes' requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Waited>,
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
    /// Ready, Placed, Serving, WithinBudget; Reconciling only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Edge or Cloud.
    pub tier: Tier,
    /// The edge node; empty for the cloud pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 253)))]
    pub nodes: Vec<String>,
    /// Form of the version that serves, such as f32.
    #[schemars(length(max = 63))]
    pub variant: String,
    /// Pods of the site; of a cloud placement 1, since the pool is shared.
    pub replicas: i64,
    /// Outcome, such as ChosenAtEdge or BestEffort.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// When the model came to this place, in this variant.
    pub since: Time,
    /// Where it was before. It does not go back there within four times the fleet's `settle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<LeftPlace>,
    /// A place that is better by the fleet's `minGain` or more; the model moves there once that has lasted for `settle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub better: Option<BetterPlace>,
}

/// A place that a model has left.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftPlace {
    /// Edge or Cloud.
    pub tier: Tier,
    /// The edge node; absent for the cloud pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Form of the version that served there.
    #[schemars(length(max = 63))]
    pub variant: String,
}

/// A place that would be better.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BetterPlace {
    /// TIER/VARIANT on NODE.
    #[schemars(length(max = 320))]
    pub candidate: String,
    /// Since when there has been a better place.
    pub since: Time,
}

/// What a client at the site is predicted to wait: the four terms, their p99 together, and their bound.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    /// Round trip between the router and the place.
    pub link: Term,
    /// Sending the bytes of request and answer.
    pub transfer: Term,
    /// Waiting behind other requests.
    pub queue: Term,
    /// Computing the answer.
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
    /// Median.
    pub p50: DurationText,
    /// 99th percentile.
    pub p99: DurationText,
    /// Whether it was measured, estimated or assumed.
    pub basis: Basis,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Edge or Cloud.
    pub tier: Tier,
    /// IP address of a pod, or of the cloud pool's Service.
    #[schemars(length(max = 63))]
    pub address: String,
    /// Port of the inference protocol.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// TIER/VARIANT on NODE.
    #[schemars(length(max = 320))]
    pub candidate: String,
    /// One word of the table of reasons.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// The same with its numbers.
    #[schemars(length(max = 256))]
    pub message: String,
}
