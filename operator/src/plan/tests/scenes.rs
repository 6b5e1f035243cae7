//! One site, one question.

use super::*;
use Reason::*;

fn place(snapshot: Snapshot, model: Model) -> String {
    plan_site(&snapshot.model(model)).place("digits")
}

#[test]
fn tight_budget_far_from_the_cloud_is_served_at_the_edge() {
    for gflops in [30, 50, 100] {
        let mut snapshot = site_a().model(model("digits"));
        snapshot.nodes[0].speed = Some(speed(gflops));
        let plan = plan_site(&snapshot);
        assert_eq!(plan.place("digits"), "edge/f32 on site-a-1");
        let placement = plan.placement("digits");
        assert_eq!(placement.reason, ChosenAtEdge);
        assert_eq!(
            placement.rejected,
            [Rejected {
                candidate: "cloud/f32".into(),
                reason: LinkTooSlow,
                message: "round trip p99 40 ms alone exceeds the budget of 25 ms (Measured, 5,800 probes); \
                          would fit from a budget of 65 ms"
                    .into(),
            }]
        );
    }
}

#[test]
fn the_same_model_near_the_cloud_is_served_from_there() {
    for gflops in [30, 50, 100] {
        let mut model = model("digits");
        model.cloud = CloudOffer::Pool(speed(gflops));
        let mut snapshot = site_b().model(model);
        snapshot.nodes[0].speed = Some(speed(gflops));
        let plan = plan_site(&snapshot);
        assert_eq!(plan.place("digits"), "cloud/f32");
        assert_eq!(plan.placement("digits").reason, ChosenInCloud);
        assert_eq!(reasons(&plan.placement("digits").rejected), [("edge/f32 on site-b-1", Costlier)]);
    }
}

#[test]
fn more_requests_make_the_bytes_dearer_than_the_edge() {
    assert_eq!(place(site_b(), model("digits").rate(10)), "cloud/f32");
    let plan = plan_site(&site_b().model(model("digits").rate(50)));
    assert_eq!(plan.place("digits"), "edge/f32 on site-b-1");
    assert_eq!(reasons(&plan.placement("digits").rejected), [("cloud/f32", Costlier)]);
}

#[test]
fn of_equally_dear_variants_the_home_then_the_more_accurate_then_the_smaller_serves() {
    let variant = |name: &str, accuracy: u64, memory: u64| Variant {
        name: name.into(),
        accuracy_millis: Some(accuracy),
        memory_bytes: memory,
        ..f32()
    };
    let check = |f16: Variant, int8: Variant, expected: &str, why: &str| {
        let snapshot = site_a().model(model("digits").variants(&[f16, int8]));
        let plan = plan_site(&snapshot);
        assert_eq!(plan.place("digits"), format!("edge/{expected} on site-a-1"));
        let rejected = &plan.placement("digits").rejected;
        assert!(rejected[0].message.starts_with(why), "{rejected:?}");
        plan
    };
    check(
        variant("f16", 97_500, 900),
        variant("int8", 97_400, 800),
        "f16",
        "22 points/h as well, with accuracy 97.4% against 97.5%",
    );
    let plan = check(
        variant("f16", 97_500, 900),
        variant("int8", 97_500, 800),
        "int8",
        "22 points/h as well, with 900 B of memory against 800 B",
    );
    let snapshot =
        site_a().model(model("digits").variants(&[variant("f16", 98_000, 900), variant("int8", 97_500, 800)]));
    let plan = plan_site(&snapshot.applied(&plan));
    assert_eq!(plan.place("digits"), "edge/int8 on site-a-1");
    assert!(
        plan.placement("digits").rejected[0]
            .message
            .starts_with("22 points/h as well, and edge/int8 on site-a-1 serves already")
    );
}

#[test]
fn a_wider_budget_moves_the_far_site_to_the_cloud() {
    let at_25 = site_a().model(model("digits"));
    let plan = plan_site(&at_25);
    let at_200 = site_a().model(model("digits").budget_ms(200)).applied(&plan);
    assert_eq!(plan_site(&at_200).place("digits"), "cloud/f32");
}

#[test]
fn advice_on_the_budget_holds() {
    assert_eq!(place(site_a(), model("digits").budget_ms(65).tier(TierChoice::Cloud)), "cloud/f32");
    let plan = plan_site(&site_a().model(model("digits").budget_ms(64).tier(TierChoice::Cloud)));
    assert_eq!(plan.placement("digits").reason, BestEffort);
}

#[test]
fn a_placement_says_its_numbers() {
    let plan = plan_site(&site_a().model(model("digits")));
    let Placement { message, request, predicted, replicas, .. } = plan.placement("digits");
    assert_eq!(
        message,
        "edge/f32 on site-a-1 at site-a: p99 0.62 ms, bound 0.71 ms of 25 ms (link 0.5 ms, transfer 0 ms, \
         queue 0 ms, compute 0.21 ms; Estimated), 23 points/h"
    );
    assert_eq!(*request, Resources { cpu_millis: 50, memory_bytes: 27 * MIB });
    assert_eq!(*replicas, 1);
    assert_eq!(predicted.as_ref().unwrap().bound_us, 714);
}

#[test]
fn hardware_that_nothing_has_leaves_the_model_unplaced_and_names_the_label() {
    let model = model("digits")
        .requires("sconce.dev/camera", &["v2"])
        .no_cloud(HardwareMismatch, "no cloud node has sconce.dev/camera In [v2]");
    let plan = plan_site(&site_a().model(model));
    let unplaced = plan.unplaced("digits");
    assert_eq!(unplaced.reason, NoCandidate);
    assert_eq!(
        unplaced.message,
        "no place for digits at site-a: HardwareMismatch: site-a-1 lacks sconce.dev/camera In [v2]; \
         HardwareMismatch: no cloud node has sconce.dev/camera In [v2]"
    );
    assert_eq!(reasons(&unplaced.rejected), [("edge/* on site-a-1", HardwareMismatch), ("cloud/*", HardwareMismatch)]);
}

#[test]
fn the_node_that_has_the_hardware_gets_the_model() {
    let snapshot = site("site-a", [node("site-a-1"), node("site-a-2").label("sconce.dev/camera", "v2")]);
    assert_eq!(place(snapshot, model("digits").requires("sconce.dev/camera", &["v1", "v2"])), "edge/f32 on site-a-2");
}

/// Each filter alone, in their order: the first that fails is the reason.
#[test]
fn the_first_filter_that_fails_is_the_reason() {
    let check = |node: Node, model: Model, reason: Reason, message: &str| {
        // A second node keeps the site in contact; it has no room.
        let snapshot = site("site-a", [node, super::node("z").cpu(0).memory(0)]);
        let model = model.no_cloud(NoNodes, "the fleet has no cloud node").must();
        let plan = plan_site(&snapshot.model(model));
        let unplaced = plan.unplaced("digits");
        let rejected = unplaced.rejected.iter().find(|rejected| rejected.candidate.ends_with("on a")).unwrap();
        assert_eq!((rejected.reason, rejected.message.as_str()), (reason, message));
    };
    let digits = || model("digits");
    let unevaluated = Variant { accuracy_millis: None, ..f32() };
    let poor = Variant { accuracy_millis: Some(95_900), ..f32() };
    let broken = || node("a").down().leaving().memory(1).cpu(1).without_speed();
    let demanding = || digits().requires("gpu", &["yes"]).variants(std::slice::from_ref(&poor));

    check(broken(), demanding().tier(TierChoice::Cloud), TierExcluded, "placement.tier is Cloud");
    check(broken(), demanding(), NodeNotReady, "a is not Ready");
    let broken = || node("a").leaving().memory(1).cpu(1).without_speed();
    check(broken(), demanding(), NodeLeaving, "a is cordoned or about to leave");
    let broken = || node("a").memory(1).cpu(1).without_speed();
    check(broken(), demanding(), HardwareMismatch, "a lacks gpu In [yes]");
    check(broken(), digits().variants(&[poor]), BelowAccuracyFloor, "f32 has 95.9%, floor 97%");
    check(broken(), digits().variants(&[unevaluated]), AccuracyUnknown, "f32 was never evaluated, floor 97%");
    check(broken(), digits(), InsufficientMemory, "needs 27 Mi, a has 0 Mi left");
    check(node("a").cpu(40).without_speed(), digits(), InsufficientCpu, "needs 50 m, a has 32 m left");
    check(
        node("a").store(7).cpu(60),
        digits(),
        ShareExceeded,
        "needs 50 m and 27 Mi; 80% of a (limits.maxShare) leave 48 m and 3276 Mi",
    );
    check(node("a").store(6).without_speed(), digits(), InsufficientStore, "needs 7 Mi, the disk of a has 6 Mi");
    check(node("a").without_speed(), digits(), NoProfile, "the agent of a has not reported its speed yet");
    check(
        node("a"),
        digits().flops(1_000_000_000),
        ServiceTooSlow,
        "computing p99 120 ms alone exceeds the budget of 25 ms (Estimated); would fit from a budget of 1.5 s",
    );
    check(
        node("a").cpu(100_000),
        digits().flops(100_000_000).rate(1_000),
        Overloaded,
        "4 replicas would be 150% busy at a peak of 150% of 1,000 req/s, limit 70% (Estimated)",
    );
    check(
        node("a"),
        digits().flops(150_000_000),
        OverBudget,
        "bound 28 ms (link 0.5 ms, transfer 0 ms, queue 9.1 ms, compute 18 ms; Estimated) with a margin of half \
         exceeds the budget of 25 ms; would fit from a budget of 42 ms",
    );
}

/// Memory was reckoned for batches of 16, whatever the model's largest.
#[test]
fn memory_is_reckoned_for_the_largest_batch() {
    let planned = |max_batch_size, scratch_bytes| {
        let variant = Variant { memory_bytes: 20 * MIB, scratch_bytes, ..f32() };
        let model = Model { max_batch_size, ..model("digits").variants(&[variant]).tier(TierChoice::Edge) };
        plan_site(&site("site-a", [node("a").memory(100)]).model(model))
    };
    let check = |max_batch_size, scratch_bytes, mebibytes: u64| {
        let request = planned(max_batch_size, scratch_bytes).placement("digits").request;
        assert_eq!(request.memory_bytes, mebibytes * MIB);
    };
    check(16, MIB, 44);
    check(1, MIB, 29);
    // Not known.
    check(256, 0, 44);
    let plan = planned(256, MIB);
    let rejected = &plan.unplaced("digits").rejected[0];
    assert_eq!((rejected.reason, rejected.message.as_str()), (InsufficientMemory, "needs 284 Mi, a has 80 Mi left"));
}

/// Each model alone fitted, so all did.
#[test]
fn models_share_the_disk_of_a_node() {
    let both = |mebibytes, suspended| {
        let site = site("site-a", [node("a").store(mebibytes)]).home("digits", Tier::Edge, Some("a"));
        let digits = Model { suspended, ..model("digits").tier(TierChoice::Edge) };
        plan_site(&site.model(digits).model(model("fraud").tier(TierChoice::Edge)))
    };
    let check = |suspended, message: &str| {
        assert_eq!(both(14, suspended).place("fraud"), "edge/f32 on a");
        let plan = both(13, suspended);
        let rejected = &plan.unplaced("fraud").rejected[0];
        assert_eq!((rejected.reason, rejected.message.as_str()), (InsufficientStore, message));
    };
    check(false, "needs 7 Mi, the disk of a has 6 Mi left by other models");
    check(true, "needs 7 Mi, the disk of a has 6 Mi");
}

#[test]
fn an_update_has_no_pod_more_where_the_disk_has_no_room_for_it() {
    let surge = |mebibytes| {
        let site = site("site-a", [node("a").store(mebibytes)]);
        plan_site(&site.model(model("digits"))).placement("digits").surge
    };
    assert!(surge(14) && !surge(13));
}

#[test]
fn who_took_the_room_is_named_if_he_is_more_important() {
    let only_one = || site("site-a", [node("a").cpu(100)]);
    let both = |priority| {
        let fraud = Model { priority, ..model("fraud") };
        plan_site(&only_one().model(model("digits").tier(TierChoice::Edge)).model(fraud.tier(TierChoice::Edge)))
    };
    let plan = both(1_000);
    assert_eq!(plan.place("fraud"), "edge/f32 on a");
    let rejected = &plan.unplaced("digits").rejected[0];
    assert_eq!((rejected.reason, rejected.message.as_str()), (Displaced, "fraud (priority 1000) took the room on a"));
    let plan = both(0);
    assert_eq!(plan.unplaced("fraud").rejected[0].reason, InsufficientCpu, "it is no more important");
}

#[test]
fn bytes_that_take_the_whole_budget_exclude_the_cloud() {
    let mut detect = model("digits").budget_ms(120);
    detect.request_bytes = 150_000;
    let plan = plan_site(&site_b().model(detect));
    assert_eq!(plan.place("digits"), "edge/f32 on site-b-1");
    let rejected = &plan.placement("digits").rejected[0];
    assert_eq!(rejected.reason, TransferTooSlow);
    // 120 ms of bytes, and three round trips to open the window.
    assert_eq!(
        rejected.message,
        "150 KB at 10 Mbit/s takes 140 ms of 120 ms (Assumed); would fit from a budget of 230 ms"
    );
}

#[test]
fn where_nothing_keeps_the_budget_the_fastest_serves_or_none_as_the_policy_says() {
    let slow = || model("digits").budget_ms(1).flops(100_000_000);
    let plan = plan_site(&site_b().model(slow()));
    assert_eq!(plan.place("digits"), "edge/f32 on site-b-1");
    assert_eq!(plan.placement("digits").reason, BestEffort);
    assert!(plan.placement("digits").message.contains("; ServiceTooSlow: computing p99 12 ms alone exceeds"));
    let plan = plan_site(&site_b().model(slow().must()));
    let unplaced = plan.unplaced("digits");
    assert_eq!(unplaced.reason, NoCandidate);
    assert_eq!(reasons(&unplaced.rejected), [("edge/f32 on site-b-1", ServiceTooSlow), ("cloud/f32", LinkTooSlow)]);
}

#[test]
fn accuracy_and_hardware_are_hard_whatever_the_policy() {
    let poor = Variant { accuracy_millis: Some(95_900), ..f32() };
    let plan = plan_site(&site_b().model(model("digits").variants(&[poor])));
    assert_eq!(plan.unplaced("digits").reason, NoCandidate);
    let message = "no place for digits at site-b: BelowAccuracyFloor: f32 has 95.9%, floor 97%";
    assert_eq!(plan.unplaced("digits").message, message);
}

#[test]
fn a_site_without_nodes_is_served_from_the_cloud_where_that_keeps_the_budget() {
    let near = site("site-c", []).linked(6_000, 7_000);
    assert_eq!(place(near, model("digits")), "cloud/f32");
    let far = site("site-c", []);
    let plan = plan_site(&far.clone().model(model("digits").must()));
    assert_eq!(plan.unplaced("digits").reason, NoNodes);
    let plan = plan_site(&far.clone().model(model("digits").tier(TierChoice::Edge)));
    assert_eq!(plan.unplaced("digits").reason, NoNodes);
    let plan = plan_site(&far.model(model("digits")));
    assert_eq!(plan.placement("digits").reason, BestEffort);
}

/// (F)
#[test]
fn unreachable_site_keeps_what_it_has() {
    let snapshot = site("site-b", [node("site-b-1").down(), node("site-b-2").down()])
        .linked(6_000, 7_000)
        .model(model("digits"))
        .model(model("new"))
        .model(model("strict").tier(TierChoice::Edge))
        .home("digits", Tier::Edge, Some("site-b-1"));
    let plan = plan_site(&snapshot);
    let kept = plan.placement("digits");
    assert_eq!((plan.place("digits"), kept.reason), ("edge/f32 on site-b-1".into(), KeptUnreachable));
    assert_eq!((&kept.predicted, kept.digest.as_str()), (&None, "sha256:0123"));
    assert_eq!(kept.message, "no node of site-b is Ready: edge/f32 on site-b-1 is kept as it is");
    assert_eq!(plan.place("new"), "cloud/f32");
    let unplaced = plan.unplaced("strict");
    assert_eq!(unplaced.reason, NoCandidate);
    assert_eq!(
        unplaced.message,
        "no place for strict at site-b: NodeNotReady: site-b-1 is not Ready; NodeNotReady: site-b-2 is not Ready; \
         TierExcluded: placement.tier is Edge"
    );
}

#[test]
fn unreachable_site_gets_nothing_late_from_the_cloud() {
    let plan = plan_site(&site("site-a", [node("site-a-1").down()]).model(model("digits")));
    assert_eq!(
        reasons(&plan.unplaced("digits").rejected),
        [("cloud/f32", LinkTooSlow), ("edge/* on site-a-1", NodeNotReady)]
    );
}

#[test]
fn model_of_a_lost_node_moves_while_another_node_is_ready() {
    let snapshot =
        site("site-a", [node("site-a-1").down(), node("site-a-2")]).home("digits", Tier::Edge, Some("site-a-1"));
    assert_eq!(place(snapshot, model("digits")), "edge/f32 on site-a-2");
}

#[test]
fn drained_node_receives_no_new_placement() {
    let snapshot = site("site-a", [node("site-a-1").leaving(), node("site-a-2")]);
    assert_eq!(place(snapshot, model("digits")), "edge/f32 on site-a-2");
}

#[test]
fn current_home_wins_a_tie() {
    let nodes = || site("site-a", [node("a"), node("b"), node("c")]);
    assert_eq!(place(nodes(), model("digits")), "edge/f32 on a");
    assert_eq!(place(nodes().home("digits", Tier::Edge, Some("b")), model("digits")), "edge/f32 on b");
}

#[test]
fn latency_takes_the_fastest_and_cost_among_the_equally_fast() {
    let nodes = || site("site-b", [node("slow").gflops(10), node("fast").gflops(100)]).linked(6_000, 7_000);
    let plan = plan_site(&nodes().model(model("digits").objective(Objective::Latency)));
    assert_eq!(plan.place("digits"), "edge/f32 on fast");
    assert_eq!(reasons(&plan.placement("digits").rejected), [("edge/f32 on slow", Slower), ("cloud/f32", Slower)]);
    // 5 % between them: as fast, so the one with the cheaper request.
    let nodes = site("site-b", [node("a").gflops(95), node("b").gflops(100)]);
    let busy = model("digits").rate(2_000).objective(Objective::Latency);
    assert_eq!(place(nodes, busy), "edge/f32 on b");
}

#[test]
fn the_cheapest_variant_above_the_floor_is_chosen_and_among_equals_the_more_accurate() {
    let int8 = Variant { name: "int8".into(), memory_bytes: 700_000, accuracy_millis: Some(97_800), ..f32() };
    assert_eq!(place(site_a(), model("digits").variants(&[f32(), int8.clone()])), "edge/int8 on site-a-1");
    let same = Variant { memory_bytes: f32().memory_bytes, ..int8.clone() };
    assert_eq!(place(site_a(), model("digits").variants(&[same, f32()])), "edge/f32 on site-a-1");
    let poor = Variant { accuracy_millis: Some(96_000), ..int8 };
    assert_eq!(place(site_a(), model("digits").variants(&[f32(), poor])), "edge/f32 on site-a-1");
}

#[test]
fn replicas_grow_with_the_load_up_to_four() {
    let check = |rate: u64, replicas: u64| {
        let snapshot = site("site-a", [node("site-a-1").cpu(64_000)]);
        let plan = plan_site(&snapshot.model(model("digits").rate(rate).budget_ms(200).tier(TierChoice::Edge)));
        assert_eq!(plan.placement("digits").replicas, replicas, "{rate} req/s");
    };
    // 71.2 us each, half as many again at peak, 70 % busy: 6,554 req/s per replica.
    check(10, 1);
    check(6_500, 1);
    check(6_600, 2);
    check(26_000, 4);
}

#[test]
fn a_full_site_sends_the_smaller_model_to_the_cloud_or_says_that_it_is_full() {
    let nodes = || site("site-b", [node("site-b-1").memory(100)]).linked(6_000, 7_000);
    let edge = |name: &str| model(name).tier(TierChoice::Edge);
    let plan = plan_site(&nodes().model(edge("large").memory(50)).model(edge("small").memory(10)));
    assert_eq!(plan.place("large"), "edge/f32 on site-b-1");
    let unplaced = plan.unplaced("small");
    assert_eq!(unplaced.reason, NoCapacity);
    assert_eq!(
        unplaced.message,
        "site-b is full for small: InsufficientMemory: needs 34 Mi, site-b-1 has 6 Mi left by other models; \
         TierExcluded: placement.tier is Edge"
    );
    let busy = model("small").memory(10).rate(50);
    let plan = plan_site(&nodes().model(edge("large").memory(50)).model(busy));
    assert_eq!(plan.place("small"), "cloud/f32");
    assert_eq!(reasons(&plan.placement("small").rejected), [("edge/f32 on site-b-1", InsufficientMemory)]);
}

#[test]
fn who_keeps_the_budget_is_not_pushed_out_by_who_cannot() {
    let snapshot = site("site-a", [node("site-a-1").memory(100)])
        .model(model("late").memory(50).flops(3_000_000_000).tier(TierChoice::Edge).rate(1))
        .model(model("punctual").memory(10).tier(TierChoice::Edge));
    let plan = plan_site(&snapshot);
    assert_eq!(plan.placement("punctual").reason, ChosenAtEdge);
    assert_eq!(plan.unplaced("late").reason, NoCapacity);
}

#[test]
fn what_others_requested_is_not_ours() {
    let nodes = |taken| site("site-a", [node("site-a-1").memory(100).taken(0, taken)]);
    assert_eq!(place(nodes(53), model("digits").tier(TierChoice::Edge)), "edge/f32 on site-a-1");
    for (taken, reason) in [(54, ShareExceeded), (74, InsufficientMemory)] {
        let plan = plan_site(&nodes(taken).model(model("digits").tier(TierChoice::Edge)));
        assert_eq!(reasons(&plan.unplaced("digits").rejected)[0].1, reason);
    }
}

#[test]
fn models_fill_a_node_before_they_open_the_next() {
    let nodes = site("site-a", [node("a").memory(4_096), node("b").memory(200)]);
    let edge = |name: &str| model(name).tier(TierChoice::Edge);
    let plan = plan_site(&nodes.model(edge("one")).model(edge("two")));
    assert_eq!((plan.place("one"), plan.place("two")), ("edge/f32 on b".into(), "edge/f32 on b".into()));
}

/// An update of what is on a node needs room for one pod more, as long as old and new are both there.
#[test]
fn there_is_a_surge_where_one_pod_more_would_fit() {
    // Of 160 MiB four fifths are ours.
    let surges = |mebibytes: u64| {
        let site = site("site-a", [node("site-a-1").memory(mebibytes)]);
        let plan = plan_site(&site.model(model("digits").memory(30)));
        assert_eq!(plan.place("digits"), "edge/f32 on site-a-1");
        plan.placement("digits").surge
    };
    assert_eq!([surges(160), surges(130)], [true, false]);
    let pool = plan_site(&site_b().model(model("digits").tier(TierChoice::Cloud)));
    assert!(pool.placement("digits").surge, "the scheduler finds a pool its room");
}
