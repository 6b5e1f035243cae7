//! `EdgeSite`: edge nodes that are close to each other, their link and their contact.

use crate::amounts::*;
use crate::common::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One site. Registered by the operator for each value of the fleet's site label; people label it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "sconce.dev",
    version = "v1alpha1",
    kind = "EdgeSite",
    plural = "edgesites",
    status = "EdgeSiteStatus",
    derive = "PartialEq",
    shortname = "es",
    category = "sconce",
    doc = "A site: edge nodes that are close to each other.",
    selectable = ".spec.fleetRef.name",
    printcolumn(name = "Fleet", type_ = "string", json_path = ".spec.fleetRef.name"),
    printcolumn(
        name = "Connected",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Connected\")].status"
    ),
    printcolumn(name = "RTT-P50", type_ = "string", json_path = ".status.link.roundTrip.p50"),
    printcolumn(name = "RTT-P99", type_ = "string", json_path = ".status.link.roundTrip.p99"),
    printcolumn(name = "Basis", type_ = "string", json_path = ".status.link.roundTrip.basis"),
    printcolumn(name = "Uplink", type_ = "string", json_path = ".status.link.uplink"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.total"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name must be no longer than 63 characters")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.fleetRef.name == oldSelf.fleetRef.name").message("fleetRef is immutable").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("has(self.key) == has(oldSelf.key)").message("key is immutable").reason(Reason::FieldValueForbidden))]
pub struct EdgeSiteSpec {
    /// The fleet that the site belongs to. Immutable.
    pub fleet_ref: NameRef,
    /// Value of the fleet's site label on the site's nodes. Immutable. Absent = the site's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("key is immutable").reason(Reason::FieldValueForbidden))]
    pub key: Option<String>,
    /// Leave the site as it is: no place changes, and no model comes. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Auto decides by the models' placement; CloudOnly serves the site from the cloud, say while a shop is rebuilt. Default: Auto.
    #[serde(default, skip_serializing_if = "SiteServe::is_auto")]
    pub serve: SiteServe,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum SiteServe {
    #[default]
    Auto,
    CloudOnly,
}

impl SiteServe {
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeSiteStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<SiteLink>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<SiteNodeCounts>,
    /// Ready, Connected; Reconciling and Stalled only while true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// The site's link to the cloud tier.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteLink {
    /// Round trip as the site's agents measure it, else as the fleet assumes it.
    pub round_trip: RoundTrip,
    /// Uplink in bit/s, as the fleet assumes it.
    pub uplink: Amount,
    /// Where the uplink's number comes from.
    pub uplink_basis: Basis,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteNodeCounts {
    pub total: i64,
    pub ready: i64,
}
