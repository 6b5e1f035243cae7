//! Which labels something is to have.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

fn label_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
