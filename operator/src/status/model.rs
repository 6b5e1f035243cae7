//! The status of an EdgeModel and of its versions.

use super::{Claim, Outcome, Truth, budget, conditions, ready, shortened};
use crate::artifact::{Artifact, Failure};
use crate::observe::World;
use crate::render;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use sconce_api::{
    DesiredVersion, EdgeModel, EdgeModelStatus, EdgeModelVersion, EdgeModelVersionStatus, EdgeSite, ModelOverride,
    ModelSiteCounts, Reason, SiteTrouble, Tier, VariantFacts, condition,
};

/// Where `spec.model` stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolving {
    Asking,
    Resolved,
    /// What was asked for is served, and something newer waits for a person: how to have it.
    Newer(String),
    Failed(Failure),
}

/// `desired` is what it resolved to, now or earlier; `outcomes` is absent while nothing was decided.
pub fn edge_model(
    world: &World,
    model: &EdgeModel,
    desired: Option<DesiredVersion>,
    resolving: &Resolving,
    fleet_found: bool,
    outcomes: Option<&[Outcome]>,
) -> EdgeModelStatus {
    let old = model.status.clone().unwrap_or_default();
    let generation = model.metadata.generation;
    let moved = old.desired != desired;
    let resolved = resolved(world, model, desired.as_ref(), resolving);
    let [placed, serving, within] = match outcomes {
        Some(outcomes) => [placed(model, outcomes), serving(outcomes), budget::of_model(outcomes)],
        None if !fleet_found => ["Placed", "Serving", "WithinBudget"].map(undecided),
        None => ["Placed", "Serving", "WithinBudget"].map(|kind| kept(&old, kind)),
    };
    let stalled = (!fleet_found).then(|| stalled(world, model));
    let every_site = outcomes.into_iter().flatten().find(|outcome| !outcome.offline && !outcome.ready.holds());
    let all_ready = every_site.map(|outcome| {
        let told = format!("{}: {}", outcome.site, outcome.ready.message);
        Claim::new("Ready", outcome.ready.truth, outcome.ready.reason, told)
    });
    let needed: Vec<&Claim> =
        stalled.iter().map(|_| &placed).chain([&resolved, &placed, &serving]).chain(&all_ready).collect();
    let mut ready = ready(&needed, &serving.message);
    if let Some(stalled) = &stalled {
        ready = Claim { kind: "Ready", truth: Truth::False, ..stalled.clone() };
    }
    let busy = matches!(resolving, Resolving::Asking) || outcomes.into_iter().flatten().any(|site| site.reconciling);
    let reconciling = busy.then(|| {
        let told =
            if matches!(resolving, Resolving::Asking) { resolved.message.clone() } else { ready.message.clone() };
        Claim::new("Reconciling", true, Reason::Progressing, told)
    });
    let overridden = overridden(world, model);
    let claims = [ready, resolved, placed, serving, within];
    let claims = claims.into_iter().chain(overridden).chain(reconciling).chain(stalled).collect();
    EdgeModelStatus {
        observed_generation: generation,
        resolved_at: if moved { desired.as_ref().map(|_| Time(world.now)) } else { old.resolved_at.clone() },
        desired,
        address: Some(render::address(model)),
        sites: outcomes.map_or(old.sites.clone(), |outcomes| Some(counts(outcomes))),
        worst: outcomes.map_or(old.worst.clone(), worst),
        conditions: conditions(claims, &old.conditions, generation, world.now),
    }
}

/// Whether every override says something of some site: one that selects none, or none that an earlier one has not taken, is
/// most likely a mistake, and harms nothing.
fn overridden(world: &World, model: &EdgeModel) -> Option<Claim> {
    let (spec, kind) = (&model.spec, "Overridden");
    let selects = |site: &&EdgeSite| {
        site.spec.fleet_ref.name == spec.fleet_ref.name
            && spec.sites.as_ref().is_none_or(|selector| selector.matches(site.labels()))
    };
    let sites: Vec<&EdgeSite> = world.sites.values().map(AsRef::as_ref).filter(selects).collect();
    let applied: Vec<Option<String>> = sites.iter().map(|site| spec.terms_at(site.labels()).by).collect();
    let idle = |one: &&ModelOverride| !applied.iter().flatten().any(|name| *name == one.name);
    let Some(one) = spec.overrides.iter().find(idle) else {
        let told = format!("{} of {} sites", applied.iter().flatten().count(), sites.len());
        return (!spec.overrides.is_empty()).then(|| Claim::new(kind, true, Reason::Overridden, told));
    };
    let told = match sites.iter().filter(|site| one.sites.matches(site.labels())).count() {
        0 => format!("{} selects no site of the model; label EdgeSites, or change or remove it", one.name),
        taken => format!("{} applies nowhere: earlier ones apply at all {taken} sites that it selects", one.name),
    };
    Some(Claim::new(kind, false, Reason::OverrideUnused, told))
}

fn resolved(world: &World, model: &EdgeModel, desired: Option<&DesiredVersion>, resolving: &Resolving) -> Claim {
    match (resolving, desired) {
        (Resolving::Asking, _) => {
            Claim::new("Resolved", Truth::Unknown, Reason::Progressing, format!("asking for {}", model.spec.model))
        }
        (Resolving::Failed(failure), None) => Claim::new("Resolved", false, failure.reason, &*failure.message),
        (Resolving::Failed(failure), Some(desired)) => {
            let told = format!("{}; {} is served on", failure.message, desired.version);
            Claim::new("Resolved", false, failure.reason, told)
        }
        (Resolving::Newer(told), Some(_)) => Claim::new("Resolved", true, Reason::NotPromoted, &**told),
        (Resolving::Resolved | Resolving::Newer(_), None) => {
            Claim::new("Resolved", Truth::Unknown, Reason::Progressing, "to be asked for")
        }
        (Resolving::Resolved, Some(desired)) => {
            let key = (model.metadata.namespace.clone().unwrap_or_default(), desired.version.clone());
            let variants = world.versions.get(&key).and_then(|version| version.status.as_ref()).map(|s| &s.variants);
            match variants.into_iter().flatten().find_map(|variant| uncertain(model, variant)) {
                Some(told) => Claim::new("Resolved", true, Reason::AccuracyUncertain, told),
                // Of a suspended model it may be another than `spec.model` asks for.
                None => {
                    Claim::new("Resolved", true, Reason::Resolved, format!("{} is {}", desired.uri, desired.version))
                }
            }
        }
    }
}

/// A floor inside the interval: more held-out samples would tell.
fn uncertain(model: &EdgeModel, variant: &VariantFacts) -> Option<String> {
    let floor = model.spec.accuracy_floor.as_ref()?;
    let interval = variant.interval.as_ref()?;
    let inside = interval.low.millis()? < floor.millis()? && floor.millis()? <= interval.high.millis()?;
    let (low, high) = (&interval.low, &interval.high);
    let name = &variant.name;
    inside.then(|| format!("the floor {floor} lies inside {name}'s interval {low} to {high}; evaluate on more samples"))
}

fn placed(model: &EdgeModel, outcomes: &[Outcome]) -> Claim {
    let (edge, cloud) = (in_tier(outcomes, Tier::Edge), in_tier(outcomes, Tier::Cloud));
    if outcomes.is_empty() {
        let fleet = &model.spec.fleet_ref.name;
        return Claim::new("Placed", false, Reason::NoNodes, format!("no site of fleet {fleet} is selected"));
    }
    if let Some(unplaced) = outcomes.iter().find(|outcome| !outcome.placed.holds()) {
        let missing = outcomes.iter().filter(|outcome| !outcome.placed.holds()).count();
        let told = format!(
            "{missing} of {} sites have no place; {}: {}",
            outcomes.len(),
            unplaced.site,
            unplaced.placed.message
        );
        return Claim::new("Placed", false, unplaced.placed.reason, told);
    }
    let best_effort = outcomes.iter().any(|outcome| outcome.placed.reason == Reason::BestEffort);
    let reason = match (best_effort, edge) {
        (true, _) => Reason::BestEffort,
        (false, 0) => Reason::ChosenInCloud,
        (false, _) => Reason::ChosenAtEdge,
    };
    Claim::new("Placed", true, reason, format!("sites: {edge} at the edge, {cloud} from the cloud"))
}

/// Sites without contact are counted, not failed: of thousands some always are.
fn serving(outcomes: &[Outcome]) -> Claim {
    let offline = outcomes.iter().filter(|outcome| outcome.offline).count();
    let told = match offline {
        0 => format!("{} sites serve", fraction(outcomes)),
        _ => format!("{} sites serve, {offline} without contact", fraction(outcomes)),
    };
    match outcomes.iter().find(|outcome| !outcome.offline && !outcome.serving.holds()) {
        None if outcomes.is_empty() => Claim::new("Serving", false, Reason::NotEnoughSites, told),
        None if offline == outcomes.len() => Claim::new("Serving", Truth::Unknown, Reason::NoContact, told),
        None => Claim::new("Serving", true, Reason::Serving, told),
        Some(lacking) => {
            let told = format!("{told}; {}: {}", lacking.site, lacking.serving.message);
            Claim::new("Serving", false, Reason::NotEnoughSites, told)
        }
    }
}

fn undecided(kind: &'static str) -> Claim {
    Claim::new(kind, Truth::Unknown, Reason::Pending, "nothing is decided without a fleet; what runs is kept")
}

/// While a first version is asked for there is nothing to place.
fn kept(old: &EdgeModelStatus, kind: &'static str) -> Claim {
    let known = condition(&old.conditions, kind);
    let told = known.map_or("waits for the model to be resolved", |known| known.message.as_str());
    let truth = known.map_or(Truth::Unknown, |known| match known.status.as_str() {
        "True" => Truth::True,
        "False" => Truth::False,
        _ => Truth::Unknown,
    });
    let reason = known.and_then(|known| Reason::ALL.iter().find(|(reason, _)| reason.as_str() == known.reason));
    Claim::new(kind, truth, reason.map_or(Reason::Pending, |(reason, _)| *reason), told)
}

fn stalled(world: &World, model: &EdgeModel) -> Claim {
    let there: Vec<_> = world.fleets.keys().map(|(_, name)| name.as_str()).collect();
    let there = if there.is_empty() { "there is none".to_owned() } else { format!("there are: {}", there.join(", ")) };
    let missing = &model.spec.fleet_ref.name;
    Claim::new("Stalled", true, Reason::FleetNotFound, format!("there is no EdgeFleet {missing} ({there})"))
}

fn counts(outcomes: &[Outcome]) -> ModelSiteCounts {
    ModelSiteCounts {
        selected: count(outcomes.len()),
        serving: fraction(outcomes),
        edge: count(in_tier(outcomes, Tier::Edge)),
        cloud: count(in_tier(outcomes, Tier::Cloud)),
        unplaced: count(outcomes.iter().filter(|outcome| outcome.tier.is_none()).count()),
        offline: count(outcomes.iter().filter(|outcome| outcome.offline).count()),
    }
}

/// The sites without a place first, then those that do not serve, then those that are not all right.
fn worst(outcomes: &[Outcome]) -> Vec<SiteTrouble> {
    let claim = |outcome: &Outcome| {
        [&outcome.placed, &outcome.serving, &outcome.ready].into_iter().position(|claim| !claim.holds())
    };
    let mut bad: Vec<_> = outcomes.iter().filter_map(|outcome| Some((claim(outcome)?, outcome))).collect();
    bad.sort_by_key(|(rank, outcome)| (*rank, outcome.site.clone()));
    bad.truncate(8);
    let trouble = |(rank, outcome): (usize, &Outcome)| {
        let claim = [&outcome.placed, &outcome.serving, &outcome.ready][rank];
        SiteTrouble {
            site: outcome.site.clone(),
            reason: claim.reason.as_str().to_owned(),
            message: shortened(&claim.message, 256),
        }
    };
    bad.into_iter().map(trouble).collect()
}

fn in_tier(outcomes: &[Outcome], tier: Tier) -> usize {
    outcomes.iter().filter(|outcome| outcome.tier == Some(tier)).count()
}

fn fraction(outcomes: &[Outcome]) -> String {
    format!("{}/{}", outcomes.iter().filter(|outcome| outcome.serving.holds()).count(), outcomes.len())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What the artifact says: that never changes. What nodes have measured of it stays.
pub fn edge_model_version(
    world: &World,
    live: Option<&EdgeModelVersion>,
    artifact: &Artifact,
) -> EdgeModelVersionStatus {
    let old = live.and_then(|live| live.status.clone()).unwrap_or_default();
    let generation = live.and_then(|live| live.metadata.generation).or(Some(1));
    let claim = Claim::new("Ready", true, Reason::Ready, "the artifact was read");
    EdgeModelVersionStatus {
        observed_generation: generation,
        artifact: Some(artifact.facts.clone()),
        variants: artifact.variants.clone(),
        profiles: old.profiles,
        conditions: conditions(vec![claim], &old.conditions, generation, world.now),
    }
}
