//! Scenes: a world as the stores show it, and what one pass writes.

mod bad_input;
mod calm;
mod data;
mod held;
mod measured;
mod scenes;
mod secret;
mod told;
mod training;

use super::{Input, Steps, pass};
use crate::apply::{Refusal, Refusals, Write};
use crate::logs::Readings;
use crate::names;
use crate::observe::{ByKey, INSTANCE_LABEL, MODEL_POD, NAME_LABEL, World, key};
use crate::registry::Resolutions;
use crate::render::{Kind, Settings, whole};
use jiff::Timestamp;
use kube::ResourceExt;
use sconce_api::Reason;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const URI: &str = "oci://r:5000/m/digits:1";

fn put<K: DeserializeOwned + ResourceExt>(all: &mut ByKey<K>, value: Value) {
    let object: K = serde_json::from_value(value).unwrap();
    all.insert(key(&object), Arc::new(object));
}

fn node(world: &mut World, name: &str, labels: Value, ready: bool) {
    put(
        &mut world.nodes,
        json!({"metadata": {"name": name, "labels": labels}, "status": {
        "allocatable": {"cpu": "2", "memory": "4Gi"},
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "Unknown" }}]}}),
    );
    put(
        &mut world.edge_nodes,
        json!({"metadata": {"name": name, "uid": name}, "spec": {}, "status": {"hardware": {
        "class": "amd64-avx2-2", "architecture": "amd64", "gflops": 30, "cpuModel": "x", "cores": 2, "memory": "4Gi"}}}),
    );
}

/// One fleet with a cloud node and a registered site of one node; the model digits was resolved.
fn scene(budget: &str) -> World {
    let mut world = World { now: Timestamp::from_second(1000).unwrap(), ..World::default() };
    put(
        &mut world.fleets,
        json!({"metadata": {"name": "shops", "generation": 1}, "spec": {
        "sites": {"nodeSelector": {"matchLabels": {"tier": "edge"}}, "siteLabel": "zone"},
        "cloud": {"nodeSelector": {"matchLabels": {"tier": "cloud"}}}, "stability": {"settle": "0s"}}}),
    );
    node(&mut world, "cloud-1", json!({"tier": "cloud"}), true);
    node(&mut world, "a-1", json!({"tier": "edge", "zone": "site-a"}), true);
    put(
        &mut world.sites,
        json!({"metadata": {"name": "site-a", "generation": 1}, "spec": {"fleetRef": {"name": "shops"}}}),
    );
    put(
        &mut world.models,
        json!({"metadata": {"name": "digits", "namespace": "vision", "uid": "em", "generation": 1},
        "spec": {"fleetRef": {"name": "shops"}, "model": {"uri": URI}, "latencyBudget": budget},
        "status": {"desired": {"version": names::version("digits", DIGEST), "digest": DIGEST, "uri": URI}}}),
    );
    put(
        &mut world.versions,
        json!({"metadata": {"name": names::version("digits", DIGEST), "namespace": "vision", "generation": 1},
        "spec": {"modelRef": {"name": "digits"}, "uri": format!("oci://r:5000/m/digits@{DIGEST}"), "digest": DIGEST},
        "status": {"artifact": {"architecture": "dense", "inputs": [], "outputs": [], "requestBytes": 3236, "responseBytes": 140},
            "variants": [{"name": "f32", "bytes": 2_800_000, "memory": 9_000_000, "flops": 1_700_000}]}}),
    );
    world
}

fn run(world: &World) -> Steps {
    run_refused(world, &Refusals::new())
}

fn run_refused(world: &World, refusals: &Refusals) -> Steps {
    run_with(world, refusals, &Readings::new(), &Resolutions::new())
}

fn run_read(world: &World, readings: &Readings) -> Steps {
    run_with(world, &Refusals::new(), readings, &Resolutions::new())
}

fn run_asked(world: &World, resolutions: &Resolutions) -> Steps {
    run_with(world, &Refusals::new(), &Readings::new(), resolutions)
}

fn run_with(world: &World, refusals: &Refusals, readings: &Readings, resolutions: &Resolutions) -> Steps {
    let settings = Settings {
        image: "runtime:1".into(),
        trainer_image: "trainer:1".into(),
        pull_policy: "IfNotPresent".into(),
        store_port: None,
        insecure_registries: Vec::new(),
        trusted_keys: None,
    };
    let steps = pass(&Input {
        world,
        resolutions,
        readings,
        refusals,
        settings: &settings,
        drain: Duration::from_secs(10),
        clock: Instant::now(),
    });
    assert_eq!(steps.panics, Vec::<String>::new());
    steps
}

/// The world after the API server has done what `steps` ask for.
fn carried_out(mut world: World, steps: &Steps) -> World {
    let placed = |world: &mut World, kind: Kind, body: Value| match kind {
        Kind::EdgePlacement => put(&mut world.placements, body),
        Kind::Deployment => put(&mut world.deployments, body),
        Kind::Service => put(&mut world.services, body),
        Kind::PodDisruptionBudget => put(&mut world.disruption_budgets, body),
        Kind::EdgeSite => put(&mut world.sites, body),
        Kind::EdgeNode => put(&mut world.edge_nodes, body),
        Kind::EdgeModel => put(&mut world.models, body),
        Kind::EdgeModelVersion => put(&mut world.versions, body),
        Kind::EdgeFleet => put(&mut world.fleets, body),
        Kind::EdgeTraining => put(&mut world.trainings, body),
        Kind::Job => put(&mut world.jobs, body),
    };
    for write in &steps.objects {
        if let Write::Suspend { target, suspend } = write {
            let at = (target.namespace.clone(), target.name.clone());
            let mut live = world.jobs[&at].as_ref().clone();
            live.spec.get_or_insert_default().suspend = Some(*suspend);
            world.jobs.insert(at, Arc::new(live));
        }
        let (Write::Create(object) | Write::Apply { object, .. } | Write::Label(object)) = write else { continue };
        let at = (object.namespace.clone(), object.name.clone());
        let before = world.deployments.get(&at).filter(|_| object.kind == Kind::Deployment).cloned();
        let placed_before = world.placements.get(&at).filter(|_| object.kind == Kind::EdgePlacement).cloned();
        let mut live = whole(&world, object.kind, &at)
            .unwrap_or_else(|| json!({"metadata": {"generation": 1, "uid": object.name}}));
        if let Write::Label(_) = write {
            // All labels are ours here: those that we no longer say go.
            live["metadata"]["labels"] = json!({});
        }
        placed(&mut world, object.kind, merged(live, &object.body()));
        if let Some(before) = before {
            let now = world.deployments.get_mut(&at).map(Arc::make_mut).unwrap();
            (now.metadata, now.retire_at) = (before.metadata.clone(), before.retire_at.clone());
            (now.ready_replicas, now.refused) = (before.ready_replicas, before.refused.clone());
        }
        if let Some(before) = placed_before {
            let now = world.placements.get_mut(&at).map(Arc::make_mut).unwrap();
            (now.metadata, now.status) = (before.metadata.clone(), before.status.clone());
        }
    }
    for write in &steps.statuses {
        let Write::Status { object, .. } = write else { continue };
        let at = (object.namespace.clone(), object.name.clone());
        let status = object.body()["status"].take();
        if object.kind == Kind::EdgePlacement {
            let live = world.placements.get_mut(&at).map(Arc::make_mut).unwrap();
            live.status = serde_json::from_value(status).unwrap();
            continue;
        }
        let mut live = whole(&world, object.kind, &at).unwrap();
        live["status"] = status;
        placed(&mut world, object.kind, live);
    }
    for write in &steps.farewells {
        match write {
            Write::Retire { target, at } => {
                let mut live = world.deployments[&(target.namespace.clone(), target.name.clone())].as_ref().clone();
                live.retire_at = at.map(|at| at.to_string());
                world.deployments.insert(key(&live), Arc::new(live));
            }
            Write::Delete(target) => {
                let at = (target.namespace.clone(), target.name.clone());
                match target.kind {
                    Kind::Deployment => drop(world.deployments.remove(&at)),
                    Kind::Job => drop(world.jobs.remove(&at)),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    world
}

fn merged(mut live: Value, ours: &Value) -> Value {
    match (&mut live, ours) {
        (Value::Object(live), Value::Object(ours)) => {
            for (name, value) in ours {
                let before = live.remove(name).unwrap_or(Value::Null);
                live.insert(name.clone(), merged(before, value));
            }
        }
        (live, ours) => *live = ours.clone(),
    }
    live
}

fn settled(mut world: World) -> World {
    for _ in 0..6 {
        let steps = run(&world);
        if steps.objects.is_empty() && steps.statuses.is_empty() && steps.farewells.is_empty() {
            return world;
        }
        world = carried_out(world, &steps);
    }
    panic!("it never rests: {:#?}", run(&world));
}

/// What a Deployment's pods are known by.
fn pod_labels(world: &World, deployment: &str) -> Value {
    let live = &world.deployments[&("vision".to_owned(), deployment.to_owned())];
    json!({(sconce_api::labels::VERSION): live.version, (sconce_api::labels::VARIANT): live.variant, NAME_LABEL: MODEL_POD, INSTANCE_LABEL: deployment})
}

/// A Ready pod of the Deployment.
fn pod(world: &mut World, deployment: &str, ip: &str, node: &str) {
    let labels = pod_labels(world, deployment);
    let pod = json!({"metadata": {"name": ip, "namespace": "vision", "labels": labels}, "spec": {"nodeName": node, "containers": []},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]}});
    world.add_pod(Arc::new(serde_json::from_value(pod).unwrap()));
}

/// The pool of this version answers, at this address.
fn answers(world: &mut World, digest: &str, address: &str) -> String {
    let pool = names::pool("digits", digest, "f32");
    let at = ("vision".to_owned(), pool.clone());
    let mut live = world.deployments[&at].as_ref().clone();
    live.ready_replicas = 1;
    world.deployments.insert(at.clone(), Arc::new(live));
    let mut service = world.services[&at].as_ref().clone();
    service.spec.get_or_insert_default().cluster_ip = Some(address.into());
    world.services.insert(at, Arc::new(service));
    pool
}

fn pool_answers(world: &mut World) -> String {
    answers(world, DIGEST, "10.96.0.9")
}

const NEWER: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn change(world: &mut World, change: impl FnOnce(&mut Value)) {
    let mut model = serde_json::to_value(world.models.values().next().unwrap().as_ref()).unwrap();
    change(&mut model);
    put(&mut world.models, model);
}

/// The model is to run another version from now on.
fn is_updated(world: &mut World) {
    let mut version = world.versions.values().next().unwrap().as_ref().clone();
    version.metadata.name = Some(names::version("digits", NEWER));
    version.spec.digest = NEWER.into();
    world.versions.insert(key(&version), Arc::new(version));
    change(world, |model| {
        model["status"]["desired"] = json!({"version": names::version("digits", NEWER), "digest": NEWER, "uri": URI});
    });
}

/// Whether a Deployment that is there was told to go.
fn is_leaving(world: &World, name: &str) -> Option<bool> {
    let live = world.deployments.get(&("vision".to_owned(), name.to_owned()));
    live.map(|live| live.retires_at().is_some())
}

fn edge() -> String {
    names::placement("digits", "site-a")
}

/// Whether the edge's Deployment has these fields.
fn edge_has(world: &World, fields: &Value) -> bool {
    world.deployments[&("vision".to_owned(), edge())].fields.have(&[], fields)
}

fn endpoints(world: &World) -> Vec<String> {
    let placement = &world.placements[&("vision".to_owned(), edge())];
    placement.status.iter().flat_map(|status| &status.endpoints).map(|endpoint| endpoint.address.clone()).collect()
}

fn stands(world: &World, kind: &str) -> String {
    let status = world.placements[&("vision".to_owned(), edge())].status.clone().unwrap();
    let found = status.conditions.into_iter().find(|condition| condition.type_ == kind).unwrap();
    format!("{}/{}", found.status, found.reason)
}
