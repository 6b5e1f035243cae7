//! `EdgeFleet`: which nodes are edge and cloud, what a site is, what is assumed until measured.

use crate::amounts::*;
use crate::common::*;
use crate::selector::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A fleet of edge sites and the cloud nodes behind them.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sconce.dev",
    version = "v1alpha1",
    kind = "EdgeFleet",
    plural = "edgefleets",
    status = "EdgeFleetStatus",
    derive = "PartialEq",
    shortname = "ef",
    category = "sconce",
    doc = "A fleet of edge sites and the cloud nodes behind them.",
    printcolumn(name = "Sites", type_ = "integer", json_path = ".status.sites.total"),
    printcolumn(name = "Offline", type_ = "integer", json_path = ".status.sites.offline"),
    printcolumn(name = "Edge", type_ = "integer", json_path = ".status.nodes.edge"),
    printcolumn(name = "Cloud", type_ = "integer", json_path = ".status.nodes.cloud"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40").message("metadata.name must be no longer than 40 characters")
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeFleetSpec {
    /// Which nodes are edge nodes, and which of them form a site.
    pub sites: FleetSites,
    /// The cloud tier; absent = the fleet has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<FleetCloud>,
    /// What is assumed of the links between sites and cloud until they have been measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<FleetLink>,
    /// How much of a node our models may take, and how much may change at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<FleetLimits>,
    /// How long a better place must have been better before a model moves there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stability: Option<FleetStability>,
    /// What resources cost, in points per hour: only their relation matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<FleetPrices>,
    /// Whose models may run. Without it each is trusted by its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.policy != 'Signature' || (has(self.keys) && size(self.keys) > 0)").message("policy Signature needs keys"))]
    pub trust: Option<FleetTrust>,
}

/// Verified on the node, without a network, when a model is fetched and again when it is loaded. A change restarts the fleet's
/// pods, one after another.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetTrust {
    /// Digest: what the digest names; Signature: what one of the keys has signed, too. Default: Digest.
    #[serde(default)]
    pub policy: TrustPolicy,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub keys: Vec<TrustedKey>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum TrustPolicy {
    #[default]
    Digest,
    Signature,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustedKey {
    /// For people.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// P-256, as PEM: -----BEGIN PUBLIC KEY-----.
    #[schemars(
        length(max = 1024),
        regex(pattern = r"^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+-----END PUBLIC KEY-----\n?$")
    )]
    pub public_key: String,
}

impl EdgeFleetSpec {
    /// The keys of those whose models may run, as PEM, one after another; `None` where a digest is enough.
    pub fn trusted_keys(&self) -> Option<String> {
        let trust = self.trust.as_ref().filter(|trust| trust.policy == TrustPolicy::Signature)?;
        Some(trust.keys.iter().map(|key| format!("{}\n", key.public_key.trim_end())).collect())
    }
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FleetSites {
    /// Selects the edge nodes. A node in two fleets belongs to the older one.
    pub node_selector: Selector,
    /// Edge nodes with the same value of this label are one site. Immutable. Default: topology.kubernetes.io/zone.
    #[serde(default = "default_site_label")]
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("siteLabel is immutable: make a new fleet").reason(Reason::FieldValueForbidden))]
    pub site_label: String,
}

pub fn default_site_label() -> String {
    "topology.kubernetes.io/zone".into()
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetCloud {
    /// Selects the cloud nodes.
    pub node_selector: Selector,
    /// Share of each pool's load that is kept free for sites that fall back to it. Default: 10%.
    #[serde(default = "default_reserve")]
    #[schemars(extend("pattern" = SHARE))]
    pub reserve: Percent,
}

fn default_reserve() -> Percent {
    "10%".into()
}

#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FleetLink {
    /// Round trip to the cloud, assumed until it has been measured, between 1us and 10s. Default: 40ms.
    #[serde(default = "default_round_trip")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1us') && duration(self) <= duration('10s')").message("assumedRoundTrip must be between 1us and 10s"))]
    pub assumed_round_trip: DurationText,
    /// Uplink of a site in bit/s, assumed until it has been measured. Default: 10M.
    #[serde(default = "default_uplink")]
    #[schemars(extend("pattern" = r"^[1-9][0-9]{0,14}(\.[0-9]{1,3})?(k|M|G|T|Ki|Mi|Gi|Ti)?$"))]
    pub assumed_uplink: Amount,
}

fn default_round_trip() -> DurationText {
    "40ms".into()
}

fn default_uplink() -> Amount {
    "10M".into()
}

impl Default for FleetLink {
    fn default() -> Self {
        Self { assumed_round_trip: default_round_trip(), assumed_uplink: default_uplink() }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetLimits {
    /// Share of a node's allocatable resources that our models may request. Default: 80%.
    #[serde(default = "default_share")]
    #[schemars(extend("pattern" = SHARE))]
    pub max_share: Percent,
    /// Most models and sites that change their place within a minute; those whose place cannot serve come first. Default: 30.
    #[serde(default = "default_moves")]
    #[schemars(range(min = 1, max = 6000))]
    pub max_moves_per_minute: i64,
    /// Share of all placements, and of all models' pools in the cloud, that may be lost within ten minutes before it takes a person's
    /// confirmation, by the annotation sconce.dev/confirm-removals; up to five always may. Default: 20%.
    #[serde(default = "default_removals")]
    #[schemars(extend("pattern" = SHARE))]
    pub max_removals: Percent,
}

fn default_share() -> Percent {
    "80%".into()
}

fn default_moves() -> i64 {
    30
}

fn default_removals() -> Percent {
    "20%".into()
}

impl Default for FleetLimits {
    fn default() -> Self {
        Self { max_share: default_share(), max_moves_per_minute: default_moves(), max_removals: default_removals() }
    }
}

/// A place that serves is left for a better one only if that is enough better for long enough.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FleetStability {
    /// Least gain, in cost or latency as the model's objective says, for which a model moves. Default: 15%.
    #[serde(default = "default_gain")]
    #[schemars(extend("pattern" = SHARE))]
    pub min_gain: Percent,
    /// For how long the gain, or a budget that is missed, must have lasted; back to the place that was left four times as long.
    /// At most 24h. Default: 5m.
    #[serde(default = "default_settle")]
    #[x_kube(validation = Rule::new("duration(self) <= duration('24h')").message("settle must be at most 24h"))]
    pub settle: DurationText,
}

fn default_gain() -> Percent {
    "15%".into()
}

fn default_settle() -> DurationText {
    "5m".into()
}

impl Default for FleetStability {
    fn default() -> Self {
        Self { min_gain: default_gain(), settle: default_settle() }
    }
}

/// Prices in points; the edge is dearer by default, since it cannot grow.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetPrices {
    /// Points for one requested core of an edge node and hour. Default: 400.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub edge_cpu_hour: i64,
    /// Points for one requested GiB of an edge node's memory and hour. Default: 100.
    #[serde(rename = "edgeMemoryGiBHour")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub edge_memory_gib_hour: i64,
    /// Points for one requested core of a cloud node and hour. Default: 100.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub cloud_cpu_hour: i64,
    /// Points for one requested GiB of a cloud node's memory and hour. Default: 25.
    #[serde(rename = "cloudMemoryGiBHour")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub cloud_memory_gib_hour: i64,
    /// Points for one GiB sent over a site's uplink. Default: 50.
    #[serde(rename = "uplinkGiB")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub uplink_gib: i64,
}

impl Default for FleetPrices {
    fn default() -> Self {
        Self {
            edge_cpu_hour: 400,
            edge_memory_gib_hour: 100,
            cloud_cpu_hour: 100,
            cloud_memory_gib_hour: 25,
            uplink_gib: 50,
        }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeFleetStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<FleetSiteCounts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<FleetNodeCounts>,
    /// The last time that models lost places; counts for ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removals: Option<FleetRemovals>,
    /// How far predictions were off, where they were: of a class, variant and tier they are multiplied by this. Learned by all
    /// fleets together, in steps of 5 percent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub prediction_ratios: Vec<PredictionRatio>,
    /// Ready; Reconciling and Stalled only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetSiteCounts {
    pub total: i64,
    pub offline: i64,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetNodeCounts {
    pub edge: i64,
    pub cloud: i64,
}

/// What clients waited whole over what was predicted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PredictionRatio {
    /// Edge or Cloud.
    pub tier: Tier,
    /// As in EdgeNode.status.hardware.class.
    #[schemars(length(max = 63))]
    pub class: String,
    #[schemars(length(max = 63))]
    pub variant: String,
    /// Of what is predicted, between half and double.
    #[schemars(range(min = 50, max = 200))]
    pub percent: i64,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetRemovals {
    /// When the first of them went.
    pub since: Time,
    /// How many placements, and models with a pool, there were before.
    #[schemars(range(min = 0))]
    pub placed: i64,
    /// When the window began in which that was made use of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_since: Option<Time>,
    /// The count of sconce.dev/confirm-removals that was made use of: it does not count a second time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub confirmed: Option<i64>,
}
