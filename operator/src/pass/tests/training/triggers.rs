//! What begins a run: labels, drift, people; and what keeps one from beginning.

use super::*;

/// The dataset, with so many labelled samples.
fn labelled(world: &mut World, samples: i64) {
    put(
        &mut world.datasets,
        json!({"metadata": {"name": "digits", "namespace": "vision"}, "spec": {"fleetRef": {"name": "shops"},
            "uri": "s3://lake/digits", "kind": "Image", "privacy": {"policy": "Raw"}}, "status": {"labelled": samples}}),
    );
}

fn collected(trigger: Value) -> Value {
    json!({"dataset": {"ref": {"name": "digits"}, "secretRef": {"name": "lake"}}, "trigger": trigger})
}

#[test]
fn labelled_samples_begin_a_run_and_the_next_counts_from_there() {
    let mut world = settled(scene("25ms"));
    labelled(&mut world, 310);
    recipe(&mut world, collected(json!({"samples": {"new": 500}})));
    let mut world = settled(world);
    assert!(world.jobs.is_empty());
    let waits = "False/WaitingForSamples";
    assert_eq!([said(&world, "Ready"), said(&world, "Training"), said(&world, "Stalled")], [waits, waits, "absent"]);
    labelled(&mut world, 500);
    let mut world = settled(world);
    let job_of = |world: &World, name: &str| serde_json::to_value(world.jobs[&at(name)].as_ref()).unwrap();
    let first = job_of(&world, &status(&world).runs[0].name);
    let pod = &first["spec"]["template"];
    let manifest: Value =
        serde_json::from_str(pod["metadata"]["annotations"]["sconce.dev/manifest"].as_str().unwrap()).unwrap();
    assert_eq!(manifest["spec"]["dataset"], json!({"uri": "s3://lake/digits", "format": "collected"}));
    let trainer = &pod["spec"]["containers"][0];
    assert_eq!(trainer["envFrom"], json!([{"secretRef": {"name": "lake"}}]));
    assert!(!trainer["args"].as_array().unwrap().contains(&json!("--data")));
    // What comes while it trains, it does not learn from.
    labelled(&mut world, 700);
    let mut world = ends(settled(world), &result(None, 0.1));
    assert_eq!((states(&world), status(&world).cursor), (vec![RunState::Rejected], Some(500)));
    assert_eq!(status(&world).runs[0].dataset.as_ref().unwrap().samples, 500);
    assert_eq!([said(&world, "Training"), said(&world, "Stalled")], [waits, "absent"], "other samples may help");
    labelled(&mut world, 1000);
    let mut world = settled(world);
    assert_eq!(states(&world), [RunState::Waiting, RunState::Rejected]);
    job(&mut world, ended("Failed", "DeadlineExceeded"));
    let mut world = settled(world);
    assert_eq!((said(&world, "Training"), status(&world).cursor), ("False/BackingOff".into(), Some(500)));
    let again: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
    assert_eq!(run(&world).look_at, Some(again));
    world.now = again;
    assert_eq!(states(&settled(world)), [RunState::Waiting, RunState::Failed, RunState::Rejected]);
}

#[test]
fn what_lies_on_a_claim_is_mounted_where_the_trainer_looks() {
    let mut world = settled(scene("25ms"));
    labelled(&mut world, 500);
    let mut dataset = serde_json::to_value(world.datasets[&at("digits")].as_ref()).unwrap();
    dataset["spec"]["uri"] = json!("pvc://lake/site/digits");
    put(&mut world.datasets, dataset);
    recipe(&mut world, collected(json!({"samples": {"new": 500}})));
    let world = settled(world);
    let job = serde_json::to_value(world.jobs[&at(&status(&world).runs[0].name)].as_ref()).unwrap();
    let pod = &job["spec"]["template"]["spec"];
    let args = pod["containers"][0]["args"].as_array().unwrap();
    let flag = args.iter().position(|arg| arg == "--data").unwrap();
    assert_eq!(args[flag + 1], "/data/site/digits");
    let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "lake", "readOnly": true}});
    assert!(pod["volumes"].as_array().unwrap().contains(&claim));
}

/// A model of the recipe's dataset, and what a node tells of it.
fn drifting(world: &mut World, drifted: i64) {
    let mut model = serde_json::to_value(world.models[&at("digits")].as_ref()).unwrap();
    model["spec"]["collect"] = json!({"datasetRef": {"name": "digits"}, "share": "1%"});
    put(&mut world.models, model);
    let mut node = serde_json::to_value(world.edge_nodes[&(String::new(), "a-1".into())].as_ref()).unwrap();
    node["status"]["models"] = json!([{"namespace": "vision", "name": "digits", "tier": "Edge", "count": 900, "errors": 0,
        "rps": "3", "drifted": drifted}]);
    put(&mut world.edge_nodes, node);
}

fn says(world: &World) -> String {
    let conditions = &status(world).conditions;
    conditions.iter().find(|condition| condition.type_ == "Training").unwrap().message.clone()
}

/// A round is over when it has learned: that the model drifts on begins none before more is labelled.
#[test]
fn drift_and_what_is_labelled_since_begin_a_run_and_neither_does_alone() {
    let mut world = settled(scene("25ms"));
    labelled(&mut world, 500);
    recipe(&mut world, collected(json!({"drift": {}, "minNew": 100})));
    let mut world = settled(world);
    assert_eq!((world.jobs.len(), said(&world, "Training")), (0, "False/WaitingForDrift".into()));
    assert!(says(&world).starts_with("no EdgeModel has it"), "{}", says(&world));
    drifting(&mut world, 0);
    let mut world = settled(world);
    assert!(says(&world).starts_with("digits: no version that serves says"), "{}", says(&world));
    let mut version = serde_json::to_value(world.versions.values().next().unwrap().as_ref()).unwrap();
    version["status"]["variants"][0]["reference"] = json!(2000);
    put(&mut world.versions, version);
    let mut world = settled(world);
    assert_eq!(says(&world), "no node tells that digits drifts");
    drifting(&mut world, 310);
    let world = settled(world);
    assert_eq!(states(&world), [RunState::Waiting]);
    let mut world = ends(world, &result(None, 0.1));
    assert_eq!((states(&world), status(&world).cursor), (vec![RunState::Rejected], Some(500)));
    assert_eq!(said(&world, "Training"), "False/WaitingForSamples");
    assert_eq!(says(&world), "digits drifts, as told by a-1: 0 of 100 new labelled samples");
    labelled(&mut world, 600);
    assert_eq!(said(&settled(world.clone()), "Training"), "False/CoolingDown", "a day, where nobody says how long");
    let began = status(&world).runs[0].start_time.clone().or(status(&world).runs[0].completion_time.clone());
    world.now = began.unwrap().0 + jiff::SignedDuration::from_hours(24);
    let mut away = world.clone();
    assert_eq!(states(&settled(world)), [RunState::Waiting, RunState::Rejected]);
    node(&mut away, "a-1", json!({"tier": "edge", "zone": "site-a"}), false);
    drifting(&mut away, 310);
    assert_eq!(said(&settled(away), "Training"), "False/WaitingForDrift", "what it told is old");
}

#[test]
fn who_asks_gets_one_run_and_a_lost_status_forgets_neither_that_nor_the_cursor() {
    let mut world = settled(scene("25ms"));
    labelled(&mut world, 20);
    recipe(&mut world, collected(json!({"manual": {}})));
    let mut world = settled(world);
    assert_eq!((world.jobs.len(), said(&world, "Training")), (0, "False/WaitingForRequest".into()));
    let ask = |world: &mut World| {
        let mut live = serde_json::to_value(world.trainings[&at("digits")].as_ref()).unwrap();
        live["metadata"]["annotations"] = json!({"sconce.dev/run-requested": "1"});
        put(&mut world.trainings, live);
    };
    ask(&mut world);
    let world = ends(settled(world), &result(Some(ARTIFACT), 0.98));
    let before = status(&world);
    assert_eq!((before.cursor, before.runs.len(), said(&world, "Ready")), (Some(20), 1, "True/Ready".into()));
    let mut wiped = world;
    wiped.trainings.clear();
    recipe(&mut wiped, collected(json!({"manual": {}})));
    ask(&mut wiped);
    let wiped = settled(wiped);
    assert_eq!((status(&wiped).cursor, status(&wiped).runs), (before.cursor, before.runs));
}

#[test]
fn without_its_dataset_nothing_begins_and_it_says_so() {
    let mut world = settled(scene("25ms"));
    recipe(&mut world, collected(Value::Null));
    let mut world = settled(world);
    assert_eq!((world.jobs.len(), said(&world, "Ready")), (0, "False/DatasetNotFound".into()));
    labelled(&mut world, 0);
    let mut world = ends(settled(world), &result(Some(ARTIFACT), 0.98));
    world.datasets.clear();
    assert_eq!(said(&settled(world), "Ready"), "True/Ready", "nothing is due");
}
