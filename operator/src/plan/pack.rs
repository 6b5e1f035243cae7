//! Gives the site's models their places, one after another, so that no node holds more than it has.

use super::filter::{Candidate, candidates, room};
use super::score::{Left, best, dominant_share, passed_over};
use super::{Model, ModelName, Placement, Plan, Rejected, Snapshot, Unplaced, text};
use sconce_api::{BudgetPolicy, Objective, Reason, Tier, TierChoice};
use std::cmp::Reverse;

/// Most rejections that a decision carries.
const MOST_REJECTED: usize = 8;

/// A model with the places that it might have.
struct Task<'a> {
    model: &'a Model,
    candidates: Vec<Candidate<'a>>,
    rejected: Vec<Rejected>,
}

pub(super) fn pack(snapshot: &Snapshot, models: &[&Model], plan: &mut Plan) {
    let whole: Left<'_> =
        snapshot.nodes.iter().map(|node| (node.name.as_str(), room(node, snapshot.max_share_millis))).collect();
    let mut left = whole.clone();
    let mut tasks: Vec<Task<'_>> = models
        .iter()
        .map(|model| {
            let (candidates, rejected) = candidates(snapshot, model);
            Task { model, candidates, rejected }
        })
        .collect();
    tasks.sort_by_cached_key(|task| order(task, &whole));
    // Who keeps the budget comes first; what is left goes to those who cannot.
    let mut waiting = Vec::new();
    for task in tasks {
        let accepted = task.candidates.iter().filter(|candidate| candidate.too_slow.is_none());
        match best(accepted.filter(|candidate| fits(candidate, &left)), task.model.objective, &left) {
            Some(chosen) => place(snapshot, &task, chosen, &mut left, plan),
            None => waiting.push(task),
        }
    }
    for task in waiting {
        let any = task.candidates.iter().filter(|candidate| fits(candidate, &left) && may_exceed(snapshot, &task));
        match best(any, Objective::Latency, &left) {
            Some(fastest) => place(snapshot, &task, fastest, &mut left, plan),
            None => plan.unplaced.push(unplaced(snapshot, &task, &left)),
        }
    }
}

/// Fewest accepted places first, then the largest share of a node, then the name.
fn order<'a>(task: &Task<'a>, whole: &Left<'_>) -> (usize, Reverse<u64>, &'a ModelName) {
    let share = |candidate: &Candidate<'_>| {
        let node = candidate.node.and_then(|node| whole.get(node.name.as_str()));
        node.map(|node| dominant_share(candidate.takes(), *node))
    };
    let accepted = task.candidates.iter().filter(|candidate| candidate.too_slow.is_none()).count();
    (accepted, Reverse(task.candidates.iter().filter_map(share).max().unwrap_or(0)), &task.model.name)
}

fn fits(candidate: &Candidate<'_>, left: &Left<'_>) -> bool {
    let Some(node) = candidate.node else { return true };
    let takes = candidate.takes();
    left.get(node.name.as_str())
        .is_some_and(|left| takes.cpu_millis <= left.cpu_millis && takes.memory_bytes <= left.memory_bytes)
}

/// Whether the model may be served late. Not for a site without contact: nobody there could see it.
fn may_exceed(snapshot: &Snapshot, task: &Task<'_>) -> bool {
    task.model.budget_policy == BudgetPolicy::Prefer && !super::unreachable(snapshot)
}

fn place(snapshot: &Snapshot, task: &Task<'_>, chosen: &Candidate<'_>, left: &mut Left<'_>, plan: &mut Plan) {
    let Task { model, candidates, rejected } = task;
    // Reasons speak of the room before this model took its own.
    let others = passed_over(model, candidates, Some(chosen), left);
    if let Some(room) = chosen.node.and_then(|node| left.get_mut(node.name.as_str())) {
        let takes = chosen.takes();
        room.cpu_millis -= takes.cpu_millis;
        room.memory_bytes -= takes.memory_bytes;
    }
    let (reason, because) = match (&chosen.too_slow, chosen.tier()) {
        (None, Tier::Edge) => (Reason::ChosenAtEdge, String::new()),
        (None, Tier::Cloud) => (Reason::ChosenInCloud, String::new()),
        (Some((reason, message)), _) => (Reason::BestEffort, format!("; {reason}: {message}")),
    };
    let prediction = &chosen.prediction;
    let message = format!(
        "{} at {}: p99 {}, bound {} of {} (link {}, transfer {}, queue {}, compute {}; {}), {}{because}",
        chosen.name(),
        snapshot.site,
        text::time(prediction.p99_us),
        text::time(prediction.bound_us),
        text::time(model.budget_us),
        text::time(prediction.link.p99_us),
        text::time(prediction.transfer.p99_us),
        text::time(prediction.queue.p99_us),
        text::time(prediction.compute.p99_us),
        prediction.basis,
        text::cost(chosen.cost_millis),
    );
    plan.placements.push(Placement {
        model: model.name.clone(),
        version: model.version.clone(),
        digest: model.digest.clone(),
        tier: chosen.tier(),
        node: chosen.node.map(|node| node.name.clone()),
        variant: chosen.variant.name.clone(),
        replicas: chosen.replicas,
        request: chosen.request,
        reason,
        message: text::short(&message, text::CONDITION),
        predicted: Some(chosen.prediction.clone()),
        budget_us: model.budget_us,
        cost_millis: Some(chosen.cost_millis),
        rejected: ranked(others, rejected),
    });
}

fn unplaced(snapshot: &Snapshot, task: &Task<'_>, left: &Left<'_>) -> Unplaced {
    let Task { model, candidates, rejected } = task;
    let would_serve = candidates.iter().any(|candidate| candidate.too_slow.is_none() || may_exceed(snapshot, task));
    let reason = if would_serve {
        Reason::NoCapacity
    } else if snapshot.nodes.is_empty() && model.tier != TierChoice::Cloud {
        Reason::NoNodes
    } else {
        Reason::NoCandidate
    };
    let rejected = ranked(passed_over(model, candidates, None, left), rejected);
    let start = match reason {
        Reason::NoCapacity => format!("{} is full for {}", snapshot.site, model.name.name),
        Reason::NoNodes => format!("no place for {} at {}: the site has no node", model.name.name, snapshot.site),
        _ => format!("no place for {} at {}", model.name.name, snapshot.site),
    };
    let message = sentence(&start, &rejected, model.variants.is_empty());
    Unplaced {
        model: model.name.clone(),
        version: model.version.clone(),
        budget_us: model.budget_us,
        reason,
        message,
        rejected,
    }
}

/// Appends each distinct rejection, as many as a condition has room for.
fn sentence(start: &str, rejected: &[Rejected], no_variant: bool) -> String {
    let mut parts: Vec<String> = Vec::new();
    if no_variant {
        parts.push("the version has no variant".into());
    }
    for Rejected { reason, message, .. } in rejected {
        let part = format!("{reason}: {message}");
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let message = if parts.is_empty() { start.to_owned() } else { format!("{start}: {}", parts.join("; ")) };
    text::short(&message, text::CONDITION)
}

/// The others first, then what failed earlier filters: the later the filter, the nearer it was;
/// nodes before the cloud. At most 8.
fn ranked(mut others: Vec<Rejected>, rejected: &[Rejected]) -> Vec<Rejected> {
    let mut failed = rejected.to_vec();
    let cloud = |rejected: &Rejected| rejected.candidate.starts_with("cloud/");
    failed.sort_by_cached_key(|rejected| (Reverse(rejected.reason), cloud(rejected), rejected.candidate.clone()));
    others.append(&mut failed);
    others.truncate(MOST_REJECTED);
    others
}
