//! The status of an EdgeFleet and of an EdgeSite.

use super::placement::duration_text;
use super::{Claim, conditions, ready};
use crate::observe::{FleetView, SiteView, World, is_ready};
use crate::pass::Brake;
use crate::plan::{RatioKey, Ratios};
use kube::ResourceExt;
use sconce_api::{
    Amount, Basis, DurationText, EdgeFleet, EdgeFleetStatus, EdgeSite, EdgeSiteStatus, FleetNodeCounts,
    FleetSiteCounts, PredictionRatio, Reason, RoundTrip, SiteLink, SiteNodeCounts,
};

/// As many as the API takes.
const MOST_RATIOS: usize = 256;

/// `brake` is absent where nothing could be decided: then what it said stands.
pub fn edge_fleet(world: &World, view: &FleetView, brake: Option<&Brake>) -> EdgeFleetStatus {
    let old = view.fleet.status.clone().unwrap_or_default();
    let sites = view.sites.len();
    let offline = view.sites.values().filter(|site| site.is_unreachable()).count();
    let edge: usize = view.sites.values().map(|site| site.nodes.len()).sum();
    let spec = &view.fleet.spec.sites;
    let mut claims = if let Some(told) = brake.and_then(|brake| brake.held.as_ref()) {
        let claim = |kind, truth| Claim::new(kind, truth, Reason::MassChangeHeld, &**told);
        vec![claim("Ready", false), claim("Stalled", true)]
    } else if view.contested.is_empty() && sites == 0 {
        let told = format!("no node that sites.nodeSelector selects has the label {}", spec.site_label);
        vec![Claim::new("Ready", false, Reason::NoNodes, told)]
    } else if view.contested.is_empty() {
        vec![Claim::new("Ready", true, Reason::Ready, format!("{sites} sites, {offline} of them offline"))]
    } else {
        let some = view.contested.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let told = format!("{some} belong to an older fleet; make the selectors disjoint");
        let claim = |kind, truth| Claim::new(kind, truth, Reason::NodeInTwoFleets, &*told);
        vec![claim("Ready", false), claim("Stalled", true)]
    };
    claims.sort_by_key(|claim| claim.kind);
    let generation = view.fleet.metadata.generation;
    EdgeFleetStatus {
        observed_generation: generation,
        sites: Some(FleetSiteCounts { total: count(sites), offline: count(offline) }),
        nodes: Some(FleetNodeCounts { edge: count(edge), cloud: count(view.cloud.len()) }),
        removals: brake.map_or(old.removals, |brake| brake.removals.clone()),
        prediction_ratios: prediction_ratios(&world.ratios),
        conditions: conditions(claims, &old.conditions, generation, world.now),
    }
}

/// What this pass has planned with.
fn prediction_ratios(ratios: &Ratios) -> Vec<PredictionRatio> {
    let told = |(RatioKey { class, variant, tier }, percent): (RatioKey, u64)| PredictionRatio {
        tier,
        class,
        variant,
        percent: i64::try_from(percent).unwrap_or(i64::MAX),
    };
    ratios.all().take(MOST_RATIOS).map(told).collect()
}

pub fn edge_site(world: &World, fleet: &EdgeFleet, view: &SiteView, live: &EdgeSite) -> EdgeSiteStatus {
    let old = live.status.clone().unwrap_or_default();
    let total = view.nodes.len();
    let up = view.nodes.iter().filter(|node| is_ready(node)).count();
    let connected = match (total, up) {
        (0, _) => {
            let label = &fleet.spec.sites.site_label;
            let told = format!("no node of fleet {} has the label {label}={}", fleet.name_any(), view.key);
            Claim::new("Connected", false, Reason::NoNodes, told)
        }
        (_, 0) => {
            let told = format!("none of {total} nodes is Ready: what runs there is kept as it is");
            Claim::new("Connected", false, Reason::NoContact, told)
        }
        _ => Claim::new("Connected", true, Reason::Connected, format!("{up} of {total} nodes are Ready")),
    };
    let ready = ready(&[&connected], &connected.message);
    let generation = live.metadata.generation;
    EdgeSiteStatus {
        observed_generation: generation,
        link: Some(site_link(world, fleet, view)),
        nodes: Some(SiteNodeCounts { total: count(total), ready: count(up) }),
        conditions: conditions(vec![ready, connected], &old.conditions, generation, world.now),
    }
}

/// The median of the nodes' medians, the worst of their tails and the slowest of their uplinks; what the fleet assumes until they
/// have measured. A site without contact keeps what was known of it.
pub fn site_link(world: &World, fleet: &EdgeFleet, view: &SiteView) -> SiteLink {
    let assumed = fleet.spec.link.clone().unwrap_or_default();
    let link = |round_trip, uplink: Option<Amount>| SiteLink {
        round_trip,
        uplink_basis: if uplink.is_some() { Basis::Measured } else { Basis::Assumed },
        uplink: uplink.unwrap_or_else(|| assumed.assumed_uplink.clone()),
    };
    let known = view.object.as_ref().and_then(|site| site.status.as_ref()?.link.as_ref());
    if let Some(known) = known.filter(|_| view.is_unreachable()) {
        let uplink = (known.uplink_basis == Basis::Measured).then(|| known.uplink.clone());
        return link(known.round_trip.clone(), uplink);
    }
    let measured = |name: String| world.edge_nodes.get(&(String::new(), name))?.status.as_ref()?.link.as_ref();
    let links: Vec<_> =
        view.nodes.iter().filter(|node| is_ready(node)).filter_map(|node| measured(node.name_any())).collect();
    let uplink = links.iter().filter_map(|link| link.uplink.as_ref()).min_by_key(|uplink| uplink.units()).cloned();
    let trips: Vec<&RoundTrip> = links.iter().map(|link| &link.round_trip).collect();
    // No link takes no time: such a measurement is none.
    let mut medians: Vec<u64> = trips.iter().filter_map(|trip| micros(&trip.p50)).filter(|us| *us > 0).collect();
    medians.sort_unstable();
    let Some(median) = medians.get(medians.len() / 2) else {
        let p50 = assumed.assumed_round_trip.clone();
        return link(RoundTrip { p50, p99: None, samples: 0, basis: Basis::Assumed }, uplink);
    };
    let worst = trips.iter().filter_map(|trip| micros(trip.p99.as_ref()?)).max();
    let basis = trips.iter().map(|trip| trip.basis).max().unwrap_or(Basis::Assumed);
    let round_trip = RoundTrip {
        p50: duration_text(*median),
        p99: worst.map(duration_text),
        samples: trips.iter().map(|trip| trip.samples).max().unwrap_or(0),
        // Half a measurement decides nothing: decisions say Assumed until the tail is known.
        basis: if worst.is_some() { basis } else { Basis::Assumed },
    };
    link(round_trip, uplink)
}

fn micros(duration: &DurationText) -> Option<u64> {
    u64::try_from(duration.parse()?.as_micros()).ok()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
