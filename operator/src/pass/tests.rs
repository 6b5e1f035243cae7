//! Scenes: a world as the stores show it, and what one pass writes.

use super::{Input, Steps, pass};
use crate::apply::{Refusal, Refusals, Write};
use crate::names;
use crate::observe::{ByKey, World, key};
use crate::registry::Resolutions;
use crate::render::{Kind, RETIRE_AT, Settings};
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
        "cloud": {"nodeSelector": {"matchLabels": {"tier": "cloud"}}}}}),
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
    let settings =
        Settings { image: "runtime:1".into(), pull_policy: "IfNotPresent".into(), insecure_registries: Vec::new() };
    let steps = pass(&Input {
        world,
        resolutions: &Resolutions::new(),
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
    };
    for write in &steps.objects {
        let (Write::Create(object) | Write::Apply { object, .. } | Write::Label(object)) = write else { continue };
        let live = crate::render::live(&world, object)
            .unwrap_or_else(|| json!({"metadata": {"generation": 1, "uid": object.name}}));
        placed(&mut world, object.kind, merged(live, &object.body));
    }
    for write in &steps.statuses {
        let Write::Status { object, .. } = write else { continue };
        let mut live = crate::render::live(&world, object).unwrap();
        live["status"] = object.body["status"].clone();
        placed(&mut world, object.kind, live);
    }
    for write in &steps.farewells {
        match write {
            Write::Retire { target, at: Some(at) } => {
                let mut live = world.deployments[&(target.namespace.clone(), target.name.clone())].as_ref().clone();
                live.annotations_mut().insert(RETIRE_AT.into(), at.to_string());
                world.deployments.insert(key(&live), Arc::new(live));
            }
            Write::Delete(target) if target.kind == Kind::Deployment => {
                world.deployments.remove(&(target.namespace.clone(), target.name.clone()));
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

/// A Ready pod of the Deployment.
fn pod(world: &mut World, deployment: &str, ip: &str, node: &str) {
    let template = world.deployments[&("vision".to_owned(), deployment.to_owned())].spec.clone().unwrap().template;
    let labels = template.metadata.unwrap().labels;
    let pod = json!({"metadata": {"name": ip, "namespace": "vision", "labels": labels}, "spec": {"nodeName": node, "containers": []},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]}});
    world.add_pod(Arc::new(serde_json::from_value(pod).unwrap()));
}

/// The pool of this version answers, at this address.
fn answers(world: &mut World, digest: &str, address: &str) -> String {
    let pool = names::pool("digits", digest, "f32");
    let at = ("vision".to_owned(), pool.clone());
    let mut live = world.deployments[&at].as_ref().clone();
    live.status.get_or_insert_default().ready_replicas = Some(1);
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
    live.map(|live| live.annotations().contains_key(RETIRE_AT))
}

fn edge() -> String {
    names::placement("digits", "site-a")
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

#[test]
fn a_model_comes_to_the_edge_and_then_nothing_is_written() {
    let mut world = settled(scene("25ms"));
    assert_eq!(
        (stands(&world, "Placed"), stands(&world, "Serving")),
        ("True/ChosenAtEdge".into(), "False/Starting".into())
    );
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    pool_answers(&mut world);
    let world = settled(world);
    assert_eq!(stands(&world, "Ready"), "True/Ready");
    assert_eq!(endpoints(&world), ["10.1.0.5", "10.96.0.9"], "the edge first, the cloud as the fallback");
    let model = world.models.values().next().unwrap().status.clone().unwrap();
    assert_eq!(model.sites.unwrap().serving, "1/1");
    assert_eq!(model.address.as_deref(), Some("digits.vision"));
}

/// The router of the site's node tells what its clients waited for answers of this tier.
fn waits(world: &mut World, tier: &str, p99: &str) {
    waits_of(world, "a-1", tier, p99);
}

fn waits_of(world: &mut World, node: &str, tier: &str, p99: &str) {
    let at = (String::new(), node.to_owned());
    let mut told = world.edge_nodes[&at].as_ref().clone();
    let row = json!({"namespace": "vision", "name": "digits", "tier": tier,
        "p50": "2ms", "p99": p99, "count": 1500, "errors": 0, "rps": "5"});
    told.status.get_or_insert_default().models = vec![serde_json::from_value(row).unwrap()];
    world.edge_nodes.insert(at, Arc::new(told));
}

#[test]
fn what_clients_wait_decides_whether_the_budget_is_kept() {
    let mut world = settled(scene("25ms"));
    assert_eq!(stands(&world, "WithinBudget"), "Unknown/TooFewSamples");
    let model = |world: &World| {
        let conditions = world.models.values().next().unwrap().status.clone().unwrap().conditions;
        conditions.into_iter().find(|condition| condition.type_ == "WithinBudget").unwrap()
    };
    waits(&mut world, "Edge", "4ms");
    world = settled(world);
    assert_eq!((stands(&world, "WithinBudget").as_str(), model(&world).reason.as_str()), ("True/Within", "Within"));
    waits(&mut world, "Edge", "31ms");
    world = settled(world);
    assert_eq!(stands(&world, "WithinBudget"), "False/OverBudget");
    let told =
        "1 of 1 sites do not keep it; site-a: clients waited 31ms (p99) of 25ms; 1500 answers in the last five minutes";
    assert_eq!(model(&world).message, told);
    waits(&mut world, "Cloud", "45ms");
    world = settled(world);
    assert_eq!(stands(&world, "WithinBudget"), "Unknown/TooFewSamples", "the place that was left says nothing");
    // A second node, lost after it told this.
    node(&mut world, "a-2", json!({"tier": "edge", "zone": "site-a"}), false);
    waits_of(&mut world, "a-2", "Edge", "31ms");
    assert_eq!(stands(&settled(world), "WithinBudget"), "Unknown/TooFewSamples");
}

#[test]
fn the_edge_serves_on_until_the_cloud_answers_and_then_drains() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    world = settled(world);
    let at = ("vision".to_owned(), "digits".to_owned());
    let mut model = world.models[&at].as_ref().clone();
    model.spec.latency_budget = "500ms".into();
    world.models.insert(at, Arc::new(model));
    world = settled(world);
    assert_eq!(stands(&world, "Placed"), "True/ChosenInCloud");
    assert_eq!((endpoints(&world), stands(&world, "Serving")), (vec!["10.1.0.5".to_owned()], "True/Serving".into()));
    pool_answers(&mut world);
    world = settled(world);
    assert_eq!(endpoints(&world), ["10.96.0.9"], "no longer routed to the edge");
    let there = |world: &World| world.deployments.contains_key(&("vision".to_owned(), edge()));
    assert!(there(&world), "but it drains");
    assert_eq!(run(&world).look_at, Some(Timestamp::from_second(1010).unwrap()));
    world.now = Timestamp::from_second(1010).unwrap();
    assert!(!there(&settled(world)));
}

#[test]
fn a_site_without_contact_keeps_all_that_it_has() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    world = settled(world);
    let before = world.deployments.clone();
    node(&mut world, "a-1", json!({"tier": "edge", "zone": "site-a"}), false);
    world.model_pods.clear();
    let world = settled(world);
    assert_eq!(world.deployments, before);
    assert_eq!(endpoints(&world), ["10.1.0.5"]);
    assert_eq!(
        (stands(&world, "Placed"), stands(&world, "Serving")),
        ("True/KeptUnreachable".into(), "Unknown/NoContact".into())
    );
}

#[test]
fn a_suspended_model_stays_as_it_is_whatever_is_asked_of_it() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    world = settled(world);
    let before = (world.deployments.clone(), world.services.clone(), world.versions.clone());
    change(&mut world, |model| {
        model["spec"]["suspend"] = json!(true);
        model["spec"]["latencyBudget"] = json!("400ms");
        model["spec"]["model"]["uri"] = json!("oci://r:5000/m/numbers:2");
    });
    assert!(run(&world).to_resolve.is_empty());
    let mut world = settled(world);
    assert_eq!((world.deployments.clone(), world.services.clone(), world.versions.clone()), before);
    assert_eq!((stands(&world, "Placed"), stands(&world, "Ready")), ("True/Suspended".into(), "True/Ready".into()));
    assert_eq!(endpoints(&world)[0], "10.1.0.5");
    assert!(world.placements.values().next().unwrap().status.as_ref().unwrap().predicted.is_some());
    let model = world.models.values().next().unwrap().status.clone().unwrap();
    let resolved = model.conditions.into_iter().find(|condition| condition.type_ == "Resolved").unwrap();
    assert_eq!(resolved.message, format!("{URI} is {}", names::version("digits", DIGEST)));
    // A version that was deleted is read again as what is served.
    world.versions.clear();
    assert_eq!(run(&world).to_resolve[0].1, format!("oci://r:5000/m/digits@{DIGEST}"));
}

#[test]
fn a_suspended_model_keeps_its_pool_as_it_is() {
    let mut world = settled(scene("500ms"));
    pool_answers(&mut world);
    world = settled(world);
    let before = (world.deployments.clone(), world.services.clone(), world.disruption_budgets.clone());
    change(&mut world, |model| {
        model["spec"]["suspend"] = json!(true);
        model["spec"]["load"] = json!({"requestsPerSecond": 5_000});
        model["spec"]["serving"] = json!({"maxBatchSize": 64});
        model["spec"]["hardware"] = json!({"require": [{"key": "tier", "operator": "Exists"}]});
    });
    world = settled(world);
    assert_eq!((world.deployments.clone(), world.services.clone(), world.disruption_budgets.clone()), before);
    assert_eq!((stands(&world, "Placed"), stands(&world, "Ready")), ("True/Suspended".into(), "True/Ready".into()));
    change(&mut world, |model| model["spec"]["suspend"] = json!(false));
    assert_ne!(settled(world).deployments, before.0);
}

#[test]
fn what_was_deleted_of_a_suspended_model_is_said_to_be_gone() {
    let mut world = settled(scene("25ms"));
    change(&mut world, |model| model["spec"]["suspend"] = json!(true));
    world.deployments.remove(&("vision".to_owned(), edge()));
    world = settled(world);
    let status = world.placements.values().next().unwrap().status.clone().unwrap();
    let serving = status.conditions.iter().find(|condition| condition.type_ == "Serving").unwrap();
    let told = format!("the Deployment {} is gone, and nothing makes it again: digits is suspended", edge());
    assert_eq!((serving.reason.as_str(), serving.message.as_str()), ("Suspended", told.as_str()));
    assert!(status.conditions.iter().all(|condition| condition.type_ != "Reconciling"));
    change(&mut world, |model| model["spec"]["suspend"] = json!(false));
    assert!(settled(world).deployments.contains_key(&("vision".to_owned(), edge())));
}

#[test]
fn a_move_that_has_begun_ends_though_the_model_is_suspended() {
    for in_the_drain in [false, true] {
        let mut world = settled(scene("25ms"));
        pod(&mut world, &edge(), "10.1.0.5", "a-1");
        world = settled(world);
        change(&mut world, |model| model["spec"]["latencyBudget"] = json!("500ms"));
        world = settled(world);
        if in_the_drain {
            pool_answers(&mut world);
            world = settled(world);
        }
        change(&mut world, |model| model["spec"]["suspend"] = json!(true));
        world = settled(world);
        assert_eq!(stands(&world, "Placed"), "True/Suspended");
        assert_eq!(endpoints(&world), [if in_the_drain { "10.96.0.9" } else { "10.1.0.5" }]);
        pool_answers(&mut world);
        world = settled(world);
        world.now = Timestamp::from_second(1010).unwrap();
        world = settled(world);
        assert!(!world.deployments.contains_key(&("vision".to_owned(), edge())));
        assert_eq!((endpoints(&world), stands(&world, "Ready")), (vec!["10.96.0.9".to_owned()], "True/Ready".into()));
        let status = world.placements.values().next().unwrap().status.clone().unwrap();
        assert!(status.conditions.iter().all(|condition| condition.type_ != "Reconciling"));
    }
}

/// Seen on a real cluster: for six seconds after a cut healed the serving pod was routed to no longer.
#[test]
fn a_pod_that_served_through_a_cut_is_routed_to_at_once() {
    let mut world = settled(scene("25ms"));
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    world = settled(world);
    let at = ("vision".to_owned(), edge());
    let mut silent = world.model_pods[&at][0].as_ref().clone();
    let conditions = json!([{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]);
    silent.status.get_or_insert_default().conditions = serde_json::from_value(conditions).unwrap();
    world.model_pods.insert(at, vec![Arc::new(silent)]);
    let world = settled(world);
    assert_eq!((endpoints(&world), stands(&world, "Ready")), (vec!["10.1.0.5".to_owned()], "True/Ready".into()));
}

#[test]
fn without_its_fleet_a_model_says_so_and_nothing_of_it_goes() {
    let mut world = settled(scene("25ms"));
    world.fleets.clear();
    let steps = run(&world);
    assert_eq!((steps.objects, steps.farewells), (Vec::new(), Vec::new()));
    let world = settled(world);
    let model = world.models.values().next().unwrap().status.clone().unwrap();
    let stalled = model.conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
    assert_eq!(stalled.message, "there is no EdgeFleet shops (there is none)");
}

/// Of two sites the one with contact decides whether the model serves.
#[test]
fn sites_without_contact_are_counted_and_not_failed() {
    let mut world = scene("25ms");
    node(&mut world, "b-1", json!({"tier": "edge", "zone": "site-b"}), true);
    world = settled(world);
    let other = names::placement("digits", "site-b");
    pod(&mut world, &edge(), "10.1.0.5", "a-1");
    pod(&mut world, &other, "10.1.0.6", "b-1");
    world = settled(world);
    node(&mut world, "b-1", json!({"tier": "edge", "zone": "site-b"}), false);
    let model = settled(world).models.values().next().unwrap().status.clone().unwrap();
    let sites = model.sites.unwrap();
    assert_eq!((sites.serving.as_str(), sites.offline), ("1/2", 1));
    let said: Vec<_> = model.conditions.iter().map(|said| format!("{}={}", said.type_, said.status)).collect();
    assert_eq!(said, ["Ready=True", "Resolved=True", "Placed=True", "Serving=True", "WithinBudget=Unknown"]);
}

#[test]
fn what_is_in_the_way_is_said_and_then_nothing_is_written() {
    let world = settled(scene("25ms"));
    let refusal = Refusal { reason: Reason::NameConflict, message: "a Deployment that is not ours".into() };
    let refusals = Refusals::from([((Kind::Deployment, ("vision".to_owned(), edge())), refusal)]);
    let world = carried_out(world.clone(), &run_refused(&world, &refusals));
    assert_eq!(stands(&world, "Serving"), "False/NameConflict");
    assert_eq!(run_refused(&world, &refusals).statuses, []);
}

/// Its routers cannot be told of the new version's pool.
#[test]
fn a_pool_stays_while_a_site_without_contact_is_routed_to_it() {
    let mut world = settled(scene("500ms"));
    let pool = pool_answers(&mut world);
    world = settled(world);
    assert_eq!(endpoints(&world), ["10.96.0.9"]);
    node(&mut world, "a-1", json!({"tier": "edge", "zone": "site-a"}), false);
    is_updated(&mut world);
    world = settled(world);
    answers(&mut world, NEWER, "10.96.0.10");
    world = settled(world);
    assert_eq!(is_leaving(&world, &pool), Some(false));
    node(&mut world, "a-1", json!({"tier": "edge", "zone": "site-a"}), true);
    world = settled(world);
    assert_eq!((endpoints(&world), is_leaving(&world, &pool)), (vec!["10.96.0.10".to_owned()], Some(true)));
}

fn pauses(world: &mut World, paused: bool) {
    let mut site = world.sites.values().next().unwrap().as_ref().clone();
    site.spec.paused = paused;
    world.sites.insert(key(&site), Arc::new(site));
}

#[test]
fn a_paused_site_stays_with_the_pool_that_it_has() {
    let mut world = settled(scene("500ms"));
    let pool = pool_answers(&mut world);
    world = settled(world);
    pauses(&mut world, true);
    is_updated(&mut world);
    world = settled(world);
    answers(&mut world, NEWER, "10.96.0.10");
    world = settled(world);
    assert_eq!((endpoints(&world), is_leaving(&world, &pool)), (vec!["10.96.0.9".to_owned()], Some(false)));
    assert_eq!((stands(&world, "Placed"), stands(&world, "Ready")), ("True/SitePaused".into(), "True/Ready".into()));
    pauses(&mut world, false);
    world = settled(world);
    assert_eq!((endpoints(&world), is_leaving(&world, &pool)), (vec!["10.96.0.10".to_owned()], Some(true)));
}

#[test]
fn pods_that_a_quota_refuses_are_said_to_be() {
    let mut world = settled(scene("25ms"));
    let at = ("vision".to_owned(), edge());
    let mut live = world.deployments[&at].as_ref().clone();
    let failure = json!([{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}]);
    live.status.get_or_insert_default().conditions = serde_json::from_value(failure).unwrap();
    world.deployments.insert(at.clone(), Arc::new(live));
    let placement = settled(world).placements[&at].status.clone().unwrap();
    let serving = placement.conditions.iter().find(|condition| condition.type_ == "Serving").unwrap();
    assert_eq!((serving.status.as_str(), serving.message.as_str()), ("False", "exceeded quota: q"));
}
