//! What goes: objects of ours that a decided model wants no longer. Never those of a model that could not be decided.

use super::site::farewell;
use super::{Input, Steps};
use crate::apply::{Target, Write};
use crate::observe::{Deployment, Key, Placement, World, by_model};
use crate::render::Kind;
use crate::retire::{Fate, fate};
use crate::status::PoolView;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use sconce_api::EdgeModel;
use std::collections::{BTreeMap, BTreeSet};

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

/// All that models have, by model.
pub struct Owned<'a> {
    pub deployments: BTreeMap<Key, Vec<&'a Deployment>>,
    services: BTreeMap<Key, Vec<&'a Service>>,
    disruption_budgets: BTreeMap<Key, Vec<&'a PodDisruptionBudget>>,
    placements: BTreeMap<Key, Vec<&'a Placement>>,
}

impl<'a> Owned<'a> {
    pub fn of(world: &'a World) -> Self {
        Self {
            deployments: by_model(&world.deployments),
            services: by_model(&world.services),
            disruption_budgets: by_model(&world.disruption_budgets),
            placements: by_model(&world.placements),
        }
    }
}

pub fn prune(input: &Input<'_>, owned: &Owned<'_>, decided: Decided<'_>, steps: &mut Steps) {
    let world = input.world;
    for live in unwanted(&decided, Kind::Deployment, &owned.deployments) {
        let name = live.name_any();
        let fate = decided
            .fates
            .get(&name)
            .copied()
            .unwrap_or_else(|| fate(live.retires_at(), is_replaced(&decided, &name), world.now, input.drain));
        steps.look_at(fate.due());
        steps.farewells.extend(farewell(fate, Target::of(Kind::Deployment, live)));
    }
    // A pool's Service and budget go after its Deployment.
    let is_alone = |key: &Key| !world.deployments.contains_key(key);
    for live in unwanted(&decided, Kind::Service, &owned.services).filter(|live| is_alone(&crate::observe::key(*live)))
    {
        steps.farewells.push(Write::Delete(Target::of(Kind::Service, live)));
    }
    let budgets = unwanted(&decided, Kind::PodDisruptionBudget, &owned.disruption_budgets);
    for live in budgets.filter(|live| is_alone(&crate::observe::key(*live))) {
        steps.farewells.push(Write::Delete(Target::of(Kind::PodDisruptionBudget, live)));
    }
    for live in unwanted(&decided, Kind::EdgePlacement, &owned.placements) {
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

fn unwanted<'a, K>(decided: &'a Decided<'_>, kind: Kind, all: &'a BTreeMap<Key, Vec<&K>>) -> impl Iterator<Item = &'a K>
where
    K: ResourceExt,
{
    let model = decided.model;
    let unwanted = move |live: &&K| {
        live.meta().deletion_timestamp.is_none()
            && live.owner_references().iter().any(|owner| Some(&owner.uid) == model.metadata.uid.as_ref())
            && !decided.wanted.contains(&(kind, live.name_any()))
    };
    all.get(&crate::observe::key(model)).into_iter().flatten().copied().filter(unwanted)
}
