//! What keeps places from changing too often, and what was measured of them: values. The rules are in [`super::hold`].

use super::ModelName;
use sconce_api::{Reason, Tier};
use std::collections::BTreeMap;

/// When a place is left for a better one. By default at once, and for any gain. Times are seconds of one clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stability {
    pub now: i64,
    /// Least gain for which a model moves, in thousandths of a percent.
    pub min_gain_millis: u64,
    /// For how long a gain, or a missed budget, must have lasted.
    pub settle_seconds: i64,
    /// Of the homes in `current`; of those that are not here nothing is known but the place.
    pub history: BTreeMap<ModelName, History>,
    /// Homes that are kept whatever they are, since too much of the fleet would change at once.
    pub held: BTreeMap<ModelName, Held>,
}

/// By which limit of the fleet a home is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// MovesCapped or MassChangeHeld.
    pub reason: Reason,
    /// Its numbers.
    pub why: String,
}

/// What happened at a home, and before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// When the model came there.
    pub since: i64,
    /// Where it was before.
    pub left: Option<Left>,
    /// Since when there has been a place that is better by enough.
    pub better_since: Option<i64>,
    /// What clients waited there whole, p99; from enough requests to count more than any sum of parts.
    pub measured_p99_us: Option<u64>,
    /// Since when clients have not been served as the budget promises, as their routers say.
    pub missed_since: Option<i64>,
}

/// A place that was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub tier: Tier,
    pub node: Option<String>,
    pub variant: String,
}

/// Back to where it came from a model waits so many times longer than anywhere else.
const RETURN: i64 = 4;

impl Stability {
    /// Whether what began then has lasted for long enough.
    pub fn is_settled(&self, since: i64) -> bool {
        since.saturating_add(self.settle_seconds) <= self.now
    }

    /// How long a model stays away from where it came from.
    pub fn return_seconds(&self) -> i64 {
        self.settle_seconds.saturating_mul(RETURN)
    }

    /// When a model that came then may go back.
    pub fn returns_at(&self, since: i64) -> i64 {
        since.saturating_add(self.return_seconds())
    }

    pub fn settled_at(&self, since: i64) -> i64 {
        since.saturating_add(self.settle_seconds)
    }

    /// Whether a time is still to come.
    pub fn is_ahead(&self, at: i64) -> bool {
        at > self.now
    }
}
