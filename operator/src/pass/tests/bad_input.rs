//! What machines and people write that cannot be, or should not: it is said with a reason, and the rest of the fleet stays.

use super::*;
use crate::observe::survey;
use crate::pass::plans;
use sconce_api::{Basis, EdgeFleetStatus, condition};

fn fleet(world: &World, name: &str) -> EdgeFleetStatus {
    world.fleets[&(String::new(), name.to_owned())].status.clone().unwrap()
}

fn said(status: &EdgeFleetStatus, kind: &str) -> String {
    let found = condition(&status.conditions, kind);
    found.map_or_else(String::new, |found| format!("{}: {}", found.reason, found.message))
}

fn is_at_rest(world: &World) -> bool {
    let steps = run(world);
    steps.objects.is_empty() && steps.statuses.is_empty() && steps.farewells.is_empty()
}

fn edge_node(world: &mut World, name: &str, change: impl FnOnce(&mut Value)) {
    let at = (String::new(), name.to_owned());
    let mut value = serde_json::to_value(world.edge_nodes[&at].as_ref()).unwrap();
    change(&mut value);
    put(&mut world.edge_nodes, value);
}

#[test]
fn a_node_in_two_fleets_is_the_older_ones_and_the_younger_says_so() {
    let mut world = settled(scene("25ms"));
    let before = plans(&world).unwrap();
    put(
        &mut world.fleets,
        json!({"metadata": {"name": "copied", "generation": 1, "creationTimestamp": "2026-11-28T10:00:00Z"}, "spec": {
        "sites": {"nodeSelector": {"matchLabels": {"tier": "edge"}}, "siteLabel": "zone"}}}),
    );
    let older = world.fleets.get_mut(&(String::new(), "shops".to_owned())).unwrap();
    let long_ago = serde_json::from_value(json!("2026-11-27T10:00:00Z")).unwrap();
    Arc::make_mut(older).metadata.creation_timestamp = Some(long_ago);
    world = settled(world);
    let told = "NodeInTwoFleets: a-1 belong to an older fleet; make the selectors disjoint";
    assert_eq!(["Ready", "Stalled"].map(|kind| said(&fleet(&world, "copied"), kind)), [told, told]);
    assert_eq!(said(&fleet(&world, "shops"), "Ready"), "Ready: 1 sites, 0 of them offline");
    assert_eq!(plans(&world).unwrap(), before);
}

/// No link takes no time: it counts as not measured, and draws nothing to the cloud.
#[test]
fn a_link_of_no_time_is_not_believed() {
    let mut world = settled(scene("25ms"));
    let link = json!({"roundTrip": {"p50": "0us", "p99": "0us", "samples": 5760, "basis": "Measured"}});
    edge_node(&mut world, "a-1", |node| node["status"]["link"] = link);
    world = settled(world);
    let site = world.sites[&(String::new(), "site-a".to_owned())].status.clone().unwrap();
    let told = site.link.unwrap().round_trip;
    assert_eq!((told.basis, told.p50.to_string().as_str(), told.samples), (Basis::Assumed, "40ms", 0));
    assert_eq!(stands(&world, "Placed"), "True/ChosenAtEdge");
}

/// A leader whose clock is ten minutes behind that of the one before it, or ahead.
#[test]
fn a_clock_that_is_ten_minutes_off_moves_nothing_and_holds_up_nobody() {
    let mut world = scene("25ms");
    node(&mut world, "a-2", json!({"tier": "edge", "zone": "site-a"}), true);
    world = settled(world);
    for now in [400, 1_600] {
        let mut off = World { now: Timestamp::from_second(now).unwrap(), ..world.clone() };
        assert!(is_at_rest(&off), "at {now}");
        // What can serve no longer is left at once, whatever the time.
        let home = off.placements[&("vision".to_owned(), edge())].status.clone().unwrap().decision.unwrap().nodes;
        let node = off.nodes.get_mut(&(String::new(), home[0].clone())).unwrap();
        Arc::make_mut(node).spec.get_or_insert_default().unschedulable = Some(true);
        off = settled(off);
        let decision = off.placements[&("vision".to_owned(), edge())].status.clone().unwrap().decision.unwrap();
        assert_ne!(decision.nodes, home);
        assert_eq!(decision.since.0.as_second(), now);
    }
}

/// Labels are no DNS names, and some become the same name: each is a site of its own, and stays it.
#[test]
fn label_values_that_are_no_names_are_sites_of_their_own() {
    let mut world = scene("25ms");
    for (index, value) in ["Shop_1", "shop-1", "SHOP_1", "_", &"z".repeat(63)].into_iter().enumerate() {
        node(&mut world, &format!("b-{index}"), json!({"tier": "edge", "zone": value}), true);
    }
    world = settled(world);
    let keys = |world: &World| -> Vec<(String, String)> {
        let view = survey(world).remove(0);
        view.sites.into_iter().map(|(name, site)| (name, site.key)).collect()
    };
    let sites = keys(&world);
    assert_eq!(sites.len(), 6);
    assert!(sites.iter().all(|(name, key)| names::site(name) == *name && !key.is_empty()), "{sites:?}");
    assert_eq!(world.placements.len(), 6);
    assert!(is_at_rest(&world));
}

#[test]
fn a_node_of_ten_thousand_labels_is_a_node_like_others() {
    let mut world = settled(scene("25ms"));
    let before = plans(&world).unwrap();
    let node = Arc::make_mut(world.nodes.get_mut(&(String::new(), "a-1".to_owned())).unwrap());
    node.metadata.labels.get_or_insert_default().extend((0..10_000).map(|n| (format!("l-{n}"), "x".repeat(63))));
    assert_eq!(plans(&world).unwrap(), before);
    assert!(is_at_rest(&world));
}

/// Objects that an older schema let in and that cannot be read are left out of the stores. What was made for them stays.
#[test]
fn what_cannot_be_read_loses_nothing() {
    let world = settled(scene("25ms"));
    let without = |forget: fn(&mut World)| {
        let mut world = world.clone();
        forget(&mut world);
        let steps = run(&world);
        assert!(steps.farewells.is_empty(), "{:#?}", steps.farewells);
        steps
    };
    without(|world| world.models.clear());
    without(|world| world.fleets.clear());
    without(|world| world.versions.clear());
    without(|world| world.sites.clear());
    // The decision is told by the Deployment, and made again.
    let steps = without(|world| world.placements.clear());
    assert!(!steps.objects.is_empty());
}
