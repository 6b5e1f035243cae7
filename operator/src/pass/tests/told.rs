//! What is told, and when: of many places at once, and as events.

use super::*;
use crate::pass::news;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sconce_api::EdgeModel;

/// Names of placements whose status is written.
fn told(steps: &Steps) -> Vec<&str> {
    let placements = steps.statuses.iter().filter_map(|write| match write {
        Write::Status { object, .. } if object.kind == Kind::EdgePlacement => Some(object.name.as_str()),
        _ => None,
    });
    placements.collect()
}

/// So many sites more than the one of the scene, where a place was made, and nothing was told of it. Returns their names, from shop-10.
fn made(count: usize) -> (World, Vec<String>) {
    let mut world = scene("25ms");
    let sites: Vec<_> = (10..10 + count).map(|shop| format!("shop-{shop}")).collect();
    for site in &sites {
        node(&mut world, &format!("{site}-1"), json!({"tier": "edge", "zone": site}), true);
    }
    while world.placements.len() <= count {
        let steps = run(&world);
        world = carried_out(world, &steps);
    }
    (world, sites)
}

/// Of ten thousand places that were made at once each was told to be under way, and soon after to serve.
#[test]
fn of_many_places_under_way_a_few_are_told_of_at_a_time() {
    let (mut world, sites) = made(40);
    let steps = run(&world);
    assert_eq!((told(&steps).len(), steps.look_at), (32, Some(Timestamp::from_second(1_005).unwrap())));
    let untold = sites.iter().map(|site| names::placement("digits", site));
    let untold: Vec<_> = untold.filter(|name| !told(&steps).contains(&name.as_str())).collect();
    world = carried_out(world, &steps);
    // One answers before it was its turn, and one fails.
    pod(&mut world, &untold[0], "10.0.0.1", "shop-42-1");
    let refused = Refusal { reason: Reason::Starting, message: "exceeded quota".into() };
    let refusals = Refusals::from([((Kind::Deployment, ("vision".to_owned(), untold[1].clone())), refused)]);
    let steps = run_refused(&world, &refusals);
    let mut all = told(&steps);
    all.sort_unstable();
    assert!(all.iter().eq(untold.iter().collect::<std::collections::BTreeSet<_>>()), "{all:?} of {untold:?}");
    world = carried_out(world, &steps);
    assert_eq!(told(&run_refused(&world, &refusals)), Vec::<&str>::new(), "each was told once");
}

#[test]
fn what_fails_waits_for_no_turn() {
    let (world, _) = made(50);
    let last = names::placement("digits", "shop-59");
    let refused = Refusal { reason: Reason::Starting, message: "exceeded quota".into() };
    let refusals = Refusals::from([((Kind::Deployment, ("vision".to_owned(), last.clone())), refused)]);
    let steps = run_refused(&world, &refusals);
    assert_eq!((told(&steps).len(), told(&steps).contains(&last.as_str())), (33, true));
}

#[test]
fn what_is_well_from_the_start_is_no_news() {
    let model: EdgeModel = serde_json::from_value(json!({"metadata": {"name": "digits"},
        "spec": {"fleetRef": {"name": "shops"}, "model": {"uri": URI}, "latencyBudget": "25ms"}}))
    .unwrap();
    let is = |status: &str, reason: &str| {
        vec![Condition {
            type_: "Placed".into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }]
    };
    let told = |old: &[Condition], new: &[Condition]| news(&model, &["Placed"], old, new).len();
    assert_eq!(told(&[], &is("True", "ChosenAtEdge")), 0);
    assert_eq!(told(&[], &is("False", "InsufficientMemory")), 1);
    assert_eq!(told(&is("False", "InsufficientMemory"), &is("True", "ChosenAtEdge")), 1);
    assert_eq!(told(&is("True", "ChosenInCloud"), &is("True", "ChosenAtEdge")), 1);
    assert_eq!(told(&is("True", "ChosenAtEdge"), &is("True", "ChosenAtEdge")), 0);
}
