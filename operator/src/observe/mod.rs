//! The observe step: reads the stores into values. It chooses nothing.

mod deployment;
mod heard;
mod history;
mod placement;
mod pod;
mod profiles;
mod ratios;
mod snapshot;
mod stores;
mod survey;
mod trouble;

/// Of what has `metadata` and is read from an object of the API's type: so it can be watched in its place.
macro_rules! is_watched_as {
    ($kept:ty, $whole:ty) => {
        impl kube::Resource for $kept {
            type DynamicType = ();
            type Scope = <$whole as kube::Resource>::Scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::Resource>::kind(&())
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::Resource>::group(&())
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::Resource>::version(&())
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                <$whole as kube::Resource>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
use is_watched_as;

pub use deployment::Deployment;
pub use placement::Placement;
pub use pod::{Of, Pod};
pub use profiles::Measurements;
pub use ratios::written_ratios;
pub use snapshot::{Seen, fleet_snapshot, model_name, site_snapshot, speed_of};
pub use stores::{Stores, prune_node, prune_pod};
pub use survey::{FleetView, SiteView, is_ready, survey};

use crate::plan::{DataStays, Ratios};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{self as core, Node, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::{Resource, ResourceExt};
use kube_runtime::reflector::Store;
use sconce_api::{
    EdgeDataset, EdgeFleet, EdgeModel, EdgeModelVersion, EdgeNode, EdgePlacement, EdgeSite, EdgeTraining,
    PrivacyPolicy, Tier, labels,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Namespace and name; the namespace is empty in the cluster's scope.
pub type Key = (String, String);
pub type ByKey<K> = BTreeMap<Key, Arc<K>>;

pub fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// All that one pass knows, at one moment.
#[derive(Clone, Default)]
pub struct World {
    /// Whole seconds, as the API writes them.
    pub now: Timestamp,
    pub fleets: ByKey<EdgeFleet>,
    pub sites: ByKey<EdgeSite>,
    pub edge_nodes: ByKey<EdgeNode>,
    pub models: ByKey<EdgeModel>,
    pub versions: ByKey<EdgeModelVersion>,
    pub placements: ByKey<Placement>,
    pub trainings: ByKey<EdgeTraining>,
    pub datasets: ByKey<EdgeDataset>,
    pub nodes: ByKey<Node>,
    pub deployments: ByKey<Deployment>,
    pub services: ByKey<Service>,
    pub disruption_budgets: ByKey<PodDisruptionBudget>,
    pub priority_classes: ByKey<PriorityClass>,
    pub jobs: ByKey<Job>,
    /// Pods of the trainings' runs, ended ones too.
    pub training_pods: ByKey<core::Pod>,
    /// What predictions are to be corrected by, as learned so far.
    pub ratios: Arc<Ratios>,
    /// Pods that serve our models, by the name of their Deployment.
    pub model_pods: BTreeMap<Key, Vec<Arc<Pod>>>,
    /// Pods of others, by node.
    pub other_pods: BTreeMap<String, Vec<Arc<Pod>>>,
}

pub fn observe(stores: &Stores, now: Timestamp) -> World {
    let mut world = World {
        now: Timestamp::from_second(now.as_second()).unwrap_or(now),
        fleets: all(&stores.fleets),
        sites: all(&stores.sites),
        edge_nodes: all(&stores.edge_nodes),
        models: all(&stores.models),
        versions: all(&stores.versions),
        placements: all(&stores.placements),
        trainings: all(&stores.trainings),
        datasets: all(&stores.datasets),
        nodes: all(&stores.nodes),
        deployments: all(&stores.deployments),
        services: all(&stores.services),
        disruption_budgets: all(&stores.disruption_budgets),
        priority_classes: all(&stores.priority_classes),
        jobs: all(&stores.jobs),
        training_pods: all(&stores.training_pods),
        ..World::default()
    };
    for pod in stores.pods.state() {
        world.add_pod(pod);
    }
    world
}

impl World {
    pub fn add_pod(&mut self, pod: Arc<Pod>) {
        match (&pod.of, &pod.node) {
            (Of::Model { deployment, .. }, _) => {
                let deployment = (pod.namespace().unwrap_or_default(), deployment.clone());
                self.model_pods.entry(deployment).or_default().push(pod);
            }
            (Of::Others { .. }, Some(node)) => self.other_pods.entry(node.clone()).or_default().push(pod),
            (Of::Others { .. }, None) => {}
        }
    }

    /// Pods of a Deployment in the order of their names.
    pub fn pods_of(&self, deployment: &Key) -> Vec<&Pod> {
        let mut pods: Vec<_> = self.model_pods.get(deployment).into_iter().flatten().map(Arc::as_ref).collect();
        pods.sort_by_key(|pod| pod.name_any());
        pods
    }

    /// Who keeps the room at a full site: the value of the model's PriorityClass, or of the one that pods without any have. One
    /// that is not there gives none; the pods say so.
    pub fn priority_of(&self, model: &EdgeModel) -> i32 {
        let class = match &model.spec.priority_class_name {
            Some(name) => self.priority_classes.get(&(String::new(), name.clone())),
            None => self.priority_classes.values().find(|class| class.global_default == Some(true)),
        };
        class.map_or(0, |class| class.value)
    }

    /// Why requests of the model must not leave their site: what is collected of them must not leave it as it is.
    pub fn data_stays(&self, model: &EdgeModel) -> Option<DataStays> {
        let name = &model.spec.collect.as_ref()?.dataset_ref.name;
        match self.datasets.get(&(model.namespace().unwrap_or_default(), name.clone())) {
            None => Some(DataStays::Unknown(format!(
                "the dataset {name} that it is collected for is not found, or cannot be read"
            ))),
            Some(dataset) => {
                let policy = dataset.spec.privacy.policy;
                let told = || DataStays::Always(format!("the dataset {name} that it is collected for is {policy:?}"));
                (policy != PrivacyPolicy::Raw).then(told)
            }
        }
    }

    /// Why they must not in any case; `None` also while nobody knows.
    pub fn must_stay(&self, model: &EdgeModel) -> Option<String> {
        match self.data_stays(model)? {
            DataStays::Always(why) => Some(why),
            DataStays::Unknown(_) => None,
        }
    }

    /// Models that have a pool which is not about to go.
    pub fn with_pools(&self) -> BTreeSet<Key> {
        let is_pool = |live: &&Arc<Deployment>| live.tier == Some(Tier::Cloud) && live.retires_at().is_none();
        let owner = |live: &Arc<Deployment>| Some((live.namespace()?, owner_model(live.as_ref())?));
        self.deployments.values().filter(is_pool).filter_map(owner).collect()
    }

    /// What `spec.model` resolved to, once the version's facts are there.
    pub fn version_of(&self, model: &EdgeModel) -> Option<&EdgeModelVersion> {
        let desired = model.status.as_ref()?.desired.as_ref()?;
        let version = self.versions.get(&(model.namespace().unwrap_or_default(), desired.version.clone()))?;
        version.status.as_ref()?.artifact.as_ref()?;
        Some(version)
    }
}

pub const NAME_LABEL: &str = "app.kubernetes.io/name";
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Value of [`NAME_LABEL`] on pods that serve models.
pub const MODEL_POD: &str = "sconce-model";
/// Value of [`NAME_LABEL`] on pods that train.
pub const TRAINING_POD: &str = "sconce-training";

/// What may be of a model.
pub trait Owned: ResourceExt {
    /// Whether it says that we manage it.
    fn is_managed(&self) -> bool {
        self.labels().get(labels::MANAGED_BY).is_some_and(|manager| manager == labels::MANAGER)
    }
}

impl Owned for EdgePlacement {}
impl Owned for Service {}
impl Owned for PodDisruptionBudget {}

/// Name of the EdgeModel that owns an object of ours; `None` = it is not ours.
pub fn owner_model(object: &impl Owned) -> Option<String> {
    if !object.is_managed() {
        return None;
    }
    let owner = object.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    (owner.kind == "EdgeModel").then(|| owner.name.clone())
}

/// Objects of ours by the EdgeModel that owns them.
pub fn by_model<K: Owned>(all: &ByKey<K>) -> BTreeMap<Key, Vec<&K>> {
    let mut found = BTreeMap::<Key, Vec<&K>>::new();
    for ((namespace, _), object) in all {
        if let Some(model) = owner_model(object.as_ref()) {
            found.entry((namespace.clone(), model)).or_default().push(object);
        }
    }
    found
}

/// What a store holds at this moment.
pub fn all<K>(store: &Store<K>) -> ByKey<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state().into_iter().map(|object| (key(object.as_ref()), object)).collect()
}
