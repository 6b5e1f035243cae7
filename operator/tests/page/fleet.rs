//! Fleets as the stores would show them.

use kube::ResourceExt;
use sconce_operator::observe::{ByKey, World, key};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn put<K: DeserializeOwned + ResourceExt>(all: &mut ByKey<K>, value: Value) {
    let object: K = serde_json::from_value(value).unwrap();
    all.insert(key(&object), Arc::new(object));
}

fn said(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-05T09:30:00Z"})
}

pub fn fleet(world: &mut World, name: &str) {
    let labels = |tier: &str| json!({"matchLabels": {"fleet": name, "tier": tier}});
    put(
        &mut world.fleets,
        json!({"metadata": {"name": name}, "spec": {"sites": {"nodeSelector": labels("edge"), "siteLabel": "zone"}, "cloud": {"nodeSelector": labels("cloud")}},
            "status": {"conditions": [said("Ready", "True", "Ready", "")]}}),
    );
    node(world, &format!("{name}-cloud-1"), json!({"fleet": name, "tier": "cloud"}), true);
}

fn node(world: &mut World, name: &str, labels: Value, ready: bool) {
    let conditions = json!([{"type": "Ready", "status": if ready { "True" } else { "Unknown" }}]);
    put(&mut world.nodes, json!({"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}}));
    put(
        &mut world.edge_nodes,
        json!({"metadata": {"name": name}, "spec": {}, "status": {"hardware": {"class": "arm64-asimddp-4", "architecture": "arm64",
            "gflops": 12, "cpuModel": "Cortex-A76", "cores": 4, "memory": "8Gi"}}}),
    );
}

/// A site of one node; `round_trip_ms` is its link's median.
pub fn site(world: &mut World, fleet: &str, name: &str, round_trip_ms: usize, connected: bool) {
    let contact = if connected {
        said("Connected", "True", "Connected", "1 of 1 nodes Ready")
    } else {
        said("Connected", "False", "NoContact", &format!("no node of {name} has been Ready since 09:30"))
    };
    let (p50, p99) = (format!("{round_trip_ms}ms"), format!("{}ms", round_trip_ms * 6 / 5 + 1));
    put(
        &mut world.sites,
        json!({"metadata": {"name": name}, "spec": {"fleetRef": {"name": fleet}}, "status": {
            "link": {"roundTrip": {"p50": p50, "p99": p99, "samples": 5800, "basis": "Measured"}, "uplink": "20M", "uplinkBasis": "Assumed"},
            "conditions": [contact]}}),
    );
    node(world, &format!("{name}-gw"), json!({"fleet": fleet, "tier": "edge", "zone": name}), connected);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Fine,
    InCloud,
    Over,
    Coming,
    #[cfg_attr(
        not(feature = "browser"),
        expect(dead_code, reason = "of the large fleet alone, which a browser looks at")
    )]
    Silent,
    Nowhere,
}

pub fn model(world: &mut World, fleet: &str, name: &str) {
    put(
        &mut world.models,
        json!({"metadata": {"name": name, "namespace": "vision"},
            "spec": {"fleetRef": {"name": fleet}, "model": {"uri": "oci://r/m:1"}, "latencyBudget": "25ms", "accuracyFloor": "97%"},
            "status": {"desired": {"version": format!("{name}-0123456789"), "digest": "sha256:0", "uri": "oci://r/m:1"},
                "sites": {"selected": 500, "serving": "487/500", "edge": 420, "cloud": 78, "unplaced": 2, "offline": 5},
                "conditions": [said("Ready", "True", "Ready", "")]}}),
    );
}

/// `waited_us` is the p99 of its clients.
pub fn placement(world: &mut World, site: &str, model: &str, how: How, waited_us: usize) {
    let p99 = match how {
        How::Over => waited_us + 25_000,
        _ => waited_us,
    };
    let (tier, nodes) = match how {
        How::InCloud => ("Cloud", json!([])),
        _ => ("Edge", json!([format!("{site}-gw")])),
    };
    let term =
        |us: usize, basis: &str| json!({"p50": format!("{}us", us / 2), "p99": format!("{us}us"), "basis": basis});
    let predicted = json!({"link": term(500, "Measured"), "transfer": term(120, "Assumed"), "queue": term(p99 / 5, "Estimated"),
        "compute": term(p99 / 2, "Estimated"), "p99": format!("{}us", p99 * 4 / 5), "bound": format!("{p99}us"), "basis": "Assumed"});
    let decision = json!({"tier": tier, "nodes": nodes, "variant": "int8", "replicas": 1, "reason": "ChosenAtEdge", "since": "2026-01-05T09:30:00Z"});
    let observed =
        json!({"p50": format!("{}us", p99 / 3), "p99": format!("{p99}us"), "count": 6600, "errors": 3, "rps": "22"});
    let rejected = json!([
        {"candidate": format!("edge/f32 on {site}-gw"), "reason": "Costlier", "message": "36 points/h against 23 points/h"},
        {"candidate": "cloud/int8", "reason": "LinkTooSlow", "message": "the round trip alone takes 46 ms of the 25 ms budget"}]);
    let placed =
        said("Placed", "True", "ChosenAtEdge", "edge/int8 costs 23 points/h, the least of those that keep 25 ms");
    let mut status = json!({"decision": decision, "budget": "25ms", "predicted": predicted, "observed": observed, "cost": "23", "rejected": rejected});
    status["conditions"] = match how {
        How::Fine | How::InCloud => json!([
            said("Ready", "True", "Ready", ""),
            placed,
            said("WithinBudget", "True", "Within", "clients waited less")
        ]),
        How::Over => json!([
            said("Ready", "True", "Ready", ""),
            placed,
            said(
                "WithinBudget",
                "False",
                "OverBudget",
                "clients of the site waited longer than 25 ms (p99, 6,600 answers)"
            )
        ]),
        How::Coming => json!([said("Ready", "False", "Fetching", "fetching 12 of 40 MB"), placed]),
        How::Silent => {
            json!([said("Ready", "Unknown", "NoContact", "no node of the site is Ready; it may well serve on"), placed])
        }
        How::Nowhere => json!([said(
            "Ready",
            "False",
            "NoCapacity",
            "every place that would pass is taken by models of higher priority"
        )]),
    };
    if how == How::Nowhere {
        status["decision"] = Value::Null;
        status["predicted"] = Value::Null;
    }
    if matches!(how, How::Nowhere | How::Coming) {
        status["observed"] = Value::Null;
    }
    put(
        &mut world.placements,
        json!({"metadata": {"name": format!("{model}-{site}"), "namespace": "vision", "resourceVersion": "1"},
            "spec": {"modelRef": {"name": model}, "siteRef": {"name": site}, "versionRef": {"name": format!("{model}-0123456789")}},
            "status": status}),
    );
}

/// Two sites of three models: what a first fleet looks like.
pub fn small() -> World {
    let mut world = World::default();
    fleet(&mut world, "shops");
    for name in ["digits", "faces", "anomaly"] {
        model(&mut world, "shops", name);
    }
    site(&mut world, "shops", "site-a", 40, true);
    site(&mut world, "shops", "site-b", 6, true);
    for (name, how, us) in [("digits", How::Fine, 3_100), ("faces", How::Over, 6_000), ("anomaly", How::Fine, 11_000)] {
        placement(&mut world, "site-a", name, how, us);
    }
    for (name, how, us) in
        [("digits", How::InCloud, 14_000), ("faces", How::InCloud, 17_500), ("anomaly", How::Coming, 8_000)]
    {
        placement(&mut world, "site-b", name, how, us);
    }
    world
}
