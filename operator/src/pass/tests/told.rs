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

/// Forty sites, shop-10 and on, where a place was made a second ago, and nothing was told of it.
fn made() -> World {
    let mut world = scene("25ms");
    for shop in 10..50 {
        node(&mut world, &format!("shop-{shop}-1"), json!({"tier": "edge", "zone": format!("shop-{shop}")}), true);
    }
    while world.placements.len() <= 40 {
        let steps = run(&world);
        world = carried_out(world, &steps);
    }
    for placement in world.placements.values_mut() {
        let made = Timestamp::from_second(world.now.as_second() - 1).unwrap();
        Arc::make_mut(placement).metadata.creation_timestamp = Some(Time(made));
    }
    world
}

fn later(mut world: World, seconds: i64) -> World {
    world.now = Timestamp::from_second(world.now.as_second() + seconds).unwrap();
    world
}

fn at(shop: &str) -> String {
    names::placement("digits", shop)
}

/// Of ten thousand places that were made at once each was told to be under way, and soon after to serve.
#[test]
fn of_many_places_under_way_it_is_told_later() {
    let mut world = made();
    // Forty wait five seconds, from when they were made.
    let steps = run(&world);
    assert_eq!((told(&steps), steps.look_at), (vec![], Some(Timestamp::from_second(1_004).unwrap())));
    pod(&mut world, &at("shop-10"), "10.0.0.1", "shop-10-1");
    world = later(world, 2);
    let steps = run(&world);
    assert_eq!(told(&steps), [at("shop-10")], "one that answers waits no longer");
    // The others are fewer now, and wait four seconds.
    world = later(carried_out(world, &steps), 1);
    let steps = run(&world);
    assert_eq!(told(&steps).len(), 39);
    assert_eq!(told(&run(&carried_out(world, &steps))), Vec::<&str>::new());
}

#[test]
fn what_fails_is_told_at_once_and_so_is_all_when_clocks_differ() {
    let mut world = made();
    let refused = Refusal { reason: Reason::Starting, message: "exceeded quota".into() };
    let refusals = Refusals::from([((Kind::Deployment, ("vision".to_owned(), at("shop-49"))), refused)]);
    assert_eq!(told(&run_refused(&world, &refusals)), [at("shop-49")]);
    // The API server's clock is ahead.
    world = later(world, -2);
    assert_eq!(told(&run(&world)).len(), 40);
}

#[test]
fn of_a_few_places_under_way_it_is_told_at_once() {
    let mut world = scene("25ms");
    while world.placements.is_empty() {
        let steps = run(&world);
        world = carried_out(world, &steps);
    }
    let made = Time(world.now);
    world.placements.values_mut().for_each(|live| Arc::make_mut(live).metadata.creation_timestamp = Some(made.clone()));
    assert_eq!(told(&run(&world)), [edge()]);
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
