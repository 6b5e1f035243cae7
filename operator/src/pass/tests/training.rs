//! A recipe's life: its runs, what came of them, and the models that follow.

mod against;
mod triggers;

use super::*;
use crate::artifact::{Artifact, Failure};
use crate::logs::{Reading, Readings};
use crate::registry::{Ask, Outcome, Resolution};
use sconce_api::{EdgeTrainingStatus, RunState, TrainingProgress};

const ARTIFACT: &str = "oci://r:5000/m/digits@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn recipe(world: &mut World, extra: Value) {
    let mut spec = json!({"dataset": {"uri": "pvc://mnist/raw", "format": "idx"},
        "architecture": {"input": {"shape": [1, 28, 28]}, "layers": [{"flatten": {}}, {"dense": {"units": 10}}]},
        "output": {"uri": "oci://r:5000/m/digits"}});
    for (name, value) in extra.as_object().unwrap() {
        spec[name] = value.clone();
    }
    let old = world.trainings.get(&at("digits")).map(|live| serde_json::to_value(&live.status).unwrap());
    let mut object =
        json!({"metadata": {"name": "digits", "namespace": "vision", "uid": "et", "generation": 1}, "spec": spec});
    object["status"] = old.unwrap_or(json!({}));
    put(&mut world.trainings, object);
}

fn ask(uri: &str) -> Ask {
    Ask { uri: uri.into(), secret: None }
}

fn at(name: &str) -> (String, String) {
    ("vision".into(), name.into())
}

fn trained() -> World {
    let mut world = settled(scene("25ms"));
    recipe(&mut world, json!({}));
    settled(world)
}

fn status(world: &World) -> EdgeTrainingStatus {
    world.trainings[&at("digits")].status.clone().unwrap()
}

fn states(world: &World) -> Vec<RunState> {
    status(world).runs.iter().map(|run| run.state).collect()
}

fn said(world: &World, kind: &str) -> String {
    let status = status(world);
    let found = status.conditions.iter().find(|condition| condition.type_ == kind);
    found.map_or_else(|| "absent".into(), |found| format!("{}/{}", found.status, found.reason))
}

/// The newest run's Job, with this status; each a minute after the one before.
fn job(world: &mut World, status: Value) -> String {
    let name = world.jobs.keys().map(|(_, name)| name.clone()).find(|name| status_unset(world, name));
    let name = name.unwrap_or_else(|| self::status(world).runs[0].name.clone());
    let mut live = serde_json::to_value(world.jobs[&at(&name)].as_ref()).unwrap();
    let newest = world.jobs.values().filter_map(|job| job.creation_timestamp()).map(|time| time.0.as_second()).max();
    let began = Timestamp::from_second(newest.unwrap_or(1000) + 60).unwrap().to_string();
    live["metadata"]["creationTimestamp"] = json!(began);
    live["metadata"]["uid"] = json!(name);
    live["status"] = status;
    live["status"]["startTime"] = json!(began);
    put(&mut world.jobs, live);
    name
}

fn status_unset(world: &World, name: &str) -> bool {
    world.jobs[&at(name)].status.is_none()
}

fn pod_of(world: &mut World, job: &str, state: Value, last: Value) {
    let labels = json!({"app.kubernetes.io/name": "sconce-training", "sconce.dev/training": "digits"});
    let phase = match state {
        _ if state.get("terminated").is_some() => "Succeeded",
        _ if state.get("waiting").is_some() => "Pending",
        _ => "Running",
    };
    put(
        &mut world.training_pods,
        json!({"metadata": {"name": format!("{job}-x"), "namespace": "vision", "labels": labels, "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": job, "controller": true}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "trainer", "image": "t", "imageID": "", "ready": true, "restartCount": 0,
            "state": state, "lastState": last}]}}),
    );
}

fn ended(condition: &str, reason: &str) -> Value {
    json!({"conditions": [{"type": condition, "status": "True", "reason": reason, "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

fn exit(code: i32, message: &str) -> Value {
    json!({"terminated": {"exitCode": code, "message": message}})
}

fn result(published: Option<&str>, accuracy: f64) -> String {
    json!({"result": {"published": published, "accuracy": accuracy, "verdicts": [{"variant": "f32", "passed": true, "reason": "best"}]}})
        .to_string()
}

/// The newest run ends well, with these last words.
fn ends(mut world: World, words: &str) -> World {
    let name = job(&mut world, ended("Complete", ""));
    pod_of(&mut world, &name, exit(0, words), Value::Null);
    settled(world)
}

#[test]
fn a_recipe_becomes_one_restricted_job_on_cloud_nodes_that_carries_it() {
    let world = trained();
    let [job] = world.jobs.values().collect::<Vec<_>>()[..] else { panic!("{:?}", world.jobs.keys()) };
    let job = serde_json::to_value(job.as_ref()).unwrap();
    assert_eq!(job["metadata"]["ownerReferences"][0]["kind"], "EdgeTraining");
    let spec = &job["spec"];
    assert_eq!((&spec["backoffLimit"], &spec["activeDeadlineSeconds"]), (&json!(2), &json!(21_600)));
    let pod = &spec["template"]["spec"];
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms, &json!([{"matchExpressions": [{"key": "tier", "operator": "In", "values": ["cloud"]}]}]));
    assert_eq!((&pod["restartPolicy"], &pod["automountServiceAccountToken"]), (&json!("OnFailure"), &json!(false)));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let trainer = &pod["containers"][0];
    assert_eq!(trainer["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(trainer["resources"]["limits"], json!({"cpu": "1", "memory": "2Gi"}));
    let name = job["metadata"]["name"].as_str().unwrap();
    let args: Vec<_> = trainer["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    let words = format!(
        "train /recipe/training.yaml --output /work/digits/{name}/artifact --runs /work/digits --publish oci://r:5000/m/digits:{name} --result /dev/termination-log --data /data/raw"
    );
    assert_eq!(args.join(" "), words);
    let manifest = spec["template"]["metadata"]["annotations"]["sconce.dev/manifest"].as_str().unwrap();
    let manifest: Value = serde_json::from_str(manifest).unwrap();
    assert_eq!(manifest["spec"]["architecture"]["layers"][1]["dense"]["units"], 10);
    assert_eq!(states(&world), [RunState::Waiting]);
    assert_eq!(
        (said(&world, "Ready"), said(&world, "Training")),
        ("Unknown/Progressing".into(), "False/Waiting".into())
    );
}

#[test]
fn an_edge_run_is_sent_to_edge_nodes_and_a_queued_one_waits_for_its_queue() {
    let mut world = settled(scene("25ms"));
    recipe(
        &mut world,
        json!({"run": {"tier": "Edge", "queueName": "night", "claimName": "work", "retries": 0, "deadline": "90s"}}),
    );
    let mut world = settled(world);
    let job = serde_json::to_value(world.jobs.values().next().unwrap().as_ref()).unwrap();
    let (spec, pod) = (&job["spec"], &job["spec"]["template"]["spec"]);
    assert_eq!(job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "night");
    assert_eq!(
        (&spec["suspend"], &spec["backoffLimit"], &spec["activeDeadlineSeconds"]),
        (&json!(true), &json!(0), &json!(90))
    );
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][1], json!({"key": "zone", "operator": "Exists"}));
    assert_eq!(pod["volumes"][1], json!({"name": "work", "persistentVolumeClaim": {"claimName": "work"}}));
    assert!(status(&world).runs[0].message.as_ref().unwrap().contains("the queue night has not admitted it"));
    // The queue starts it; that is no business of ours.
    let mut live = job.clone();
    live["spec"]["suspend"] = json!(false);
    put(&mut world.jobs, live);
    let mut world = settled(world);
    assert_eq!(world.jobs.values().next().unwrap().spec.as_ref().unwrap().suspend, Some(false));
    // Suspended by its recipe it leaves the queue, which would start it again.
    recipe(&mut world, json!({"suspend": true, "run": {"tier": "Edge", "queueName": "night"}}));
    let steps = run(&world);
    assert!(
        matches!(&steps.farewells[..], [Write::Delete(target)] if target.kind == Kind::Job),
        "{:?}",
        steps.farewells
    );
    assert!(!steps.objects.iter().any(|write| matches!(write, Write::Suspend { .. })), "{:?}", steps.objects);
    assert!(settled(world).jobs.is_empty());
}

#[test]
fn a_run_gets_what_its_recipe_says_and_no_more() {
    let mut world = settled(scene("25ms"));
    recipe(&mut world, json!({"run": {"resources": {"cpu": "500m", "memory": "512Mi"}}}));
    let world = settled(world);
    let job = serde_json::to_value(world.jobs.values().next().unwrap().as_ref()).unwrap();
    let resources = &job["spec"]["template"]["spec"]["containers"][0]["resources"];
    let asked = json!({"cpu": "500m", "memory": "512Mi"});
    assert_eq!((&resources["limits"], &resources["requests"]), (&asked, &asked));
}

#[test]
fn without_cloud_nodes_nothing_begins_and_it_says_so() {
    let mut world = scene("25ms");
    world.fleets.clear();
    recipe(&mut world, json!({}));
    let world = settled(world);
    assert!(world.jobs.is_empty());
    assert_eq!(said(&world, "Ready"), "False/NoNodes");
}

#[test]
fn what_a_run_publishes_is_told_and_served_by_the_model_that_follows() {
    let mut world = trained();
    change(&mut world, |model| {
        model["spec"]["model"] = json!({"trainingRef": {"name": "digits"}, "promotion": "Automatic"})
    });
    assert!(run(&world).to_resolve.is_empty(), "nothing is published yet");
    let world = ends(settled(world), &result(Some(ARTIFACT), 0.9812));
    let run_told = status(&world).runs[0].clone();
    assert_eq!((run_told.state, run_told.artifact.as_deref()), (RunState::Succeeded, Some(ARTIFACT)));
    assert_eq!((run_told.accuracy, run_told.verdicts.len()), (Some("98.12%".into()), 1));
    let told = ["Ready", "Training", "Accepted", "Published", "Reconciling", "Stalled"].map(|kind| said(&world, kind));
    assert_eq!(told, ["True/Ready", "False/Ended", "True/Accepted", "True/Published", "absent", "absent"]);
    assert_eq!(run(&world).to_resolve, [(at("digits"), ask(ARTIFACT))]);
}

#[test]
fn promotion_by_hand_says_what_to_type_and_waits_for_it() {
    let mut world = trained();
    change(&mut world, |model| {
        model["spec"]["model"] = json!({"trainingRef": {"name": "digits"}});
        model["status"] = json!({});
    });
    let mut world = ends(settled(world), &result(Some(ARTIFACT), 0.9812));
    let resolved = |world: &World| {
        let status = world.models.values().next().unwrap().status.clone().unwrap();
        status.conditions.into_iter().find(|condition| condition.type_ == "Resolved").unwrap()
    };
    let told = resolved(&world);
    assert_eq!((&*told.status, &*told.reason), ("False", "NotPromoted"));
    let patch = format!(r#"-p '{{"metadata":{{"annotations":{{"sconce.dev/promote":"{NEWER}"}}}}}}'"#);
    assert!(told.message.ends_with(&patch), "{}", told.message);
    change(&mut world, |model| model["metadata"]["annotations"] = json!({"sconce.dev/promote": NEWER}));
    assert_eq!(run(&world).to_resolve, [(at("digits"), ask(ARTIFACT))]);
    // By the Secret that the model names: that of the training may push.
    let mut private = world.clone();
    change(&mut private, |model| model["spec"]["model"]["pullSecretRef"] = json!({"name": "pull"}));
    let opened = Ask { secret: Some("pull".into()), ..ask(ARTIFACT) };
    assert_eq!(run(&private).to_resolve, [(at("digits"), opened)]);
    // Something older is served: it goes on, and the newer one is told of.
    let older = ARTIFACT.replace(NEWER, DIGEST);
    change(&mut world, |model| {
        model["metadata"]["annotations"] = json!({"sconce.dev/promote": DIGEST});
        model["status"]["desired"] =
            json!({"version": names::version("digits", DIGEST), "digest": DIGEST, "uri": older});
    });
    let told = resolved(&settled(world));
    assert_eq!((&*told.status, &*told.reason), ("True", "NotPromoted"));
}

#[test]
fn a_model_that_is_not_good_enough_is_not_served_and_another_recipe_runs_anew() {
    let mut world = trained();
    change(&mut world, |model| {
        model["spec"]["model"] = json!({"trainingRef": {"name": "digits"}, "promotion": "Automatic"})
    });
    let mut world = ends(settled(world), &result(None, 0.1012));
    assert_eq!(states(&world), [RunState::Rejected]);
    assert_eq!(
        (said(&world, "Ready"), said(&world, "Stalled")),
        ("False/NotAccepted".into(), "True/NotAccepted".into())
    );
    assert!(run(&world).to_resolve.is_empty(), "random labels do not deploy");
    assert_eq!(world.jobs.len(), 1, "the same recipe is not tried again");
    recipe(&mut world, json!({"fit": {"epochs": 3}}));
    let world = settled(world);
    assert_eq!((world.jobs.len(), states(&world)), (2, vec![RunState::Waiting, RunState::Rejected]));
    let mut world = ends(world, &result(Some(ARTIFACT), 0.98));
    // Back to the first recipe: it runs again.
    recipe(&mut world, json!({}));
    let world = settled(world);
    assert_eq!(states(&world), [RunState::Waiting, RunState::Succeeded, RunState::Rejected]);
    assert_eq!(said(&world, "Published"), "True/Published");
}

#[test]
fn a_change_while_a_run_goes_on_waits_for_its_end() {
    let mut world = trained();
    let name = job(&mut world, json!({"active": 1}));
    pod_of(&mut world, &name, json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), Value::Null);
    recipe(&mut world, json!({"fit": {"epochs": 3}}));
    let world = settled(world);
    assert_eq!((states(&world), world.jobs.len()), (vec![RunState::Running], 1));
    let world = ends(world, &result(Some(ARTIFACT), 0.98));
    assert_eq!(states(&world), [RunState::Waiting, RunState::Succeeded]);
}

#[test]
fn progress_is_read_from_the_log_at_a_pace_and_crashes_are_told() {
    let mut world = trained();
    let name = job(&mut world, json!({"active": 1}));
    let crash = exit(1, "Data: digits\nError: the disk is full\n");
    pod_of(&mut world, &name, json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), crash);
    let world = settled(world);
    let pod = at(&format!("{name}-x"));
    let asked = run(&world);
    assert_eq!(asked.to_read, std::slice::from_ref(&pod));
    let progress = TrainingProgress { epoch: 2, epochs: 10, loss: "0.05".into(), accuracy: None, eta: None };
    let reading = Reading { at: world.now, progress: Some(progress.clone()) };
    let steps = run_read(&world, &Readings::from([(pod, reading)]));
    assert!(steps.to_read.is_empty(), "no more often than every 30 s");
    assert_eq!(steps.look_at, Some(world.now + jiff::SignedDuration::from_secs(30)));
    let mut world = carried_out(world, &steps);
    let run_told = status(&world).runs[0].clone();
    assert_eq!((run_told.state, run_told.progress), (RunState::Running, Some(progress)));
    assert_eq!(run_told.message.as_deref(), Some("it ended with 1: Error: the disk is full"));
    // The Job controller takes the pod away when it gives up.
    world.training_pods.clear();
    job(&mut world, ended("Failed", "BackoffLimitExceeded"));
    let world = settled(world);
    let why = "it crashed, and so did 2 tries more (run.retries); it ended with 1: Error: the disk is full";
    assert_eq!((states(&world), status(&world).runs[0].message.as_deref()), (vec![RunState::Failed], Some(why)));
    assert_eq!(said(&world, "Stalled"), "True/RunFailed");
}

#[test]
fn a_suspended_recipe_stops_its_run_and_goes_on_with_it() {
    let mut world = trained();
    job(&mut world, json!({"active": 1}));
    let suspended = |world: &World| world.jobs.values().next().unwrap().spec.as_ref().unwrap().suspend;
    recipe(&mut world, json!({"suspend": true}));
    let mut world = settled(world);
    assert_eq!((states(&world), suspended(&world)), (vec![RunState::Suspended], Some(true)));
    assert_eq!(said(&world, "Ready"), "False/Suspended");
    recipe(&mut world, json!({}));
    let world = settled(world);
    assert_eq!((states(&world), suspended(&world)), (vec![RunState::Waiting], Some(false)));
}

#[test]
fn jobs_of_ended_runs_go_beyond_those_that_are_kept() {
    let mut world = ends(trained(), &result(Some(ARTIFACT), 0.98));
    let keep = json!({"run": {"keep": {"succeeded": 1, "failed": 0}}});
    for epochs in 1..4 {
        let mut spec = keep.clone();
        spec["fit"] = json!({"epochs": epochs});
        recipe(&mut world, spec);
        world = ends(settled(world), &result(Some(ARTIFACT), 0.98));
    }
    assert_eq!(world.jobs.len(), 1, "the newest that has ended: {:?}", states(&world));
    assert_eq!(states(&world).len(), 4, "what came of them stays told");
}

/// What is known stands in the Jobs and in the status: each can be lost.
#[test]
fn a_lost_status_is_told_again_by_the_jobs() {
    let world = ends(trained(), &result(Some(ARTIFACT), 0.98));
    let before = status(&world);
    let mut wiped = world.clone();
    wiped.trainings.clear();
    recipe(&mut wiped, json!({}));
    let wiped = settled(wiped);
    assert_eq!((status(&wiped).runs, wiped.jobs.len()), (before.runs.clone(), 1));
    let mut pruned = world;
    pruned.jobs.clear();
    pruned.training_pods.clear();
    let pruned = settled(pruned);
    assert_eq!((status(&pruned).runs, pruned.jobs.len()), (before.runs, 0));
}

/// One that cannot start held up its own correction until its deadline.
#[test]
fn what_has_not_started_is_made_anew_when_it_is_asked_for_otherwise() {
    let mut world = trained();
    let first = job(&mut world, json!({"active": 1}));
    let stuck = json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"lake\" not found"}});
    pod_of(&mut world, &first, stuck, Value::Null);
    world = settled(world);
    assert_eq!((states(&world), world.jobs.len()), (vec![RunState::Waiting], 1));
    let recipes: [Value; 2] = [
        json!({"run": {"claimName": "work", "resources": {"memory": "1Gi"}}}),
        json!({"run": {"claimName": "work"}, "fit": {"epochs": 3}}),
    ];
    for changed in recipes {
        recipe(&mut world, changed);
        let steps = run(&world);
        assert!(matches!(&steps.farewells[..], [Write::Delete(target)] if target.kind == Kind::Job), "{steps:?}");
        world = carried_out(world, &steps);
        // Its pod may still write to the claim.
        world = settled(world);
        assert_eq!((world.jobs.len(), said(&world, "Ready")), (0, "False/Waiting".into()));
        world.training_pods.clear();
        world = settled(world);
        assert_eq!((states(&world), world.jobs.len()), (vec![RunState::Waiting], 1));
        let name = job(&mut world, json!({"active": 1}));
        pod_of(&mut world, &name, json!({"waiting": {"reason": "ImagePullBackOff"}}), Value::Null);
        world = settled(world);
    }
    // Once it trains, or has crashed, a change waits for its end.
    let name = status(&world).runs[0].name.clone();
    pod_of(&mut world, &name, json!({"waiting": {"reason": "CrashLoopBackOff"}}), exit(1, "Error: the disk is full"));
    recipe(&mut world, json!({"fit": {"epochs": 4}}));
    assert_eq!(run(&settled(world)).farewells, []);
}

/// A drained node took the pod of a run, and then a change of the recipe its Job, with hours of work.
#[test]
fn a_run_that_has_trained_is_kept_while_it_waits_for_another_pod() {
    let mut progressed = trained();
    let name = job(&mut progressed, json!({"active": 1}));
    pod_of(&mut progressed, &name, json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), Value::Null);
    let progress = TrainingProgress { epoch: 2, epochs: 10, loss: "0.05".into(), accuracy: None, eta: None };
    let reading = Reading { at: progressed.now, progress: Some(progress) };
    let steps = run_read(&progressed, &Readings::from([(at(&format!("{name}-x")), reading)]));
    progressed = carried_out(progressed, &steps);
    progressed.training_pods.clear();
    // Its pod never ran, and was evicted.
    let mut evicted = trained();
    job(&mut evicted, json!({"failed": 1}));
    for (mut world, is_kept) in [(progressed, true), (evicted, false)] {
        recipe(&mut world, json!({"fit": {"epochs": 3}}));
        let world = settled(world);
        assert_eq!(states(&world), [RunState::Waiting]);
        assert_eq!(world.jobs.contains_key(&at(&name)), is_kept, "{:?}", world.jobs.keys());
    }
}

/// Such a run was told to have Failed, though its model was there.
#[test]
fn of_a_run_whose_pod_was_never_seen_the_registry_tells() {
    let mut world = trained();
    let name = job(&mut world, ended("Complete", ""));
    world = settled(world);
    let (key, uri) = (at(&format!("run/{name}")), format!("oci://r:5000/m/digits:{name}"));
    assert_eq!(run(&world).to_resolve, [(key.clone(), ask(&uri))]);
    assert_eq!(states(&world), [RunState::Running]);
    let told = |outcome: Outcome| {
        let resolutions = Resolutions::from([(key.clone(), Resolution { ask: ask(&uri), outcome })]);
        carried_out(world.clone(), &run_asked(&world, &resolutions))
    };
    let artifact =
        serde_json::from_value(json!({"architecture": "dense", "inputs": [], "outputs": [], "requestBytes": 1,
        "responseBytes": 1}));
    let variant = json!({"name": "f32", "bytes": 1, "memory": 1, "flops": 1, "accuracy": "98.12%"});
    let found = Artifact {
        repository: "oci://r:5000/m/digits".into(),
        digest: NEWER.into(),
        facts: artifact.unwrap(),
        variants: vec![serde_json::from_value(variant).unwrap()],
    };
    let known = status(&told(Outcome::Found(Box::new(found)))).runs[0].clone();
    assert_eq!((known.state, known.artifact.as_deref()), (RunState::Succeeded, Some(ARTIFACT)));
    assert_eq!(known.accuracy, Some("98.12%".into()));
    let failed = |reason, attempts| {
        let failure = Failure { reason, message: "no route to r:5000".into() };
        Outcome::Failed { failure, attempts, retry_at: Instant::now() + Duration::from_secs(9) }
    };
    let missing = status(&told(failed(Reason::ArtifactMissing, 1))).runs[0].clone();
    assert_eq!(missing.state, RunState::Failed);
    assert!(missing.message.unwrap().contains("the registry has nothing of this run"));
    assert_eq!(states(&told(failed(Reason::RegistryUnreachable, 9))), [RunState::Running]);
    let unknown = status(&told(failed(Reason::RegistryUnreachable, 10))).runs[0].clone();
    assert!(unknown.state == RunState::Failed && unknown.message.unwrap().ends_with("no route to r:5000"));
}
