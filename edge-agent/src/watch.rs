//! Follows the placements that matter to this node, and keeps the routes file by them.

use crate::metrics::Metrics;
use crate::routes::{self, Routes};
use futures::StreamExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use sconce_api::{Decision, EdgePlacement, Tier, labels};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Until a file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Which placements matter to this node's router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of one site, by the label's value.
    Site(String),
    /// All, as far as they are answered in the cloud.
    Cloud,
}

impl Scope {
    /// From the labels that the operator puts on the EdgeNode; `None` until it has.
    pub fn of(node: &BTreeMap<String, String>) -> Option<Self> {
        let tier = node.get(labels::TIER)?;
        if tier.eq_ignore_ascii_case("cloud") {
            Some(Self::Cloud)
        } else {
            node.get(labels::SITE).map(|site| Self::Site(site.clone()))
        }
    }

    fn config(&self) -> watcher::Config {
        // A connection that died silently is noticed within a minute.
        let config = watcher::Config::default().timeout(60);
        match self {
            Self::Site(site) => config.labels(&format!("{}={site}", labels::SITE)),
            Self::Cloud => config,
        }
    }
}

/// What may run on this node, and what does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// EdgeModelVersions of the placements that matter here, by namespace and name.
    pub versions: BTreeSet<(String, String)>,
    /// Servers of models that run on this node, as far as the placements tell: those of a site.
    pub servers: BTreeSet<IpAddr>,
}

impl Here {
    fn of<'a>(placements: impl Iterator<Item = &'a EdgePlacement>, node: &str) -> Self {
        let mut here = Self::default();
        for placement in placements {
            let version = placement.spec.version_ref.name.clone();
            here.versions.insert((placement.namespace().unwrap_or_default(), version));
            let status = placement.status.as_ref();
            // Of several nodes nobody says which server is on which.
            let is_here = |decision: &Decision| decision.nodes.len() == 1 && decision.nodes[0] == node;
            if status.and_then(|status| status.decision.as_ref()).is_some_and(is_here) {
                let endpoints = status.into_iter().flat_map(|status| &status.endpoints);
                let edge = endpoints.filter(|endpoint| endpoint.tier == Tier::Edge);
                here.servers.extend(edge.filter_map(|endpoint| endpoint.address.parse::<IpAddr>().ok()));
            }
        }
        here
    }
}

/// The routes file and the placements that it comes from.
pub struct Keeper {
    node: String,
    here: watch::Sender<Option<Here>>,
    file: PathBuf,
    written: Routes,
    placements: BTreeMap<(String, String), EdgePlacement>,
    /// A list that is being read; it counts once it is complete.
    incoming: Option<BTreeMap<(String, String), EdgePlacement>>,
    metrics: Metrics,
}

type Guarded = DeserializeGuard<EdgePlacement>;

impl Keeper {
    /// Starts from what the file says: routes outlive this process.
    pub fn new(node: String, file: PathBuf, here: watch::Sender<Option<Here>>, metrics: Metrics) -> Self {
        let written = routes::read(&file).unwrap_or_default();
        Self { node, here, file, written, placements: BTreeMap::new(), incoming: None, metrics }
    }

    /// Keeps the file for ever; `listed` is told after each change that the file holds.
    pub async fn keep(mut self, client: Client, mut scope: watch::Receiver<Option<Scope>>, listed: impl Fn()) {
        loop {
            let current = scope.borrow_and_update().clone();
            let Some(current) = current else {
                if scope.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tracing::info!(scope = ?current, "following placements");
            tokio::select! {
                () = self.follow(&client, &current, &listed) => {}
                changed = scope.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn follow(&mut self, client: &Client, scope: &Scope, listed: &impl Fn()) {
        let api: Api<Guarded> = Api::all(client.clone());
        let mut events = std::pin::pin!(watcher(api, scope.config()).default_backoff());
        let (mut unwritten, mut failing) = (false, false);
        loop {
            let changed = tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        failing = false;
                        self.take(event)
                    }
                    Some(Err(error)) => {
                        self.metrics.api_error("watch placements");
                        let error = &error as &dyn std::error::Error;
                        // As with the EdgeNode: said once, counted always.
                        if failing {
                            tracing::debug!(error, "placements still not followed");
                        } else {
                            tracing::warn!(error, "placements not followed; routes stay");
                        }
                        failing = true;
                        false
                    }
                    None => return,
                },
                () = sleep(RETRY), if unwritten => true,
            };
            if changed {
                self.tell();
                unwritten = !self.write(scope);
                if !unwritten {
                    listed();
                }
            }
        }
    }

    /// True if the placements may have changed and are complete.
    fn take(&mut self, event: watcher::Event<Guarded>) -> bool {
        match event {
            watcher::Event::Init => self.incoming = Some(BTreeMap::new()),
            watcher::Event::InitApply(object) => {
                let key = key(&object);
                // One that we cannot read is as it was when we could.
                let placement = readable(object).or_else(|| self.placements.get(&key).cloned());
                if let (Some(placement), Some(incoming)) = (placement, self.incoming.as_mut()) {
                    incoming.insert(key, placement);
                }
            }
            watcher::Event::InitDone => {
                self.placements = self.incoming.take().unwrap_or_default();
                return true;
            }
            watcher::Event::Apply(object) => {
                let key = key(&object);
                if let Some(placement) = readable(object) {
                    self.placements.insert(key, placement);
                    return true;
                }
            }
            watcher::Event::Delete(object) => {
                self.placements.remove(&key(&object));
                return true;
            }
        }
        false
    }

    fn tell(&self) {
        let here = Some(Here::of(self.placements.values(), &self.node));
        self.here.send_if_modified(|old| {
            *old != here && {
                old.clone_from(&here);
                true
            }
        });
    }

    /// True if the file says what the placements ask for.
    fn write(&mut self, scope: &Scope) -> bool {
        let routes = routes::routes(self.placements.values(), scope, &self.written);
        if routes == self.written && self.file.exists() {
            return true;
        }
        match routes::write(&self.file, &routes) {
            Ok(()) => {
                self.metrics.routes_written(routes.models.len());
                tracing::info!(models = routes.models.len(), "routes written");
                self.written = routes;
                true
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "routes not written; the old file stays");
                false
            }
        }
    }
}

fn key(object: &Guarded) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn readable(object: Guarded) -> Option<EdgePlacement> {
    object
        .0
        .inspect_err(|error| tracing::warn!(error = error.error, "placement not understood; it stays as it was"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::ObjectMeta;
    use kube::core::error_boundary::InvalidObject;
    use serde_json::json;
    use watcher::Event;

    fn placement(model: &str, address: &str) -> Guarded {
        DeserializeGuard(Ok(serde_json::from_value(json!({
            "apiVersion": "sconce.dev/v1alpha1",
            "kind": "EdgePlacement",
            "metadata": {"name": model, "namespace": "vision"},
            "spec": {"modelRef": {"name": model}, "siteRef": {"name": "site-a"}, "versionRef": {"name": "v1"}},
            "status": {"endpoints": [{"tier": "Edge", "address": address, "port": 8001}]},
        }))
        .unwrap()))
    }

    fn unreadable(model: &str) -> Guarded {
        let metadata =
            ObjectMeta { name: Some(model.into()), namespace: Some("vision".into()), ..ObjectMeta::default() };
        DeserializeGuard(Err(InvalidObject { error: "unknown variant".into(), metadata }))
    }

    /// A keeper, and what its file says after each event.
    fn told(events: Vec<Event<Guarded>>) -> Vec<Option<Vec<String>>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("routes.json");
        let mut keeper = Keeper::new("a-1".into(), file.clone(), watch::channel(None).0, Metrics::default());
        let mut told = Vec::new();
        for event in events {
            if keeper.take(event) {
                assert!(keeper.write(&Scope::Site("site-a".into())));
            }
            told.push(routes::read(&file).map(|routes| {
                let backends = routes.models.into_values().flat_map(|route| route.backends);
                backends.map(|backend| backend.address).collect()
            }));
        }
        told
    }

    #[test]
    fn a_list_counts_once_it_is_complete() {
        let says = |addresses: &[&str]| Some(addresses.iter().map(ToString::to_string).collect());
        let told = told(vec![
            Event::Init,
            Event::InitApply(placement("digits", "10.0.0.1")),
            Event::InitApply(placement("keyword", "10.0.0.2")),
            Event::InitDone,
            // The watch was interrupted, and then the new list too.
            Event::Init,
            Event::InitApply(placement("digits", "10.0.0.3")),
            Event::Init,
            Event::InitApply(placement("digits", "10.0.0.4")),
            Event::InitDone,
        ]);
        let first = says(&["10.0.0.1:8001", "10.0.0.2:8001"]);
        let expected = [
            None,
            None,
            None,
            first.clone(),
            first.clone(),
            first.clone(),
            first.clone(),
            first,
            says(&["10.0.0.4:8001"]),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_placement_that_we_cannot_read_stays_as_it_was() {
        let says = |addresses: &[&str]| Some(addresses.iter().map(ToString::to_string).collect());
        let told = told(vec![
            Event::Init,
            Event::InitApply(placement("digits", "10.0.0.1")),
            Event::InitDone,
            Event::Apply(unreadable("digits")),
            Event::Init,
            Event::InitApply(unreadable("digits")),
            Event::InitDone,
            Event::Delete(unreadable("digits")),
        ]);
        assert_eq!(told.last(), Some(&says(&[])));
        assert!(told[2..7].iter().all(|told| *told == says(&["10.0.0.1:8001"])), "{told:?}");
    }

    #[test]
    fn what_may_run_here_and_what_does_is_told() {
        let placement = |model: &str, node: &str, tier: &str| -> EdgePlacement {
            let mut placement = readable(placement(model, &format!("10.0.0.{}", model.len()))).unwrap();
            let status = json!({"decision": {"tier": tier, "nodes": [node], "variant": "f32", "replicas": 1,
                "reason": "ChosenAtEdge", "since": "2026-11-24T09:00:00Z"},
                "endpoints": [{"tier": tier, "address": format!("10.0.0.{}", model.len()), "port": 8001},
                    {"tier": "Cloud", "address": "10.96.0.1", "port": 8001}]});
            placement.status = Some(serde_json::from_value(status).unwrap());
            placement
        };
        let placements = [placement("a", "a-1", "Edge"), placement("bb", "a-2", "Edge"), placement("ccc", "", "Cloud")];
        let here = Here::of(placements.iter(), "a-1");
        assert_eq!(here.versions, BTreeSet::from([("vision".into(), "v1".into())]));
        assert_eq!(here.servers, BTreeSet::from(["10.0.0.1".parse().unwrap()]));
    }

    #[test]
    fn a_scope_needs_the_operators_labels() {
        let scope = |pairs: &[(&str, &str)]| {
            Scope::of(&pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
        };
        assert_eq!(scope(&[]), None);
        assert_eq!(scope(&[("sconce.dev/tier", "edge")]), None);
        assert_eq!(scope(&[("sconce.dev/tier", "cloud")]), Some(Scope::Cloud));
        assert_eq!(
            scope(&[("sconce.dev/tier", "edge"), ("sconce.dev/site", "store-1")]),
            Some(Scope::Site("store-1".into()))
        );
    }
}
