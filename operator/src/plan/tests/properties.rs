//! The wanted properties (A)–(F) of the planner, on sites that nobody drew.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn any_node(index: usize) -> impl Strategy<Value = Node> {
    let size = (0..4_000_u64, 0..1_024_u64, 0..1_000_u64, 0..256_u64, prop::option::of(0..400_u64));
    let flags =
        (prop::bool::weighted(0.8), prop::bool::weighted(0.1), prop::option::weighted(0.9, 5..200_u64), any::<bool>());
    (size, flags).prop_map(move |((cpu, memory, taken_cpu, taken_memory, store), (ready, leaving, gflops, camera))| {
        let mut node = node(&format!("node-{index}")).cpu(cpu).memory(memory).taken(taken_cpu, taken_memory);
        (node.ready, node.leaving, node.speed) = (ready, leaving, gflops.map(speed));
        node.store_bytes = store.map_or(u64::MAX, |mebibytes| mebibytes * MIB);
        if camera { node.label("camera", "v2") } else { node }
    })
}

fn any_variant(index: usize) -> impl Strategy<Value = Variant> {
    (1..200_000_000_u64, 1..200_u64, prop::option::weighted(0.9, 90_000..100_000_u64)).prop_map(
        move |(flops, memory, accuracy_millis)| Variant {
            name: format!("variant-{index}"),
            bytes: memory * MIB,
            memory_bytes: memory * MIB,
            flops,
            accuracy_millis,
            ..f32()
        },
    )
}

fn any_model(index: usize) -> impl Strategy<Value = Model> {
    let wishes = (1_000..500_000_u64, prop::option::of(90_000..99_000_u64), 1..2_000_u64, any::<bool>(), any::<bool>());
    let place = (
        prop_oneof![3 => Just(TierChoice::Auto), 1 => Just(TierChoice::Edge), 1 => Just(TierChoice::Cloud)],
        any::<bool>(),
        prop::option::weighted(0.7, 5..200_u64),
        0..300_000_u64,
        prop::bool::weighted(0.2),
    );
    let variants = (0..3_usize).prop_flat_map(|count| (0..count).map(any_variant).collect::<Vec<_>>());
    (wishes, place, variants).prop_map(
        move |((budget, floor, rate, strict, latency), (tier, camera, cloud, bytes, suspended), variants)| {
            let mut model = model(&format!("model-{index}")).rate(rate).tier(tier).variants(&variants);
            model.budget_us = budget;
            model.accuracy_floor_millis = floor;
            (model.request_bytes, model.suspended) = (bytes, suspended);
            model.budget_policy = if strict { BudgetPolicy::Require } else { BudgetPolicy::Prefer };
            model.objective = if latency { Objective::Latency } else { Objective::Cost };
            model.cloud = match cloud {
                Some(gflops) => CloudOffer::Pool(speed(gflops)),
                None => CloudOffer::None { reason: Reason::NoNodes, message: "the fleet has no cloud node".into() },
            };
            if camera { model.requires("camera", &["v2"]) } else { model }
        },
    )
}

fn any_home(nodes: usize) -> impl Strategy<Value = Option<Home>> {
    prop::option::of((any::<bool>(), 0..nodes.max(1), 0..3_usize, 1..4_u64).prop_map(
        |(cloud, node, variant, replicas)| Home {
            tier: if cloud { Tier::Cloud } else { Tier::Edge },
            node: (!cloud).then(|| format!("node-{node}")),
            variant: format!("variant-{variant}"),
            version: "old".into(),
            replicas,
        },
    ))
}

fn any_stability(models: usize) -> impl Strategy<Value = Stability> {
    let left = (any::<bool>(), 0..3_usize, 0..3_usize).prop_map(|(cloud, node, variant)| Left {
        tier: if cloud { Tier::Cloud } else { Tier::Edge },
        node: (!cloud).then(|| format!("node-{node}")),
        variant: format!("variant-{variant}"),
    });
    let times = (0..2_000_i64, prop::option::of(0..2_000_i64), prop::option::weighted(0.2, 0..2_000_i64));
    let history = (times, prop::option::of(left), prop::option::of(1..600_000_u64)).prop_map(
        |((since, better_since, missed_since), left, measured_p99_us)| History {
            since,
            left,
            better_since,
            measured_p99_us,
            missed_since,
        },
    );
    (0..30_000_u64, 1..600_i64, vec(prop::option::of(history), models)).prop_map(|(gain, settle, histories)| {
        let named = histories.into_iter().enumerate();
        let history = named.filter_map(|(index, history)| Some((name(&format!("model-{index}")), history?)));
        Stability {
            now: 2_000,
            min_gain_millis: gain,
            settle_seconds: settle,
            history: history.collect(),
            held: BTreeMap::new(),
        }
    })
}

prop_compose! {
    fn any_site()(nodes in 0..5_usize, models in 0..8_usize)(
        nodes_drawn in (0..nodes).map(any_node).collect::<Vec<_>>(),
        models_drawn in (0..models).map(any_model).collect::<Vec<_>>(),
        homes in vec(any_home(nodes), models),
        link_us in (100..80_000_u64, 0..40_000_u64),
        measured in any::<bool>(),
        (paused, cloud_only) in (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        stability in any_stability(models),
    ) -> Snapshot {
        let mut snapshot = site("site", nodes_drawn).linked(link_us.0, link_us.0 + link_us.1);
        (snapshot.paused, snapshot.cloud_only, snapshot.stability) = (paused, cloud_only, stability);
        if !measured {
            snapshot.link.round_trip_basis = Basis::Assumed;
            snapshot.link.samples = 0;
        }
        for (model, home) in models_drawn.into_iter().zip(homes) {
            if let Some(home) = home {
                snapshot.current.insert(model.name.clone(), home);
            }
            snapshot.models.push(Arc::new(model));
        }
        let Snapshot { current, stability, .. } = &mut snapshot;
        stability.history.retain(|model, _| current.contains_key(model));
        snapshot
    }
}

/// Whether the model's clients tell of its home.
fn is_told_of(snapshot: &Snapshot, model: &ModelName) -> bool {
    let history = snapshot.stability.history.get(model);
    history.is_some_and(|history| history.measured_p99_us.is_some() || history.missed_since.is_some())
}

fn kept(placement: &Placement) -> bool {
    matches!(placement.reason, Reason::KeptUnreachable | Reason::Suspended | Reason::SitePaused)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// (A)
    #[test]
    fn capacity_is_never_exceeded(snapshot in any_site()) {
        let plan = plan_site(&snapshot);
        for node in &snapshot.nodes {
            let here = |placement: &&Placement| placement.node.as_ref() == Some(&node.name);
            let (mut cpu, mut memory, mut store) = (node.requested.cpu_millis, node.requested.memory_bytes, 0);
            let mut placed = false;
            for placement in plan.placements.iter().filter(here) {
                // What is kept was there before the share or the others' requests became what they are.
                placed |= !kept(placement);
                cpu += placement.request.cpu_millis * placement.replicas;
                memory += placement.request.memory_bytes * placement.replicas;
                let model = snapshot.models.iter().find(|model| model.name == placement.model).unwrap();
                let variant = model.variants.iter().find(|variant| variant.name == placement.variant);
                store += variant.map_or(0, |variant| store_bytes(variant.bytes)) * placement.replicas;
            }
            prop_assert!(!placed || cpu * 100_000 <= node.allocatable.cpu_millis * snapshot.max_share_millis);
            prop_assert!(!placed || memory * 100_000 <= node.allocatable.memory_bytes * snapshot.max_share_millis);
            prop_assert!(!placed || store <= node.store_bytes);
        }
    }

    /// (B)
    #[test]
    fn order_of_the_input_does_not_matter(snapshot in any_site(), turn in 0..7_usize) {
        let mut other = snapshot.clone();
        other.nodes.reverse();
        other.models.reverse();
        let middle = turn.min(other.models.len());
        other.models.rotate_left(middle);
        other.models.iter_mut().for_each(|model| Arc::make_mut(model).variants.reverse());
        prop_assert_eq!(plan_site(&snapshot), plan_site(&other));
    }

    /// (C)
    #[test]
    fn planning_again_after_applying_changes_nothing(snapshot in any_site()) {
        let plan = plan_site(&snapshot);
        // What clients waited at a place is forgotten once it was left: then the next plan knows less.
        let moved = plan.placements.iter().filter(|placement| placement.moves.is_some()).map(|placement| &placement.model);
        let mut left = moved.chain(plan.unplaced.iter().map(|unplaced| &unplaced.model));
        prop_assume!(!left.any(|model| is_told_of(&snapshot, model)));
        let applied = snapshot.applied(&plan);
        let again = plan_site(&applied);
        prop_assert!(again.placements.iter().all(|placement| placement.moves.is_none()));
        // Without contact a place is kept, no longer chosen: the same place with another reason.
        prop_assert_eq!(&applied.current, &applied.clone().applied(&again).current);
        // What was left is told otherwise once it is left.
        prop_assert!(unreachable(&applied) || again == plan_site(&applied.clone().applied(&again)));
    }

    /// (D)
    #[test]
    fn every_model_is_placed_or_has_a_reason(snapshot in any_site()) {
        let plan = plan_site(&snapshot);
        let mut wanted: Vec<_> = snapshot.models.iter().map(|model| model.name.clone()).collect();
        wanted.sort();
        let mut decided: Vec<_> = plan.placements.iter().map(|placement| placement.model.clone()).collect();
        prop_assert!(decided.is_sorted());
        decided.extend(plan.unplaced.iter().map(|unplaced| unplaced.model.clone()));
        decided.sort();
        prop_assert_eq!(decided, wanted);
        let outcomes = [Reason::ChosenAtEdge, Reason::ChosenInCloud, Reason::BestEffort, Reason::KeptByStability];
        for placement in &plan.placements {
            let Placement { reason, message, rejected, predicted, .. } = placement;
            prop_assert!(outcomes.contains(reason) || kept(placement));
            prop_assert!(!message.is_empty() && message.chars().count() <= 512 && rejected.len() <= 8);
            prop_assert!(predicted.is_some() != kept(placement));
        }
        for Unplaced { reason, message, rejected, .. } in &plan.unplaced {
            prop_assert!([Reason::NoCandidate, Reason::NoCapacity, Reason::NoNodes].contains(reason));
            prop_assert!(!message.is_empty() && message.chars().count() <= 512 && rejected.len() <= 8);
        }
    }

    /// What is placed keeps the floor, the labels and, unless it says otherwise, the budget.
    #[test]
    fn what_must_hold_holds(snapshot in any_site()) {
        let plan = plan_site(&snapshot);
        for placement in plan.placements.iter().filter(|placement| !kept(placement)) {
            let model = snapshot.models.iter().find(|model| model.name == placement.model).unwrap();
            let variant = model.variants.iter().find(|variant| variant.name == placement.variant).unwrap();
            let floor = model.accuracy_floor_millis.unwrap_or(0);
            prop_assert!(floor == 0 || variant.accuracy_millis.is_some_and(|accuracy| accuracy >= floor));
            if let Some(name) = &placement.node {
                let node = snapshot.nodes.iter().find(|node| node.name == *name).unwrap();
                prop_assert!(node.ready && !node.leaving && !snapshot.cloud_only);
                prop_assert!(model.require.iter().all(|requirement| requirement.matches(&node.labels)));
            }
            let predicted = placement.predicted.as_ref().unwrap();
            let history = snapshot.stability.history.get(&model.name);
            let measured = history.and_then(|history| history.measured_p99_us).is_some_and(|us| us <= model.budget_us);
            if placement.reason != Reason::BestEffort {
                // Of a home its clients tell more than the parts.
                let is_home = measured && placement.moves.is_none();
                prop_assert!(is_home || predicted.bound_us * 3 <= model.budget_us * 2);
            } else {
                let missed = history.is_some_and(|history| history.missed_since.is_some());
                prop_assert!(model.budget_policy == BudgetPolicy::Prefer || missed && placement.moves.is_none());
            }
            prop_assert!(predicted.p99_us <= predicted.bound_us);
        }
    }

    /// (F)
    #[test]
    fn an_unreachable_site_keeps_everything(mut snapshot in any_site()) {
        snapshot.nodes.push(node("node-last"));
        snapshot.nodes.iter_mut().for_each(|node| node.ready = false);
        let plan = plan_site(&snapshot);
        for (model, home) in &snapshot.current {
            let placement = plan.placements.iter().find(|placement| placement.model == *model).unwrap();
            prop_assert_eq!(placement.reason, Reason::KeptUnreachable);
            let Placement { tier, node, variant, version, replicas, .. } = placement.clone();
            prop_assert_eq!(home, &Home { tier, node, variant, version, replicas });
        }
        prop_assert!(plan.placements.iter().all(|placement| kept(placement) || placement.tier == Tier::Cloud));
    }

    /// The planner is total: no input, however odd, makes it panic.
    #[test]
    fn no_number_is_too_large(mut snapshot in any_site(), large in prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]) {
        for model in snapshot.models.iter_mut().map(Arc::make_mut) {
            (model.requests_per_second, model.peak_factor_millis, model.request_bytes) = (large, large, large);
            (model.budget_us, model.max_batch_size) = (large, large);
            for variant in &mut model.variants {
                (variant.flops, variant.memory_bytes) = (large, large);
                (variant.bytes, variant.scratch_bytes) = (large, large);
            }
        }
        (snapshot.link.round_trip_p50_us, snapshot.link.round_trip_p99_us) = (large, large);
        snapshot.link.uplink_bits_per_second = large;
        snapshot.prices.uplink_gib = large;
        plan_site(&snapshot);
    }
}
