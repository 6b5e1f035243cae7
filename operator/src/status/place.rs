//! What is there for one model at one site: who answers, and what becomes of the place that was left.

use crate::observe::{Deployment, Key, Of, Pod, World, is_ready};
use crate::plan;
use crate::retire::{Fate, fate};
use sconce_api::{Endpoint, Reason, Tier};
use std::time::Duration;

pub const GRPC: i32 = 8001;
/// As many as the API takes.
const MOST_ENDPOINTS: usize = 8;

/// A pool of the model in the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    pub key: Key,
    pub version: String,
    pub variant: String,
    /// Of the version that the model is to run.
    pub wanted: bool,
    /// Address of its Service, once a replica is Ready.
    pub address: Option<String>,
    pub retiring: bool,
}

impl PoolView {
    /// Whether it runs what was decided. Where nothing may move that is not the version that the model is to run.
    fn is_of(&self, placement: &plan::Placement) -> bool {
        self.version == placement.version && self.variant == placement.variant
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub endpoints: Vec<Endpoint>,
    /// A pod of the decided version answers where it was decided.
    pub current: bool,
    /// Where `current` does not hold: why, and whether it is a failure rather than work. Where it holds: a failure of the pods that
    /// are to come after those that answer.
    pub trouble: (Reason, String, bool),
    /// How many pods answer in the decided tier.
    pub answering: usize,
    /// Of an edge Deployment that is not wanted any more.
    pub edge_fate: Option<Fate>,
}

/// `decided` is where the model is to run; `None` = nowhere.
pub fn places(
    world: &World,
    decided: Option<&plan::Placement>,
    edge: &Key,
    pools: &[PoolView],
    drain: Duration,
) -> Place {
    let ready: Vec<&Pod> = world.pods_of(edge).into_iter().filter(|pod| is_answering(world, pod)).collect();
    let edge_endpoints = ready.iter().filter_map(|pod| endpoint_of(pod));
    let left = world.deployments.get(edge);
    let announced = left.and_then(|left| left.retires_at());
    match decided {
        Some(placement) if placement.tier == Tier::Edge => {
            let runs = |pod: &&Pod| is_of(pod, placement);
            let current = ready.iter().any(runs);
            let mut endpoints: Vec<_> = edge_endpoints.collect();
            let answering = endpoints.len();
            // A pool that is about to be left is a fallback only while the edge does not answer.
            endpoints.extend(pool_endpoint(pools, None).filter(|_| !current || pools.iter().any(is_fallback)));
            let trouble = told(current, edge_trouble(world, edge, placement));
            Place { endpoints: capped(endpoints), current, trouble, answering, edge_fate: None }
        }
        Some(placement) => {
            let decided = pools.iter().find(|pool| pool.is_of(placement));
            let current = decided.is_some_and(|pool| pool.address.is_some());
            let mut endpoints: Vec<_> = pool_endpoint(pools, Some(placement)).into_iter().collect();
            let answering = endpoints.len();
            let edge_fate = left.map(|_| fate(announced, current, world.now, drain));
            if edge_fate.is_some_and(Fate::is_listed) {
                endpoints.extend(edge_endpoints);
            }
            let trouble = told(current, pool_trouble(world, decided));
            Place { endpoints: capped(endpoints), current, trouble, answering, edge_fate }
        }
        None => Place {
            endpoints: Vec::new(),
            current: false,
            trouble: (Reason::Pending, "no place was decided".into(), false),
            answering: 0,
            edge_fate: left.map(|_| fate(announced, true, world.now, drain)),
        },
    }
}

/// Whether a Deployment has a Ready replica.
pub fn answers(deployment: &Deployment) -> bool {
    deployment.ready_replicas > 0
}

/// A pod that is Ready, or that only its node's silence of late makes look otherwise.
fn is_answering(world: &World, pod: &Pod) -> bool {
    let node = || (String::new(), pod.node.clone().unwrap_or_default());
    let is_back = || world.nodes.get(&node()).is_some_and(|node| is_ready(node));
    pod.is_ready || pod.answers_on_its_node && is_back()
}

/// Where what was decided answers, only a failure is worth a word.
fn told(current: bool, trouble: (Reason, String, bool)) -> (Reason, String, bool) {
    if current && !trouble.2 { (Reason::Serving, String::new(), false) } else { trouble }
}

fn endpoint_of(pod: &Pod) -> Option<Endpoint> {
    Some(Endpoint { tier: Tier::Edge, address: pod.address.clone()?, port: GRPC })
}

/// The decided pool, if it answers; else a wanted one, or one of another version, that does and is not about to go.
fn pool_endpoint(pools: &[PoolView], decided: Option<&plan::Placement>) -> Option<Endpoint> {
    let rank = |pool: &&PoolView| (decided.is_some_and(|decided| pool.is_of(decided)), pool.wanted);
    let pool = pools.iter().filter(|pool| pool.address.is_some() && !pool.retiring).max_by_key(rank)?;
    Some(Endpoint { tier: Tier::Cloud, address: pool.address.clone()?, port: GRPC })
}

fn is_fallback(pool: &PoolView) -> bool {
    pool.wanted && pool.address.is_some()
}

fn capped(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    endpoints.truncate(MOST_ENDPOINTS);
    endpoints
}

/// Whether the pod runs what was decided, where it was decided.
fn is_of(pod: &Pod, placement: &plan::Placement) -> bool {
    has_version(pod, placement) && (pod.node.is_none() || pod.node == placement.node)
}

fn has_version(pod: &Pod, placement: &plan::Placement) -> bool {
    matches!(&pod.of, Of::Model { version, variant, .. } if *version == placement.version && *variant == placement.variant)
}

fn trouble_of(pod: &Pod) -> Option<(Reason, String, bool)> {
    match &pod.of {
        Of::Model { trouble, .. } => trouble.as_deref().cloned(),
        Of::Others { .. } => None,
    }
}

/// Whether all stays as it is until somebody says otherwise.
pub fn is_held(reason: Reason) -> bool {
    matches!(reason, Reason::Suspended | Reason::SitePaused | Reason::MassChangeHeld)
}

fn edge_trouble(world: &World, edge: &Key, placement: &plan::Placement) -> (Reason, String, bool) {
    if !world.deployments.contains_key(edge) && is_held(placement.reason) {
        let why = match placement.reason {
            Reason::Suspended => format!("{} is suspended", placement.model.name),
            Reason::MassChangeHeld => "its fleet holds a mass change".into(),
            _ => "the site is paused".into(),
        };
        let told = format!("the Deployment {} is gone, and nothing makes it again: {why}", edge.1);
        return (placement.reason, told, true);
    }
    let pods = world.pods_of(edge);
    let coming = |pod: &&&Pod| !pod.is_leaving() && is_of(pod, placement) && !is_answering(world, pod);
    let node = placement.node.as_deref().unwrap_or_default();
    let made = || (Reason::Starting, format!("a pod is being made on {node}"), false);
    worst(pods.iter().filter(coming).filter_map(|pod| trouble_of(pod)))
        .or_else(|| refused_pods(world, edge))
        .unwrap_or_else(made)
}

fn pool_trouble(world: &World, decided: Option<&PoolView>) -> (Reason, String, bool) {
    let pods = decided.map(|pool| world.pods_of(&pool.key)).unwrap_or_default();
    let coming = pods.iter().filter(|pod| !pod.is_leaving() && !pod.is_ready);
    worst(coming.filter_map(|pod| trouble_of(pod)))
        .or_else(|| refused_pods(world, &decided?.key))
        .unwrap_or_else(|| (Reason::Starting, "the pool in the cloud is being made".into(), false))
}

/// Why the Deployment has no pods: a quota, or an admission policy.
fn refused_pods(world: &World, deployment: &Key) -> Option<(Reason, String, bool)> {
    Some((Reason::Starting, world.deployments.get(deployment)?.refused.clone()?, true))
}

/// A failure rather than work.
fn worst(troubles: impl Iterator<Item = (Reason, String, bool)>) -> Option<(Reason, String, bool)> {
    let troubles: Vec<_> = troubles.collect();
    troubles.iter().find(|(.., failed)| *failed).or_else(|| troubles.first()).cloned()
}
