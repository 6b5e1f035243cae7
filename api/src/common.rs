//! Values that several kinds share.

use crate::{Amount, DurationText};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub const GROUP: &str = "sconce.dev";

/// Labels and annotations that we set.
pub mod labels {
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    pub const MANAGER: &str = "sconce";
    pub const MODEL: &str = "sconce.dev/model";
    pub const SITE: &str = "sconce.dev/site";
    pub const TIER: &str = "sconce.dev/tier";
    pub const VERSION: &str = "sconce.dev/version";
    pub const VARIANT: &str = "sconce.dev/variant";
    pub const TRAINING: &str = "sconce.dev/training";
    /// On an EdgeFleet, by a person: so many placements may go.
    pub const CONFIRM_REMOVALS: &str = "sconce.dev/confirm-removals";
    /// On an EdgeTraining, by a person: a new value begins a run.
    pub const RUN_REQUESTED: &str = "sconce.dev/run-requested";
}

/// A reference to an object by name, in the referrer's own namespace or in the cluster's scope.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

impl NameRef {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// The PersistentVolumeClaim and the folder of it, as `/FOLDER` or nothing, where an address is `pvc://CLAIM/FOLDER`.
pub fn on_claim(uri: &str) -> Option<(&str, &str)> {
    let place = uri.strip_prefix("pvc://")?;
    Some(place.split_at(place.find('/').unwrap_or(place.len())))
}

/// Where a node stands.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
pub enum Tier {
    Edge,
    Cloud,
}

/// Where a number comes from. The order is that of trust: the least trusted part names the whole.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub enum Basis {
    Measured,
    Estimated,
    Assumed,
}

/// A round trip between a site and the cloud tier.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoundTrip {
    /// Median.
    pub p50: DurationText,
    /// 99th percentile; absent below 500 samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<DurationText>,
    /// How many probes it was taken from, rounded to two digits.
    #[schemars(range(min = 0))]
    pub samples: i64,
    /// Whether it was measured or assumed.
    pub basis: Basis,
}

/// The conditions of an object, one per type; as `metav1.Condition`, in fewer words and with closer bounds.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 12,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 63, "description": "What is said to be so, such as Ready."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it is so."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0,
                    "description": "The metadata.generation of the spec that this was said of."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When `status` last changed."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[A-Za-z]+$",
                    "description": "Why, as one word of the table of reasons."},
                "message": {"type": "string", "maxLength": 1024, "description": "Why, as a sentence with its numbers."},
            },
        },
    })
}

/// The condition of a type.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A definition as we ship it: no `nullable`, no formats that the API server does not know.
pub(crate) fn publishable(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            strip(schema);
        }
    }
    crd
}

fn strip(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = schema.enum_.as_mut() {
        values.retain(|value| !value.0.is_null());
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        strip(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items.as_mut() {
        strip(items);
    }
}

/// How long a batch takes, alone on its node.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchTime {
    /// Requests in the batch.
    #[schemars(range(min = 1, max = 256))]
    pub size: i64,
    /// Median, two digits.
    pub p50: DurationText,
    /// 99th percentile, two digits.
    pub p99: DurationText,
    /// How many batches it was taken from, rounded to two digits; absent of a median over nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub samples: Option<i64>,
}

/// What clients waited in the last five minutes, from a request's arrival at their router to its whole answer.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waited {
    /// Median; absent where nothing was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<DurationText>,
    /// 99th percentile, from 100 answers on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<DurationText>,
    /// Requests that were answered.
    #[schemars(range(min = 0))]
    pub count: i64,
    /// Requests that failed through no fault of the client's.
    #[schemars(range(min = 0))]
    pub errors: i64,
    /// Requests per second.
    pub rps: Amount,
}

pub(crate) fn is_zero(count: &i64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_on_a_claim_is_the_claim_and_its_folder() {
        assert_eq!(on_claim("pvc://lake/site/digits"), Some(("lake", "/site/digits")));
        assert_eq!(on_claim("pvc://lake"), Some(("lake", "")));
        assert_eq!(on_claim("s3://lake/digits"), None);
    }
}
