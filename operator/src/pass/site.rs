//! Sites: plans each, and turns the plan into what is written.

use super::prune::{Decided as PruneInput, prune};
use super::{Input, Steps, caught, conditions, news};
use crate::apply::{Refusal, Target, Write};
use crate::names;
use crate::observe::{FleetView, Key, SiteView, World, fleet_snapshot, owner_model, site_snapshot};
use crate::plan::{self, ModelName, Plan, plan_fleet, plan_site};
use crate::render::{self, Kind, Pods, RETIRE_AT};
use crate::retire::Fate;
use crate::status::{self, Decided, Outcome, Place, PoolView, answers};
use kube::ResourceExt;
use sconce_api::{EdgeModel, EdgeModelVersion, Reason, Selector, Tier, labels};
use std::collections::{BTreeMap, BTreeSet};

type Resolved<'a> = (&'a EdgeModel, &'a EdgeModelVersion);

/// What is decided for a fleet: for each registered site, and for the pools that sites share.
pub struct Decisions<'a> {
    pub sites: Vec<(&'a String, Plan)>,
    pub pools: Vec<plan::Pool>,
}

/// Plans every site of a fleet and its pools. `None` where one of them panicked, which is told: of a fleet with a site
/// that cannot be decided nothing is removed, since what it would have wanted is not known.
pub fn plan_all<'a>(
    world: &World,
    view: &'a FleetView,
    models: &[Resolved<'_>],
    panics: &mut Vec<String>,
) -> Option<Decisions<'a>> {
    let fleet = view.fleet.name_any();
    let fleet_plan = |panics: &mut Vec<String>, cloud_sites: &BTreeMap<_, _>| {
        let snapshot = fleet_snapshot(world, view, models, cloud_sites);
        caught(|| format!("fleet {fleet}"), panics, || plan_fleet(&snapshot))
    };
    let offers = fleet_plan(panics, &BTreeMap::new())?.offers;
    let mut sites = Vec::new();
    for (name, site) in &view.sites {
        let Some(object) = &site.object else { continue };
        let selects = |(model, _): &&Resolved<'_>| {
            model.spec.sites.as_ref().is_none_or(|selector| selector.matches(object.labels()))
        };
        let selected: Vec<Resolved<'_>> = models.iter().filter(selects).copied().collect();
        let snapshot = site_snapshot(world, &view.fleet, name, site, &selected, &offers);
        sites.push((name, caught(|| format!("site {name}"), panics, || plan_site(&snapshot))?));
    }
    let pools = fleet_plan(panics, &cloud_sites(&sites))?.pools;
    Some(Decisions { sites, pools })
}

/// Turns what is decided for a fleet into what is written.
pub fn decide(
    input: &Input<'_>,
    view: &FleetView,
    models: &[Resolved<'_>],
    outcomes: &mut BTreeMap<Key, Vec<Outcome>>,
    steps: &mut Steps,
) {
    let settings = render::Settings { trusted_keys: view.fleet.spec.trusted_keys(), ..input.settings.clone() };
    let input = &Input { settings: &settings, ..*input };
    let world = input.world;
    let Some(Decisions { sites, pools }) = plan_all(world, view, models, &mut steps.panics) else { return };
    let cloud = view.fleet.spec.cloud.as_ref().map(|cloud| cloud.node_selector.clone()).unwrap_or_default();
    for resolved in models {
        let model = resolved.0;
        let pools = pools.iter().filter(|pool| is_named(&pool.model, model)).collect::<Vec<_>>();
        let mut wanted = render_pools(input, *resolved, &pools, &cloud, steps);
        let pools = pool_views(input, model, &wanted);
        let mut routed: BTreeSet<String> = BTreeSet::new();
        let mut fates = BTreeMap::new();
        let mine = outcomes.entry(crate::observe::key(model)).or_default();
        for (site, plan) in &sites {
            let Some(decided) = of_model(plan, model) else { continue };
            let name = names::placement(&model.name_any(), site);
            let (place, outcome) =
                at_site(input, *resolved, (site, &view.sites[*site]), decided, &pools, &mut wanted, steps);
            let keeps_routes =
                matches!(decided, Decided::Placed(placement) if placement.reason == Reason::KeptUnreachable);
            let endpoints = if keeps_routes {
                // Its routers cannot be told of another pool: the one that they know stays.
                let live = world.placements.get(&(model.namespace().unwrap_or_default(), name.clone()));
                live.and_then(|live| live.status.as_ref()).map(|status| status.endpoints.clone()).unwrap_or_default()
            } else {
                place.endpoints.clone()
            };
            routed.extend(endpoints.into_iter().map(|endpoint| endpoint.address));
            if let Some(fate) = place.edge_fate {
                fates.insert(name, fate);
            }
            mine.push(outcome);
        }
        prune(input, PruneInput { model, wanted: &wanted, pools: &pools, routed: &routed, fates: &fates }, steps);
    }
}

/// One model at one site: its objects and its status.
fn at_site(
    input: &Input<'_>,
    (model, version): Resolved<'_>,
    (site, view): (&str, &SiteView),
    decided: Decided<'_>,
    pools: &[PoolView],
    wanted: &mut BTreeSet<(Kind, String)>,
    steps: &mut Steps,
) -> (Place, Outcome) {
    let world = input.world;
    let key = (model.namespace().unwrap_or_default(), names::placement(&model.name_any(), site));
    let live = world.placements.get(&key);
    let placement = match decided {
        Decided::Placed(placement) => Some(placement),
        Decided::Unplaced(_) => None,
    };
    let is_kept = |reason| matches!(reason, Reason::KeptUnreachable | Reason::Suspended | Reason::SitePaused);
    let kept = placement.filter(|placement| is_kept(placement.reason));
    let mut place = status::places(world, placement, &key, pools, input.drain);
    wanted.insert((Kind::EdgePlacement, key.1.clone()));
    if kept.is_some_and(|kept| kept.tier == Tier::Edge || kept.reason == Reason::KeptUnreachable) {
        // Of what is kept nothing goes, and nothing is written but that it is kept. What was about to leave leaves.
        wanted.insert((Kind::Deployment, key.1.clone()));
    }
    if let Some(placement) = placement.filter(|placement| placement.tier == Tier::Edge && kept.is_none()) {
        wanted.insert((Kind::Deployment, key.1.clone()));
        let pods = Pods {
            model,
            version,
            variant: &placement.variant,
            replicas: placement.replicas,
            request: placement.request,
        };
        let node = placement.node.as_deref().unwrap_or_default();
        steps.apply(world, render::edge_deployment(&pods, site, node, input.settings));
        revive(input, &key, steps);
    }
    if let Some(refusal) =
        placement.filter(|_| !place.current).and_then(|placement| refusal(input, model, &key, placement))
    {
        place.trouble = (refusal.reason, refusal.message.clone(), true);
    }
    if kept.is_none() || live.is_none() {
        let runs = placement.map_or(&*version.name_any(), |placement| &placement.version).to_owned();
        steps.apply(world, render::placement(model, site, &runs, placement.map(|placement| placement.tier)));
    }
    let observed = placement.map(|placement| status::observed(world, &view.nodes, model, placement.tier));
    let (new, outcome) = status::edge_placement(
        world,
        live.map(AsRef::as_ref),
        model,
        site,
        decided,
        &place,
        observed.unwrap_or_default(),
    );
    if let Some(live) = live {
        let news = news(live.as_ref(), &["Placed"], conditions(&live.status, |s| &s.conditions), &new.conditions);
        steps.status(Kind::EdgePlacement, live.as_ref(), live.status.as_ref(), &new, news);
    }
    (place, outcome)
}

/// What keeps the place from being made.
fn refusal<'a>(
    input: &'a Input<'_>,
    model: &EdgeModel,
    edge: &Key,
    placement: &plan::Placement,
) -> Option<&'a Refusal> {
    let of = |kind, key: &Key| input.refusals.get(&(kind, key.clone()));
    match placement.tier {
        Tier::Edge => of(Kind::Deployment, edge),
        Tier::Cloud => {
            let pool = (edge.0.clone(), names::pool(&model.name_any(), &placement.digest, &placement.variant));
            of(Kind::Deployment, &pool).or_else(|| of(Kind::Service, &pool))
        }
    }
}

/// A Deployment that is wanted again does not go.
fn revive(input: &Input<'_>, key: &Key, steps: &mut Steps) {
    if let Some(live) = input.world.deployments.get(key).filter(|live| live.annotations().contains_key(RETIRE_AT)) {
        steps.farewells.extend(farewell(Fate::Revive, Target::of(Kind::Deployment, live.as_ref())));
    }
}

/// What a fate asks to be written.
pub fn farewell(fate: Fate, target: Target) -> Option<Write> {
    match fate {
        Fate::Keep | Fate::Wait(_) => None,
        Fate::Announce(at) => Some(Write::Retire { target, at: Some(at) }),
        Fate::Revive => Some(Write::Retire { target, at: None }),
        Fate::Delete => Some(Write::Delete(target)),
    }
}

/// The pools that the model is to have; returns their names, by kind.
fn render_pools(
    input: &Input<'_>,
    (model, version): Resolved<'_>,
    pools: &[&plan::Pool],
    cloud: &Selector,
    steps: &mut Steps,
) -> BTreeSet<(Kind, String)> {
    let mut wanted = BTreeSet::new();
    for pool in pools {
        let pods = Pods { model, version, variant: &pool.variant, replicas: pool.replicas, request: pool.request };
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
fn pool_views(input: &Input<'_>, model: &EdgeModel, wanted: &BTreeSet<(Kind, String)>) -> Vec<PoolView> {
    let namespace = model.namespace().unwrap_or_default();
    let of_model = input.world.deployments.iter().filter(|((ns, _), live)| {
        *ns == namespace
            && owner_model(live.as_ref()).as_ref() == model.metadata.name.as_ref()
            && live.labels().get(labels::TIER).map(String::as_str) == Some(render::tier_label(Tier::Cloud))
    });
    let view = |(key, live): (&Key, &std::sync::Arc<k8s_openapi::api::apps::v1::Deployment>)| {
        let label = |name: &str| live.labels().get(name).cloned().unwrap_or_default();
        let address = input.world.services.get(key).and_then(|service| service.spec.as_ref()?.cluster_ip.clone());
        PoolView {
            key: key.clone(),
            version: label(labels::VERSION),
            variant: label(labels::VARIANT),
            wanted: wanted.contains(&(Kind::Deployment, key.1.clone())),
            address: address.filter(|_| answers(live)),
            retiring: live.annotations().contains_key(RETIRE_AT),
        }
    };
    of_model.map(view).collect()
}

/// How many sites each pool serves, by what was just decided.
fn cloud_sites(plans: &[(&String, Plan)]) -> BTreeMap<ModelName, BTreeMap<String, u64>> {
    let mut sites: BTreeMap<ModelName, BTreeMap<String, u64>> = BTreeMap::new();
    for placement in plans.iter().flat_map(|(_, plan)| &plan.placements).filter(|p| p.tier == Tier::Cloud) {
        *sites.entry(placement.model.clone()).or_default().entry(placement.variant.clone()).or_default() += 1;
    }
    sites
}

fn of_model<'a>(plan: &'a Plan, model: &EdgeModel) -> Option<Decided<'a>> {
    let placed = plan.placements.iter().find(|placement| is_named(&placement.model, model)).map(Decided::Placed);
    placed.or_else(|| plan.unplaced.iter().find(|unplaced| is_named(&unplaced.model, model)).map(Decided::Unplaced))
}

fn is_named(name: &ModelName, model: &EdgeModel) -> bool {
    model.metadata.namespace.as_ref() == Some(&name.namespace) && model.metadata.name.as_ref() == Some(&name.name)
}
