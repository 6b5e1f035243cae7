//! What the planner knows: parsed values with units, no object of the API.

use super::{Ratios, Stability, Term};
use sconce_api::{Basis, BudgetPolicy, Objective, Reason, Requirement, Tier, TierChoice};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `NAMESPACE/NAME` of an EdgeModel, in the order in which models are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelName {
    pub namespace: String,
    pub name: String,
}

/// One site as it is now, and all that may run there.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub site: String,
    /// Edge nodes of the site; empty = the fleet has none with this site's label value.
    pub nodes: Vec<Node>,
    pub link: Link,
    /// Round trip between a router and a pod of the same site.
    pub local: Term,
    pub prices: Prices,
    /// Nothing moves here, and nothing new comes.
    pub paused: bool,
    /// No edge node of the site serves.
    pub cloud_only: bool,
    /// Share of a node's allocatable resources that our models may request, in thousandths of a percent.
    pub max_share_millis: u64,
    /// Models that select the site, with the version that it may run.
    pub models: Vec<Arc<Model>>,
    /// What each model has at the site today; the decision that is kept while the site is unreachable, and the home that wins a tie.
    pub current: BTreeMap<ModelName, Home>,
    pub stability: Stability,
    /// What clients waited over what was predicted, of the whole fleet.
    pub ratios: Arc<Ratios>,
}

/// A node of the site.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub ready: bool,
    /// Cordoned, out of service, or about to be removed by an autoscaler.
    pub leaving: bool,
    pub allocatable: Resources,
    /// Disk that pods may fill.
    pub store_bytes: u64,
    /// Requested by pods that are not ours.
    pub requested: Resources,
    pub speed: Option<Speed>,
    /// Busy cores of everything that is not ours, p95, in thousandths.
    pub busy_millis: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
}

impl Resources {
    pub fn times(self, pods: u64) -> Self {
        Self { cpu_millis: self.cpu_millis.saturating_mul(pods), memory_bytes: self.memory_bytes.saturating_mul(pods) }
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// What is left when `taken` is gone; nothing where more is taken than there is.
    pub fn less(self, taken: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(taken.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(taken.memory_bytes),
        }
    }
}

/// What pods take of a node, or what it has for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    /// Of its disk.
    pub store_bytes: u64,
}

impl Room {
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            store_bytes: self.store_bytes.saturating_add(other.store_bytes),
        }
    }

    /// As [`Resources::less`].
    pub fn less(self, taken: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(taken.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(taken.memory_bytes),
            store_bytes: self.store_bytes.saturating_sub(taken.store_bytes),
        }
    }
}

/// Speed of one core, from the agent's timed product of f32 matrices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speed {
    pub class: String,
    pub gflops: u64,
    pub cores: u64,
}

/// The site's link to the cloud tier. Times in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub round_trip_p50_us: u64,
    pub round_trip_p99_us: u64,
    pub round_trip_basis: Basis,
    /// Probes behind the numbers; 0 = assumed.
    pub samples: u64,
    pub uplink_bits_per_second: u64,
    /// The rate in the slowest hundredth of the time.
    pub uplink_low_bits_per_second: u64,
    /// A connection that was idle sends on as it did, instead of opening its window anew (Linux: tcp_slow_start_after_idle=0).
    pub keeps_window: bool,
    pub uplink_basis: Basis,
}

/// Points per hour, and per GiB sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    pub edge_cpu_hour: u64,
    pub edge_memory_gib_hour: u64,
    pub cloud_cpu_hour: u64,
    pub cloud_memory_gib_hour: u64,
    pub uplink_gib: u64,
}

/// What must hold for a model, and the version that it is to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub name: ModelName,
    /// Name of the EdgeModelVersion.
    pub version: String,
    pub digest: String,
    pub budget_us: u64,
    pub budget_policy: BudgetPolicy,
    /// Name of the override that said some of this for the site.
    pub overridden_by: Option<String>,
    /// Nothing of it moves, and nothing new comes.
    pub suspended: bool,
    /// Of its PriorityClass: who keeps the room at a full site.
    pub priority: i32,
    /// Least accuracy in thousandths of a percent.
    pub accuracy_floor_millis: Option<u64>,
    pub requests_per_second: u64,
    /// Highest load over the usual one, in thousandths of a percent.
    pub peak_factor_millis: u64,
    pub require: Vec<Requirement>,
    pub tier: TierChoice,
    pub objective: Objective,
    pub max_batch_size: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub variants: Vec<Variant>,
    /// What the cloud offers this model; decided by `plan_fleet`.
    pub cloud: CloudOffer,
    /// Why it goes to the cloud from nowhere where it is not served from there today; `None` = it may.
    pub cloud_closed: Option<String>,
}

/// Why what a model sees must not leave its site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataStays {
    Always(String),
    /// Nobody knows whether it may. What leaves today stays as it is, so that nothing moves to and fro for a dataset that is made a
    /// moment after the model that names it; and nothing else leaves.
    Unknown(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    pub name: String,
    pub bytes: u64,
    /// In batches of 16.
    pub memory_bytes: u64,
    /// What each row of a batch takes of it; 0 = not known.
    pub scratch_bytes: u64,
    pub flops: u64,
    /// Accuracy in thousandths of a percent; `None` = never evaluated.
    pub accuracy_millis: Option<u64>,
    /// Measured by hardware class: the median over its nodes.
    pub class_profiles: BTreeMap<String, Profile>,
    /// Measured by a node, which counts more on that node than its class's.
    pub node_profiles: BTreeMap<String, Profile>,
}

/// How long batches take, on a node that does nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub threads: u64,
    /// Ascending by size.
    pub batches: Vec<BatchTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchTime {
    pub size: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
}

/// What the cloud tier offers a model: the speed of its slowest fitting class, or why it offers nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudOffer {
    Pool(Speed),
    None { reason: Reason, message: String },
}

/// Where a model runs for the site today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    pub tier: Tier,
    /// The edge node; `None` in the cloud.
    pub node: Option<String>,
    pub variant: String,
    /// The EdgeModelVersion that runs there.
    pub version: String,
    pub replicas: u64,
}

/// The fleet level: what couples sites.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSnapshot {
    pub cloud_nodes: Vec<Node>,
    /// Share of a pool's load that is kept free on top, in thousandths of a percent.
    pub reserve_millis: u64,
    pub models: Vec<FleetModel>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FleetModel {
    pub name: ModelName,
    pub version: String,
    pub tier: TierChoice,
    /// `None` = what the model sees may leave its site.
    pub data_stays: Option<DataStays>,
    /// It has a pool that is not about to go.
    pub has_pool: bool,
    pub require: Vec<Requirement>,
    pub peak_factor_millis: u64,
    pub max_batch_size: u64,
    pub variants: Vec<Variant>,
    /// Requests per second of all sites that the cloud is to serve, by variant.
    pub cloud_load: BTreeMap<String, u64>,
    pub accuracy_floor_millis: Option<u64>,
}
