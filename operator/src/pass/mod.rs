//! One pass: from all that is seen to all that is to be written. Pure, so that what happens can be tested without a cluster.

mod drift;
mod limits;
mod model;
mod pools;
mod prune;
mod site;
mod source;
#[cfg(test)]
mod tests;
mod training;

pub use limits::Brake;

use crate::apply::{News, Refusals, Write};
use crate::logs::Readings;
use crate::observe::{FleetView, Key, World, survey};
use crate::plan::{Plan, RatioSample};
use crate::registry::{Ask, Resolutions};
use crate::render::{self, Object, Settings};
use crate::status;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use sconce_api::{Tier, condition};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub struct Input<'a> {
    pub world: &'a World,
    pub resolutions: &'a Resolutions,
    /// What the logs of runs told.
    pub readings: &'a Readings,
    /// What we were kept from making.
    pub refusals: &'a Refusals,
    pub settings: &'a Settings,
    pub drain: Duration,
    pub clock: Instant,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub struct Steps {
    /// Objects: sites, labels, versions, placements, Deployments, Services, budgets, Jobs.
    pub objects: Vec<Write>,
    /// What is said of them.
    pub statuses: Vec<Write>,
    /// What goes.
    pub farewells: Vec<Write>,
    /// Models whose artifact is to be asked for, and runs of which nobody else knows what they have published.
    pub to_resolve: Vec<(Key, Ask)>,
    /// Pods whose log is to be read.
    pub to_read: Vec<Key>,
    /// When to look again though nothing changed.
    pub look_at: Option<Timestamp>,
    /// What clients waited over what was predicted.
    pub ratio_samples: Vec<RatioSample>,
    /// Decisions that panicked: what they would have said stays as it is.
    pub panics: Vec<String>,
}

impl Steps {
    /// Applies an object unless it is there as it should be.
    fn apply(&mut self, world: &World, object: Object) {
        let live = render::live(world, &object);
        if live.as_ref().is_none_or(|live| !object.is_in(live)) {
            let is_new = live.is_none();
            self.objects.push(Write::Apply { object: object.into(), is_new });
        }
    }

    fn status<S: Serialize + PartialEq>(
        &mut self,
        kind: render::Kind,
        live: &impl ResourceExt,
        old: Option<&S>,
        new: &S,
        news: Vec<News>,
    ) {
        if old == Some(new) {
            return;
        }
        let value = serde_json::to_value(new).unwrap_or(Value::Null);
        self.statuses.push(Write::Status { object: Object::status(kind, live, value).into(), news });
    }

    fn join(&mut self, other: Self) {
        self.objects.extend(other.objects);
        self.statuses.extend(other.statuses);
        self.farewells.extend(other.farewells);
        self.to_read.extend(other.to_read);
        self.to_resolve.extend(other.to_resolve);
        self.look_at(other.look_at);
    }

    fn look_at(&mut self, at: Option<Timestamp>) {
        self.look_at = [self.look_at, at].into_iter().flatten().min();
    }
}

pub fn pass(input: &Input<'_>) -> Steps {
    let world = input.world;
    let mut steps = Steps::default();
    let views = survey(world);
    for view in &views {
        register(world, view, &mut steps);
    }
    label_nodes(world, &views, &mut steps);
    model::profiles(world, &mut steps);
    training::decide(input, &mut steps);
    let standing = model::resolve(input, &mut steps);
    let mut outcomes = BTreeMap::new();
    for view in &views {
        let models: Vec<_> =
            standing.values().filter_map(|standing| model::resolved(world, view, &standing.model)).collect();
        let brake = site::decide(input, view, &models, &mut outcomes, &mut steps);
        let new = status::edge_fleet(world, view, brake.as_ref());
        let old = conditions(&view.fleet.status, |status| &status.conditions);
        let news = news(view.fleet.as_ref(), &["Stalled"], old, &new.conditions);
        steps.status(render::Kind::EdgeFleet, view.fleet.as_ref(), view.fleet.status.as_ref(), &new, news);
    }
    model::report(world, &views, standing, &outcomes, &mut steps);
    steps
}

/// What is decided for a site, by fleet and site.
pub type Plans = BTreeMap<(String, String), Plan>;

/// The plans alone, of every model whose version is known: what [`pass`] would decide in the end, whatever limits how fast that
/// comes, and nothing of what it would write.
/// `Err` names what panicked.
pub fn plans(world: &World) -> Result<Plans, Vec<String>> {
    let (mut plans, mut panics) = (Plans::new(), Vec::new());
    for view in &survey(world) {
        let fleet = view.fleet.name_any();
        let models: Vec<_> = world.models.values().filter_map(|model| model::resolved(world, view, model)).collect();
        let decisions = site::plan_all(world, view, &models, site::Pace::AtOnce, &mut panics);
        let sites = decisions.into_iter().flat_map(|decisions| decisions.sites);
        plans.extend(sites.map(|(site, plan)| ((fleet.clone(), site.clone()), plan)));
    }
    if panics.is_empty() { Ok(plans) } else { Err(panics) }
}

/// Registers new sites; says how sites are.
fn register(world: &World, view: &FleetView, steps: &mut Steps) {
    let fleet = view.fleet.name_any();
    for (name, site) in &view.sites {
        match &site.object {
            None => steps.objects.push(Write::Create(render::site(name, &site.key, &fleet).into())),
            Some(live) => {
                let new = status::edge_site(world, &view.fleet, site, live);
                let news =
                    news(live.as_ref(), &["Connected"], conditions(&live.status, |s| &s.conditions), &new.conditions);
                steps.status(render::Kind::EdgeSite, live.as_ref(), live.status.as_ref(), &new, news);
            }
        }
    }
}

/// Tells every agent where its node stands, and those that stand nowhere any more that they do not.
fn label_nodes(world: &World, views: &[FleetView], steps: &mut Steps) {
    let mut places: BTreeMap<String, (Tier, Option<&str>)> = BTreeMap::new();
    for view in views {
        for node in &view.cloud {
            places.insert(node.name_any(), (Tier::Cloud, None));
        }
        for (name, site) in &view.sites {
            for node in &site.nodes {
                places.insert(node.name_any(), (Tier::Edge, Some(name)));
            }
        }
    }
    for ((_, name), live) in &world.edge_nodes {
        let place = places.get(name).copied();
        let label = |key: &str| live.labels().get(key).map(String::as_str);
        let seen = (label(sconce_api::labels::TIER), label(sconce_api::labels::SITE));
        let wanted = (place.map(|(tier, _)| render::tier_label(tier)), place.and_then(|(_, site)| site));
        if seen != wanted && (place.is_some() || !is_orphan(world, seen.1)) {
            steps.objects.push(Write::Label(render::node_labels(live, place).into()));
        }
    }
}

/// Whether the fleet that a node was of is not there: then its routers keep what they have.
fn is_orphan(world: &World, site: Option<&str>) -> bool {
    match site.and_then(|site| world.sites.get(&(String::new(), site.to_owned()))) {
        Some(site) => !world.fleets.contains_key(&(String::new(), site.spec.fleet_ref.name.clone())),
        None => world.fleets.is_empty(),
    }
}

fn conditions<S>(status: &Option<S>, of: impl Fn(&S) -> &Vec<Condition>) -> &[Condition] {
    status.as_ref().map(|status| of(status).as_slice()).unwrap_or_default()
}

/// Conditions of these types that changed their truth or reason. What is well from the start is no news: of ten thousand places that
/// are made at once nobody reads as many events.
fn news<K>(about: &K, kinds: &[&'static str], old: &[Condition], new: &[Condition]) -> Vec<News>
where
    K: Resource<DynamicType = ()>,
{
    let changed = |kind: &&'static str| {
        let now = new.iter().find(|condition| condition.type_ == *kind && condition.status != "Unknown")?;
        let before = condition(old, kind);
        let good = (now.status == "True") != (*kind == "Stalled");
        let same = before.map_or(good, |before| before.status == now.status && before.reason == now.reason);
        (!same).then(|| News {
            about: about.object_ref(&()),
            good,
            reason: now.reason.clone(),
            action: kind,
            note: status::shortened(&now.message, 1000),
        })
    };
    kinds.iter().filter_map(changed).collect()
}

/// A decision that panics must not stop the others.
fn caught<T>(what: impl FnOnce() -> String, panics: &mut Vec<String>, decide: impl FnOnce() -> T) -> Option<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(decide)) {
        Ok(decided) => Some(decided),
        Err(_) => {
            panics.push(what());
            None
        }
    }
}
