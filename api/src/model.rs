//! `EdgeModel`: which model, for which sites, and what must hold. Where it runs is not said here.

use crate::amounts::*;
use crate::common::*;
use crate::selector::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A model to be served at the sites of a fleet, on their edge nodes or from the cloud.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sconce.dev",
    version = "v1alpha1",
    kind = "EdgeModel",
    plural = "edgemodels",
    namespaced,
    status = "EdgeModelStatus",
    derive = "PartialEq",
    shortname = "em",
    category = "sconce",
    doc = "A model to be served at the sites of a fleet.",
    selectable = ".spec.fleetRef.name",
    printcolumn(name = "Version", type_ = "string", json_path = ".status.desired.version"),
    printcolumn(name = "Serving", type_ = "string", json_path = ".status.sites.serving"),
    printcolumn(name = "Edge", type_ = "integer", json_path = ".status.sites.edge"),
    printcolumn(name = "Cloud", type_ = "integer", json_path = ".status.sites.cloud"),
    printcolumn(name = "Budget", type_ = "string", json_path = ".spec.latencyBudget"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Fleet", type_ = "string", json_path = ".spec.fleetRef.name", priority = 1),
    printcolumn(name = "Floor", type_ = "string", json_path = ".spec.accuracyFloor", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 40 characters that begins with a letter")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.fleetRef.name == oldSelf.fleetRef.name").message("fleetRef is immutable: make a new EdgeModel").reason(Reason::FieldValueForbidden))]
pub struct EdgeModelSpec {
    /// The fleet whose sites are served. Immutable.
    pub fleet_ref: NameRef,
    /// Leave the model as it is everywhere: no place changes, and no new version is admitted. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// PriorityClass of the model's pods: at a full site the model with the higher value keeps the room. Absent = the cluster's
    /// default, or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub priority_class_name: Option<String>,
    /// Which sites, by the labels of their EdgeSite; absent = all sites of the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<Selector>,
    /// Where the model's artifact is.
    pub model: ModelSource,
    /// What a client at the site may wait, p99, end to end, between 1ms and 60s: link + transfer + queue + compute.
    #[x_kube(validation = Rule::new("duration(self) >= duration('1ms') && duration(self) <= duration('60s')").message("latencyBudget must be between 1ms and 60s"))]
    pub latency_budget: DurationText,
    /// Where no place keeps the budget: Prefer serves from the fastest, Require serves from none. Default: Prefer.
    #[serde(default)]
    pub budget_policy: BudgetPolicy,
    /// Least accuracy on held-out data; absent = no floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = SHARE))]
    pub accuracy_floor: Option<Percent>,
    /// The load of one site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<ModelLoad>,
    /// What a node must have, at the edge and in the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<ModelHardware>,
    /// Where it may run, and what is minimised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<ModelPlacement>,
    /// How requests are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<ModelServing>,
    /// Which of its requests are samples of a dataset; absent = none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect: Option<ModelCollect>,
    /// What holds otherwise at some sites. The first that selects a site applies there; what it does not say is as above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub overrides: Vec<ModelOverride>,
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.uri) != has(self.trainingRef)").message("model needs exactly one of uri and trainingRef"),
    validation = Rule::new("!has(self.promotion) || self.promotion == 'Manual' || has(self.trainingRef)").message("promotion goes with trainingRef")
)]
pub struct ModelSource {
    /// Artifact in an OCI registry, by tag or by digest. A tag is resolved once per change of this spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 512),
        regex(pattern = r"^oci://[a-z0-9.-]+(:[0-9]{1,5})?/[a-z0-9._/-]+(:[A-Za-z0-9._-]+)?(@sha256:[a-f0-9]{64})?$")
    )]
    pub uri: Option<String>,
    /// A Secret of this namespace, of type kubernetes.io/dockerconfigjson, with the name and the password by which the registry lets
    /// us pull; as `kubectl create secret docker-registry` makes it. Absent = anybody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<NameRef>,
    /// Instead of `uri`: what an EdgeTraining of this namespace publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_ref: Option<NameRef>,
    /// Of what `trainingRef` publishes: Automatic serves the newest; Manual serves what the annotation sconce.dev/promote names by
    /// its digest. Default: Manual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
}

impl std::fmt::Display for ModelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.uri, &self.training_ref) {
            (Some(uri), _) => f.write_str(uri),
            (None, Some(training)) => write!(f, "the model of EdgeTraining {}", training.name),
            (None, None) => f.write_str("nothing"),
        }
    }
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Promotion {
    Manual,
    Automatic,
}

/// Annotation of an EdgeModel: the digest of the published model that is to be served.
pub const PROMOTE: &str = "sconce.dev/promote";

#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum BudgetPolicy {
    #[default]
    Prefer,
    Require,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelLoad {
    /// Requests per second that one site sends. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: i64,
    /// Highest load in percent of the usual one. Default: 150%.
    #[serde(default = "default_peak")]
    #[schemars(extend("pattern" = r"^[1-9][0-9]{0,3}(\.[0-9]{1,3})?%$"))]
    pub peak_factor: Percent,
}

fn one() -> i64 {
    1
}

fn default_peak() -> Percent {
    "150%".into()
}

impl Default for ModelLoad {
    fn default() -> Self {
        Self { requests_per_second: one(), peak_factor: default_peak() }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelHardware {
    /// Requirements on the labels of a node; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub require: Vec<Requirement>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelPlacement {
    /// Auto decides per site; Edge and Cloud exclude the other tier. Default: Auto.
    #[serde(default)]
    pub tier: TierChoice,
    /// What is minimised among the places that keep the budget. Default: Cost.
    #[serde(default)]
    pub objective: Objective,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum TierChoice {
    #[default]
    Auto,
    Edge,
    Cloud,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Objective {
    #[default]
    Cost,
    Latency,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelServing {
    /// Most requests in one batch. Default: 16.
    #[serde(default = "default_batch")]
    #[schemars(range(min = 1, max = 256))]
    pub max_batch_size: i64,
}

/// Requests with their answers that an EdgeDataset gets. Its privacy policy is enforced first.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelCollect {
    /// The EdgeDataset, in the model's namespace. While it is not there, nothing of the model comes to the cloud that is not there yet.
    pub dataset_ref: NameRef,
    /// Share of requests that is taken by lot: the only ones that tell what the world is like. Default: 0%.
    #[serde(default = "none")]
    #[schemars(extend("pattern" = SHARE))]
    pub share: Percent,
    /// Take every request whose best score is less than this before the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = SHARE))]
    pub margin_below: Option<Percent>,
    /// Take so many requests of each class on each node and day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub per_class_per_day: Option<i64>,
}

fn none() -> Percent {
    "0%".into()
}

fn default_batch() -> i64 {
    16
}

impl Default for ModelServing {
    fn default() -> Self {
        Self { max_batch_size: default_batch() }
    }
}

/// What holds at some sites instead of what the model says of all.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.latencyBudget) || has(self.budgetPolicy) || has(self.load) || has(self.placement)").message("an override must say latencyBudget, budgetPolicy, load or placement"))]
pub struct ModelOverride {
    /// By which decisions name it.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// Which sites, by the labels of their EdgeSite.
    pub sites: Selector,
    /// Instead of the model's latencyBudget, between 1ms and 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1ms') && duration(self) <= duration('60s')").message("latencyBudget must be between 1ms and 60s"))]
    pub latency_budget: Option<DurationText>,
    /// Instead of the model's budgetPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_policy: Option<BudgetPolicy>,
    /// Instead of what the model says of its load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<OverrideLoad>,
    /// Instead of what the model says of its placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<OverridePlacement>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct OverrideLoad {
    /// Requests per second that one site sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: Option<i64>,
    /// Highest load in percent of the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^[1-9][0-9]{0,3}(\.[0-9]{1,3})?%$"))]
    pub peak_factor: Option<Percent>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct OverridePlacement {
    /// Auto decides; Edge and Cloud exclude the other tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<TierChoice>,
    /// What is minimised among the places that keep the budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
}

/// What holds for a model at one site.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    pub latency_budget: DurationText,
    pub budget_policy: BudgetPolicy,
    pub load: ModelLoad,
    pub placement: ModelPlacement,
    /// Name of the override that applies.
    pub by: Option<String>,
}

impl EdgeModelSpec {
    /// What holds at a site with these labels.
    pub fn terms_at(&self, site: &BTreeMap<String, String>) -> Terms {
        let first = self.overrides.iter().find(|one| one.sites.matches(site));
        let load = self.load.clone().unwrap_or_default();
        let placement = self.placement.clone().unwrap_or_default();
        let other_load = first.and_then(|one| one.load.clone()).unwrap_or_default();
        let other_placement = first.and_then(|one| one.placement.clone()).unwrap_or_default();
        Terms {
            latency_budget: first
                .and_then(|one| one.latency_budget.clone())
                .unwrap_or_else(|| self.latency_budget.clone()),
            budget_policy: first.and_then(|one| one.budget_policy).unwrap_or(self.budget_policy),
            load: ModelLoad {
                requests_per_second: other_load.requests_per_second.unwrap_or(load.requests_per_second),
                peak_factor: other_load.peak_factor.unwrap_or(load.peak_factor),
            },
            placement: ModelPlacement {
                tier: other_placement.tier.unwrap_or(placement.tier),
                objective: other_placement.objective.unwrap_or(placement.objective),
            },
            by: first.map(|one| one.name.clone()),
        }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeModelStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The version that `spec.model` resolved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<DesiredVersion>,
    /// When the tag was resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Time>,
    /// Name that clients send as `model_name` to their node's router: NAME.NAMESPACE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub address: Option<String>,
    /// How many sites are in which state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<ModelSiteCounts>,
    /// Sites that are worst off, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub worst: Vec<SiteTrouble>,
    /// Ready, Resolved, Placed, Serving, WithinBudget; Overridden where there are overrides; Reconciling and Stalled only while
    /// true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DesiredVersion {
    /// Name of the EdgeModelVersion.
    #[schemars(length(max = 63))]
    pub version: String,
    /// Digest of the artifact's manifest.
    #[schemars(length(max = 71))]
    pub digest: String,
    /// The address that was resolved, of `spec.model`: while it stays, a moved tag changes nothing.
    #[schemars(length(max = 512))]
    pub uri: String,
    /// The Secret by which it was resolved, and by which its pods fetch it; absent = none was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<NameRef>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelSiteCounts {
    /// Sites that the model selects.
    pub selected: i64,
    /// Sites with a Ready place, of those selected, such as 2/2.
    #[schemars(length(max = 23))]
    pub serving: String,
    /// Sites that the model is placed at, on an edge node.
    pub edge: i64,
    /// Sites that the cloud serves.
    pub cloud: i64,
    /// Sites where the model has no place.
    pub unplaced: i64,
    /// Sites without contact; their placement is kept.
    pub offline: i64,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteTrouble {
    /// Name of the EdgeSite.
    #[schemars(length(max = 63))]
    pub site: String,
    /// One word of the table of reasons.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// The same with its numbers.
    #[schemars(length(max = 256))]
    pub message: String,
}
