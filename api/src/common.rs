//! Values that several kinds share.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

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

/// A length of time with its unit, such as `20ms`, `1m30s` or `24h`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct DurationText(pub String);

/// A percentage, such as `97%` or `0.5%`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Percent(pub String);

/// An amount, such as `10M` (bit/s), `64Mi` (bytes) or `500m` (cores). A plain number may come without quotes.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Amount(pub String);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum IntOrString {
            Int(u64),
            String(String),
        }
        Ok(Self(match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => text,
        }))
    }
}

macro_rules! text {
    ($type:ident, $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(DurationText, json_schema!({"type": "string", "maxLength": 32, "pattern": r"^([0-9]{1,7}(us|ms|s|m|h)){1,3}$"}));
text!(Percent, json_schema!({"type": "string", "maxLength": 10, "pattern": r"^[0-9]{1,4}(\.[0-9]{1,3})?%$"}));
text!(
    Amount,
    json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 32, "pattern": r"^[0-9]{1,15}(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"})
);

/// Pattern of a percentage of a whole: 0% to 100%.
pub(crate) const SHARE: &str = r"^(100(\.0{1,3})?|[0-9]{1,2}(\.[0-9]{1,3})?)%$";

impl DurationText {
    /// `None` if the text is not a duration; the API server admits none such.
    pub fn parse(&self) -> Option<Duration> {
        let mut rest = self.0.as_str();
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let count: u64 = rest[..digits].parse().ok()?;
            let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
            let part = match &rest[digits..unit_end] {
                "us" => Duration::from_micros(count),
                "ms" => Duration::from_millis(count),
                "s" => Duration::from_secs(count),
                "m" => Duration::from_secs(count.checked_mul(60)?),
                "h" => Duration::from_secs(count.checked_mul(3600)?),
                _ => return None,
            };
            total = total.checked_add(part)?;
            rest = &rest[unit_end..];
        }
        (!self.0.is_empty()).then_some(total)
    }
}

impl Percent {
    /// The percentage in thousandths of a percent: `97.5%` is 97,500. Integers, so that comparisons have no ties by rounding.
    pub fn millis(&self) -> Option<u64> {
        let number = self.0.strip_suffix('%')?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let part: u64 = format!("{part:0<3}").parse().ok()?;
        Some(whole.parse::<u64>().ok()?.checked_mul(1000)? + part)
    }
}

impl Amount {
    /// The amount in thousandths of its unit: `500m` is 500, `1` is 1,000, `1Ki` is 1,024,000.
    pub fn millis(&self) -> Option<u64> {
        let unit_at = self.0.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at(unit_at);
        let scale: u64 = match unit {
            "m" => 1,
            "" => 1_000,
            "k" => 1_000_000,
            "M" => 1_000_000_000,
            "G" => 1_000_000_000_000,
            "T" => 1_000_000_000_000_000,
            "Ki" => 1_000 << 10,
            "Mi" => 1_000 << 20,
            "Gi" => 1_000 << 30,
            "Ti" => 1_000 << 40,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let part: u64 = format!("{part:0<3}").parse().ok()?;
        whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(part * scale / 1000)
    }

    /// Up to three decimals: 12,500 is `12.5`.
    pub fn of_millis(millis: u64) -> Self {
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        Self(text.trim_end_matches('0').trim_end_matches('.').to_owned())
    }

    /// The amount in whole units, rounded up.
    pub fn units(&self) -> Option<u64> {
        self.millis().map(|millis| millis.div_ceil(1000))
    }
}

/// Selects objects by their labels; requirements are ANDed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that must have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_values")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<Requirement>,
}

/// A requirement on one label.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label's value is compared with `values`.
    pub operator: Operator,
    /// Values to compare with; none for Exists and DoesNotExist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl Selector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    /// As the scheduler's node affinity reads it: NotIn and DoesNotExist hold where the label is absent.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let compare = |holds: fn(&i64, &i64) -> bool| {
            let bound = self.values.first().and_then(|bound| bound.parse().ok());
            value.and_then(|value| value.parse().ok()).zip(bound).is_some_and(|(value, bound)| holds(&value, &bound))
        };
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => compare(i64::gt),
            Operator::Lt => compare(i64::lt),
        }
    }
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

fn label_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
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
    fn durations_are_read_with_their_units() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(DurationText::from(text).parse(), expected.map(Duration::from_micros), "{text}");
        };
        check("1us", Some(1));
        check("20ms", Some(20_000));
        check("1m30s", Some(90_000_000));
        check("24h", Some(86_400_000_000));
        check("1s500ms250us", Some(1_500_250));
        check("0ms", Some(0));
        for malformed in ["", "20", "ms", "1.5s", "-1s", "20 ms", "1d", "20MS", "ms20"] {
            check(malformed, None);
        }
        check("18446744073709551615h", None);
    }

    #[test]
    fn percentages_are_read_in_thousandths() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(Percent::from(text).millis(), expected, "{text}");
        check("97%", Some(97_000));
        check("97.5%", Some(97_500));
        check("0.125%", Some(125));
        check("150%", Some(150_000));
        check("0%", Some(0));
        for malformed in ["", "%", "0.97", "97", "97.1234%", "-1%", "97 %", ".5%", "a%", "9.x%"] {
            check(malformed, None);
        }
    }

    #[test]
    fn amounts_are_read_with_their_suffixes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(Amount::from(text).millis(), expected, "{text}");
        check("500m", Some(500));
        check("1", Some(1_000));
        check("1.5", Some(1_500));
        check("10M", Some(10_000_000_000));
        check("1Ki", Some(1_024_000));
        check("64Mi", Some(67_108_864_000));
        check("1.5Gi", Some(1_610_612_736_000));
        for malformed in ["", "M", "1X", "1.2.3", "-1", "1 M", "1e3", "1.1234"] {
            check(malformed, None);
        }
        check("999999999999999Ti", None);
        check("1.999Ti", Some(1_999 << 40));
        assert_eq!(Amount::from("1500m").units(), Some(2));
    }

    #[test]
    fn an_amount_may_be_a_plain_number() {
        assert_eq!(serde_json::from_str::<Amount>("10000000").unwrap(), Amount::from("10000000"));
        assert_eq!(serde_json::from_str::<Amount>(r#""10M""#).unwrap(), Amount::from("10M"));
        assert!(serde_json::from_str::<Amount>("-1").is_err());
        assert!(serde_json::from_str::<Amount>("1.5").is_err());
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        Requirement { key: key.into(), operator, values: values.iter().map(|value| (*value).into()).collect() }
    }

    #[test]
    fn requirements_hold_as_the_scheduler_reads_them() {
        let node = labels(&[("arch", "arm64"), ("cores", "8"), ("camera", "")]);
        let check = |key: &str, operator: Operator, values: &[&str], expected: bool| {
            let requirement = requirement(key, operator, values);
            assert_eq!(requirement.matches(&node), expected, "{requirement:?}");
        };
        check("arch", Operator::In, &["amd64", "arm64"], true);
        check("arch", Operator::In, &["amd64"], false);
        check("gpu", Operator::In, &["yes"], false);
        check("arch", Operator::NotIn, &["arm64"], false);
        check("arch", Operator::NotIn, &["amd64"], true);
        check("gpu", Operator::NotIn, &["yes"], true);
        check("camera", Operator::Exists, &[], true);
        check("gpu", Operator::Exists, &[], false);
        check("gpu", Operator::DoesNotExist, &[], true);
        check("camera", Operator::DoesNotExist, &[], false);
        check("cores", Operator::Gt, &["4"], true);
        check("cores", Operator::Gt, &["8"], false);
        check("cores", Operator::Lt, &["16"], true);
        check("arch", Operator::Gt, &["4"], false);
        check("gpu", Operator::Lt, &["4"], false);
        check("cores", Operator::Gt, &[], false);
    }

    #[test]
    fn amounts_have_no_idle_zeros() {
        assert_eq!([12_500, 3_000, 7].map(|millis| Amount::of_millis(millis).0), ["12.5", "3", "0.007"]);
    }

    #[test]
    fn a_selector_holds_where_all_of_it_holds_and_an_empty_one_everywhere() {
        let site = labels(&[("region", "north"), ("size", "large")]);
        assert!(Selector::default().matches(&site));
        assert!(Selector::default().matches(&BTreeMap::new()));
        let mut selector = Selector { match_labels: labels(&[("region", "north")]), match_expressions: Vec::new() };
        assert!(selector.matches(&site));
        selector.match_expressions.push(requirement("size", Operator::In, &["small"]));
        assert!(!selector.matches(&site));
    }
}
