//! What is kept of a Deployment of ours: of ten thousand of them, whole ones take a quarter of a gigabyte.

use super::heard::{Kept, read_kept};
use super::{Owned, owner_model};
use crate::plan;
use crate::render::{Fields, RETIRE_AT, tier_label};
use k8s_openapi::api::apps::v1 as api;
use k8s_openapi::api::core::v1::Affinity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sconce_api::{Tier, labels};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Without labels and annotations; of its owners the one that is in charge.
    pub metadata: ObjectMeta,
    /// It says that we manage it.
    is_managed: bool,
    pub tier: Option<Tier>,
    pub version: String,
    pub variant: String,
    /// Where its pods are to be, of one at the edge.
    node: Option<String>,
    replicas: u64,
    /// When it goes, as it was written.
    pub retire_at: Option<String>,
    pub ready_replicas: i32,
    /// Why it cannot make its pods: a quota, or an admission policy.
    pub refused: Option<String>,
    /// To tell whether it is as it is to be.
    pub fields: Fields,
}

impl Deployment {
    /// When it goes, if it was told to.
    pub fn retires_at(&self) -> Option<&str> {
        self.retire_at.as_deref()
    }

    /// Of one at the edge: where its pods are to be, and which.
    pub fn home(&self) -> Option<plan::Home> {
        let is_told = !self.variant.is_empty() && !self.version.is_empty();
        Some(plan::Home {
            tier: Tier::Edge,
            node: Some(self.node.clone().filter(|_| is_told)?),
            variant: self.variant.clone(),
            version: self.version.clone(),
            replicas: self.replicas,
        })
    }
}

super::is_watched_as!(Deployment, api::Deployment);

impl Owned for Deployment {
    fn is_managed(&self) -> bool {
        self.is_managed
    }
}

impl<'de> Deserialize<'de> for Deployment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_kept(deserializer)
    }
}

impl Kept for Deployment {
    fn read(live: Value) -> serde_json::Result<Self> {
        let Live { mut metadata, spec, status } = Live::deserialize(&live)?;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let failure = |found: &api::DeploymentCondition| found.type_ == "ReplicaFailure" && found.status == "True";
        let mut labels = metadata.labels.take().unwrap_or_default();
        let mut label = |name: &str| labels.remove(name).unwrap_or_default();
        let tier = label(labels::TIER);
        let mut kept = Self {
            is_managed: label(labels::MANAGED_BY) == labels::MANAGER,
            tier: [Tier::Edge, Tier::Cloud].into_iter().find(|known| tier_label(*known) == tier),
            version: label(labels::VERSION),
            variant: label(labels::VARIANT),
            node: None,
            replicas: super::snapshot::count(spec.replicas.unwrap_or(1).into()),
            retire_at: metadata.annotations.take().and_then(|mut all| all.remove(RETIRE_AT)),
            ready_replicas: status.ready_replicas.unwrap_or(0),
            refused: status.conditions.unwrap_or_default().into_iter().find(failure).and_then(|found| found.message),
            metadata: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                deletion_timestamp: metadata.deletion_timestamp,
                owner_references: metadata.owner_references.map(in_charge),
                ..ObjectMeta::default()
            },
            fields: Fields::of_live(live),
        };
        kept.node = owner_model(&kept).and_then(|_| node(spec));
        Ok(kept)
    }
}

/// What is read of it, beside its fields.
#[derive(Deserialize)]
struct Live {
    metadata: ObjectMeta,
    spec: Option<Spec>,
    status: Option<api::DeploymentStatus>,
}

#[derive(Deserialize, Default)]
struct Spec {
    replicas: Option<i32>,
    template: Option<Template>,
}

#[derive(Deserialize)]
struct Template {
    spec: Option<PodSpec>,
}

#[derive(Deserialize)]
struct PodSpec {
    affinity: Option<Affinity>,
}

pub(super) fn in_charge(owners: Vec<OwnerReference>) -> Vec<OwnerReference> {
    let mut owners: Vec<_> = owners.into_iter().filter(|owner| owner.controller == Some(true)).collect();
    owners.shrink_to_fit();
    owners
}

fn node(spec: Spec) -> Option<String> {
    let affinity = spec.template?.spec?.affinity?.node_affinity?;
    let terms = affinity.required_during_scheduling_ignored_during_execution?.node_selector_terms;
    let field = terms.into_iter().flat_map(|term| term.match_fields.unwrap_or_default()).next()?;
    field.values?.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::INSTANCE_LABEL;
    use kube::ResourceExt as _;
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
        assert_eq!((kept.retires_at(), owner_model(&kept).as_deref()), (Some("2026-11-29T00:00:00Z"), Some("digits")));
        assert!(kept.labels().is_empty() && kept.annotations().is_empty() && kept.managed_fields().is_empty());
        let home = kept.home().unwrap();
        assert_eq!((home.node.as_deref(), home.variant.as_str(), home.replicas), (Some("gw-a"), "int8", 2));
        assert!(kept.fields.have(&["spec", "replicas"], &json!(2)));
        assert!(kept.fields.have(&["metadata", "labels", "theirs"], &json!("x")));
        for gone in [&["status", "readyReplicas"][..], &["metadata", "resourceVersion"], &["metadata", "managedFields"]]
        {
            assert!(kept.fields.have(gone, &json!(null)), "{gone:?} changes by itself");
        }
    }
}
