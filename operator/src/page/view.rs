//! What the page shows of all, in short: a function of what is observed.

use crate::observe::{SiteView, World, is_ready, survey};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use sconce_api::{
    Basis, DurationText, EdgeModel, EdgePlacement, EdgeSite, ModelSiteCounts, Percent, RoundTrip, SiteServe, Tier,
    condition,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// As it is sent: one text of JSON for the whole, and one per site, so that a change of one site is sent alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub head: Arc<str>,
    pub sites: BTreeMap<String, Arc<str>>,
}

pub fn view(world: &World) -> View {
    let of_site = placements_by_site(world);
    let surveyed = survey(world);
    let found = |site: &EdgeSite| {
        let fleet = surveyed.iter().find(|view| view.fleet.name_any() == site.spec.fleet_ref.name)?;
        fleet.sites.get(&site.name_any())
    };
    let sites = world.sites.values().map(|object| {
        let name = object.name_any();
        let placements = of_site.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let shown = site(world, object, found(object), placements);
        (name, json(&shown))
    });
    let fleets = surveyed.iter().map(|view| {
        let conditions = view.fleet.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        Fleet { name: view.fleet.name_any(), cloud_nodes: view.cloud.len(), trouble: trouble(conditions) }
    });
    let head = Head {
        version: env!("CARGO_PKG_VERSION"),
        fleets: fleets.collect(),
        models: world.models.values().map(|object| model(object)).collect(),
    };
    View { head: json(&head), sites: sites.collect() }
}

fn json(shown: &impl Serialize) -> Arc<str> {
    serde_json::to_string(shown).expect("text and numbers are JSON").into()
}

fn placements_by_site(world: &World) -> BTreeMap<&str, Vec<&EdgePlacement>> {
    let mut of_site: BTreeMap<&str, Vec<&EdgePlacement>> = BTreeMap::new();
    for object in world.placements.values() {
        of_site.entry(object.spec.site_ref.name.as_str()).or_default().push(object);
    }
    of_site
}

/// How one model is at one site, the worst first.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has no place, or does not answer.
    Down,
    /// The site has no contact: nothing is known.
    Silent,
    /// It answers, but not within its budget.
    Over,
    /// It is on its way.
    Coming,
    Fine,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    version: &'static str,
    fleets: Vec<Fleet>,
    models: Vec<Model>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fleet {
    name: String,
    cloud_nodes: usize,
    trouble: Option<Trouble>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    /// NAMESPACE/NAME.
    name: String,
    fleet: String,
    version: Option<String>,
    budget_us: Option<u64>,
    floor: Option<Percent>,
    suspended: bool,
    sites: Option<ModelSiteCounts>,
    trouble: Option<Trouble>,
}

/// What keeps an object from being Ready.
#[derive(Serialize)]
struct Trouble {
    reason: String,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Site {
    name: String,
    fleet: String,
    connected: bool,
    /// Why it is not connected.
    silence: Option<String>,
    paused: bool,
    cloud_only: bool,
    round_trip: Option<Link>,
    uplink_bits: Option<u64>,
    uplink_basis: Option<Basis>,
    nodes: Vec<ShownNode>,
    placements: Vec<Placement>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    basis: Basis,
}

#[derive(Serialize)]
struct ShownNode {
    name: String,
    ready: bool,
    class: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Placement {
    /// Namespace and name of the EdgePlacement, by which its details are asked for, and what changes with them.
    key: String,
    revision: Option<String>,
    /// NAMESPACE/NAME.
    model: String,
    state: State,
    tier: Option<Tier>,
    node: Option<String>,
    variant: Option<String>,
    budget_us: Option<u64>,
    predicted_us: Option<u64>,
    basis: Option<Basis>,
    observed_us: Option<u64>,
    reason: String,
    message: String,
}

fn model(object: &EdgeModel) -> Model {
    let status = object.status.clone().unwrap_or_default();
    Model {
        name: full_name(object, &object.name_any()),
        fleet: object.spec.fleet_ref.name.clone(),
        version: status.desired.map(|desired| desired.version),
        budget_us: micros(&object.spec.latency_budget),
        floor: object.spec.accuracy_floor.clone(),
        suspended: object.spec.suspend,
        sites: status.sites,
        trouble: trouble(&status.conditions),
    }
}

fn trouble(conditions: &[Condition]) -> Option<Trouble> {
    let ready = condition(conditions, "Ready").filter(|ready| ready.status != "True")?;
    Some(Trouble { reason: ready.reason.clone(), message: ready.message.clone() })
}

fn site(world: &World, object: &EdgeSite, found: Option<&SiteView>, placements: &[&EdgePlacement]) -> Site {
    let status = object.status.clone().unwrap_or_default();
    let contact = condition(&status.conditions, "Connected");
    let connected = contact.is_some_and(|contact| contact.status == "True");
    let mut placements: Vec<_> = placements.iter().map(|object| placement(object)).collect();
    placements.sort_by(|one, other| (one.state, &one.model).cmp(&(other.state, &other.model)));
    Site {
        name: object.name_any(),
        fleet: object.spec.fleet_ref.name.clone(),
        connected,
        silence: contact.filter(|_| !connected).map(|contact| contact.message.clone()),
        paused: object.spec.paused,
        cloud_only: object.spec.serve == SiteServe::CloudOnly,
        round_trip: status.link.as_ref().map(|link| round_trip(&link.round_trip)),
        uplink_bits: status.link.as_ref().and_then(|link| link.uplink.units()),
        uplink_basis: status.link.map(|link| link.uplink_basis),
        nodes: found.into_iter().flat_map(|site| &site.nodes).map(|live| node(world, live)).collect(),
        placements,
    }
}

fn round_trip(measured: &RoundTrip) -> Link {
    Link { p50_us: micros(&measured.p50), p99_us: measured.p99.as_ref().and_then(micros), basis: measured.basis }
}

fn node(world: &World, live: &Node) -> ShownNode {
    let told = world.edge_nodes.get(&(String::new(), live.name_any())).and_then(|told| told.status.as_ref());
    let hardware = told.and_then(|status| status.hardware.as_ref());
    ShownNode { name: live.name_any(), ready: is_ready(live), class: hardware.map(|hardware| hardware.class.clone()) }
}

fn placement(object: &EdgePlacement) -> Placement {
    let status = object.status.clone().unwrap_or_default();
    let state = state(&status.conditions);
    let (reason, message) = why(state, &status.conditions);
    Placement {
        key: full_name(object, &object.name_any()),
        revision: object.resource_version(),
        model: full_name(object, &object.spec.model_ref.name),
        state,
        tier: status.decision.as_ref().map(|decision| decision.tier),
        node: status.decision.as_ref().and_then(|decision| decision.nodes.first().cloned()),
        variant: status.decision.map(|decision| decision.variant),
        budget_us: status.budget.as_ref().and_then(micros),
        predicted_us: status.predicted.as_ref().and_then(|predicted| micros(&predicted.p99)),
        basis: status.predicted.map(|predicted| predicted.basis),
        observed_us: status.observed.and_then(|observed| micros(&observed.p99?)),
        reason,
        message,
    }
}

fn state(conditions: &[Condition]) -> State {
    let is = |kind: &str, truth: &str| condition(conditions, kind).is_some_and(|found| found.status == truth);
    let because = |kind: &str, reason: &str| condition(conditions, kind).is_some_and(|found| found.reason == reason);
    if is("Ready", "True") {
        return if is("WithinBudget", "False") || because("Placed", "BestEffort") { State::Over } else { State::Fine };
    }
    match condition(conditions, "Ready") {
        None => State::Coming,
        Some(ready) if ready.status == "Unknown" => State::Silent,
        Some(ready) if ["Starting", "Fetching", "Pending"].contains(&ready.reason.as_str()) => State::Coming,
        Some(_) => State::Down,
    }
}

/// Of all that the conditions say, what one would ask for first.
fn why(state: State, conditions: &[Condition]) -> (String, String) {
    let over = condition(conditions, "WithinBudget").filter(|within| within.status == "False");
    let said = match state {
        State::Fine => condition(conditions, "Placed"),
        State::Over => over.or_else(|| condition(conditions, "Placed")),
        State::Down | State::Silent | State::Coming => condition(conditions, "Ready"),
    };
    said.map_or_else(
        || ("Pending".into(), "nothing is decided yet".into()),
        |said| (said.reason.clone(), said.message.clone()),
    )
}

fn full_name(object: &impl ResourceExt, name: &str) -> String {
    format!("{}/{name}", object.namespace().unwrap_or_default())
}

pub(super) fn micros(duration: &DurationText) -> Option<u64> {
    u64::try_from(duration.parse()?.as_micros()).ok()
}

#[cfg(test)]
mod tests;
