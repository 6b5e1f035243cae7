//! The status step: what is so, in the words of the API. Pure; the time comes with the world.

mod budget;
mod fleet;
mod model;
mod place;
mod placement;
mod profiles;
mod run;
mod training;

pub use budget::{Observed, observed, of_placement as within_budget};
pub use fleet::{edge_fleet, edge_site, site_link};
pub use model::{Resolving, edge_model, edge_model_version};
pub use place::{Place, PoolView, answers, places};
pub use placement::{Decided, Outcome, edge_placement};
pub use profiles::class_profiles;
pub use run::{Recorded, has_started, is_complete, run};
pub use training::{Hindrance, Seen, edge_training, no_dataset, no_nodes};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sconce_api::Reason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl Truth {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition, before it has its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub kind: &'static str,
    pub truth: Truth,
    pub reason: Reason,
    pub message: String,
}

impl Claim {
    pub fn new(kind: &'static str, truth: impl Into<Truth>, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, truth: truth.into(), reason, message: message.into() }
    }

    pub fn holds(&self) -> bool {
        self.truth == Truth::True
    }
}

/// The claims as conditions: a time is that of the last change of truth, so that a rest changes nothing.
pub fn conditions(claims: Vec<Claim>, old: &[Condition], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let dated = |claim: Claim| {
        let same = old.iter().find(|old| old.type_ == claim.kind && old.status == claim.truth.as_str());
        Condition {
            type_: claim.kind.to_owned(),
            status: claim.truth.as_str().to_owned(),
            reason: claim.reason.as_str().to_owned(),
            message: shortened(&claim.message, 1024),
            observed_generation: generation,
            last_transition_time: same.map_or(Time(now), |old| old.last_transition_time.clone()),
        }
    };
    claims.into_iter().map(dated).collect()
}

/// `Ready`: True if all of `needed` hold, else as the first that does not.
pub fn ready(needed: &[&Claim], message: &str) -> Claim {
    match needed.iter().find(|claim| !claim.holds()) {
        Some(lacking) => Claim { kind: "Ready", ..(*lacking).clone() },
        None => Claim::new("Ready", true, Reason::Ready, message),
    }
}

pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_its_truth_changes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let claim = |truth: bool, reason| vec![Claim::new("Ready", truth, reason, "so")];
        let first = conditions(claim(false, Reason::Starting), &[], Some(1), at(10));
        let second = conditions(claim(false, Reason::Fetching), &first, Some(1), at(20));
        let third = conditions(claim(true, Reason::Ready), &second, Some(1), at(30));
        assert_eq!(first[0].last_transition_time, Time(at(10)));
        assert_eq!((second[0].last_transition_time.clone(), second[0].reason.as_str()), (Time(at(10)), "Fetching"));
        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn ready_says_what_lacks_first() {
        let placed = Claim::new("Placed", true, Reason::ChosenAtEdge, "there");
        let serving = Claim::new("Serving", false, Reason::Fetching, "not yet");
        assert_eq!(ready(&[&placed, &serving], "all"), Claim::new("Ready", false, Reason::Fetching, "not yet"));
        assert_eq!(ready(&[&placed], "all"), Claim::new("Ready", true, Reason::Ready, "all"));
    }
}
