//! Puts what is decided for a site into words: each place with its prediction and its price, and why the others were passed over.

use super::filter::{Candidate, Failed, fits};
use super::hold::{self, Verdict};
use super::pack::{Packed, Task, give, may_exceed, take};
use super::score::{Above, passed_over};
use super::why::Slow;
use super::{
    BetterPlace, CloudOffer, Placement, Plan, RatioKey, RatioSample, Rejected, Room, Snapshot, Unplaced, Urgency,
    observed_percent, predict, text,
};
use sconce_api::{Reason, Tier, TierChoice};
use std::fmt::from_fn;

/// Most rejections that a decision carries.
pub(super) const MOST_REJECTED: usize = 8;

impl Packed<'_> {
    pub fn in_words(mut self, plan: &mut Plan) {
        // The most important come first, so those of one priority one after another.
        let mut above = (i32::MAX, Vec::new());
        for task in &self.tasks {
            if above.0 != task.model.priority {
                above = (task.model.priority, more_important(&self.tasks, task.model.priority));
            }
            let above = &above.1;
            match task.chosen() {
                Some(chosen) => plan.placements.push(placement(self.snapshot, task, chosen, &mut self.left, above)),
                None => plan.unplaced.push(unplaced(self.snapshot, task, &self.left, above)),
            }
        }
    }
}

/// What those take that are more important than `priority`, by node.
fn more_important<'a>(tasks: &[Task<'a>], priority: i32) -> Vec<Above<'a>> {
    let mut all: Vec<Above<'a>> = Vec::new();
    // The most important come first.
    for task in tasks.iter().filter(|task| task.model.priority > priority) {
        let Some((node, takes)) = task.takes() else { continue };
        match all.iter_mut().find(|above| above.node == node) {
            Some(above) => above.takes = above.takes.plus(takes),
            None => all.push(Above { node, takes, by: &task.model.name, priority: task.model.priority }),
        }
    }
    all
}

fn placement(
    snapshot: &Snapshot,
    task: &Task<'_>,
    chosen: &Candidate<'_>,
    left: &mut [Room],
    above: &[Above<'_>],
) -> Placement {
    let Task { model, candidates, failed, .. } = task;
    // Reasons speak of the room that the others leave this model.
    let own = task.takes();
    if let Some((node, takes)) = own {
        give(left, node, takes);
    }
    let others = passed_over(snapshot, model, candidates, Some(chosen), left, above);
    if let Some((node, takes)) = own {
        take(left, node, takes);
    }
    let kept = task.kept.as_ref().filter(|_| task.chosen == task.home);
    let (reason, because) = match (&chosen.too_slow, kept, chosen.tier()) {
        (None, Some(kept), _) => (Reason::KeptByStability, format!("; held: {}", kept.why)),
        (None, None, Tier::Edge) => (Reason::ChosenAtEdge, String::new()),
        (None, None, Tier::Cloud) => (Reason::ChosenInCloud, String::new()),
        (Some(slow), ..) => {
            let message = slow.message(model, &snapshot.link, chosen);
            (Reason::BestEffort, format!("; {}: {message}", slow.reason()))
        }
    };
    let prediction = &chosen.prediction;
    let one_more = predict::takes(chosen.request, chosen.variant, 1);
    let by = from_fn(|f| model.overridden_by.iter().try_for_each(|name| write!(f, " by override {name}")));
    let message = text::short(
        format_args!(
            "{} at {}: p99 {}, bound {} of {}{by} (link {}, transfer {}, queue {}, compute {}; {}), {}{because}",
            chosen.name(),
            snapshot.site,
            chosen.p99(),
            text::time(prediction.bound_us),
            text::time(model.budget_us),
            text::time(prediction.link.p99_us),
            text::time(prediction.transfer.p99_us),
            text::time(prediction.queue.p99_us),
            text::time(prediction.compute.p99_us),
            prediction.basis,
            text::cost(chosen.cost_millis),
        ),
        text::CONDITION,
    );
    Placement {
        model: model.name.clone(),
        version: model.version.clone(),
        digest: model.digest.clone(),
        tier: chosen.tier(),
        node: chosen.node.map(|node| node.name.clone()),
        variant: chosen.variant.name.clone(),
        replicas: chosen.replicas,
        request: chosen.request,
        surge: left.get(chosen.index).is_none_or(|left| fits(one_more, *left)),
        reason,
        message,
        predicted: Some(chosen.prediction.clone()),
        budget_us: model.budget_us,
        cost_millis: Some(chosen.cost_millis),
        rejected: ranked(others, failed),
        better_place: kept.and(task.better).map(|better| better_place(snapshot, task, better)),
        due: due(snapshot, task),
        moves: moves(snapshot, task, chosen),
        ratio: told(snapshot, task, chosen),
    }
}

fn better_place(snapshot: &Snapshot, task: &Task<'_>, better: usize) -> BetterPlace {
    let since = hold::history(snapshot, &task.model.name).and_then(|history| history.better_since);
    BetterPlace { candidate: task.candidates[better].name(), since: since.unwrap_or(snapshot.stability.now) }
}

/// The next time at which something that was kept may move.
fn due(snapshot: &Snapshot, task: &Task<'_>) -> Option<i64> {
    let stability = &snapshot.stability;
    let history = hold::history(snapshot, &task.model.name);
    let missed = history.and_then(|history| history.missed_since).map(|since| stability.settled_at(since));
    let is_left = |candidate: &Candidate<'_>| matches!(candidate.too_slow, Some(Slow::Left { .. }));
    let returns =
        history.filter(|_| task.candidates.iter().any(is_left)).map(|history| stability.returns_at(history.since));
    let kept = task.kept.as_ref().and_then(|kept| kept.due);
    [missed, returns, kept].into_iter().flatten().filter(|at| stability.is_ahead(*at)).min()
}

/// Whether it leaves a home for the place that was chosen, and how urgently.
fn moves(snapshot: &Snapshot, task: &Task<'_>, chosen: &Candidate<'_>) -> Option<Urgency> {
    let node = chosen.node.map(|node| node.name.as_str());
    let home = snapshot.current.get(&task.model.name)?;
    if hold::is_at(home, chosen.tier(), node, &chosen.variant.name) {
        return None;
    }
    let verdict = task.would_leave().map(|(home, chosen)| hold::judge(snapshot, task, home, chosen));
    Some(if matches!(verdict, Some(Verdict::Go { urgent: false })) { Urgency::Better } else { Urgency::Infeasible })
}

/// What the clients of a home that stays tell of its prediction.
fn told(snapshot: &Snapshot, task: &Task<'_>, chosen: &Candidate<'_>) -> Option<RatioSample> {
    task.chosen.filter(|chosen| task.home == Some(*chosen))?;
    let measured_us = hold::history(snapshot, &task.model.name)?.measured_p99_us?;
    let class = match (chosen.node, &task.model.cloud) {
        (Some(node), _) => node.speed.as_ref()?.class.clone(),
        (None, CloudOffer::Pool(speed)) => speed.class.clone(),
        (None, CloudOffer::None { .. }) => return None,
    };
    let key = RatioKey { class, variant: chosen.variant.name.clone(), tier: chosen.tier() };
    Some(RatioSample { key, percent: observed_percent(measured_us, chosen.prediction.p99_us) })
}

fn unplaced(snapshot: &Snapshot, task: &Task<'_>, left: &[Room], above: &[Above<'_>]) -> Unplaced {
    let Task { model, candidates, failed, .. } = task;
    let would_serve = candidates.iter().any(|candidate| candidate.too_slow.is_none() || may_exceed(snapshot, task));
    let reason = if would_serve {
        Reason::NoCapacity
    } else if snapshot.nodes.is_empty() && model.tier != TierChoice::Cloud {
        Reason::NoNodes
    } else {
        Reason::NoCandidate
    };
    let rejected = ranked(passed_over(snapshot, model, candidates, None, left, above), failed);
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
    let colon = if parts.is_empty() { "" } else { ": " };
    text::short(format_args!("{start}{colon}{}", parts.join("; ")), text::CONDITION)
}

/// The others first, then what failed earlier filters. At most 8.
fn ranked(mut others: Vec<Rejected>, failed: &[Failed<'_>]) -> Vec<Rejected> {
    let mut failed: Vec<_> = failed.iter().collect();
    failed.sort_by_key(|failed| failed.order());
    let told = |failed: &Failed<'_>| Rejected {
        candidate: failed.name(),
        reason: failed.failure.reason(),
        message: text::short(failed.failure.message(), text::REJECTION),
    };
    let room = MOST_REJECTED.saturating_sub(others.len());
    others.extend(failed.into_iter().take(room).map(told));
    others
}
