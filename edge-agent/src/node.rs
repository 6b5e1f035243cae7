//! This node's EdgeNode: made once, its status written when the numbers have moved. The only object that we write.

use crate::link::Link;
use crate::measure::Told;
use crate::metrics::Metrics;
use crate::profiles::Profiles;
use crate::router::Waits;
use crate::status::{self, Cloud, Measured};
use crate::watch::Scope;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use sconce_api::{EdgeNode, EdgeNodeSpec, EdgeNodeStatus, Hardware, NodeUsage};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

pub const MANAGER: &str = "sconce-agent";
/// Until the operator has labelled the node and the link is probed, news are awaited at this pace.
const EARLY: Duration = Duration::from_secs(2);
const CALL: Duration = Duration::from_secs(20);

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("cannot {call}")]
    Call { call: &'static str, source: kube::Error },
    #[error("cannot {call}: no answer in 20 s")]
    Timeout { call: &'static str },
    #[error("the Node has no uid")]
    NoUid,
}

impl Error {
    fn call(&self) -> &'static str {
        match self {
            Error::Call { call, .. } | Error::Timeout { call } => call,
            Error::NoUid => "get the Node",
        }
    }
}

/// What is reported.
pub struct Seen {
    pub hardware: Hardware,
    pub link: watch::Receiver<Link>,
    /// As the link, but to the router beside us.
    pub local: watch::Receiver<Link>,
    pub uplink: watch::Receiver<Option<u64>>,
    pub usage: watch::Receiver<Option<NodeUsage>>,
    pub profiles: watch::Receiver<Option<Profiles>>,
    pub waits: watch::Receiver<Waits>,
}

/// Who hears what the own EdgeNode says.
pub struct Tell {
    /// By its labels.
    pub scope: watch::Sender<Option<Scope>>,
    /// Its profiles.
    pub told: watch::Sender<Told>,
}

/// Writes the EdgeNode of one node.
pub struct Reporter {
    pub name: String,
    pub seen: Seen,
    pub nodes: Api<Node>,
    pub edge_nodes: Api<EdgeNode>,
    pub tell: Tell,
    pub interval: Duration,
    pub metrics: Metrics,
    pub started: Instant,
    /// When the status was last written by this process.
    pub written: Option<Instant>,
}

impl Reporter {
    pub fn new(client: Client, name: String, seen: Seen, tell: Tell, interval: Duration, metrics: Metrics) -> Self {
        Self {
            name,
            seen,
            nodes: Api::all(client.clone()),
            edge_nodes: Api::all(client),
            tell,
            interval,
            metrics,
            started: Instant::now(),
            written: None,
        }
    }

    /// Reports for ever; `turned` is told after each turn, whether or not the API server answered.
    pub async fn report(mut self, turned: impl Fn(bool)) {
        let early = EARLY.min(self.interval);
        let mut pace = early;
        let mut failing = false;
        loop {
            let settled = match self.turn().await {
                Ok(settled) => {
                    if failing {
                        tracing::info!("the API server answers again");
                    }
                    failing = false;
                    pace = if settled { self.interval } else { early };
                    settled
                }
                Err(error) => {
                    self.metrics.api_error(error.call());
                    let source = &error as &dyn std::error::Error;
                    // A site may be cut off for days: said once, counted always.
                    if failing {
                        tracing::debug!(error = source, "EdgeNode still not kept");
                    } else {
                        tracing::warn!(error = source, "EdgeNode not kept; trying until it is");
                    }
                    pace = if failing { (pace * 2).min(self.interval) } else { early };
                    failing = true;
                    false
                }
            };
            turned(settled);
            tokio::select! {
                () = sleep(pace) => {}
                // What was just measured may decide where a model goes.
                Ok(()) = self.seen.profiles.changed() => {}
            }
        }
    }

    /// One look at the own EdgeNode, and what follows from it. True once labels and the link are there.
    async fn turn(&mut self) -> Result<bool, Error> {
        let edge_node = match call("get the EdgeNode", self.edge_nodes.get_opt(&self.name)).await? {
            Some(edge_node) => edge_node,
            None => self.create().await?,
        };
        let scope = Scope::of(edge_node.labels());
        // Labels that are gone tell nothing: the routes stay as they were.
        self.tell.scope.send_if_modified(|old| {
            scope.is_some() && *old != scope && {
                *old = scope.clone();
                true
            }
        });
        let (link, now) = (*self.seen.link.borrow(), Instant::now());
        let local = *self.seen.local.borrow();
        let (uplink, waits) = (*self.seen.uplink.borrow(), self.seen.waits.borrow().clone());
        let (usage, profiles) = (self.seen.usage.borrow().clone(), self.seen.profiles.borrow().clone());
        let cloud = Cloud::of(&link, self.started, now);
        let last_write = self.written.map(|written| now.duration_since(written));
        let old = edge_node.status.as_ref();
        let hardware = &self.seen.hardware;
        let measured =
            Measured { hardware, link: &link, local: &local, uplink, usage, profiles: profiles.as_ref(), waits };
        let mut told = status::profiles_of(old, hardware).to_vec();
        if let Some(new) = status::next(old, measured, cloud, last_write, Time(Timestamp::now())) {
            self.write(&new).await?;
            self.written = Some(now);
            told = new.profiles;
        }
        let told = Some(told);
        self.tell.told.send_if_modified(|old| {
            *old != told && {
                old.clone_from(&told);
                true
            }
        });
        Ok(scope.is_some() && cloud != Cloud::Probing)
    }

    async fn create(&self) -> Result<EdgeNode, Error> {
        let node = call("get the Node", self.nodes.get(&self.name)).await?;
        let mut edge_node = EdgeNode::new(&self.name, EdgeNodeSpec {});
        edge_node.metadata = ObjectMeta {
            name: Some(self.name.clone()),
            // Goes with its Node, so that a node made again under the name starts anew.
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: self.name.clone(),
                uid: node.uid().ok_or(Error::NoUid)?,
                ..Default::default()
            }]),
            ..Default::default()
        };
        let body = Patch::Apply(&edge_node);
        let made = call("create the EdgeNode", self.edge_nodes.patch(&self.name, &parameters(), &body)).await?;
        tracing::info!(edge_node = self.name, "EdgeNode created");
        Ok(made)
    }

    async fn write(&self, status: &EdgeNodeStatus) -> Result<(), Error> {
        let body = json!({"apiVersion": EdgeNode::api_version(&()), "kind": EdgeNode::kind(&()), "status": status});
        let body = Patch::Apply(&body);
        call("write the EdgeNode's status", self.edge_nodes.patch_status(&self.name, &parameters(), &body)).await?;
        self.metrics.status_written();
        let round_trip = status.link.as_ref().map(|link| &link.round_trip);
        tracing::info!(
            ready = status.conditions.iter().any(|condition| condition.status == "True"),
            p50 = round_trip.map(|round_trip| round_trip.p50.to_string()),
            p99 = round_trip.and_then(|round_trip| round_trip.p99.as_ref().map(ToString::to_string)),
            "status written"
        );
        Ok(())
    }
}

fn parameters() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

async fn call<T>(call: &'static str, answer: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    timeout(CALL, answer).await.map_err(|_| Error::Timeout { call })?.map_err(|source| Error::Call { call, source })
}
