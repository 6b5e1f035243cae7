//! What is kept of a Deployment of ours: of ten thousand of them, whole ones take a quarter of a gigabyte.

use super::{INSTANCE_LABEL, owner_model};
use crate::plan;
use crate::render::{Fields, RETIRE_AT};
use k8s_openapi::api::apps::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use sconce_api::{Tier, labels};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

const LABELS: [&str; 4] = [labels::MANAGED_BY, labels::TIER, labels::VERSION, labels::VARIANT];

#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// With the labels and annotations that are read.
    pub metadata: ObjectMeta,
    pub ready_replicas: i32,
    /// Why it cannot make its pods: a quota, or an admission policy.
    pub refused: Option<String>,
    /// Of one at the edge: where its pods are to be, and which.
    pub home: Option<plan::Home>,
    /// To tell whether it is as it is to be.
    pub fields: Fields,
}

impl Deployment {
    /// When it goes, if it was told to.
    pub fn retires_at(&self) -> Option<&str> {
        self.annotations().get(RETIRE_AT).map(String::as_str)
    }
}

super::is_watched_as!(Deployment, api::Deployment);

impl<'de> Deserialize<'de> for Deployment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut live = Value::deserialize(deserializer)?;
        let whole = api::Deployment::deserialize(&live).map_err(de::Error::custom)?;
        // What changes with every write, or is never ours.
        for (part, names) in [("", &["status"][..]), ("/metadata", &["managedFields", "resourceVersion", "generation"])]
        {
            for name in names {
                live.pointer_mut(part).and_then(Value::as_object_mut).and_then(|fields| fields.remove(*name));
            }
        }
        let home = home(&whole);
        let status = whole.status.unwrap_or_default();
        let failure = |found: &api::DeploymentCondition| found.type_ == "ReplicaFailure" && found.status == "True";
        let mut metadata = whole.metadata;
        metadata.managed_fields = None;
        metadata.annotations.iter_mut().for_each(|all| all.retain(|name, _| name == RETIRE_AT));
        metadata.labels.iter_mut().for_each(|all| all.retain(|name, _| LABELS.contains(&name.as_str())));
        Ok(Self {
            metadata,
            ready_replicas: status.ready_replicas.unwrap_or(0),
            refused: status.conditions.unwrap_or_default().into_iter().find(failure).and_then(|found| found.message),
            home,
            fields: Fields::of(&live),
        })
    }
}

fn home(deployment: &api::Deployment) -> Option<plan::Home> {
    owner_model(deployment)?;
    let label = |key: &str| deployment.labels().get(key).cloned();
    let spec = deployment.spec.as_ref()?;
    spec.selector.match_labels.as_ref()?.get(INSTANCE_LABEL)?;
    let affinity = spec.template.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let field = terms.iter().flat_map(|term| term.match_fields.iter().flatten()).next()?;
    Some(plan::Home {
        tier: Tier::Edge,
        node: field.values.as_ref()?.first().cloned(),
        variant: label(labels::VARIANT)?,
        version: label(labels::VERSION)?,
        replicas: super::snapshot::count(spec.replicas.unwrap_or(1).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_read_of_a_deployment_is_kept_and_the_rest_as_hashes() {
        // As a list gives it: without its kind.
        let live = json!({
            "metadata": {"name": "digits-1", "namespace": "vision", "uid": "u", "resourceVersion": "7",
                "labels": {(labels::MANAGED_BY): labels::MANAGER, (labels::VARIANT): "int8", (labels::VERSION): "v", "theirs": "x"},
                "annotations": {(RETIRE_AT): "2026-11-29T00:00:00Z", "deployment.kubernetes.io/revision": "1"},
                "ownerReferences": [{"apiVersion": "a", "kind": "EdgeModel", "name": "digits", "uid": "em", "controller": true}],
                "managedFields": [{"manager": "m"}]},
            "spec": {"replicas": 2, "selector": {"matchLabels": {(INSTANCE_LABEL): "digits-1"}}, "template": {"spec": {
                "containers": [],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gw-a"]}]}]}}}}}},
            "status": {"readyReplicas": 1, "conditions": [
                {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]},
        });
        let kept: Deployment = serde_json::from_value(live).unwrap();
        assert_eq!((kept.name_any().as_str(), kept.resource_version().as_deref()), ("digits-1", Some("7")));
        assert_eq!((kept.ready_replicas, kept.refused.as_deref()), (1, Some("exceeded quota")));
        assert_eq!((kept.retires_at(), kept.annotations().len()), (Some("2026-11-29T00:00:00Z"), 1));
        assert!(!kept.labels().contains_key("theirs") && kept.managed_fields().is_empty());
        let home = kept.home.clone().unwrap();
        assert_eq!((home.node.as_deref(), home.variant.as_str(), home.replicas), (Some("gw-a"), "int8", 2));
        assert!(kept.fields.have(&["spec", "replicas"], &json!(2)));
        assert!(kept.fields.have(&["metadata", "labels", "theirs"], &json!("x")));
        for gone in [&["status", "readyReplicas"][..], &["metadata", "resourceVersion"], &["metadata", "managedFields"]]
        {
            assert!(kept.fields.have(gone, &json!(null)), "{gone:?} changes by itself");
        }
    }
}
