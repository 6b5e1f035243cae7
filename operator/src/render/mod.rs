//! The render step: what we write to the cluster. Pure; same decision, same objects.

mod fields;
mod job;
mod pods;
mod secret;
#[cfg(test)]
mod tests;

pub use fields::Fields;
pub use job::{FORM, LABELLED, MANIFEST, RECIPE, Run, job, opens, target};
pub(crate) use pods::address;
pub use pods::{edge_deployment, pool_objects};

use crate::artifact::Artifact;
use crate::names;
use crate::observe::{Key, World};
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
use std::borrow::Cow;
use std::sync::Arc;

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

    /// Whether all that we ask for is there already: then nothing is written. How a Deployment would roll out is not asked for: room
    /// that comes and goes on a node is no change, and would let a roll-out that waits take the pod that serves.
    pub fn is_in(&self, live: &Fields) -> bool {
        let parts = self.body.as_object().into_iter().flatten();
        parts.into_iter().all(|(part, ours)| match (part.as_str(), ours) {
            // Of what is listed the API does not say them.
            ("apiVersion" | "kind", _) => true,
            ("spec", Value::Object(spec)) => {
                spec.iter().all(|(name, ours)| name == "strategy" || live.have(&["spec", name], ours))
            }
            _ => live.have(&[part], ours),
        })
    }
}

/// An object as it is sent. Ten thousand of them are held at once when a fleet is made: as text they take a tenth of the room.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    text: Box<str>,
}

impl Manifest {
    /// The body, as JSON.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn body(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

impl From<Object> for Manifest {
    fn from(Object { kind, namespace, name, body }: Object) -> Self {
        Self { kind, namespace, name, text: body.to_string().into() }
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
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

/// The fields of the live object that has the name of ours.
pub fn live<'a>(world: &'a World, object: &Object) -> Option<Cow<'a, Fields>> {
    let key = (object.namespace.clone(), object.name.clone());
    match object.kind {
        Kind::Deployment => world.deployments.get(&key).map(|live| Cow::Borrowed(&live.fields)),
        Kind::EdgePlacement => world.placements.get(&key).map(|live| Cow::Borrowed(&live.fields)),
        kind => whole(world, kind, &key).map(|live| Cow::Owned(Fields::of(&live))),
    }
}

/// A live object, as JSON; of Deployments and EdgePlacements none is held whole.
pub fn whole(world: &World, kind: Kind, key: &Key) -> Option<Value> {
    fn json<K: serde::Serialize>(object: Option<&Arc<K>>) -> Option<Value> {
        object.and_then(|object| serde_json::to_value(object.as_ref()).ok())
    }
    match kind {
        Kind::EdgeFleet => json(world.fleets.get(key)),
        Kind::EdgeSite => json(world.sites.get(key)),
        Kind::EdgeNode => json(world.edge_nodes.get(key)),
        Kind::EdgeModel => json(world.models.get(key)),
        Kind::EdgeModelVersion => json(world.versions.get(key)),
        Kind::EdgePlacement => None,
        Kind::EdgeTraining => json(world.trainings.get(key)),
        Kind::Deployment => None,
        Kind::Service => json(world.services.get(key)),
        Kind::PodDisruptionBudget => json(world.disruption_budgets.get(key)),
        Kind::Job => json(world.jobs.get(key)),
    }
}
