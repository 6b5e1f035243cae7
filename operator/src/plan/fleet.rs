//! The fleet level: what the cloud offers each model, and the pools that it keeps for all sites together.

use super::predict::{Load, Service};
use super::{
    CloudOffer, DataStays, FleetModel, FleetPlan, FleetSnapshot, ModelName, Node, Pool, Resources, Speed, Variant,
    predict, text,
};
use sconce_api::{Reason, Requirement, TierChoice};
use std::cmp::Reverse;
use std::collections::BTreeSet;

pub(super) fn plan(snapshot: &FleetSnapshot) -> FleetPlan {
    let mut plan = FleetPlan::default();
    for model in &snapshot.models {
        plan.offers.insert(model.name.clone(), offer(&snapshot.cloud_nodes, model));
        plan.pools.append(&mut pools(snapshot, model));
    }
    plan.pools.sort_by(|a, b| (&a.model, &a.variant).cmp(&(&b.model, &b.variant)));
    plan
}

/// The slowest class that a pod of the model may land on, or the first filter that leaves no node.
fn offer(nodes: &[Node], model: &FleetModel) -> CloudOffer {
    let none = |reason, message: String| CloudOffer::None { reason, message };
    if model.tier == TierChoice::Edge {
        return none(Reason::TierExcluded, "placement.tier is Edge".into());
    }
    if let Some(why) = stays(model) {
        return none(Reason::DataMustStay, why.clone());
    }
    if nodes.is_empty() {
        return none(Reason::NoNodes, "the fleet has no cloud node".into());
    }
    let ready: Vec<_> = nodes.iter().filter(|node| node.ready).collect();
    if ready.is_empty() {
        return none(Reason::NodeNotReady, "no cloud node is Ready".into());
    }
    let staying: Vec<_> = ready.into_iter().filter(|node| !node.leaving).collect();
    if staying.is_empty() {
        return none(Reason::NodeLeaving, "every cloud node is cordoned or about to leave".into());
    }
    let fitting: Vec<_> = staying.iter().copied().filter(|node| meets(node, &model.require)).collect();
    if fitting.is_empty() {
        return none(Reason::HardwareMismatch, mismatch(&staying, &model.require));
    }
    match slowest(fitting.into_iter()) {
        Some(speed) => CloudOffer::Pool(speed.clone()),
        None => none(Reason::NoProfile, "no agent of a cloud node has reported its speed yet".into()),
    }
}

/// Models that would lose their last pool although the cloud may serve them: nobody wishes that, nodes are missing.
pub(super) fn lost_pools(snapshot: &FleetSnapshot, plan: &FleetPlan) -> BTreeSet<ModelName> {
    let kept: BTreeSet<&ModelName> = plan.pools.iter().map(|pool| &pool.model).collect();
    let may = |model: &&FleetModel| model.tier != TierChoice::Edge && stays(model).is_none();
    let lost = snapshot.models.iter().filter(|model| model.has_pool && !kept.contains(&model.name)).filter(may);
    lost.map(|model| model.name.clone()).collect()
}

/// Why no site's requests may go to the cloud.
fn stays(model: &FleetModel) -> Option<&String> {
    match model.data_stays.as_ref()? {
        DataStays::Always(why) => Some(why),
        DataStays::Unknown(why) => (!model.has_pool).then_some(why),
    }
}

fn meets(node: &Node, require: &[Requirement]) -> bool {
    text::lacking(require, node).is_none()
}

/// Names the first requirement that no node meets, or all of them where each is met somewhere.
fn mismatch(nodes: &[&Node], require: &[Requirement]) -> String {
    let unmet = require.iter().find(|requirement| !nodes.iter().any(|node| requirement.matches(&node.labels)));
    match unmet {
        Some(requirement) => format!("no cloud node has {}", text::requirement(requirement)),
        None => {
            let all: Vec<_> = require.iter().map(text::requirement).collect();
            format!("no cloud node has {} together", all.join(" and "))
        }
    }
}

fn slowest<'a>(nodes: impl Iterator<Item = &'a Node>) -> Option<&'a Speed> {
    nodes
        .filter_map(|node| node.speed.as_ref())
        .filter(|speed| speed.gflops > 0)
        .min_by_key(|speed| (speed.gflops, speed.class.as_str(), speed.cores))
}

/// One pool per variant that sites use, and one of the best variant: the routers' fallback. A pool outlives the moment
/// in which no node is Ready: its pods may serve on, and a fallback that vanishes is none.
fn pools(snapshot: &FleetSnapshot, model: &FleetModel) -> Vec<Pool> {
    let FleetSnapshot { cloud_nodes: nodes, reserve_millis, .. } = snapshot;
    if model.tier == TierChoice::Edge || stays(model).is_some() {
        return Vec::new();
    }
    let Some(speed) = slowest(nodes.iter().filter(|node| meets(node, &model.require))) else { return Vec::new() };
    let fallback = best_variant(model).map(|variant| variant.name.as_str());
    let pool = |variant: &Variant| {
        let load = model.cloud_load.get(&variant.name).copied();
        let kept = load.is_some() || fallback == Some(&variant.name);
        kept.then(|| sized(model, variant, speed, load.unwrap_or(0), *reserve_millis)).flatten()
    };
    model.variants.iter().filter_map(pool).collect()
}

/// The most accurate variant above the floor; among equals the one that computes least, then by name.
fn best_variant(model: &FleetModel) -> Option<&Variant> {
    model
        .variants
        .iter()
        .filter(|variant| {
            model.accuracy_floor_millis.is_none_or(|floor| variant.accuracy_millis.is_some_and(|a| a >= floor))
        })
        .min_by_key(|variant| (Reverse(variant.accuracy_millis), variant.flops, variant.name.as_str()))
}

fn sized(
    model: &FleetModel,
    variant: &Variant,
    speed: &Speed,
    requests_per_second: u64,
    reserve_millis: u64,
) -> Option<Pool> {
    let service = Service::in_cloud(variant, speed)?;
    let load = Load::of_pool(model, requests_per_second, reserve_millis);
    let (replicas, _) = load.replicas(&service, u64::MAX);
    let request = Resources {
        cpu_millis: stepped(load.cpu_millis(load.request_ns(&service, replicas), replicas)),
        memory_bytes: predict::memory_bytes(variant, model.max_batch_size),
    };
    Some(Pool {
        model: model.name.clone(),
        version: model.version.clone(),
        variant: variant.name.clone(),
        replicas,
        request,
    })
}

/// Rounds up to 50 m, 100 m, 200 m, 400 m, 800 m, 1000 m: a request is part of the pod's template, and one more site
/// should rarely restart the pool. A replica has no use for more than its one core.
fn stepped(cpu_millis: u64) -> u64 {
    [50, 100, 200, 400, 800].into_iter().find(|step| cpu_millis <= *step).unwrap_or(1000)
}
