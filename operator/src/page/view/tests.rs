use super::*;
use crate::observe::{ByKey, key};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn put<K: DeserializeOwned + ResourceExt>(all: &mut ByKey<K>, value: Value) {
    let object: K = serde_json::from_value(value).unwrap();
    all.insert(key(&object), Arc::new(object));
}

fn said(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn scene() -> World {
    let mut world = World::default();
    put(
        &mut world.fleets,
        json!({"metadata": {"name": "shops"}, "spec": {"sites": {"nodeSelector": {"matchLabels": {"tier": "edge"}}, "siteLabel": "zone"},
            "cloud": {"nodeSelector": {"matchLabels": {"tier": "cloud"}}}}}),
    );
    for (name, labels) in [("gw-a", json!({"tier": "edge", "zone": "a"})), ("cloud-1", json!({"tier": "cloud"}))] {
        let conditions = json!([{"type": "Ready", "status": "True"}]);
        put(
            &mut world.nodes,
            json!({"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}}),
        );
    }
    put(
        &mut world.edge_nodes,
        json!({"metadata": {"name": "gw-a"}, "spec": {}, "status": {"hardware": {"class": "amd64-avx2-2",
            "architecture": "amd64", "gflops": 30, "cpuModel": "x", "cores": 2, "memory": "4Gi"}}}),
    );
    put(
        &mut world.sites,
        json!({"metadata": {"name": "a"}, "spec": {"fleetRef": {"name": "shops"}}, "status": {
            "link": {"roundTrip": {"p50": "40ms", "p99": "46ms", "samples": 500, "basis": "Measured"}, "uplink": "10M", "uplinkBasis": "Assumed"},
            "conditions": [said("Connected", "True", "Connected", "1 of 1 nodes Ready")]}}),
    );
    world
}

fn placed(world: &mut World, model: &str, conditions: &Value) {
    put(
        &mut world.placements,
        json!({"metadata": {"name": format!("{model}-1"), "namespace": "vision", "resourceVersion": "7"},
            "spec": {"modelRef": {"name": model}, "siteRef": {"name": "a"}, "versionRef": {"name": "v"}},
            "status": {"decision": {"tier": "Edge", "nodes": ["gw-a"], "variant": "int8", "replicas": 1, "reason": "ChosenAtEdge", "since": "2026-01-01T00:00:00Z"},
                "budget": "25ms", "observed": {"p50": "2ms", "p99": "4200us", "count": 900, "errors": 0, "rps": "3"},
                "conditions": conditions}}),
    );
}

fn site(world: &World) -> Value {
    serde_json::from_str(&view(world).sites["a"]).unwrap()
}

#[test]
fn a_site_is_shown_with_its_link_its_nodes_and_what_runs_there() {
    let mut world = scene();
    placed(
        &mut world,
        "digits",
        &json!([said("Ready", "True", "Ready", ""), said("Placed", "True", "ChosenAtEdge", "near")]),
    );
    assert_eq!(
        site(&world),
        json!({"name": "a", "fleet": "shops", "connected": true, "silence": null, "paused": false, "cloudOnly": false,
            "roundTrip": {"p50Us": 40_000, "p99Us": 46_000, "basis": "Measured"},
            "uplinkBits": 10_000_000, "uplinkBasis": "Assumed",
            "nodes": [{"name": "gw-a", "ready": true, "class": "amd64-avx2-2"}],
            "placements": [{"key": "vision/digits-1", "revision": "7", "model": "vision/digits", "state": "fine",
                "tier": "Edge", "node": "gw-a", "variant": "int8", "budgetUs": 25_000, "predictedUs": null, "basis": null,
                "observedUs": 4_200, "reason": "ChosenAtEdge", "message": "near"}]})
    );
}

#[test]
fn the_head_counts_cloud_nodes_and_says_what_ails_a_model() {
    let mut world = scene();
    put(
        &mut world.models,
        json!({"metadata": {"name": "digits", "namespace": "vision"},
            "spec": {"fleetRef": {"name": "shops"}, "model": {"uri": "oci://r/m:1"}, "latencyBudget": "25ms", "accuracyFloor": "97%"},
            "status": {"conditions": [said("Ready", "False", "RegistryUnreachable", "no route to r")]}}),
    );
    let head: Value = serde_json::from_str(&view(&world).head).unwrap();
    assert_eq!(head["fleets"], json!([{"name": "shops", "cloudNodes": 1, "trouble": null}]));
    assert_eq!(
        head["models"],
        json!([{"name": "vision/digits", "fleet": "shops", "version": null, "budgetUs": 25_000, "floor": "97%",
            "suspended": false, "sites": null, "trouble": {"reason": "RegistryUnreachable", "message": "no route to r"}}])
    );
}

#[test]
fn conditions_become_one_state_and_the_reason_that_one_would_ask_for() {
    let check = |conditions: Value, expected: (&str, &str)| {
        let mut world = scene();
        placed(&mut world, "digits", &conditions);
        let site = site(&world);
        let placement = &site["placements"][0];
        assert_eq!((placement["state"].as_str().unwrap(), placement["message"].as_str().unwrap()), expected);
    };
    let placed = said("Placed", "True", "ChosenAtEdge", "near");
    let ready = said("Ready", "True", "Ready", "");
    check(json!([ready, placed]), ("fine", "near"));
    check(json!([ready, placed, said("WithinBudget", "Unknown", "TooFewSamples", "few")]), ("fine", "near"));
    check(
        json!([ready, placed, said("WithinBudget", "False", "OverBudget", "31 ms of 25 ms")]),
        ("over", "31 ms of 25 ms"),
    );
    check(json!([ready, said("Placed", "True", "BestEffort", "the fastest")]), ("over", "the fastest"));
    check(json!([said("Ready", "False", "Fetching", "12 of 40 MB"), placed]), ("coming", "12 of 40 MB"));
    check(json!([said("Ready", "False", "CrashLooping", "exit 1"), placed]), ("down", "exit 1"));
    check(json!([said("Ready", "False", "NoCapacity", "full")]), ("down", "full"));
    check(json!([said("Ready", "Unknown", "NoContact", "silent"), placed]), ("silent", "silent"));
    check(json!([]), ("coming", "nothing is decided yet"));
}

#[test]
fn the_worst_placements_of_a_site_come_first() {
    let mut world = scene();
    let ready = |truth: &str, reason: &str| json!([said("Ready", truth, reason, "")]);
    placed(&mut world, "a-fine", &ready("True", "Ready"));
    placed(&mut world, "b-fine", &ready("True", "Ready"));
    placed(&mut world, "c-down", &ready("False", "NoCapacity"));
    let site = site(&world);
    let order: Vec<_> = site["placements"].as_array().unwrap().iter().map(|shown| shown["model"].clone()).collect();
    assert_eq!(order, ["vision/c-down", "vision/a-fine", "vision/b-fine"]);
}

#[test]
fn a_site_without_contact_says_so_though_its_fleet_is_gone() {
    let mut world = scene();
    world.fleets.clear();
    put(
        &mut world.sites,
        json!({"metadata": {"name": "a"}, "spec": {"fleetRef": {"name": "shops"}, "paused": true, "serve": "CloudOnly"},
            "status": {"conditions": [said("Connected", "False", "NoContact", "no node of a is Ready")]}}),
    );
    let site = site(&world);
    assert_eq!(site["silence"], "no node of a is Ready");
    assert_eq!([&site["connected"], &site["paused"], &site["cloudOnly"]], [false, true, true]);
    assert_eq!(site["nodes"], json!([]));
}
