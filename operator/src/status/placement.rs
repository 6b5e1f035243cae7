//! The status of an EdgePlacement.

use super::place::{Place, is_held};
use super::{Claim, Observed, Truth, budget, conditions, ready, shortened};
use crate::observe::World;
use crate::plan::{self, Prediction};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sconce_api::{
    Amount, BetterPlace, Decision, DurationText, EdgePlacement, EdgePlacementStatus, LeftPlace, Reason, Rejection,
    Terms, Tier,
};

/// What the model's own status counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub site: String,
    pub tier: Option<Tier>,
    pub offline: bool,
    pub placed: Claim,
    pub serving: Claim,
    pub ready: Claim,
    /// Whether clients get what the budget promises.
    pub within: Claim,
    pub reconciling: bool,
}

/// The plan's word for one model: a place, or none.
#[derive(Clone, Copy, Debug)]
pub enum Decided<'a> {
    Placed(&'a plan::Placement),
    Unplaced(&'a plan::Unplaced),
}

pub fn edge_placement(
    world: &World,
    live: Option<&EdgePlacement>,
    (site, terms): (&str, Terms),
    decided: Decided<'_>,
    place: &Place,
    observed: Observed,
) -> (EdgePlacementStatus, Outcome) {
    let old = live.and_then(|live| live.status.clone()).unwrap_or_default();
    let generation = live.and_then(|live| live.metadata.generation);
    let mut status = EdgePlacementStatus {
        observed_generation: generation,
        budget: Some(terms.latency_budget.clone()),
        overridden_by: terms.by,
        ..EdgePlacementStatus::default()
    };
    let claims = match decided {
        Decided::Placed(placement) if placement.reason == Reason::KeptUnreachable => {
            status.decision = old.decision.clone().or_else(|| Some(decision(world, None, placement)));
            status.budget = old.budget.clone().or(status.budget);
            status.overridden_by.clone_from(&old.overridden_by);
            stays(&mut status, &old);
            status.endpoints.clone_from(&old.endpoints);
            status.observed.clone_from(&old.observed);
            let silent = format!("no node of {site} is Ready; it may well serve on");
            Claims {
                placed: Claim::new("Placed", true, placement.reason, &*placement.message),
                within: budget::untold(Reason::NoContact, &*silent),
                serving: Claim::new("Serving", Truth::Unknown, Reason::NoContact, silent),
                rolled: None,
                reconciling: None,
            }
        }
        Decided::Placed(placement) => {
            status.decision = Some(decision(world, old.decision.as_ref(), placement));
            match &placement.predicted {
                Some(predicted) => {
                    status.predicted = Some(prediction(predicted));
                    status.cost = placement.cost_millis.map(Amount::of_millis);
                    status.rejected = placement.rejected.iter().map(rejection).collect();
                }
                None => stays(&mut status, &old),
            }
            status.endpoints.clone_from(&place.endpoints);
            let within = budget::of_placement(&observed, placement.tier, &terms.latency_budget);
            status.observed = observed.here;
            let served = old.conditions.iter().any(|old| old.type_ == "Serving" && old.status == "True");
            placed_claims(placement, place, served, within)
        }
        Decided::Unplaced(unplaced) => {
            status.rejected = unplaced.rejected.iter().map(rejection).collect();
            Claims {
                placed: Claim::new("Placed", false, unplaced.reason, &*unplaced.message),
                within: budget::untold(unplaced.reason, "the model has no place for this site"),
                serving: Claim::new("Serving", false, unplaced.reason, "the model has no place for this site"),
                rolled: None,
                reconciling: None,
            }
        }
    };
    let needed: Vec<&Claim> = [&claims.placed, &claims.serving].into_iter().chain(&claims.rolled).collect();
    let ready = ready(&needed, &claims.serving.message);
    let outcome = Outcome {
        site: site.to_owned(),
        tier: status.decision.as_ref().map(|decision| decision.tier),
        offline: claims.serving.reason == Reason::NoContact,
        placed: brief(&claims.placed),
        serving: brief(&claims.serving),
        ready: brief(&ready),
        within: brief(&claims.within),
        reconciling: claims.reconciling.is_some(),
    };
    let all = [ready, claims.placed, claims.serving, claims.within].into_iter().chain(claims.reconciling).collect();
    status.conditions = conditions(all, &old.conditions, generation, world.now);
    (status, outcome)
}

/// For the model, which says why not, and of ten thousand places never why.
fn brief(claim: &Claim) -> Claim {
    let message = if claim.holds() { String::new() } else { claim.message.clone() };
    Claim { message, ..*claim }
}

/// Kept, not decided anew: what was said of the place stands.
fn stays(status: &mut EdgePlacementStatus, old: &EdgePlacementStatus) {
    status.predicted.clone_from(&old.predicted);
    status.cost.clone_from(&old.cost);
    status.rejected.clone_from(&old.rejected);
}

struct Claims {
    placed: Claim,
    serving: Claim,
    within: Claim,
    /// Only while what was decided does not answer.
    rolled: Option<Claim>,
    reconciling: Option<Claim>,
}

fn placed_claims(placement: &plan::Placement, place: &Place, served: bool, within: Claim) -> Claims {
    let (reason, told, failed) = &place.trouble;
    let whence = match (&placement.node, placement.tier) {
        (Some(node), Tier::Edge) => format!("on {node}"),
        _ => "in the cloud".to_owned(),
    };
    let serving = if place.current {
        let answers = match (placement.tier, place.answering) {
            (Tier::Cloud, _) => "the pool answers".to_owned(),
            (Tier::Edge, 1) => "1 pod answers".to_owned(),
            (Tier::Edge, pods) => format!("{pods} pods answer"),
        };
        Claim::new("Serving", true, Reason::Serving, format!("{answers} {whence}"))
    } else if place.answering > 0 || served && !place.endpoints.is_empty() {
        Claim::new(
            "Serving",
            true,
            Reason::Serving,
            format!("the earlier place answers until the new one does: {told}"),
        )
    } else {
        Claim::new("Serving", false, *reason, &**told)
    };
    let rolled = (!place.current).then(|| Claim::new("Current", false, *reason, &**told));
    let reconciling = if place.current {
        let leaving = "the pods of the earlier place on the edge are about to go";
        let leaving = place.edge_fate.map(|_| Claim::new("Reconciling", true, Reason::Progressing, leaving));
        let replacing = || Claim::new("Reconciling", true, *reason, format!("{told}; what answers until then stays"));
        failed.then(replacing).or(leaving)
    } else {
        // What nobody makes again is not under way.
        (!is_held(*reason)).then(|| Claim::new("Reconciling", true, *reason, &**told))
    };
    let placed = Claim::new("Placed", true, placement.reason, &*placement.message);
    Claims { placed, serving, within, rolled, reconciling }
}

/// The time changes with the place and the variant, not with the version that runs there.
fn decision(world: &World, old: Option<&Decision>, placement: &plan::Placement) -> Decision {
    let nodes: Vec<String> = placement.node.iter().cloned().collect();
    let is_same =
        |old: &&Decision| old.tier == placement.tier && old.nodes == nodes && old.variant == placement.variant;
    let same = old.filter(is_same);
    let left =
        |old: &Decision| LeftPlace { tier: old.tier, node: old.nodes.first().cloned(), variant: old.variant.clone() };
    let better = |better: &plan::BetterPlace| BetterPlace {
        candidate: better.candidate.clone(),
        since: Timestamp::from_second(better.since).map_or(Time(world.now), Time),
    };
    Decision {
        tier: placement.tier,
        nodes,
        variant: placement.variant.clone(),
        replicas: i64::try_from(placement.replicas).unwrap_or(i64::MAX),
        reason: placement.reason.as_str().to_owned(),
        since: same.map_or(Time(world.now), |old| old.since.clone()),
        left: same.map_or_else(|| old.map(left), |old| old.left.clone()),
        better: match &placement.predicted {
            Some(_) => placement.better_place.as_ref().map(better),
            None => same.and_then(|old| old.better.clone()),
        },
    }
}

fn prediction(prediction: &Prediction) -> sconce_api::Prediction {
    let term = |term: &plan::Term| sconce_api::Term {
        p50: duration_text(term.p50_us),
        p99: duration_text(term.p99_us),
        basis: term.basis,
    };
    sconce_api::Prediction {
        link: term(&prediction.link),
        transfer: term(&prediction.transfer),
        queue: term(&prediction.queue),
        compute: term(&prediction.compute),
        p99: duration_text(prediction.p99_us),
        bound: duration_text(prediction.bound_us),
        basis: prediction.basis,
    }
}

/// Two digits, in the largest unit that keeps them whole: `4200us`, `42ms`, `1200ms`.
pub(super) fn duration_text(us: u64) -> DurationText {
    let unit = 10_u64.pow(us.checked_ilog10().unwrap_or(0).saturating_sub(1));
    let us = (us.saturating_add(unit / 2)) / unit * unit;
    DurationText(match us {
        us if us > 0 && us.is_multiple_of(1_000_000) => format!("{}s", us / 1_000_000),
        us if us > 0 && us.is_multiple_of(1_000) => format!("{}ms", us / 1_000),
        us => format!("{us}us"),
    })
}

fn rejection(rejected: &plan::Rejected) -> Rejection {
    Rejection {
        candidate: shortened(&rejected.candidate, 320),
        reason: rejected.reason.as_str().to_owned(),
        message: shortened(&rejected.message, 256),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_digits_and_a_unit() {
        let check = |us, expected: &str| assert_eq!(duration_text(us).0, expected, "{us}");
        check(0, "0us");
        check(7, "7us");
        check(4_234, "4200us");
        check(41_800, "42ms");
        check(4_000, "4ms");
        check(1_234_567, "1200ms");
        check(12_345_678, "12s");
    }
}
