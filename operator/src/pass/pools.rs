//! Pools in the cloud: those that a model is to have, those that it has, and those that it keeps though nothing would wish for them.

use super::prune::Owned;
use super::site::revive;
use super::{Input, Steps};
use crate::observe::{Deployment, World, key};
use crate::plan;
use crate::render::{self, Kind, Pods};
use crate::status::{PoolView, answers};
use sconce_api::{EdgeModel, EdgeModelVersion, Selector, Tier};
use std::collections::BTreeSet;

/// The pools that the model is to have; returns their names, by kind.
pub fn render_pools(
    input: &Input<'_>,
    (model, version): (&EdgeModel, &EdgeModelVersion),
    pools: &[&plan::Pool],
    cloud: &Selector,
    steps: &mut Steps,
) -> BTreeSet<(Kind, String)> {
    let mut wanted = BTreeSet::new();
    for pool in pools {
        let (variant, replicas, request) = (&pool.variant, pool.replicas, pool.request);
        let pods = Pods { model, version, variant, replicas, request, surge: true };
        for object in render::pool_objects(&pods, cloud, input.settings) {
            wanted.insert((object.kind, object.name.clone()));
            if object.kind == Kind::Deployment {
                revive(input, &(object.namespace.clone(), object.name.clone()), steps);
            }
            // Whatever is asked of a suspended model: its pools stay as they are.
            if !model.spec.suspend || render::live(input.world, &object).is_none() {
                steps.apply(input.world, object);
            }
        }
    }
    wanted
}

/// The pools that the model has, wanted or not.
pub fn pool_views(
    world: &World,
    owned: &Owned<'_>,
    model: &EdgeModel,
    wanted: &BTreeSet<(Kind, String)>,
) -> Vec<PoolView> {
    let is_pool = |live: &&&Deployment| live.tier == Some(Tier::Cloud);
    let view = |live: &&Deployment| {
        let key = key(*live);
        let address = world.services.get(&key).and_then(|service| service.spec.as_ref()?.cluster_ip.clone());
        PoolView {
            version: live.version.clone(),
            variant: live.variant.clone(),
            wanted: wanted.contains(&(Kind::Deployment, key.1.clone())),
            address: address.filter(|_| answers(live)),
            retiring: live.retires_at().is_some(),
            key,
        }
    };
    owned.deployments.get(&key(model)).into_iter().flatten().filter(is_pool).map(view).collect()
}

/// Kind and name of all that the pools are made of.
pub fn objects<'a>(pools: impl Iterator<Item = &'a PoolView>) -> impl Iterator<Item = (Kind, String)> {
    const KINDS: [Kind; 3] = [Kind::Deployment, Kind::Service, Kind::PodDisruptionBudget];
    pools.flat_map(|pool| KINDS.map(|kind| (kind, pool.key.1.clone())))
}
