//! The planner against scenes: builders here, scenes in `scenes`, the fleet level in `fleet`, properties in `properties`.

mod bad_input;
mod busy;
mod fleet;
mod golden;
mod held;
mod properties;
mod quality;
mod scenes;
mod stable;
mod worked;

use super::*;
use sconce_api::{Basis, BudgetPolicy, Objective, Operator, Requirement, Tier, TierChoice};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn name(name: &str) -> ModelName {
    ModelName { namespace: "default".into(), name: name.into() }
}

/// A Ready node with 2 cores of 50 GFLOP/s and 4 GiB.
pub(crate) fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        labels: BTreeMap::new(),
        ready: true,
        leaving: false,
        allocatable: Resources { cpu_millis: 2_000, memory_bytes: 4_096 * MIB },
        store_bytes: u64::MAX,
        requested: Resources::default(),
        speed: Some(speed(50)),
        busy_millis: 0,
    }
}

pub(crate) fn speed(gflops: u64) -> Speed {
    Speed { class: format!("amd64-avx2-{gflops}"), gflops, cores: 2 }
}

impl Node {
    pub(crate) fn memory(mut self, mebibytes: u64) -> Self {
        self.allocatable.memory_bytes = mebibytes * MIB;
        self
    }
    pub(crate) fn cpu(mut self, millis: u64) -> Self {
        self.allocatable.cpu_millis = millis;
        self
    }
    pub(crate) fn store(mut self, mebibytes: u64) -> Self {
        self.store_bytes = mebibytes * MIB;
        self
    }
    pub(crate) fn taken(mut self, cpu_millis: u64, mebibytes: u64) -> Self {
        self.requested = Resources { cpu_millis, memory_bytes: mebibytes * MIB };
        self
    }
    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
    pub(crate) fn gflops(mut self, gflops: u64) -> Self {
        self.speed = Some(speed(gflops));
        self
    }
    pub(crate) fn without_speed(mut self) -> Self {
        self.speed = None;
        self
    }
    pub(crate) fn down(mut self) -> Self {
        self.ready = false;
        self
    }
    pub(crate) fn leaving(mut self) -> Self {
        self.leaving = true;
        self
    }
}

/// The seed CNN: 1.78 MFLOP, 2.8 MB of weights, 97.9 %.
pub(crate) fn f32() -> Variant {
    Variant {
        name: "f32".into(),
        bytes: 2_780_000,
        memory_bytes: 2_780_000,
        scratch_bytes: 0,
        flops: 1_780_000,
        accuracy_millis: Some(97_900),
        class_profiles: BTreeMap::new(),
        node_profiles: BTreeMap::new(),
    }
}

/// The seed CNN as a model: budget 25 ms, floor 97 %, 10 requests/s of 3.2 KB, answers of 0.1 KB, a cloud of 50 GFLOP/s.
pub(crate) fn model(model: &str) -> Model {
    Model {
        name: name(model),
        version: format!("{model}-0123456789-r1"),
        digest: "sha256:0123".into(),
        budget_us: 25_000,
        budget_policy: BudgetPolicy::Prefer,
        priority: 0,
        overridden_by: None,
        suspended: false,
        accuracy_floor_millis: Some(97_000),
        requests_per_second: 10,
        peak_factor_millis: 150_000,
        require: Vec::new(),
        tier: TierChoice::Auto,
        objective: Objective::Cost,
        max_batch_size: 16,
        request_bytes: 3_200,
        response_bytes: 100,
        variants: vec![f32()],
        cloud: CloudOffer::Pool(speed(50)),
        cloud_closed: None,
    }
}

impl Model {
    pub(crate) fn budget_ms(mut self, budget: u64) -> Self {
        self.budget_us = budget * 1_000;
        self
    }
    pub(crate) fn rate(mut self, requests_per_second: u64) -> Self {
        self.requests_per_second = requests_per_second;
        self
    }
    pub(crate) fn tier(mut self, tier: TierChoice) -> Self {
        self.tier = tier;
        self
    }
    pub(crate) fn objective(mut self, objective: Objective) -> Self {
        self.objective = objective;
        self
    }
    pub(crate) fn must(mut self) -> Self {
        self.budget_policy = BudgetPolicy::Require;
        self
    }
    pub(crate) fn requires(mut self, key: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| (*value).into()).collect();
        self.require.push(Requirement { key: key.into(), operator: Operator::In, values });
        self
    }
    pub(crate) fn flops(mut self, flops: u64) -> Self {
        self.variants.iter_mut().for_each(|variant| variant.flops = flops);
        self
    }
    pub(crate) fn memory(mut self, mebibytes: u64) -> Self {
        self.variants.iter_mut().for_each(|variant| variant.memory_bytes = mebibytes * MIB);
        self
    }
    pub(crate) fn variants(mut self, variants: &[Variant]) -> Self {
        self.variants = variants.to_vec();
        self
    }
    pub(crate) fn no_cloud(mut self, reason: Reason, message: &str) -> Self {
        self.cloud = CloudOffer::None { reason, message: message.into() };
        self
    }
}

pub(crate) fn link(p50_us: u64, p99_us: u64) -> Link {
    Link {
        round_trip_p50_us: p50_us,
        round_trip_p99_us: p99_us,
        round_trip_basis: Basis::Measured,
        samples: 5_760,
        uplink_bits_per_second: 10_000_000,
        uplink_low_bits_per_second: 10_000_000,
        keeps_window: false,
        uplink_basis: Basis::Assumed,
    }
}

pub(crate) fn prices() -> Prices {
    Prices {
        edge_cpu_hour: 400,
        edge_memory_gib_hour: 100,
        cloud_cpu_hour: 100,
        cloud_memory_gib_hour: 25,
        uplink_gib: 50,
    }
}

/// A site far from the cloud: 40 ms.
pub(crate) fn site(site: &str, nodes: impl Into<Vec<Node>>) -> Snapshot {
    Snapshot {
        site: site.into(),
        nodes: nodes.into(),
        link: link(39_000, 40_000),
        local: Term { p50_us: 300, p99_us: 500, basis: Basis::Estimated },
        prices: prices(),
        paused: false,
        cloud_only: false,
        max_share_millis: 80_000,
        models: Vec::new(),
        current: BTreeMap::new(),
        stability: Stability::default(),
        ratios: Arc::default(),
    }
}

/// A site 40 ms from the cloud, with one node.
pub(crate) fn site_a() -> Snapshot {
    site("site-a", [node("site-a-1")])
}

/// A site 6 ms from the cloud, with one node.
pub(crate) fn site_b() -> Snapshot {
    site("site-b", [node("site-b-1")]).linked(6_000, 7_000)
}

impl Snapshot {
    pub(crate) fn linked(mut self, p50_us: u64, p99_us: u64) -> Self {
        self.link = link(p50_us, p99_us);
        self
    }
    pub(crate) fn model(mut self, model: Model) -> Self {
        self.models.push(Arc::new(model));
        self
    }
    pub(crate) fn home(mut self, model: &str, tier: Tier, node: Option<&str>) -> Self {
        let version = format!("{model}-0123456789-r1");
        let home = Home { tier, node: node.map(Into::into), variant: "f32".into(), version, replicas: 1 };
        self.current.insert(name(model), home);
        self
    }
    /// The site after the plan was applied.
    pub(crate) fn applied(mut self, plan: &Plan) -> Self {
        let home = |placement: &Placement| Home {
            tier: placement.tier,
            node: placement.node.clone(),
            variant: placement.variant.clone(),
            version: placement.version.clone(),
            replicas: placement.replicas,
        };
        let now = self.stability.now;
        for placement in &plan.placements {
            let history = self.stability.history.entry(placement.model.clone()).or_default();
            if placement.moves.is_some() || !self.current.contains_key(&placement.model) {
                let left = self.current.get(&placement.model).map(|home| Left {
                    tier: home.tier,
                    node: home.node.clone(),
                    variant: home.variant.clone(),
                });
                *history = History { since: now, left, ..History::default() };
            } else if placement.predicted.is_some() {
                history.better_since = placement.better_place.as_ref().map(|better| better.since);
            }
        }
        self.current = plan.placements.iter().map(|placement| (placement.model.clone(), home(placement))).collect();
        self
    }
}

impl Plan {
    pub(crate) fn placement(&self, model: &str) -> &Placement {
        let found = self.placements.iter().find(|placement| placement.model == name(model));
        found.unwrap_or_else(|| panic!("{model} is not placed: {:?}", self.unplaced))
    }
    pub(crate) fn unplaced(&self, model: &str) -> &Unplaced {
        let found = self.unplaced.iter().find(|unplaced| unplaced.model == name(model));
        found.unwrap_or_else(|| panic!("{model} is placed: {:?}", self.placements))
    }
    /// `edge/f32 on site-a-1` or `cloud/f32`.
    pub(crate) fn place(&self, model: &str) -> String {
        let Placement { node, variant, .. } = self.placement(model);
        node.as_ref().map_or(format!("cloud/{variant}"), |node| format!("edge/{variant} on {node}"))
    }
}

pub(crate) fn reasons(rejected: &[Rejected]) -> Vec<(&str, Reason)> {
    rejected.iter().map(|rejected| (rejected.candidate.as_str(), rejected.reason)).collect()
}
