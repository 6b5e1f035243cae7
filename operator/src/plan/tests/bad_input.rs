//! What machines and people say that cannot be, or should not: the plan holds, and so do the others' places.

use super::*;
use Reason::*;

fn profile(size: u64, p50_ns: u64, p99_ns: u64) -> Profile {
    Profile { threads: 1, batches: vec![BatchTime { size, p50_ns, p99_ns }] }
}

fn basis_with(profile: Profile) -> Basis {
    let variant = Variant { node_profiles: [("site-a-1".into(), profile)].into(), ..f32() };
    let plan = plan_site(&site_a().model(model("digits").variants(&[variant])));
    plan.placement("digits").predicted.as_ref().unwrap().compute.basis
}

/// 1.78 MFLOP at 50 GFLOP/s take 36 us at best, 4.5 us with eight times the throughput of f32.
#[test]
fn a_profile_that_the_node_cannot_have_measured_is_not_believed() {
    assert_eq!(basis_with(profile(1, 60_000, 90_000)), Basis::Measured);
    assert_eq!(basis_with(profile(1, 5_000, 9_000)), Basis::Measured);
    for impossible in [
        profile(1, 600, 900),
        profile(16, 60_000, 90_000),
        profile(1, 0, 0),
        profile(0, 60_000, 90_000),
        profile(1, 60_000, 50_000),
        Profile::default(),
    ] {
        assert_eq!(basis_with(impossible.clone()), Basis::Estimated, "{impossible:?}");
    }
    let mut unordered = profile(4, 600_000, 900_000);
    unordered.batches.push(BatchTime { size: 1, p50_ns: 700_000, p99_ns: 900_000 });
    assert_eq!(basis_with(unordered), Basis::Estimated);
}

/// One node's agent that claims to be a hundred times as fast draws no model to it.
#[test]
fn a_lying_agent_draws_no_model_to_its_node() {
    let honest = profile(1, 60_000, 90_000);
    let lying = profile(1, 600, 900);
    let profiles = [("honest".to_owned(), honest), ("lying".to_owned(), lying)];
    let variant = Variant { node_profiles: profiles.into(), ..f32() };
    let nodes = site("site-a", [node("honest"), node("lying")]);
    let plan = plan_site(&nodes.model(model("digits").objective(Objective::Latency).variants(&[variant])));
    assert_eq!(plan.place("digits"), "edge/f32 on honest");
}

#[test]
fn absurd_prices_decide_between_tiers_and_break_nothing() {
    let place = |edge: u64, cloud: u64| {
        let mut site = site_b().model(model("digits")).model(model("other"));
        (site.prices.edge_cpu_hour, site.prices.edge_memory_gib_hour) = (edge, edge);
        (site.prices.cloud_cpu_hour, site.prices.cloud_memory_gib_hour, site.prices.uplink_gib) = (cloud, cloud, cloud);
        let plan = plan_site(&site);
        assert_eq!(plan.place("digits"), plan.place("other"));
        plan.place("digits")
    };
    for absurd in [1_000_000, u64::MAX] {
        assert_eq!(place(absurd, 0), "cloud/f32", "{absurd}");
        assert_eq!(place(0, absurd), "edge/f32 on site-b-1", "{absurd}");
    }
}

/// A site's trouble stays the trouble of whom it is about.
#[test]
fn a_model_that_cannot_be_leaves_the_others_their_places() {
    let alone = plan_site(&site_a().model(model("digits")));
    let mut broken = model("broken").flops(u64::MAX).memory(1 << 40).rate(u64::MAX);
    (broken.max_batch_size, broken.budget_us, broken.peak_factor_millis) = (0, 0, u64::MAX);
    let unversioned = model("empty").variants(&[]);
    let both = plan_site(&site_a().model(broken).model(unversioned).model(model("digits")));
    assert_eq!(both.placement("digits"), alone.placement("digits"));
    assert_eq!(both.unplaced("empty").reason, NoCandidate);
}

/// Labels that are no DNS names name sites and nodes all the same.
#[test]
fn odd_names_are_carried_through() {
    let odd = site("Store_0042", [node("GW_1.a")]);
    let plan = plan_site(&odd.model(model("digits")));
    assert_eq!(plan.place("digits"), "edge/f32 on GW_1.a");
    assert!(plan.placement("digits").message.contains("at Store_0042"));
}
