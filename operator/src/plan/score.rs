//! Which of several candidates is the best. Integers only; they are compared in the order of their names, so there is no tie.

use super::filter::{Candidate, fits, lacks_room};
use super::why::Failure;
use super::{Model, ModelName, Rejected, Room, Snapshot, Variant, text};
use sconce_api::{Objective, Reason};
use std::cmp::{Ordering, Reverse};
use std::fmt::{Display, from_fn};

/// What is left of each node, in the order of the snapshot.
pub(super) type Left = Vec<Room>;

/// What models that are more important than another take of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Above<'a> {
    pub node: usize,
    pub takes: Room,
    /// The most important of them.
    pub by: &'a ModelName,
    pub priority: i32,
}

/// The index of the best of the candidates by the objective, among equals the current home, then as `left` fits best. They come in
/// the order of their names (the cloud, then by variant and node), and the first of the best is taken: so there is no tie.
pub(super) fn best<'c, 'a>(
    candidates: impl Iterator<Item = (usize, &'c Candidate<'a>)> + Clone,
    objective: Objective,
    left: &[Room],
) -> Option<usize>
where
    'a: 'c,
{
    // By latency, what is less than a tenth slower than the fastest is as fast.
    let fastest = match objective {
        Objective::Cost => 0,
        Objective::Latency => candidates.clone().map(|(_, candidate)| candidate.expected_us()).min()?,
    };
    let fast = |(_, candidate): &(usize, &Candidate<'_>)| match objective {
        Objective::Cost => true,
        Objective::Latency => {
            let expected = candidate.expected_us();
            u128::from(expected) * 10 < u128::from(fastest) * 11 || expected == fastest
        }
    };
    let best = candidates.filter(fast).min_by(|(_, one), (_, other)| compared(one, other, left));
    best.map(|(index, _)| index)
}

/// The better one is the lesser. Of two nodes that compute alike only room and name are compared.
fn compared(one: &Candidate<'_>, other: &Candidate<'_>, left: &[Room]) -> Ordering {
    let by_offer = if one.is_as(other) {
        other.home.cmp(&one.home)
    } else {
        let key = |candidate: &Candidate<'_>| {
            let accuracy = Reverse(candidate.variant.accuracy_millis);
            (!candidate.home, candidate.expected_us(), accuracy, candidate.variant.memory_bytes)
        };
        one.cost_millis.cmp(&other.cost_millis).then_with(|| key(one).cmp(&key(other)))
    };
    by_offer.then_with(|| fullness(other, left).cmp(&fullness(one, left)))
}

/// How full the candidate would leave its node in the dominant resource, in millionths of what is left now; the fuller,
/// the better it fits.
fn fullness(candidate: &Candidate<'_>, left: &[Room]) -> u64 {
    let Some(left) = left.get(candidate.index) else { return 0 };
    dominant_share(candidate.takes, *left)
}

/// The larger of the shares that `takes` has of the cores and the memory of `of`, in millionths.
pub(super) fn dominant_share(takes: Room, of: Room) -> u64 {
    let share = |part: u64, of: u64| super::predict::ratio(part, 1_000_000, of);
    share(takes.cpu_millis, of.cpu_millis).max(share(takes.memory_bytes, of.memory_bytes))
}

/// The candidates that were not chosen, with why, the best first: first those that the budget would have allowed, then
/// the too slow ones by the budget that they need.
pub(super) fn passed_over(
    snapshot: &Snapshot,
    model: &Model,
    candidates: &[Candidate<'_>],
    chosen: Option<&Candidate<'_>>,
    left: &[Room],
    above: &[Above<'_>],
) -> Vec<Rejected> {
    let is_other = |candidate: &Candidate<'_>| chosen.is_none_or(|chosen| !std::ptr::eq(chosen, candidate));
    let key = |candidate: &Candidate<'_>| match (&candidate.too_slow, model.objective) {
        (None, Objective::Cost) => (false, candidate.cost_millis),
        (None, Objective::Latency) => (false, candidate.expected_us()),
        (Some(_), _) => (true, candidate.least_budget_us()),
    };
    // Among equals they stay in the order of their names, in which they come.
    let others = candidates.iter().enumerate().filter(|(_, candidate)| is_other(candidate));
    let mut others: Vec<_> = others.map(|(index, candidate)| (key(candidate), index)).collect();
    others.sort_unstable();
    // Only those are put into words who are told.
    others.truncate(super::words::MOST_REJECTED);
    others.iter().map(|(_, index)| why_not(snapshot, model, &candidates[*index], chosen, (left, above))).collect()
}

fn why_not(
    snapshot: &Snapshot,
    model: &Model,
    candidate: &Candidate<'_>,
    chosen: Option<&Candidate<'_>>,
    (left, above): (&[Room], &[Above<'_>]),
) -> Rejected {
    let rejected = |reason: Reason, message: &dyn Display| {
        let message = text::short(message, text::REJECTION);
        Rejected { candidate: candidate.name(), reason, message }
    };
    if let Some(slow) = candidate.too_slow {
        return rejected(slow.reason(), &slow.message(model, &snapshot.link, candidate));
    }
    let node_left = left.get(candidate.index).copied().unwrap_or_default();
    let full = candidate.node.and_then(|node| lacks_room(node, candidate, node_left, true));
    if let Some(failure) = full {
        let failure = displaced(candidate, node_left, above).unwrap_or(failure);
        return rejected(failure.reason(), &failure.message());
    }
    let (cost, p99) = (text::cost(candidate.cost_millis), candidate.p99());
    match chosen {
        Some(chosen) if model.objective == Objective::Latency && candidate.expected_us() > chosen.expected_us() => {
            rejected(Reason::Slower, &format_args!("p99 {p99} against {}; {cost}", chosen.p99()))
        }
        Some(chosen) if chosen.home && is_better(model.objective, candidate, chosen) => {
            let (other, than) = (text::cost(chosen.cost_millis), chosen.p99());
            rejected(Reason::KeptByStability, &format_args!("{cost} against {other}, p99 {p99} against {than}"))
        }
        Some(chosen) => rejected(Reason::Costlier, &format_args!("{}; p99 {p99} would fit", dearer(candidate, chosen))),
        None => rejected(Reason::Costlier, &format_args!("{cost}; p99 {p99} would fit")),
    }
}

/// It would fit, if more important models were not there.
fn displaced<'a>(candidate: &Candidate<'a>, left: Room, above: &[Above<'a>]) -> Option<Failure<'a>> {
    let node = &candidate.node?.name;
    let Above { takes, by, priority, .. } = *above.iter().find(|above| above.node == candidate.index)?;
    fits(candidate.takes, left.plus(takes)).then_some(Failure::Displaced { node, by, priority })
}

/// Whether the objective alone would have chosen it.
fn is_better(objective: Objective, candidate: &Candidate<'_>, chosen: &Candidate<'_>) -> bool {
    match objective {
        Objective::Cost => candidate.cost_millis < chosen.cost_millis,
        Objective::Latency => candidate.expected_us().saturating_mul(11) < chosen.expected_us().saturating_mul(10),
    }
}

/// What the chosen one has ahead of another that keeps the budget, in the order of [`best`]. It is the same once the chosen one
/// serves.
fn dearer(candidate: &Candidate<'_>, chosen: &Candidate<'_>) -> impl Display {
    let [told, other] = [candidate, chosen].map(|candidate| text::two_digits(candidate.cost_millis));
    let cost = text::cost(told);
    let (Variant { accuracy_millis: accuracy, memory_bytes: memory, .. }, better) = (candidate.variant, chosen.variant);
    from_fn(move |f| {
        if told != other {
            write!(f, "{cost} against {}", text::cost(other))
        } else if candidate.cost_millis != chosen.cost_millis {
            write!(f, "{} against {} thousandths of a point/h", candidate.cost_millis, chosen.cost_millis)
        } else if better.accuracy_millis > *accuracy {
            write!(f, "{cost} as well, with accuracy ")?;
            match accuracy {
                Some(accuracy) => write!(f, "{}", text::percent(*accuracy))?,
                None => f.write_str("unknown")?,
            }
            write!(f, " against {}", text::percent(better.accuracy_millis.unwrap_or(0)))
        } else if better.accuracy_millis == *accuracy && better.memory_bytes < *memory {
            let (memory, better) = (text::bytes(*memory), text::bytes(better.memory_bytes));
            write!(f, "{cost} as well, with {memory} of memory against {better}")
        } else {
            write!(f, "{cost} as well, and {} serves already", chosen.name())
        }
    })
}
