//! The render step: what we write to the cluster. Pure; same decision, same objects.

mod job;
mod pods;
#[cfg(test)]
mod tests;

pub use job::{FORM, LABELLED, MANIFEST, RECIPE, Run, job, target};
pub(crate) use pods::address;
pub use pods::{edge_deployment, pool_objects};

use crate::artifact::Artifact;
use crate::names;
use crate::observe::World;
use crate::plan;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::ApiResource;
use kube::{Resource, ResourceExt};
use sconce_api::{
    EdgeFleet, EdgeModel, EdgeModelVersion, EdgeNode, EdgePlacement, EdgeSite, EdgeTraining, Tier, labels,
};
use serde_json::{Map, Value, json};

/// When a replaced Deployment goes.
pub const RETIRE_AT: &str = "sconce.dev/retire-at";

/// What is the same for every pod.
#[derive(Clone, Debug)]
pub struct Settings {
    pub image: String,
    pub trainer_image: String,
    pub pull_policy: String,
    pub insecure_registries: Vec<String>,
    /// Where a node's store answers its pods, at the node's own address; `None` where nodes have none.
    pub store_port: Option<u16>,
    /// Of those whose models may run, as PEM; `None` where a digest is enough.
    pub trusted_keys: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    EdgeFleet,
    EdgeSite,
    EdgeNode,
    EdgeModel,
    EdgeModelVersion,
    EdgePlacement,
    EdgeTraining,
    Deployment,
    Service,
    PodDisruptionBudget,
    Job,
}

impl Kind {
    pub fn resource(self) -> ApiResource {
        match self {
            Self::EdgeFleet => ApiResource::erase::<EdgeFleet>(&()),
            Self::EdgeSite => ApiResource::erase::<EdgeSite>(&()),
            Self::EdgeNode => ApiResource::erase::<EdgeNode>(&()),
            Self::EdgeModel => ApiResource::erase::<EdgeModel>(&()),
            Self::EdgeModelVersion => ApiResource::erase::<EdgeModelVersion>(&()),
            Self::EdgePlacement => ApiResource::erase::<EdgePlacement>(&()),
            Self::EdgeTraining => ApiResource::erase::<EdgeTraining>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::Job => ApiResource::erase::<Job>(&()),
        }
    }
}

/// The fields that we own of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub kind: Kind,
    /// Empty in the cluster's scope.
    pub namespace: String,
    pub name: String,
    pub body: Value,
}

impl Object {
    /// `rest` is what stands beside `apiVersion`, `kind` and the names in `metadata`.
    pub fn new(kind: Kind, namespace: &str, name: &str, metadata: Value, rest: Value) -> Self {
        let resource = kind.resource();
        let mut body = fields(rest);
        let mut metadata = fields(metadata);
        metadata.insert("name".into(), json!(name));
        if !namespace.is_empty() {
            metadata.insert("namespace".into(), json!(namespace));
        }
        body.insert("apiVersion".into(), json!(resource.api_version));
        body.insert("kind".into(), json!(resource.kind));
        body.insert("metadata".into(), Value::Object(metadata));
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned(), body: Value::Object(body) }
    }

    /// The status of an object that is there.
    pub fn status(kind: Kind, live: &impl ResourceExt, status: Value) -> Self {
        Self::new(kind, &live.namespace().unwrap_or_default(), &live.name_any(), json!({}), json!({ "status": status }))
    }

    /// Whether a Deployment differs from `live` in nothing but how it would roll out: room that comes and goes on a node is no change, and
    /// would let a roll-out that waits take the pod that serves.
    pub fn rolls_out_nothing(&self, live: &Value) -> bool {
        let mut body = self.body.clone();
        let strategy = body.get_mut("spec").and_then(Value::as_object_mut).and_then(|spec| spec.remove("strategy"));
        self.kind == Kind::Deployment && strategy.is_some() && contains(live, &body)
    }

    /// Whether `live` has every field of ours, with our value: then nothing is written.
    pub fn is_in(&self, live: &Value) -> bool {
        contains(live, &self.body)
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Of lists every element counts, in order; of objects only the fields that are asked for.
fn contains(live: &Value, ours: &Value) -> bool {
    match (live, ours) {
        (Value::Object(live), Value::Object(ours)) => ours.iter().all(|(name, ours)| match live.get(name) {
            Some(live) => contains(live, ours),
            None => is_empty(ours),
        }),
        (Value::Array(live), Value::Array(ours)) => {
            live.len() == ours.len() && live.iter().zip(ours).all(|(live, ours)| contains(live, ours))
        }
        (live, ours) => live == ours,
    }
}

/// The API drops what is empty: so is asked for what is to go, since a field that is only left out is no difference.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A site as it is registered, once; people own it afterwards.
pub fn site(name: &str, key: &str, fleet: &str) -> Object {
    let mut spec = json!({"fleetRef": {"name": fleet}});
    if key != name {
        spec["key"] = json!(key);
    }
    Object::new(Kind::EdgeSite, "", name, json!({}), json!({ "spec": spec }))
}

/// Where a node stands. The uid keeps us from making the object anew when it goes meanwhile.
pub fn node_labels(node: &EdgeNode, place: Option<(Tier, Option<&str>)>) -> Object {
    let mut ours = Map::new();
    if let Some((tier, site)) = place {
        ours.insert(labels::TIER.into(), json!(tier_label(tier)));
        if let Some(site) = site {
            ours.insert(labels::SITE.into(), json!(site));
        }
    }
    let metadata = json!({"uid": node.uid(), "labels": ours});
    Object::new(Kind::EdgeNode, "", &node.name_any(), metadata, json!({}))
}

pub fn tier_label(tier: Tier) -> &'static str {
    match tier {
        Tier::Edge => "edge",
        Tier::Cloud => "cloud",
    }
}

pub fn version(model: &EdgeModel, artifact: &Artifact) -> Object {
    let name = names::version(&model.name_any(), &artifact.digest);
    let uri = format!("{}@{}", artifact.repository, artifact.digest);
    let metadata = metadata(model, &[(labels::MODEL, &model.name_any())]);
    let spec = json!({"modelRef": {"name": model.name_any()}, "uri": uri, "digest": artifact.digest});
    Object::new(Kind::EdgeModelVersion, &namespace(model), &name, metadata, json!({ "spec": spec }))
}

/// The decision's object; the decision itself is its status.
pub fn placement(model: &EdgeModel, site: &str, version: &str, tier: Option<Tier>) -> Object {
    let model_name = model.name_any();
    let name = names::placement(&model_name, site);
    let mut ours = vec![(labels::MODEL, model_name.as_str()), (labels::SITE, site), (labels::VERSION, version)];
    if let Some(tier) = tier {
        ours.push((labels::TIER, tier_label(tier)));
    }
    let spec = json!({"modelRef": {"name": model_name}, "siteRef": {"name": site}, "versionRef": {"name": version}});
    Object::new(Kind::EdgePlacement, &namespace(model), &name, metadata(model, &ours), json!({ "spec": spec }))
}

/// Owner and labels of an object that belongs to an EdgeModel or an EdgeTraining.
fn metadata<K: Resource<DynamicType = ()>>(owner: &K, ours: &[(&str, &str)]) -> Value {
    let mut labels: Map<String, Value> = ours.iter().map(|(key, value)| ((*key).into(), json!(value))).collect();
    labels.insert(labels::MANAGED_BY.into(), json!(labels::MANAGER));
    json!({
        "labels": labels,
        "ownerReferences": [{
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "name": owner.name_any(), "uid": owner.uid(), "controller": true,
        }],
    })
}

fn namespace(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_default()
}

/// What the pods of one place need to know.
pub struct Pods<'a> {
    pub model: &'a EdgeModel,
    pub version: &'a EdgeModelVersion,
    pub variant: &'a str,
    pub replicas: u64,
    pub request: plan::Resources,
    /// There is room for a new pod before the old one goes.
    pub surge: bool,
}

/// The live object, as JSON, that has the name of ours.
pub fn live(world: &World, object: &Object) -> Option<Value> {
    let key = (object.namespace.clone(), object.name.clone());
    fn json<K: serde::Serialize>(object: Option<&std::sync::Arc<K>>) -> Option<Value> {
        object.and_then(|object| serde_json::to_value(object.as_ref()).ok())
    }
    match object.kind {
        Kind::EdgeFleet => json(world.fleets.get(&key)),
        Kind::EdgeSite => json(world.sites.get(&key)),
        Kind::EdgeNode => json(world.edge_nodes.get(&key)),
        Kind::EdgeModel => json(world.models.get(&key)),
        Kind::EdgeModelVersion => json(world.versions.get(&key)),
        Kind::EdgePlacement => json(world.placements.get(&key)),
        Kind::EdgeTraining => json(world.trainings.get(&key)),
        Kind::Deployment => json(world.deployments.get(&key)),
        Kind::Service => json(world.services.get(&key)),
        Kind::PodDisruptionBudget => json(world.disruption_budgets.get(&key)),
        Kind::Job => json(world.jobs.get(&key)),
    }
}
