//! What goes: objects of ours that a decided model wants no longer. Never those of a model that could not be decided.

use super::site::farewell;
use super::{Input, Steps};
use crate::apply::{Target, Write};
use crate::observe::{Key, owner_model};
use crate::render::{Kind, RETIRE_AT};
use crate::retire::{Fate, fate};
use crate::status::PoolView;
use kube::ResourceExt;
use sconce_api::EdgeModel;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub struct Decided<'a> {
    pub model: &'a EdgeModel,
    /// Kind and name of all that the model is to have.
    pub wanted: &'a BTreeSet<(Kind, String)>,
    pub pools: &'a [PoolView],
    /// Addresses that routers are told of.
    pub routed: &'a BTreeSet<String>,
    /// Of edge Deployments that were left.
    pub fates: &'a BTreeMap<String, Fate>,
}

pub fn prune(input: &Input<'_>, decided: Decided<'_>, steps: &mut Steps) {
    let world = input.world;
    for live in unwanted(&decided, Kind::Deployment, &world.deployments) {
        let name = live.name_any();
        let fate = decided.fates.get(&name).copied().unwrap_or_else(|| {
            let announced = live.annotations().get(RETIRE_AT).map(String::as_str);
            fate(announced, is_replaced(&decided, &name), world.now, input.drain)
        });
        steps.look_at(fate.due());
        steps.farewells.extend(farewell(fate, Target::of(Kind::Deployment, live)));
    }
    // A pool's Service and budget go after its Deployment.
    let is_alone = |key: &Key| !world.deployments.contains_key(key);
    for live in unwanted(&decided, Kind::Service, &world.services).filter(|live| is_alone(&crate::observe::key(*live)))
    {
        steps.farewells.push(Write::Delete(Target::of(Kind::Service, live)));
    }
    let budgets = unwanted(&decided, Kind::PodDisruptionBudget, &world.disruption_budgets);
    for live in budgets.filter(|live| is_alone(&crate::observe::key(*live))) {
        steps.farewells.push(Write::Delete(Target::of(Kind::PodDisruptionBudget, live)));
    }
    for live in unwanted(&decided, Kind::EdgePlacement, &world.placements) {
        steps.farewells.push(Write::Delete(Target::of(Kind::EdgePlacement, live)));
    }
}

/// A pool is replaced once those that are wanted answer and no site is routed to it. The Deployment of a site that is
/// selected no longer has no successor to wait for.
fn is_replaced(decided: &Decided<'_>, name: &str) -> bool {
    let Some(pool) = decided.pools.iter().find(|pool| pool.key.1 == name) else { return true };
    let wanted = decided.wanted.iter().filter(|(kind, name)| *kind == Kind::Deployment && is_pool_name(decided, name));
    let answering = decided.pools.iter().filter(|pool| pool.wanted && pool.address.is_some()).count();
    let routed = pool.address.as_ref().is_some_and(|address| decided.routed.contains(address));
    wanted.count() == answering && !routed
}

fn is_pool_name(decided: &Decided<'_>, name: &str) -> bool {
    decided.wanted.contains(&(Kind::Service, name.to_owned()))
}

fn unwanted<'a, K>(decided: &'a Decided<'_>, kind: Kind, all: &'a BTreeMap<Key, Arc<K>>) -> impl Iterator<Item = &'a K>
where
    K: ResourceExt,
{
    let model = decided.model;
    let ours = move |live: &&K| {
        live.namespace() == model.namespace()
            && live.meta().deletion_timestamp.is_none()
            && owner_model(*live).as_ref() == model.metadata.name.as_ref()
            && live.owner_references().iter().any(|owner| Some(&owner.uid) == model.metadata.uid.as_ref())
            && !decided.wanted.contains(&(kind, live.name_any()))
    };
    all.values().map(Arc::as_ref).filter(ours)
}
