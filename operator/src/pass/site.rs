//! Sites: plans each, and turns the plan into what is written.

use super::limits::{self, Brake, Losses};
use super::pools::{self, pool_views, render_pools};
use super::prune::{Decided as PruneInput, Owned, prune};
use super::{Input, Steps, caught, conditions, news};
use crate::apply::{Refusal, Target, Write};
use crate::names;
use crate::observe::{FleetView, Key, Placement, Seen, SiteView, World, fleet_snapshot, model_name, site_snapshot};
use crate::plan::{self, Held, ModelName, Plan, plan_fleet, plan_site};
use crate::render::{self, Kind, Pods};
use crate::retire::Fate;
use crate::status::{self, Decided, Outcome, Place, PoolView};
use jiff::Timestamp;
use kube::ResourceExt;
use sconce_api::{EdgeModel, EdgeModelVersion, EdgePlacement, Endpoint, Reason, Tier, labels};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Resolved<'a> = (&'a EdgeModel, &'a EdgeModelVersion);

/// What is decided for a fleet: for each registered site, and for the pools that sites share.
pub struct Decisions<'a> {
    pub sites: Vec<(&'a String, Plan)>,
    pub pools: Vec<plan::Pool>,
    kept: Kept,
    brake: Brake,
    /// When a move that had to wait is due.
    capped_until: Option<Timestamp>,
}

/// What nothing wants any more, and the brake keeps.
#[derive(Default)]
struct Kept {
    placements: BTreeSet<Key>,
    /// Models whose pools stay.
    pools: BTreeSet<ModelName>,
}

/// A site before and after it is planned.
struct Planned<'a> {
    name: &'a String,
    snapshot: plan::Snapshot,
    plan: Plan,
}

impl Planned<'_> {
    /// Plans anew with homes that the fleet holds.
    fn hold(&mut self, models: impl IntoIterator<Item = ModelName>, held: &Held) {
        self.snapshot.stability.held.extend(models.into_iter().map(|model| (model, held.clone())));
        self.plan = plan_site(&self.snapshot);
    }

    /// Models that were decided a place and would have none, or would leave a node because it is no longer the site's. Who
    /// moves from a node that is gone altogether loses nothing by that.
    fn losses(&self, world: &World) -> Vec<ModelName> {
        let is_there = |home: &plan::Home| match &home.node {
            Some(node) => {
                self.snapshot.nodes.iter().any(|there| there.name == *node)
                    || !world.nodes.contains_key(&(String::new(), node.clone()))
            }
            None => true,
        };
        let is_placed = |model: &ModelName| self.plan.placements.iter().find(|placement| placement.model == *model);
        let is_lost = |(model, home): &(&ModelName, &plan::Home)| match is_placed(model) {
            Some(placement) => placement.moves.is_some() && !is_there(home),
            None => true,
        };
        let decided = |(model, _): &(&ModelName, &plan::Home)| self.snapshot.stability.history.contains_key(*model);
        self.snapshot.current.iter().filter(decided).filter(is_lost).map(|(model, _)| model.clone()).collect()
    }
}

/// How fast a fleet follows what would be best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As its limits say.
    Limited,
    /// As it will be in the end.
    AtOnce,
}

/// Plans every site of a fleet and its pools. `None` where one of them panicked, which is told: of a fleet with a site
/// that cannot be decided nothing is removed, since what it would have wanted is not known.
pub fn plan_all<'a>(
    world: &World,
    view: &'a FleetView,
    models: &[Resolved<'_>],
    pace: Pace,
    panics: &mut Vec<String>,
) -> Option<Decisions<'a>> {
    let fleet = view.fleet.name_any();
    let fleet_plan = |panics: &mut Vec<String>, cloud_load: &BTreeMap<_, _>| {
        let snapshot = fleet_snapshot(world, view, models, cloud_load);
        let decided = || {
            let plan = plan_fleet(&snapshot);
            (plan::lost_pools(&snapshot, &plan), plan)
        };
        caught(|| format!("fleet {fleet}"), panics, decided)
    };
    let offers = fleet_plan(panics, &BTreeMap::new())?.1.offers;
    let (mut sites, mut seen) = (Vec::new(), Seen::new());
    for (name, site) in view.sites.iter().filter(|(_, site)| site.object.is_some()) {
        let selected: Vec<Resolved<'_>> = models.iter().filter(|(model, _)| selects(model, site)).copied().collect();
        let mut snapshot = site_snapshot(world, &view.fleet, (name, site), &selected, &offers, &mut seen);
        if pace == Pace::AtOnce {
            snapshot.stability.settle_seconds = 0;
        }
        let plan = caught(|| format!("site {name}"), panics, || plan_site(&snapshot))?;
        sites.push(Planned { name, snapshot, plan });
    }
    let (mut kept, mut stopped, mut capped_until) = (Kept::default(), Brake::default(), None);
    if pace == Pace::Limited {
        let pools = fleet_plan(panics, &cloud_load(&sites))?.0;
        let limited = || {
            let brake = hold_losses(world, view, models, pools, &mut sites, &mut kept);
            (brake, hold_moves(world, view, &mut sites))
        };
        (stopped, capped_until) = caught(|| format!("limits of {fleet}"), panics, limited)?;
    }
    let pools = fleet_plan(panics, &cloud_load(&sites))?.1.pools;
    let sites = sites.into_iter().map(|Planned { name, plan, .. }| (name, plan)).collect();
    Some(Decisions { sites, pools, kept, brake: stopped, capped_until })
}

fn selects(model: &EdgeModel, site: &SiteView) -> bool {
    model.spec.sites.as_ref().is_none_or(|selector| selector.matches(site.labels()))
}

/// Keeps what would lose its place, or its last pool, if that is too much at once.
fn hold_losses(
    world: &World,
    view: &FleetView,
    models: &[Resolved<'_>],
    pools: BTreeSet<ModelName>,
    sites: &mut [Planned<'_>],
    kept: &mut Kept,
) -> Brake {
    let names: BTreeSet<ModelName> = models.iter().map(|(model, _)| model_name(model)).collect();
    let of_fleet = |model: &ModelName| names.contains(model);
    let named = |(namespace, _): &Key, live: &EdgePlacement| ModelName {
        namespace: namespace.clone(),
        name: live.spec.model_ref.name.clone(),
    };
    let is_placed = |live: &EdgePlacement| live.status.as_ref().is_some_and(|status| status.decision.is_some());
    let all = world.placements.iter().filter(|(key, live)| is_placed(live) && of_fleet(&named(key, live)));
    let wanted: BTreeSet<(&str, &ModelName)> = sites
        .iter()
        .flat_map(|site| site.snapshot.models.iter().map(|model| (site.name.as_str(), &model.name)))
        .collect();
    let is_unwanted = |(key, live): &(&Key, &Arc<Placement>)| {
        !wanted.contains(&(live.spec.site_ref.name.as_str(), &named(key, live)))
    };
    // Of a site that has nodes and is not registered, or cannot be read, nothing goes until it is.
    let is_unread = |(_, live): &(&Key, &Arc<Placement>)| {
        view.sites.get(&live.spec.site_ref.name).is_some_and(|site| site.object.is_none())
    };
    let (unread, unwanted): (Vec<_>, Vec<_>) = all.clone().filter(is_unwanted).partition(is_unread);
    kept.placements.extend(unread.into_iter().map(|(key, _)| key.clone()));
    let unwanted: BTreeSet<Key> = unwanted.into_iter().map(|(key, _)| key.clone()).collect();
    let lost: Vec<Vec<ModelName>> = sites.iter().map(|site| site.losses(world)).collect();
    // While cloud nodes are asked for, a fallback that none of them is there for stays: nobody wishes it away.
    let pools = if view.fleet.spec.cloud.is_some() {
        kept.pools = pools;
        BTreeSet::new()
    } else {
        pools
    };
    let served = world.with_pools();
    let with_pools = models.iter().filter(|(model, _)| served.contains(&crate::observe::key(*model))).count();
    let limits = view.fleet.spec.limits.clone().unwrap_or_default();
    let confirmed = view.fleet.annotations().get(labels::CONFIRM_REMOVALS);
    let brake = limits::brake(Losses {
        now_lost: unwanted.len() + lost.iter().map(Vec::len).sum::<usize>() + pools.len(),
        placed: all.count() + with_pools,
        share_millis: limits.max_removals.millis().unwrap_or(20_000),
        before: view.fleet.status.as_ref().and_then(|status| status.removals.as_ref()),
        confirmed: confirmed.and_then(|count| count.parse().ok()),
        now: world.now,
    });
    if let Some(why) = &brake.held {
        let held = Held { reason: Reason::MassChangeHeld, why: why.clone() };
        kept.placements.extend(unwanted);
        kept.pools.extend(pools);
        for (site, lost) in sites.iter_mut().zip(lost).filter(|(_, lost)| !lost.is_empty()) {
            site.hold(lost, &held);
        }
    }
    brake
}

/// Lets only so many move as may within a minute; when the next may.
fn hold_moves(world: &World, view: &FleetView, sites: &mut [Planned<'_>]) -> Option<Timestamp> {
    // What must come home is not served where it is: to let it wait would spare nobody.
    let stays = |name: &ModelName| {
        let model = world.models.get(&(name.namespace.clone(), name.name.clone()));
        model.is_some_and(|model| world.must_stay(model).is_some())
    };
    let movers = sites.iter().flat_map(|site| {
        let movers = site.plan.placements.iter().filter_map(|placement| Some((placement.moves?, &placement.model)));
        let movers = movers.filter(|(_, model)| !stays(model));
        movers.map(|(urgency, model)| (urgency, (site.name.clone(), model.clone())))
    });
    let moved = |live: &Arc<Placement>| {
        let decision = live.status.as_ref()?.decision.as_ref()?;
        let is_here = decision.left.is_some() && view.sites.contains_key(&live.spec.site_ref.name);
        is_here.then_some(decision.since.0)
    };
    let most = view.fleet.spec.limits.clone().unwrap_or_default().max_moves_per_minute;
    let most = usize::try_from(most).unwrap_or(1).max(1);
    let capped = limits::cap(movers.collect(), world.placements.values().filter_map(moved).collect(), most, world.now);
    let mut waiting: BTreeMap<String, Vec<ModelName>> = BTreeMap::new();
    for (site, model) in capped.held {
        waiting.entry(site).or_default().push(model);
    }
    let held = Held {
        reason: Reason::MovesCapped,
        why: format!("{most} others of the fleet move within this minute, as many as maxMovesPerMinute lets"),
    };
    for site in sites.iter_mut() {
        let Some(models) = waiting.remove(site.name) else { continue };
        let before: BTreeSet<_> = site.losses(world).into_iter().collect();
        site.hold(models, &held);
        // Who was to have the room of one that waits, waits with it.
        let more: Vec<_> = site.losses(world).into_iter().filter(|model| !before.contains(model)).collect();
        if !more.is_empty() {
            site.hold(more, &held);
        }
    }
    capped.until
}

/// Turns what is decided for a fleet into what is written.
pub fn decide(
    input: &Input<'_>,
    view: &FleetView,
    models: &[Resolved<'_>],
    outcomes: &mut BTreeMap<Key, Vec<Outcome>>,
    steps: &mut Steps,
) -> Option<Brake> {
    let settings = render::Settings { trusted_keys: view.fleet.spec.trusted_keys(), ..input.settings.clone() };
    let input = &Input { settings: &settings, ..*input };
    let world = input.world;
    let Decisions { sites, pools, kept, brake, capped_until } =
        plan_all(world, view, models, Pace::Limited, &mut steps.panics)?;
    steps.look_at(capped_until);
    steps.look_at(brake.until);
    for placement in sites.iter().flat_map(|(_, plan)| &plan.placements) {
        steps.look_at(placement.due.and_then(|due| Timestamp::from_second(due).ok()));
        steps.ratio_samples.extend(placement.ratio.clone());
    }
    let cloud = view.fleet.spec.cloud.as_ref().map(|cloud| cloud.node_selector.clone()).unwrap_or_default();
    let owned = Owned::of(world);
    for resolved in models {
        let model = resolved.0;
        let pools = pools.iter().filter(|pool| is_named(&pool.model, model)).collect::<Vec<_>>();
        let mut wanted = render_pools(input, *resolved, &pools, &cloud, steps);
        let mut pools = pool_views(world, &owned, model, &wanted);
        if kept.pools.contains(&model_name(model)) {
            pools.iter_mut().for_each(|pool| pool.wanted = !pool.retiring);
            wanted.extend(pools::objects(pools.iter().filter(|pool| pool.wanted)));
        }
        let mut routed: BTreeSet<String> = BTreeSet::new();
        let mut fates = BTreeMap::new();
        for (_, name) in kept.placements.iter().filter(|key| is_of_model(world, key, model)) {
            wanted.extend([(Kind::EdgePlacement, name.clone()), (Kind::Deployment, name.clone())]);
            routed.extend(told_endpoints(world, model, name).into_iter().map(|endpoint| endpoint.address));
        }
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
                told_endpoints(world, model, &name)
            } else {
                place.endpoints.clone()
            };
            routed.extend(endpoints.into_iter().map(|endpoint| endpoint.address));
            if let Some(fate) = place.edge_fate {
                fates.insert(name, fate);
            }
            mine.push(outcome);
        }
        let decided = PruneInput { model, wanted: &wanted, pools: &pools, routed: &routed, fates: &fates };
        prune(input, &owned, decided, steps);
    }
    Some(brake)
}

fn is_of_model(world: &World, placement: &Key, model: &EdgeModel) -> bool {
    let live = world.placements.get(placement);
    model.namespace().as_ref() == Some(&placement.0)
        && live.is_some_and(|live| live.spec.model_ref.name == model.name_any())
}

/// Where routers were last told to send. What must stay at the site is no reason for anything to go on.
fn told_endpoints(world: &World, model: &EdgeModel, placement: &str) -> Vec<Endpoint> {
    if world.must_stay(model).is_some() {
        return Vec::new();
    }
    let live = world.placements.get(&(model.namespace().unwrap_or_default(), placement.to_owned()));
    live.and_then(|live| live.status.as_ref()).map(|status| status.endpoints.clone()).unwrap_or_default()
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
    let kept = placement.filter(|placement| placement.predicted.is_none());
    let tier = placement.map(|placement| placement.tier);
    let must_stay = world.must_stay(model);
    // An edge that nobody knows whether it may send on is told of no pool that it was not told of before.
    let is_new = || {
        let told = told_endpoints(world, model, &key.1);
        tier == Some(Tier::Edge) && !told.iter().any(|endpoint| endpoint.tier == Tier::Cloud)
    };
    let is_closed = must_stay.is_some() || world.data_stays(model).is_some() && is_new();
    let pools = if is_closed { &[] } else { pools };
    let mut place = status::places(world, placement, &key, pools, input.drain);
    if let (Some(why), Some(Tier::Cloud)) = (must_stay, tier) {
        place.trouble = (Reason::DataMustStay, format!("nothing is sent to the cloud: {why}"), true);
    }
    wanted.insert((Kind::EdgePlacement, key.1.clone()));
    if kept.is_some_and(|kept| kept.tier == Tier::Edge || kept.reason == Reason::KeptUnreachable) {
        // Of what is kept nothing goes, and nothing is written but that it is kept. What was about to leave leaves.
        wanted.insert((Kind::Deployment, key.1.clone()));
    }
    if let Some(placement) = placement.filter(|placement| placement.tier == Tier::Edge && kept.is_none()) {
        wanted.insert((Kind::Deployment, key.1.clone()));
        let node = placement.node.as_deref().unwrap_or_default();
        let pods = Pods {
            model,
            version,
            variant: &placement.variant,
            replicas: placement.replicas,
            request: placement.request,
            // On its way from another node it takes no more room here than it was given.
            surge: placement.surge || serves_elsewhere(world, &key, node),
        };
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
        steps.apply(world, render::placement(model, site, &runs, tier));
    }
    let observed = placement.map(|placement| status::observed(world, &view.nodes, model, placement.tier));
    let (mut new, outcome) = status::edge_placement(
        world,
        live.map(|live| &***live),
        (site, model.spec.terms_at(view.labels())),
        decided,
        &place,
        observed.unwrap_or_default(),
    );
    if is_closed {
        // Nor of what is kept without contact.
        new.endpoints.retain(|endpoint| endpoint.tier == Tier::Edge);
    }
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
pub(super) fn revive(input: &Input<'_>, key: &Key, steps: &mut Steps) {
    if let Some(live) = input.world.deployments.get(key).filter(|live| live.retires_at().is_some()) {
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

/// Whether pods of the Deployment are on other nodes than its new one.
fn serves_elsewhere(world: &World, deployment: &Key, node: &str) -> bool {
    let mut nodes = world.pods_of(deployment).into_iter().filter_map(|pod| pod.node.as_deref());
    nodes.any(|other| other != node)
}

/// What each pool has to serve, by what was just decided.
fn cloud_load(sites: &[Planned<'_>]) -> BTreeMap<ModelName, BTreeMap<String, u64>> {
    let mut all: BTreeMap<ModelName, BTreeMap<String, u64>> = BTreeMap::new();
    for Planned { snapshot, plan, .. } in sites {
        for placement in plan.placements.iter().filter(|placement| placement.tier == Tier::Cloud) {
            let model = snapshot.models.iter().find(|model| model.name == placement.model);
            let load = model.map_or(0, |model| model.requests_per_second);
            let pool = all.entry(placement.model.clone()).or_default().entry(placement.variant.clone()).or_default();
            *pool = pool.saturating_add(load);
        }
    }
    all
}

fn of_model<'a>(plan: &'a Plan, model: &EdgeModel) -> Option<Decided<'a>> {
    let placed = plan.placements.iter().find(|placement| is_named(&placement.model, model)).map(Decided::Placed);
    placed.or_else(|| plan.unplaced.iter().find(|unplaced| is_named(&unplaced.model, model)).map(Decided::Unplaced))
}

fn is_named(name: &ModelName, model: &EdgeModel) -> bool {
    model.metadata.namespace.as_ref() == Some(&name.namespace) && model.metadata.name.as_ref() == Some(&name.name)
}
