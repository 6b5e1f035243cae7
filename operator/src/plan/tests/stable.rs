//! When a home is left: at once, after a while, or not.

use super::*;
use Reason::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Site-b's cloud costs a quarter of its edge. `minGain` 15 %, `settle` 60 s.
fn at_edge(model: Model) -> Snapshot {
    let mut snapshot = site_b().home("digits", Tier::Edge, Some("site-b-1")).model(model);
    snapshot.stability = Stability { now: 1_000, min_gain_millis: 15_000, settle_seconds: 60, ..Stability::default() };
    snapshot
}

fn in_cloud(model: Model) -> Snapshot {
    at_edge(model).home("digits", Tier::Cloud, None)
}

impl Snapshot {
    fn at(mut self, now: i64) -> Self {
        self.stability.now = now;
        self
    }
    fn history(mut self, history: History) -> Self {
        self.stability.history.insert(name("digits"), history);
        self
    }
    fn replanned(self, now: i64) -> (String, Reason, Option<i64>, Self) {
        let snapshot = self.at(now);
        let plan = plan_site(&snapshot);
        let Placement { reason, due, .. } = *plan.placement("digits");
        (plan.place("digits"), reason, due, snapshot.applied(&plan))
    }
}

const EDGE: &str = "edge/f32 on site-b-1";
const CLOUD: &str = "cloud/f32";

#[test]
fn a_cheaper_place_is_taken_once_it_has_been_so_for_long_enough() {
    let plan = plan_site(&at_edge(model("digits")));
    let kept = plan.placement("digits");
    assert_eq!((plan.place("digits").as_str(), kept.reason, kept.due), (EDGE, KeptByStability, Some(1_060)));
    assert_eq!(kept.better_place, Some(BetterPlace { candidate: CLOUD.into(), since: 1_000 }));
    assert!(
        kept.message.ends_with("; held: cloud/f32 is better by 75% of the cost; it moves there if that lasts for 60 s"),
        "{}",
        kept.message
    );
    assert_eq!(reasons(&kept.rejected), [(CLOUD, KeptByStability)]);

    let (place, reason, due, snapshot) = at_edge(model("digits")).applied(&plan).replanned(1_059);
    assert_eq!((place.as_str(), reason, due), (EDGE, KeptByStability, Some(1_060)));
    let (place, reason, due, _) = snapshot.replanned(1_060);
    assert_eq!((place.as_str(), reason, due), (CLOUD, ChosenInCloud, None));
}

#[test]
fn a_gain_that_does_not_last_begins_anew() {
    let snapshot = at_edge(model("digits"));
    let plan = plan_site(&snapshot);
    let far = snapshot.applied(&plan).linked(39_000, 40_000).at(1_030);
    let gone = plan_site(&far);
    assert_eq!((gone.placement("digits").reason, &gone.placement("digits").better_place), (ChosenAtEdge, &None));
    let (_, reason, due, _) = far.applied(&gone).linked(6_000, 7_000).replanned(1_060);
    assert_eq!((reason, due), (KeptByStability, Some(1_120)));
}

#[test]
fn less_than_the_least_gain_moves_nothing() {
    let mut snapshot = at_edge(model("digits"));
    snapshot.stability.min_gain_millis = 90_000;
    let (place, reason, due, snapshot) = snapshot.replanned(1_000_000);
    assert_eq!((place.as_str(), reason, due), (EDGE, KeptByStability, None));
    let kept = plan_site(&snapshot).placement("digits").message.clone();
    assert!(
        kept.ends_with("; held: cloud/f32 would be better by 75% of the cost, which is less than minGain, 90%"),
        "{kept}"
    );
}

#[test]
fn a_home_that_can_serve_no_longer_is_left_at_once() {
    // The budget became too tight for the link; nothing has settled.
    let (place, reason, _, _) = in_cloud(model("digits").budget_ms(8)).replanned(1_000);
    assert_eq!((place.as_str(), reason), (EDGE, ChosenAtEdge));
    let mut drained = at_edge(model("digits"));
    drained.nodes[0].leaving = true;
    let plan = plan_site(&drained);
    assert_eq!((plan.place("digits").as_str(), plan.placement("digits").moves), (CLOUD, Some(Urgency::Infeasible)));
}

#[test]
fn back_to_where_it_came_from_takes_four_times_as_long() {
    let left = Some(Left { tier: Tier::Cloud, node: None, variant: "int8".into() });
    let came = History { since: 1_000, left, better_since: Some(1_000), ..History::default() };
    let (place, reason, due, snapshot) = at_edge(model("digits")).history(came).replanned(1_239);
    assert_eq!((place.as_str(), reason, due), (EDGE, KeptByStability, Some(1_240)));
    assert!(
        plan_site(&snapshot)
            .placement("digits")
            .message
            .ends_with("and was left less than 4 min ago, four times settle")
    );
    assert_eq!(snapshot.clone().replanned(1_240).0, CLOUD);
    // Unless it can stay no longer.
    let mut drained = snapshot;
    drained.nodes[0].leaving = true;
    assert_eq!(drained.replanned(1_100).0, CLOUD);
}

#[test]
fn what_clients_wait_counts_more_than_what_was_predicted() {
    // Predicted 11 ms with its margin: too slow for 10 ms; clients wait 9.
    let tight = || in_cloud(model("digits").budget_ms(10).rate(1));
    assert_eq!(tight().replanned(1_000).0, EDGE);
    let measured = |us| History { measured_p99_us: Some(us), ..History::default() };
    let (place, reason, _, _) = tight().history(measured(9_000)).replanned(1_000);
    assert_eq!((place.as_str(), reason), (CLOUD, ChosenInCloud));
    // Both say that it is too slow.
    assert_eq!(tight().history(measured(11_000)).replanned(1_000).0, EDGE);
}

#[test]
fn a_missed_budget_is_borne_for_a_while_and_then_left() {
    let missed = |since| History { missed_since: Some(since), measured_p99_us: Some(90_000), ..History::default() };
    let (place, reason, due, snapshot) = in_cloud(model("digits")).history(missed(990)).replanned(1_000);
    assert_eq!((place.as_str(), reason, due), (CLOUD, ChosenInCloud, Some(1_050)));
    let plan = plan_site(&snapshot.at(1_050));
    assert_eq!((plan.place("digits").as_str(), plan.placement("digits").moves), (EDGE, Some(Urgency::Infeasible)));
    let rejected = &plan.placement("digits").rejected[0];
    assert_eq!(rejected.message, "clients have waited 90 ms (p99) of 25 ms for too long");
}

/// A neighbour slows the node: its other variants are no better, and the cloud was left just now.
#[test]
fn what_is_missed_does_not_go_back_too_soon_nor_to_a_slowed_neighbour() {
    let left = Some(Left { tier: Tier::Cloud, node: None, variant: "f32".into() });
    let missed =
        History { since: 900, left, missed_since: Some(900), measured_p99_us: Some(26_000), better_since: None };
    let (place, reason, due, snapshot) = at_edge(model("digits").must()).history(missed.clone()).replanned(1_000);
    assert_eq!((place.as_str(), reason, due), (EDGE, BestEffort, Some(1_140)), "no place at all would be worse");
    assert_eq!(snapshot.replanned(1_140).0, CLOUD);
    let int8 = Variant { name: "int8".into(), flops: 80_000_000, ..f32() };
    let predicted = plan_site(&at_edge(model("digits").variants(std::slice::from_ref(&int8)).tier(TierChoice::Edge)));
    assert_eq!(predicted.placement("digits").reason, ChosenAtEdge, "alone it would fit");
    let both = model("digits").variants(&[f32(), int8]);
    let (place, ..) = at_edge(both).history(History { left: None, ..missed }).replanned(1_000);
    assert_eq!(place, CLOUD);
}

/// Once it had no place, what its clients had waited would be forgotten: it would come again, and the other go.
#[test]
fn who_misses_its_budget_makes_no_room_for_who_would_miss_it_too() {
    let left = Some(Left { tier: Tier::Cloud, node: None, variant: "f32".into() });
    let missed =
        History { since: 900, left, missed_since: Some(900), measured_p99_us: Some(26_000), better_since: None };
    let late = |name: &str| model(name).budget_ms(1).tier(TierChoice::Edge).memory(2_000);
    let scene = |other: Model| at_edge(model("digits").memory(1_900)).history(missed.clone()).model(other);
    let (place, reason, _, snapshot) = scene(late("late")).replanned(1_000);
    assert_eq!((place.as_str(), reason), (EDGE, BestEffort));
    assert_eq!(plan_site(&snapshot).unplaced[0].reason, NoCapacity);
    // The more important one comes first, though it is late.
    let plan = plan_site(&scene(Model { priority: 1, ..late("late") }));
    assert_eq!((plan.place("late").as_str(), plan.unplaced[0].model.name.as_str()), (EDGE, "digits"));
}

#[test]
fn predictions_are_corrected_by_what_others_measured_but_no_home_is_given_up_for_it() {
    let mut ratios = Ratios::default();
    let class = speed(50).class;
    ratios.put(RatioKey { class, variant: "f32".into(), tier: Tier::Cloud }, 1_000);
    let corrected = |mut snapshot: Snapshot, percent: &Ratios| {
        snapshot.ratios = Arc::new(percent.clone());
        plan_site(&snapshot)
    };
    // 11 ms as predicted, twice that as measured elsewhere; the budget is 20 ms.
    let plan = corrected(site_b().model(model("digits").budget_ms(20)), &ratios);
    assert_eq!(plan.place("digits"), EDGE);
    let rejected = &plan.placement("digits").rejected[0];
    assert!(rejected.reason == OverBudget && rejected.message.contains(" ×2 as measured"), "{rejected:?}");
    assert_eq!(corrected(in_cloud(model("digits").budget_ms(20)), &ratios).place("digits"), CLOUD);
}

#[test]
fn what_clients_of_a_home_wait_is_told_over_its_prediction() {
    let told = |us| {
        let history = History { measured_p99_us: Some(us), ..History::default() };
        plan_site(&in_cloud(model("digits")).history(history)).placement("digits").ratio.clone().unwrap()
    };
    let key = RatioKey { class: speed(50).class, variant: "f32".into(), tier: Tier::Cloud };
    assert_eq!(told(1), RatioSample { key: key.clone(), percent: 50 });
    assert_eq!(told(25_000_000), RatioSample { key, percent: 200 });
}

/// A model without any place needs the room of one that has another.
#[test]
fn a_home_gives_way_only_to_who_would_have_no_place() {
    let nodes = || site("site-b", [node("site-b-1").memory(100)]).linked(6_000, 7_000);
    let busy = || model("busy").memory(50).rate(50);
    let calm = |mut snapshot: Snapshot| {
        snapshot.stability = Stability { now: 1_000, settle_seconds: 60, ..Stability::default() };
        plan_site(&snapshot.home("busy", Tier::Edge, Some("site-b-1")).model(busy()))
    };
    let bound = calm(nodes().model(model("bound").memory(10).tier(TierChoice::Edge)));
    assert_eq!((bound.place("bound").as_str(), bound.place("busy").as_str()), (EDGE, CLOUD));
    let free = calm(nodes().model(model("free").memory(10).rate(500)));
    assert_eq!((free.place("free").as_str(), free.place("busy").as_str()), (CLOUD, EDGE));
}

/// What others tell shortens no link: it is this site's own.
#[test]
fn a_link_that_alone_is_too_slow_stays_so_however_fast_others_are_served() {
    let mut snapshot = site_a().model(model("digits").variants(&[f32()]));
    let mut ratios = Ratios::default();
    ratios.put(RatioKey { class: speed(50).class, variant: "f32".into(), tier: Tier::Cloud }, 50);
    snapshot.ratios = Arc::new(ratios);
    let plan = plan_site(&snapshot);
    assert_eq!(reasons(&plan.placement("digits").rejected), [(CLOUD, LinkTooSlow)]);
}

/// Moves of one model, with the seconds at which they were decided, while a link is now slow and now fast.
fn moves(stays: &[(bool, i64)], wait: i64) -> Vec<(i64, String)> {
    let mut snapshot = at_edge(model("digits"));
    let mut moves = Vec::new();
    for (slow, seconds) in stays {
        let until = snapshot.stability.now + seconds;
        while snapshot.stability.now < until {
            let now = snapshot.stability.now + wait;
            let linked = if *slow { snapshot.linked(39_000, 40_000) } else { snapshot.linked(6_000, 7_000) }.at(now);
            let plan = plan_site(&linked);
            if plan.placement("digits").moves.is_some() {
                moves.push((now, plan.place("digits")));
            }
            snapshot = linked.applied(&plan);
        }
    }
    moves
}

#[test]
fn a_gain_that_comes_and_goes_moves_nothing() {
    let stays: Vec<_> = (0..100).map(|turn| (turn % 2 == 0, 50)).collect();
    assert_eq!(moves(&stays, 10), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The cloud is cheaper while the link is fast, and impossible while it is slow.
    #[test]
    fn no_link_makes_a_model_flap(stays in vec((any::<bool>(), 1..400_i64), 1..30), wait in 1..30_i64) {
        let moves = moves(&stays, wait);
        let mut edge_since = None;
        for (now, place) in &moves {
            if place == EDGE {
                edge_since = Some(*now);
            } else if let Some(since) = edge_since {
                prop_assert!(now - since >= 240, "back to the cloud too soon: {moves:?}");
            }
        }
        // Back and forth at most once in four times settle, and never there before settle.
        prop_assert!(moves.windows(3).all(|three| three[2].0 - three[0].0 >= 240), "{moves:?}");
        prop_assert!(moves.first().is_none_or(|(now, _)| *now >= 1_060));
    }
}
