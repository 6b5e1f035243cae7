//! Keeps models where they are until another place is enough better for long enough. A home that can serve no longer is left
//! at once; one whose clients wait too long, or that another place beats by `minGain`, once that has lasted for `settle`; back to
//! where it came from a model goes after four times that.

use super::filter::Candidate;
use super::pack::Task;
use super::predict::ratio;
use super::why::Slow;
use super::{History, Left, Model, ModelName, Snapshot, observed_percent, text};
use sconce_api::{Objective, Tier};
use std::fmt::Display;

/// What is to become of a home, another place having been found.
pub(super) enum Verdict {
    /// The other place is taken; `urgent` = the home can serve no longer.
    Go {
        urgent: bool,
    },
    Keep(Kept),
    /// The other place is no better: somebody else wants the room.
    Pushed,
}

/// Why a home is kept though another place is better.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub why: String,
    /// When to look again.
    pub due: Option<i64>,
    /// The gain is enough, and has to last.
    pub better: bool,
}

pub(super) fn history<'a>(snapshot: &'a Snapshot, model: &ModelName) -> Option<&'a History> {
    snapshot.stability.history.get(model)
}

/// Corrects the candidates by what the home's own clients tell.
pub(super) fn measured(snapshot: &Snapshot, model: &Model, candidates: &mut [Candidate<'_>]) {
    let history = history(snapshot, &model.name).cloned().unwrap_or_default();
    let Some(home) = candidates.iter().position(|candidate| candidate.home) else { return };
    let (place, predicted_us) = (candidates[home].index, candidates[home].prediction.p99_us);
    let here = history.measured_p99_us.map(|measured_us| observed_percent(measured_us, predicted_us));
    let returns = snapshot.stability.is_ahead(snapshot.stability.returns_at(history.since));
    let missed = history.missed_since.is_some_and(|since| snapshot.stability.is_settled(since));
    for (index, candidate) in candidates.iter_mut().enumerate() {
        if index == home {
            // A home is never given up for what was measured elsewhere.
            let own = candidate.percent.min(super::AS_PREDICTED);
            candidate.corrected(model, own);
            let keeps = history.measured_p99_us.is_some_and(|measured_us| measured_us <= model.budget_us);
            if missed {
                candidate.judged(Some(Slow::Missed { p99_us: history.measured_p99_us }));
            } else if keeps && history.missed_since.is_none() {
                candidate.judged(None);
            }
        } else if let Some(here) = here.filter(|here| candidate.index == place && *here > candidate.percent) {
            // What slows one variant there slows the others.
            candidate.corrected(model, here);
        }
    }
    let home = candidates[home].clone();
    if missed && returns {
        for candidate in candidates.iter_mut().filter(|candidate| is_return(&history, &home, candidate)) {
            candidate.judged(Some(Slow::Left { seconds: seconds(snapshot.stability.return_seconds()) }));
        }
    }
}

/// Whether the candidate is where the model came from: there in any variant, unless only the variant was changed.
fn is_return(history: &History, home: &Candidate<'_>, candidate: &Candidate<'_>) -> bool {
    let Some(Left { tier, node, variant }) = &history.left else { return false };
    let is_there = |one: &Candidate<'_>| one.tier() == *tier && one.node_name() == node.as_deref();
    is_there(candidate) && (!is_there(home) || candidate.variant.name == *variant) && !candidate.home
}

/// Whether the model goes where it would best be, now.
pub(super) fn judge(snapshot: &Snapshot, task: &Task<'_>, home: &Candidate<'_>, chosen: &Candidate<'_>) -> Verdict {
    let stability = &snapshot.stability;
    let history = history(snapshot, &task.model.name).cloned().unwrap_or_default();
    let objective = match (home.too_slow, chosen.too_slow) {
        (Some(_), None) => return Verdict::Go { urgent: true },
        (None, Some(_)) => return Verdict::Pushed,
        (Some(_), Some(_)) => Objective::Latency,
        (None, None) => task.model.objective,
    };
    if let Some(since) = history.missed_since.filter(|since| !stability.is_settled(*since)) {
        let why = match history.measured_p99_us {
            Some(us) => format!("clients wait {} (p99) of {}", text::time(us), text::time(task.model.budget_us)),
            None => "clients wait too long, or too many requests fail".into(),
        };
        let why = format!("{why}; it moves to {} if that lasts for {}", chosen.name(), settle(snapshot));
        return Verdict::Keep(Kept { why, due: Some(stability.settled_at(since)), better: false });
    }
    let Some((gain_millis, told)) = gain(objective, home, chosen) else { return Verdict::Pushed };
    let place = chosen.name();
    if gain_millis < stability.min_gain_millis {
        let least = text::percent(stability.min_gain_millis);
        let why = format!("{place} would be better by {told}, which is less than minGain, {least}");
        return Verdict::Keep(Kept { why, due: None, better: false });
    }
    let since = history.better_since.unwrap_or(stability.now);
    let returns_at = stability.returns_at(history.since);
    let due = if is_return(&history, home, chosen) && stability.is_ahead(returns_at) {
        returns_at.max(stability.settled_at(since))
    } else {
        stability.settled_at(since)
    };
    if !stability.is_ahead(due) {
        return Verdict::Go { urgent: false };
    }
    let why = match due == returns_at {
        true => {
            let away = text::seconds(seconds(stability.return_seconds()));
            format!("{place} is better by {told}, and was left less than {away} ago, four times settle")
        }
        false => format!("{place} is better by {told}; it moves there if that lasts for {}", settle(snapshot)),
    };
    Verdict::Keep(Kept { why, due: Some(due), better: true })
}

fn settle(snapshot: &Snapshot) -> impl Display {
    text::seconds(seconds(snapshot.stability.settle_seconds))
}

fn seconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0)
}

/// By how much the other is better, in thousandths of a percent, and in words; `None` = it is not.
fn gain(objective: Objective, home: &Candidate<'_>, other: &Candidate<'_>) -> Option<(u64, String)> {
    let share = |before: u64, after: u64| {
        let less = before.checked_sub(after).filter(|less| *less > 0)?;
        Some(ratio(less, 100_000, before))
    };
    let percent = |millis: u64| text::percent(text::two_digits(millis));
    let cheaper = || {
        let gain = share(home.cost_millis, other.cost_millis)?;
        Some((gain, format!("{} of the cost", percent(gain))))
    };
    let faster = || {
        let gain = share(home.expected_us(), other.expected_us())?;
        Some((gain, format!("{} of the p99", percent(gain))))
    };
    match objective {
        Objective::Cost => cheaper(),
        // What is less than a tenth slower is as fast.
        Objective::Latency => faster().filter(|(gain, _)| *gain >= 9_091).or_else(cheaper),
    }
}

impl Candidate<'_> {
    fn node_name(&self) -> Option<&str> {
        self.node.map(|node| node.name.as_str())
    }
}

/// The place as it will be remembered once it is left.
pub(super) fn is_at(home: &super::Home, tier: Tier, node: Option<&str>, variant: &str) -> bool {
    home.tier == tier && home.node.as_deref() == node && home.variant == variant
}
