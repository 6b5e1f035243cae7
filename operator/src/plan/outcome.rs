//! What the planner says: decisions with predictions, and reasons in numbers for what was not chosen.

use super::ratio::RatioSample;
use super::snapshot::{CloudOffer, ModelName, Resources};
use sconce_api::{Basis, Reason, Tier};
use std::collections::BTreeMap;

/// The plan of one site. Every model of the snapshot is in exactly one of the two lists, in the order of names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub placements: Vec<Placement>,
    pub unplaced: Vec<Unplaced>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    pub model: ModelName,
    pub version: String,
    pub digest: String,
    pub tier: Tier,
    /// The edge node; `None` = the cloud pool.
    pub node: Option<String>,
    pub variant: String,
    pub replicas: u64,
    /// Per replica.
    pub request: Resources,
    /// On its node there is room for one pod more: an update's new pod, before the old one goes.
    pub surge: bool,
    /// ChosenAtEdge, ChosenInCloud, BestEffort, KeptByStability; of what is kept without being decided anew KeptUnreachable,
    /// Suspended, SitePaused, MovesCapped or MassChangeHeld.
    pub reason: Reason,
    /// The sentence of the condition `Placed`, with its numbers.
    pub message: String,
    /// `None` where a decision is kept without being made again.
    pub predicted: Option<Prediction>,
    pub budget_us: u64,
    /// Thousandths of a point per hour.
    pub cost_millis: Option<u64>,
    /// The best first, at most 8.
    pub rejected: Vec<Rejected>,
    /// A place that is better by enough; the model moves there once that has lasted.
    pub better_place: Option<BetterPlace>,
    /// When to decide again though nothing changed, in the seconds of the snapshot's clock.
    pub due: Option<i64>,
    /// It leaves a home for this place.
    pub moves: Option<Urgency>,
    /// What clients of the home waited over what was predicted.
    pub ratio: Option<RatioSample>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BetterPlace {
    pub candidate: String,
    /// Since when there has been a better place.
    pub since: i64,
}

/// Who moves first where not all may. The first can serve no longer where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    Infeasible,
    Better,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Unplaced {
    pub model: ModelName,
    pub version: String,
    pub budget_us: u64,
    /// NoCandidate, NoCapacity or NoNodes.
    pub reason: Reason,
    pub message: String,
    pub rejected: Vec<Rejected>,
}

/// What a client waits, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    pub link: Term,
    pub transfer: Term,
    pub queue: Term,
    pub compute: Term,
    pub p99_us: u64,
    pub bound_us: u64,
    pub basis: Basis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    pub p50_us: u64,
    pub p99_us: u64,
    pub basis: Basis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// `edge/f32 on gw-a` or `cloud/f32`.
    pub candidate: String,
    pub reason: Reason,
    pub message: String,
}

/// The plan of the fleet: what the cloud offers each model, and the pools that it keeps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetPlan {
    pub offers: BTreeMap<ModelName, CloudOffer>,
    pub pools: Vec<Pool>,
}

/// Replicas in the cloud that all sites of a model share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    pub model: ModelName,
    pub version: String,
    pub variant: String,
    /// At least one: the routers' fallback.
    pub replicas: u64,
    pub request: Resources,
}
