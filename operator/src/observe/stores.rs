//! What wakes us: one watch per kind, each with its own store and its own backoff, so that none holds up another.

use super::{NAME_LABEL, TRAINING_POD};
use crate::metrics::{KindLabel, Metrics};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt};
use kube_runtime::reflector::{self, Store};
use kube_runtime::watcher::{self, Event, watcher};
use kube_runtime::{WatchStreamExt, reflector::store::WriterDropped};
use sconce_api::{
    EdgeDataset, EdgeFleet, EdgeModel, EdgeModelVersion, EdgeNode, EdgePlacement, EdgeSite, EdgeTraining, labels,
};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use tokio::sync::watch;

/// A watch that hears nothing for so long is opened anew: a silently dropped connection freezes a store no longer.
const WATCH_SECONDS: u32 = 120;

#[derive(Clone)]
pub struct Stores {
    pub fleets: Store<EdgeFleet>,
    pub sites: Store<EdgeSite>,
    pub edge_nodes: Store<EdgeNode>,
    pub models: Store<EdgeModel>,
    pub versions: Store<EdgeModelVersion>,
    pub placements: Store<EdgePlacement>,
    pub trainings: Store<EdgeTraining>,
    pub datasets: Store<EdgeDataset>,
    pub nodes: Store<Node>,
    pub pods: Store<Pod>,
    pub deployments: Store<Deployment>,
    pub services: Store<Service>,
    pub disruption_budgets: Store<PodDisruptionBudget>,
    pub priority_classes: Store<PriorityClass>,
    pub jobs: Store<Job>,
    /// Pods of runs: those that have ended, too, since they say what came out.
    pub training_pods: Store<Pod>,
}

impl Stores {
    /// Starts all watches. Any change is told to `news`.
    pub fn watch(client: &Client, metrics: &Metrics, news: &watch::Sender<()>) -> Self {
        let door = Door { client, metrics, news };
        // Lists, then watches: streaming lists are off by default in Kubernetes 1.33.
        let all = watcher::Config::default().timeout(WATCH_SECONDS);
        let ours = all.clone().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGER));
        let runs = all.clone().labels(&format!("{NAME_LABEL}={TRAINING_POD}"));
        let alive = all.clone().fields("status.phase!=Succeeded,status.phase!=Failed");
        Self {
            fleets: door.store(all.clone(), as_it_is),
            sites: door.store(all.clone(), as_it_is),
            edge_nodes: door.store(all.clone(), as_it_is),
            models: door.store(all.clone(), as_it_is),
            versions: door.store(all.clone(), as_it_is),
            placements: door.store(all.clone(), as_it_is),
            priority_classes: door.store(all.clone(), as_it_is),
            trainings: door.store(all.clone(), as_it_is),
            datasets: door.store(all.clone(), as_it_is),
            nodes: door.store(all, prune_node),
            pods: door.store(alive, prune_pod),
            deployments: door.store(ours.clone(), as_it_is),
            services: door.store(ours.clone(), as_it_is),
            disruption_budgets: door.store(ours.clone(), as_it_is),
            jobs: door.store(ours, as_it_is),
            training_pods: door.store(runs, prune_pod),
        }
    }

    /// Waits until every kind has been listed once; a kind that is not defined yet is waited for.
    pub async fn wait_until_listed(&self) -> Result<(), WriterDropped> {
        self.fleets.wait_until_ready().await?;
        self.sites.wait_until_ready().await?;
        self.edge_nodes.wait_until_ready().await?;
        self.models.wait_until_ready().await?;
        self.versions.wait_until_ready().await?;
        self.placements.wait_until_ready().await?;
        self.nodes.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.deployments.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.disruption_budgets.wait_until_ready().await?;
        self.priority_classes.wait_until_ready().await?;
        self.trainings.wait_until_ready().await?;
        self.datasets.wait_until_ready().await?;
        self.jobs.wait_until_ready().await?;
        self.training_pods.wait_until_ready().await
    }
}

struct Door<'a> {
    client: &'a Client,
    metrics: &'a Metrics,
    news: &'a watch::Sender<()>,
}

impl Door<'_> {
    fn store<K>(&self, config: watcher::Config, prune: fn(&mut K)) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + Hash,
    {
        let kind = K::kind(&()).into_owned();
        let (store, writer) = reflector::store::<K>();
        let events = watcher(Api::<DeserializeGuard<K>>::all(self.client.clone()), config).default_backoff();
        let (metrics, news) = (self.metrics.clone(), self.news.clone());
        tokio::spawn(async move {
            let events = decoded(events, kind.clone(), metrics.clone()).modify(move |object: &mut K| {
                object.managed_fields_mut().clear();
                prune(object);
            });
            let mut events = std::pin::pin!(events.reflect(writer));
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Init | Event::InitApply(_)) => {}
                    Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => {
                        news.send_replace(());
                    }
                    Err(error) => {
                        metrics.watch_errors.get_or_create(&KindLabel { kind: kind.clone() }).inc();
                        tracing::warn!(kind, %error, "watch");
                    }
                }
            }
        });
        store
    }
}

/// Leaves out what cannot be read: one such object must not stop the others.
fn decoded<K>(
    events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>> + Send,
    kind: String,
    metrics: Metrics,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource<DynamicType = ()> + Send + 'static,
{
    events.try_filter_map(move |event| {
        let read = |guard: DeserializeGuard<K>| match guard.0 {
            Ok(object) => Some(object),
            Err(invalid) => {
                metrics.undecodable.get_or_create(&KindLabel { kind: kind.clone() }).inc();
                tracing::warn!(kind, name = invalid.metadata.name, error = invalid.error, "object cannot be read");
                None
            }
        };
        let event = match event {
            Event::Init => Some(Event::Init),
            Event::InitDone => Some(Event::InitDone),
            Event::InitApply(guard) => read(guard).map(Event::InitApply),
            Event::Apply(guard) => read(guard).map(Event::Apply),
            Event::Delete(guard) => read(guard).map(Event::Delete),
        };
        std::future::ready(Ok(event))
    })
}

fn as_it_is<K>(_: &mut K) {}

/// Images and volumes of a node are long lists that nobody here reads.
pub fn prune_node(node: &mut Node) {
    node.annotations_mut().clear();
    if let Some(status) = node.status.as_mut() {
        status.images = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
        // A heartbeat is no news.
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
    }
}

/// Of a pod: where it is, what it requests, how its containers are.
pub fn prune_pod(pod: &mut Pod) {
    pod.annotations_mut().clear();
    let Some(spec) = pod.spec.as_mut() else { return };
    spec.volumes = None;
    spec.affinity = None;
    spec.tolerations = None;
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.env = None;
        container.env_from = None;
        container.volume_mounts = None;
        container.args = None;
        container.command = None;
        container.security_context = None;
        container.liveness_probe = None;
        container.readiness_probe = None;
        container.startup_probe = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An object that an older schema let in: its budget was a number, and its kind had no such field.
    #[tokio::test]
    async fn an_object_that_cannot_be_read_is_counted_and_stops_no_other() {
        let model = |name: &str, budget: serde_json::Value| {
            let spec = json!({"fleetRef": {"name": "shops"}, "model": {"uri": "oci://r/m:1"}, "latencyBudget": budget});
            let object = json!({"apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeModel", "metadata": {"name": name}, "spec": spec});
            serde_json::from_value::<DeserializeGuard<EdgeModel>>(object).unwrap()
        };
        let events = [
            Event::Init,
            Event::InitApply(model("old", json!(25))),
            Event::InitApply(model("a", json!("25ms"))),
            Event::InitDone,
            Event::Apply(model("older", json!({"p99": "25ms"}))),
            Event::Apply(model("b", json!("25ms"))),
        ];
        let metrics = Metrics::new();
        let events = futures::stream::iter(events.map(Ok));
        let read: Vec<_> = decoded(events, "EdgeModel".into(), metrics.clone()).try_collect().await.unwrap();
        let names: Vec<_> = read
            .iter()
            .filter_map(|event| match event {
                Event::Init | Event::InitDone => None,
                Event::InitApply(model) | Event::Apply(model) | Event::Delete(model) => Some(model.name_any()),
            })
            .collect();
        assert_eq!((names, read.len()), (vec!["a".to_owned(), "b".to_owned()], 4));
        assert_eq!(metrics.undecodable.get_or_create(&KindLabel { kind: "EdgeModel".into() }).get(), 2);
    }
}
