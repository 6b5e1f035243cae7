//! The plan step: chooses a place for each model. Pure and total; same snapshot, same plan.
//!
//! [`plan_fleet`] says what the cloud offers each model and how large its pools are. [`plan_site`] takes one site: it
//! **filters** places × variants ([`filter`]), **predicts** what a client would wait and what the place would cost
//! ([`predict`]), **scores** by the model's objective ([`score`]), **packs** the nodes ([`pack`]) and **holds** homes until
//! another place is enough better for long enough ([`hold`]); what came of it is told in [`words`].
//!
//! # Wanted properties, each with a test
//! - **(A)** Capacity: what is placed on a node never exceeds our share of it less what others requested, nor its disk.
//! - **(B)** Order: the order of nodes, models and variants in the snapshot changes nothing.
//! - **(C)** Rest: planning again after the plan was applied changes nothing, unless a place was left of which clients told: that is
//!   forgotten.
//! - **(D)** Completeness: every model is placed, or unplaced with a reason; exactly once, in the order of names.
//! - **(E)** Locality: one site's snapshot decides for that site; no other site is in it.
//! - **(F)** Contact: a site with nodes of which none is Ready is unreachable, not empty; what it has is kept.

mod filter;
mod fleet;
mod hold;
mod outcome;
mod pack;
mod predict;
mod ratio;
mod score;
mod snapshot;
mod stability;
#[cfg(test)]
mod tests;
pub mod text;
mod why;
mod words;

pub use outcome::*;
pub use predict::store_bytes;
pub use ratio::*;
pub use snapshot::*;
pub use stability::*;

use sconce_api::Reason;
use std::collections::BTreeSet;

/// Decides for one site.
pub fn plan_site(snapshot: &Snapshot) -> Plan {
    let Decided { kept, packed } = decide_site(snapshot);
    let mut plan = Plan::default();
    plan.placements.extend(kept.into_iter().map(|(model, home)| keep(snapshot, model, home)));
    packed.in_words(&mut plan);
    plan.placements.sort_by(|a, b| a.model.cmp(&b.model));
    plan.unplaced.sort_by(|a, b| a.model.cmp(&b.model));
    plan
}

/// What is decided for a site, not yet in words: places without predictions, prices and reasons for others to read.
pub struct Decided<'a> {
    kept: Vec<(&'a Model, &'a Home)>,
    packed: pack::Packed<'a>,
}

impl Decided<'_> {
    /// How many models have a place.
    pub fn placed(&self) -> usize {
        self.kept.len() + self.packed.placed()
    }
}

/// The decisions of [`plan_site`] alone.
pub fn decide_site(snapshot: &Snapshot) -> Decided<'_> {
    let (mut kept, mut models) = (Vec::new(), Vec::with_capacity(snapshot.models.len()));
    for model in &snapshot.models {
        match snapshot.current.get(&model.name) {
            Some(home) if unreachable(snapshot) || held(snapshot, model).is_some() => kept.push((model.as_ref(), home)),
            _ => models.push(model.as_ref()),
        }
    }
    let taken = kept.iter().filter_map(|(model, home)| taken(snapshot, model, home));
    let packed = pack::pack(snapshot, &models, taken);
    Decided { kept, packed }
}

/// Decides what couples sites: cloud offers and pools.
pub fn plan_fleet(snapshot: &FleetSnapshot) -> FleetPlan {
    fleet::plan(snapshot)
}

/// Models that would lose their last pool by this plan, not by anybody's wish for the model.
pub fn lost_pools(snapshot: &FleetSnapshot, plan: &FleetPlan) -> BTreeSet<ModelName> {
    fleet::lost_pools(snapshot, plan)
}

/// A site with nodes of which none is Ready. Its pods may well serve on, so nothing of it is moved or deleted.
fn unreachable(snapshot: &Snapshot) -> bool {
    !snapshot.nodes.is_empty() && !snapshot.nodes.iter().any(|node| node.ready)
}

/// By whose wish, or by which limit of the fleet, a home stays as it is.
fn held(snapshot: &Snapshot, model: &Model) -> Option<Reason> {
    filter::held(snapshot, model).or_else(|| snapshot.stability.held.get(&model.name).map(|held| held.reason))
}

/// The current home, as it is. Of another version than the model's the digest is not known here: it stays empty.
fn keep(snapshot: &Snapshot, model: &Model, home: &Home) -> Placement {
    let place = text::place(home.tier, home.node.as_deref(), &home.variant);
    let (reason, because) = match held(snapshot, model) {
        _ if unreachable(snapshot) => (Reason::KeptUnreachable, format!("no node of {} is Ready", snapshot.site)),
        Some(Reason::Suspended) => (Reason::Suspended, format!("{} is suspended", model.name.name)),
        Some(reason @ (Reason::MovesCapped | Reason::MassChangeHeld)) => {
            let held = snapshot.stability.held.get(&model.name);
            (reason, held.map_or_else(String::new, |held| format!("held: {}", held.why)))
        }
        _ => (Reason::SitePaused, format!("{} is paused", snapshot.site)),
    };
    Placement {
        model: model.name.clone(),
        version: home.version.clone(),
        digest: if home.version == model.version { model.digest.clone() } else { String::new() },
        tier: home.tier,
        node: home.node.clone(),
        variant: home.variant.clone(),
        replicas: home.replicas,
        request: kept_request(snapshot, model, home),
        surge: false,
        reason,
        message: format!("{because}: {place} is kept as it is"),
        predicted: None,
        budget_us: model.budget_us,
        cost_millis: None,
        rejected: Vec::new(),
        better_place: None,
        due: None,
        moves: None,
        ratio: None,
    }
}

/// The node of a kept model, and what all its pods take of it.
fn taken<'a>(snapshot: &Snapshot, model: &Model, home: &'a Home) -> Option<(&'a str, Room)> {
    let node = home.node.as_deref()?;
    let variant = model.variants.iter().find(|variant| variant.name == home.variant)?;
    Some((node, predict::takes(kept_request(snapshot, model, home), variant, home.replicas)))
}

/// What each of the kept pods requests, as far as it can be computed; nothing otherwise.
fn kept_request(snapshot: &Snapshot, model: &Model, home: &Home) -> Resources {
    let variant = model.variants.iter().find(|variant| variant.name == home.variant);
    let service = variant.and_then(|variant| match (&home.node, &model.cloud) {
        (Some(name), _) => {
            let node = snapshot.nodes.iter().find(|node| node.name == *name)?;
            predict::Service::on_node(variant, node)
        }
        (None, CloudOffer::Pool(speed)) => predict::Service::in_cloud(variant, speed),
        (None, CloudOffer::None { .. }) => None,
    });
    let load = predict::Load::from(model);
    let request = variant.zip(service).map(|(variant, service)| {
        predict::request(&load, variant, load.request_ns(&service, home.replicas), home.replicas)
    });
    request.unwrap_or_default()
}
