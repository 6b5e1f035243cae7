//! What wakes us: one watch per kind, each with its own store and its own backoff, so that none holds up another.

use super::heard::{Heard, Kept};
use super::{Deployment, NAME_LABEL, Placement, Pod, TRAINING_POD};
use crate::metrics::{KindLabel, Metrics};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{self as core, Node, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::{Api, Client, Resource, ResourceExt};
use kube_runtime::reflector::{self, ObjectRef, Store};
use kube_runtime::watcher::{self, Event, watcher};
use kube_runtime::{WatchStreamExt, reflector::store::WriterDropped};
use sconce_api::{EdgeDataset, EdgeFleet, EdgeModel, EdgeModelVersion, EdgeNode, EdgeSite, EdgeTraining, labels};
use std::fmt::Debug;
use tokio::sync::watch;

/// Objects in an answer to a list: all kinds are listed at once, and a page is in memory as text, as JSON, and as objects.
const PAGE: u32 = 100;

/// A watch that hears nothing for so long is opened anew: a silently dropped connection freezes a store no longer.
const WATCH_SECONDS: u32 = 120;

#[derive(Clone)]
pub struct Stores {
    pub fleets: Store<EdgeFleet>,
    pub sites: Store<EdgeSite>,
    pub edge_nodes: Store<EdgeNode>,
    pub models: Store<EdgeModel>,
    pub versions: Store<EdgeModelVersion>,
    pub placements: Store<Placement>,
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
    pub training_pods: Store<core::Pod>,
}

impl Stores {
    /// Starts all watches. Any change is told to `news`.
    pub fn watch(client: &Client, metrics: &Metrics, news: &watch::Sender<()>) -> Self {
        let door = Door { client, metrics, news };
        // Lists, then watches: streaming lists are off by default in Kubernetes 1.33.
        let all = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
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
            pods: door.store(alive, as_it_is),
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

impl Kept for EdgeFleet {}
impl Kept for EdgeSite {}
impl Kept for EdgeNode {}
impl Kept for EdgeModel {}
impl Kept for EdgeModelVersion {}
impl Kept for EdgeTraining {}
impl Kept for EdgeDataset {}
impl Kept for Node {}
impl Kept for Pod {}
impl Kept for Service {}
impl Kept for PodDisruptionBudget {}
impl Kept for PriorityClass {}
impl Kept for Job {}
impl Kept for core::Pod {}

struct Door<'a> {
    client: &'a Client,
    metrics: &'a Metrics,
    news: &'a watch::Sender<()>,
}

impl Door<'_> {
    fn store<K>(&self, config: watcher::Config, prune: fn(&mut K)) -> Store<K>
    where
        K: Kept + Clone + Debug + PartialEq + Send + Sync + 'static,
    {
        let kind = K::kind(&()).into_owned();
        let (store, mut writer) = reflector::store::<K>();
        let known = store.clone();
        let events = watcher(Api::<Heard<K>>::all(self.client.clone()), config).default_backoff();
        let (metrics, news) = (self.metrics.clone(), self.news.clone());
        tokio::spawn(async move {
            let events = decoded(events, kind.clone(), metrics.clone()).modify(prune);
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(mut event) => {
                        let is_news = is_news(&known, &mut event);
                        writer.apply_watcher_event(&event);
                        if is_news {
                            tracing::debug!(kind, "news");
                            news.send_replace(());
                        }
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

/// Whether anything of what is kept has changed: of ten thousand pods and nodes somebody always writes something.
fn is_news<K>(known: &Store<K>, event: &mut Event<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + PartialEq + 'static,
{
    let object = match event {
        Event::Init | Event::InitApply(_) => return false,
        Event::Delete(_) | Event::InitDone => return true,
        Event::Apply(object) => object,
    };
    let Some(before) = known.get(&ObjectRef::from_obj(object)) else { return true };
    let version = std::mem::replace(&mut object.meta_mut().resource_version, before.meta().resource_version.clone());
    let is_news = *object != *before;
    object.meta_mut().resource_version = version;
    is_news
}

/// Leaves out what cannot be read: one such object must not stop the others.
fn decoded<K>(
    events: impl Stream<Item = watcher::Result<Event<Heard<K>>>> + Send,
    kind: String,
    metrics: Metrics,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Kept + Send + 'static,
{
    events.try_filter_map(move |event| {
        let read = |guard: Heard<K>| match guard.0 {
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
pub fn prune_pod(pod: &mut core::Pod) {
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
            serde_json::from_value::<Heard<EdgeModel>>(object).unwrap()
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

    #[test]
    fn what_only_looks_new_wakes_nobody() {
        let pod = |version: &str, heard: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "resourceVersion": version},
                "spec": {"nodeName": "gw-a", "containers": []},
                "status": {"conditions": [{"type": "Ready", "status": "True", "lastProbeTime": heard}]}}))
            .unwrap()
        };
        let (store, mut writer) = reflector::store::<Pod>();
        let mut told = |mut event: Event<Pod>| {
            let is_news = is_news(&store, &mut event);
            writer.apply_watcher_event(&event);
            is_news
        };
        assert!(told(Event::Apply(pod("1", "2026-11-29T00:00:00Z"))));
        assert!(!told(Event::Apply(pod("2", "2026-11-29T00:00:10Z"))));
        let mut leaving = pod("3", "2026-11-29T00:00:10Z");
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now()));
        assert!(told(Event::Apply(leaving.clone())));
        assert!(told(Event::Delete(leaving)));
        let kept = store.get(&ObjectRef::new("p").within("n"));
        assert!(kept.is_none());
    }
}
