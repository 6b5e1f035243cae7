//! Plans of drawn fleets, held to their bytes: what makes the planner faster changes no word that it says.

use super::*;
use sha2::{Digest, Sha256};

/// Of the plans of all drawn sites, as they were when [`PLANS`] was last changed on purpose.
const PLANS: &str = "d2989fcb85a5732d721ea4684b589531";

/// Draws numbers, the same on every machine (Knuth's linear congruential generator).
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

const CLASSES: [u64; 3] = [12, 40, 90];

fn drawn_profile(draw: &mut Draw, flops: u64, gflops: u64) -> Profile {
    let one = flops / gflops / (1 + draw.below(3)) + 1;
    let time = |size: u64| BatchTime { size, p50_ns: one * (size + 1) / 2, p99_ns: one * (size + 1) * 2 / 3 + 2 };
    Profile { threads: 1 + draw.below(2), batches: [1, 4, 16].map(time).to_vec() }
}

fn drawn_node(draw: &mut Draw, index: u64) -> Node {
    let mut node = node(&format!("node-{index:02}")).cpu(1_000 + draw.below(4) * 500).memory(256 + draw.below(4) * 256);
    node = node.taken(draw.below(3) * 200, draw.below(3) * 64).gflops(CLASSES[draw.below(3) as usize]);
    node.busy_millis = draw.below(3) * 700;
    node.ready = !draw.one_in(12);
    node.leaving = draw.one_in(12);
    if draw.one_in(12) {
        node.speed = None;
    }
    if draw.one_in(12) {
        node = node.store(40);
    }
    if draw.one_in(2) { node.label("camera", "v2") } else { node }
}

fn drawn_model(draw: &mut Draw, index: u64) -> Model {
    let flops = 1_000_000 * (1 + draw.below(400));
    let variants: Vec<_> = ["f32", "f16", "int8"].into_iter().take(1 + draw.below(3) as usize).collect();
    let variants = variants.into_iter().enumerate().map(|(at, name)| {
        let mut variant = Variant { name: name.into(), flops, ..f32() };
        (variant.bytes, variant.memory_bytes) = (flops >> at, (flops >> at) * (1 + draw.below(3)));
        variant.accuracy_millis = (!draw.one_in(12)).then(|| 96_500 + draw.below(2_000));
        for gflops in CLASSES {
            if !draw.one_in(4) {
                let profile = drawn_profile(draw, flops >> at, gflops);
                variant.class_profiles.insert(speed(gflops).class, profile);
            }
        }
        if draw.one_in(3) {
            let gflops = CLASSES[draw.below(3) as usize];
            let profile = drawn_profile(draw, flops >> at, gflops);
            variant.node_profiles.insert(format!("node-{:02}", draw.below(4)), profile);
        }
        variant
    });
    let variants: Vec<_> = variants.collect();
    let mut model = model(&format!("model-{index:02}")).rate(1 + draw.below(60)).variants(&variants);
    model.budget_us = [3_000, 20_000, 50_000, 120_000][draw.below(4) as usize];
    model.priority = draw.below(3) as i32;
    model.max_batch_size = [1, 4, 16, 64][draw.below(4) as usize];
    model.request_bytes = 3_000 + 1_500 * draw.below(60);
    model.tier = [TierChoice::Auto, TierChoice::Auto, TierChoice::Auto, TierChoice::Edge, TierChoice::Cloud]
        [draw.below(5) as usize];
    model.objective = if draw.one_in(3) { Objective::Latency } else { Objective::Cost };
    model.budget_policy = if draw.one_in(3) { BudgetPolicy::Require } else { BudgetPolicy::Prefer };
    model.suspended = draw.one_in(30);
    if draw.one_in(4) {
        model.accuracy_floor_millis = None;
    }
    model.cloud = match draw.below(5) {
        0 => CloudOffer::None { reason: Reason::NoNodes, message: "the fleet has no cloud node".into() },
        _ => CloudOffer::Pool(speed(CLASSES[draw.below(3) as usize])),
    };
    if draw.one_in(4) { model.requires("camera", &["v2"]) } else { model }
}

fn drawn_home(draw: &mut Draw, nodes: u64) -> (Home, History) {
    let place = |draw: &mut Draw| {
        let node = (!draw.one_in(3)).then(|| format!("node-{:02}", draw.below(nodes)));
        let tier = if node.is_some() { Tier::Edge } else { Tier::Cloud };
        (tier, node, ["f32", "f16", "int8"][draw.below(3) as usize].to_owned())
    };
    let (tier, node, variant) = place(draw);
    let version = if draw.one_in(4) { "old" } else { "model-00-0123456789-r1" };
    let home = Home { tier, node, variant, version: version.into(), replicas: 1 + draw.below(2) };
    let left = place(draw);
    let history = History {
        since: draw.below(2_000) as i64,
        left: draw.one_in(2).then_some(Left { tier: left.0, node: left.1, variant: left.2 }),
        better_since: draw.one_in(3).then(|| draw.below(2_000) as i64),
        measured_p99_us: draw.one_in(3).then(|| 1 + draw.below(150_000)),
        missed_since: draw.one_in(6).then(|| draw.below(2_000) as i64),
    };
    (home, history)
}

fn drawn_site(draw: &mut Draw, index: u64) -> Snapshot {
    let nodes = draw.below(12);
    let drawn: Vec<_> = (0..nodes).map(|index| drawn_node(draw, index)).collect();
    let p50 = 500 + draw.below(40_000);
    let mut site = site(&format!("site-{index}"), drawn).linked(p50, p50 + draw.below(20_000));
    site.local.basis = [Basis::Measured, Basis::Estimated][draw.below(2) as usize];
    site.link.uplink_basis = [Basis::Measured, Basis::Assumed][draw.below(2) as usize];
    (site.paused, site.cloud_only) = (draw.one_in(20), draw.one_in(20));
    let mut ratios = Ratios::default();
    for gflops in CLASSES {
        let tier = if draw.one_in(3) { Tier::Cloud } else { Tier::Edge };
        let key = RatioKey { class: speed(gflops).class, variant: "int8".into(), tier };
        ratios.put(key, 50 + draw.below(4) * 50);
    }
    site.ratios = Arc::new(ratios);
    (site.stability.now, site.stability.settle_seconds) = (2_000, 300);
    site.stability.min_gain_millis = draw.below(3) * 10_000;
    for index in 0..draw.below(40) {
        let model = drawn_model(draw, index);
        if draw.one_in(2) {
            let (home, history) = drawn_home(draw, nodes);
            site.current.insert(model.name.clone(), home);
            if !draw.one_in(3) {
                site.stability.history.insert(model.name.clone(), history);
            }
        }
        site = site.model(model);
    }
    site
}

#[test]
fn plans_of_drawn_fleets_are_what_they_were_to_the_byte() {
    let (mut draw, mut all) = (Draw(1), Sha256::new());
    let (mut placed, mut unplaced) = (0, 0);
    for index in 0..600 {
        let plan = plan_site(&drawn_site(&mut draw, index));
        (placed, unplaced) = (placed + plan.placements.len(), unplaced + plan.unplaced.len());
        all.update(format!("{plan:?}"));
    }
    // Both outcomes are held.
    assert!(placed > 5_000 && unplaced > 500, "{placed} {unplaced}");
    let hash: String = all.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, PLANS);
}
