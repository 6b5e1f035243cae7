//! What nodes measure: it becomes their class's, and decides with its own name.

use super::*;
use sconce_api::{Basis, ClassProfile, EdgePlacementStatus};

/// The node's agent tells what a call to its router takes, and how long the variant does.
fn measures(world: &mut World, name: &str, p50: &str, p99: &str) {
    let at = (String::new(), name.to_owned());
    let mut node = serde_json::to_value(world.edge_nodes[&at].as_ref()).unwrap();
    node["status"]["localRoundTrip"] = json!({"p50": "200us", "p99": "400us", "samples": 500, "basis": "Measured"});
    node["status"]["profiles"] = json!([{"digest": DIGEST, "variant": "f32", "threads": 1,
        "batches": [{"size": 1, "p50": p50, "p99": p99, "samples": 90}]}]);
    put(&mut world.edge_nodes, node);
}

fn placed(world: &World) -> EdgePlacementStatus {
    world.placements[&("vision".to_owned(), edge())].status.clone().unwrap()
}

fn of_class(world: &World) -> Vec<ClassProfile> {
    world.versions.values().next().unwrap().status.clone().unwrap().profiles
}

#[test]
fn a_placement_is_measured_once_its_node_has_measured_it() {
    let mut world = settled(scene("25ms"));
    assert_eq!(placed(&world).predicted.unwrap().basis, Basis::Estimated);
    measures(&mut world, "a-1", "410us", "600us");
    let world = settled(world);
    let predicted = placed(&world).predicted.unwrap();
    assert_eq!((predicted.basis, predicted.compute.p99), (Basis::Measured, "600us".into()));
    assert_eq!((predicted.link.basis, predicted.link.p99), (Basis::Measured, "400us".into()));
    assert_eq!(of_class(&world), [], "one node is no class");
}

#[test]
fn three_nodes_speak_for_their_class_and_a_liar_speaks_for_itself() {
    let mut world = scene("25ms");
    // Nodes of no site, of the same class.
    for name in ["b-1", "c-1"] {
        node(&mut world, name, json!({}), true);
        measures(&mut world, name, "410us", "600us");
    }
    // A hundred times too fast: 1.7 MFLOP in 4 µs is no work of a core of 30 GFLOP/s.
    measures(&mut world, "cloud-1", "4us", "6us");
    let world = settled(world);
    let profile = &of_class(&world)[0];
    assert_eq!((profile.class.as_str(), profile.nodes, profile.basis), ("amd64-avx2-2", 3, Basis::Measured));
    assert_eq!((&profile.batches[0].p50, &profile.batches[0].p99), (&"410us".into(), &"600us".into()));
    // The site's node has measured nothing itself.
    let predicted = placed(&world).predicted.unwrap();
    assert_eq!((predicted.compute.basis, predicted.compute.p99), (Basis::Measured, "600us".into()));

    // At home the liar is not believed, and its class is.
    let mut world = world;
    measures(&mut world, "a-1", "4us", "6us");
    let predicted = placed(&settled(world)).predicted.unwrap();
    assert_eq!(predicted.compute.p99, "600us".into());
}

#[test]
fn others_that_keep_the_node_busy_slow_it() {
    let mut world = settled(scene("25ms"));
    measures(&mut world, "a-1", "410us", "600us");
    let at = (String::new(), "a-1".to_owned());
    let mut node = serde_json::to_value(world.edge_nodes[&at].as_ref()).unwrap();
    node["status"]["usage"] = json!({"cpuBusyP95": "2", "memoryUsed": "1Gi"});
    put(&mut world.edge_nodes, node);
    let predicted = placed(&settled(world)).predicted.unwrap();
    assert_eq!(predicted.compute.p99, "900us".into(), "two busy cores and one of ours share two");
}

#[test]
fn a_priority_class_gives_the_model_its_rank_and_its_pods() {
    let mut world = scene("25ms");
    put(&mut world.priority_classes, json!({"metadata": {"name": "fraud"}, "value": 1000}));
    put(&mut world.priority_classes, json!({"metadata": {"name": "usual"}, "value": 5, "globalDefault": true}));
    let priority = |world: &World| world.priority_of(world.models.values().next().unwrap());
    assert_eq!(priority(&world), 5);
    change(&mut world, |model| model["spec"]["priorityClassName"] = json!("fraud"));
    assert_eq!(priority(&world), 1000);
    let world = settled(world);
    assert!(edge_has(&world, &json!({"spec": {"template": {"spec": {"priorityClassName": "fraud"}}}})));
    let mut without = world;
    without.priority_classes.clear();
    assert_eq!(priority(&without), 0, "one that is not there");
}
