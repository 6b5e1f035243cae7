//! What would move: the operator's own planner over the objects as they are, and as they would be.

use crate::print::{BAD, STRONG, columns, styled};
use anyhow::{Result, bail};
use kube::ResourceExt as _;
use sconce_operator::observe::World;
use sconce_operator::pass::{Plans, plans};
use sconce_operator::plan::{Placement, Plan, text};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Simulation {
    /// Pairs of model and site that would be decided.
    placements: usize,
    /// Those that would change.
    moves: Vec<Move>,
    /// Thousandths of a point per hour of all placements, now and then.
    cost_millis_now: u64,
    cost_millis_then: u64,
    /// Models that cannot be planned, since no model of their namespace has their artifact yet.
    unknown: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Move {
    model: String,
    site: String,
    now: Option<Place>,
    then: Option<Place>,
    reason: String,
    message: String,
}

#[derive(Serialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Place {
    home: String,
    replicas: u64,
    p99_us: Option<u64>,
    cost_millis: Option<u64>,
}

/// The plan's word for one model at one site.
struct Word {
    place: Option<Place>,
    reason: String,
    message: String,
}

pub fn simulate(before: &World, after: &World) -> Result<Simulation> {
    let (now, then) = (words(&planned(&settled(before))?), words(&planned(&settled(after))?));
    let mut moves = Vec::new();
    for (key, word) in &then {
        let old = now.get(key).and_then(|word| word.place.clone());
        let home = |place: &Option<Place>| place.as_ref().map(|place| (place.home.clone(), place.replicas));
        if home(&old) != home(&word.place) || !now.contains_key(key) {
            moves.push(moved(key, old, word));
        }
    }
    for (key, word) in now.iter().filter(|(key, _)| !then.contains_key(*key)) {
        let gone = Word { place: None, reason: "Gone".into(), message: "nothing would ask for it".into() };
        moves.push(moved(key, word.place.clone(), &gone));
    }
    let cost = |words: &BTreeMap<_, Word>| words.values().filter_map(|word| word.place.as_ref()?.cost_millis).sum();
    let unknown = after.models.values().filter(|model| after.version_of(model).is_none());
    Ok(Simulation {
        placements: then.len(),
        moves,
        cost_millis_now: cost(&now),
        cost_millis_then: cost(&then),
        unknown: unknown
            .map(|model| format!("{}/{}", model.namespace().unwrap_or_default(), model.name_any()))
            .collect(),
    })
}

/// The world once every wait for something to last is over: what is asked is where models end, not when.
fn settled(world: &World) -> World {
    let mut world = world.clone();
    for fleet in world.fleets.values_mut() {
        Arc::make_mut(fleet).spec.stability.get_or_insert_default().settle = "0s".into();
    }
    world
}

fn planned(world: &World) -> Result<Plans> {
    plans(world).or_else(|panics| bail!("the planner failed at {} (a mistake of ours)", panics.join(", ")))
}

fn words(plans: &Plans) -> BTreeMap<(String, String), Word> {
    plans.iter().flat_map(|((_, site), plan)| of_site(site, plan)).collect()
}

fn of_site(site: &str, plan: &Plan) -> Vec<((String, String), Word)> {
    let key = |model: &dyn Display| (model.to_string(), site.to_owned());
    let placed = plan.placements.iter().map(|placement| {
        let word = Word {
            place: Some(place(placement)),
            reason: placement.reason.to_string(),
            message: placement.message.clone(),
        };
        (key(&placement.model), word)
    });
    let unplaced = plan.unplaced.iter().map(|unplaced| {
        let word = Word { place: None, reason: unplaced.reason.to_string(), message: unplaced.message.clone() };
        (key(&unplaced.model), word)
    });
    placed.chain(unplaced).collect()
}

fn place(placement: &Placement) -> Place {
    Place {
        home: text::place(placement.tier, placement.node.as_deref(), &placement.variant),
        replicas: placement.replicas,
        p99_us: placement.predicted.as_ref().map(|predicted| predicted.p99_us),
        cost_millis: placement.cost_millis,
    }
}

fn moved((model, site): &(String, String), now: Option<Place>, word: &Word) -> Move {
    Move {
        model: model.clone(),
        site: site.clone(),
        now,
        then: word.place.clone(),
        reason: word.reason.clone(),
        message: word.message.clone(),
    }
}

impl Display for Simulation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&columns(&self.moves.iter().map(row).collect::<Vec<_>>()))?;
        for model in &self.unknown {
            writeln!(f, "{} {model}: its artifact is not known here, so it was not planned", styled(BAD, "?"))?;
        }
        let lost = self.moves.iter().filter(|change| change.then.is_none()).count();
        let summary =
            format!("{} of {} placements would change, {lost} would have no place", self.moves.len(), self.placements);
        let [now, then] = [self.cost_millis_now, self.cost_millis_then].map(text::cost);
        writeln!(f, "{}; {now} -> {then}", styled(STRONG, summary))
    }
}

fn row(change: &Move) -> Vec<String> {
    let home = |place: &Option<Place>| {
        place.as_ref().map_or_else(
            || "nowhere".to_owned(),
            |place| match place.replicas {
                1 => place.home.clone(),
                replicas => format!("{} ×{replicas}", place.home),
            },
        )
    };
    let then = change.then.as_ref();
    let why = if then.is_some() { change.reason.clone() } else { format!("{}: {}", change.reason, change.message) };
    vec![
        change.model.clone(),
        change.site.clone(),
        format!("{} -> {}", home(&change.now), home(&change.then)),
        then.and_then(|place| place.p99_us).map_or_else(String::new, |us| format!("p99 {}", text::time(us))),
        then.and_then(|place| place.cost_millis).map_or_else(String::new, |cost| text::cost(cost).to_string()),
        if then.is_some() { why } else { styled(BAD, why) },
    ]
}
