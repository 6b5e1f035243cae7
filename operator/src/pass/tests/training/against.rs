//! What a run is held against where it must be better than what was accepted.

use super::*;

const OLDER: &str = "oci://r:5000/m/digits@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The recipe's next revision, of so many epochs.
fn revised(mut world: World, epochs: i64, accept: Value) -> World {
    recipe(&mut world, json!({"accept": accept, "fit": {"epochs": epochs}}));
    world
}

/// It must be better than what was accepted.
fn better() -> Value {
    json!({"minAccuracy": "90%", "improveBy": "0.5%"})
}

/// What the trainer of the Job that has just been made is told.
fn against(world: &World) -> Option<String> {
    let begun: Vec<_> = world.jobs.values().filter(|job| job.status.is_none()).collect();
    let [begun] = begun[..] else { panic!("{:?}", world.jobs.keys()) };
    let containers = &begun.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers;
    let mut args = containers[0].args.iter().flatten();
    args.find(|arg| *arg == "--against")?;
    args.next().cloned()
}

#[test]
fn a_run_is_held_against_the_newest_that_was_published() {
    let next = |world: World, epochs: i64| settled(revised(world, epochs, better()));
    let mut world = next(settled(scene("25ms")), 1);
    assert_eq!(against(&world), None, "nothing was published yet");
    world = next(ends(world, &result(None, 0.1)), 2);
    assert_eq!(against(&world), None, "what was refused is no bar");
    world = next(ends(world, &result(Some(OLDER), 0.98)), 3);
    assert_eq!(against(&world).as_deref(), Some(OLDER));
    world = next(ends(world, &result(None, 0.97)), 4);
    assert_eq!(against(&world).as_deref(), Some(OLDER));
    job(&mut world, ended("Failed", "DeadlineExceeded"));
    world = next(settled(world), 5);
    assert_eq!(against(&world).as_deref(), Some(OLDER));
    world = next(ends(world, &result(Some(ARTIFACT), 0.99)), 6);
    assert_eq!(against(&world).as_deref(), Some(ARTIFACT));
    let floor = settled(revised(ends(world, &result(None, 0.97)), 7, json!({"minAccuracy": "90%"})));
    assert_eq!(against(&floor), None, "it was not asked for");
}

/// What opens the one need not open the other: each try of the run ended as it could not be pulled.
#[test]
fn what_lies_in_another_repository_than_the_run_publishes_in_is_no_bar() {
    let next = |mut world: World, epochs: i64, uri: &str| {
        recipe(&mut world, json!({"accept": better(), "fit": {"epochs": epochs}, "output": {"uri": uri}}));
        settled(world)
    };
    let (here, there) = ("oci://r:5000/m/digits", "oci://s:5000/m/digits");
    let mut world = next(settled(scene("25ms")), 1, here);
    world = next(ends(world, &result(Some(OLDER), 0.98)), 2, there);
    assert_eq!(against(&world), None);
    world = next(ends(world, &result(None, 0.5)), 3, "oci://r:5000/m/digits-2");
    assert_eq!(against(&world), None, "it only begins alike");
    world = next(ends(world, &result(None, 0.5)), 4, here);
    assert_eq!(against(&world).as_deref(), Some(OLDER));
}

/// More runs are refused than a status tells of.
#[test]
fn what_was_published_stays_the_bar_however_many_runs_are_refused() {
    let mut world = settled(revised(settled(scene("25ms")), 1, better()));
    world = ends(world, &result(Some(ARTIFACT), 0.98));
    for epochs in 2..12 {
        world = settled(revised(world, epochs, better()));
        assert_eq!(against(&world).as_deref(), Some(ARTIFACT), "{epochs}");
        world = ends(world, &result(None, 0.97));
    }
    assert_eq!(states(&world).iter().filter(|state| **state == RunState::Rejected).count(), 5);
}

/// The status does not tell yet of what ends in the pass that begins the next run.
#[test]
fn what_ends_as_the_next_run_begins_is_its_bar() {
    let world = settled(revised(settled(scene("25ms")), 1, better()));
    let mut world = settled(revised(ends(world, &result(Some(OLDER), 0.98)), 2, better()));
    let name = job(&mut world, ended("Complete", ""));
    pod_of(&mut world, &name, exit(0, &result(Some(ARTIFACT), 0.99)), Value::Null);
    let world = revised(world, 3, better());
    let steps = run(&world);
    assert_eq!(against(&carried_out(world, &steps)).as_deref(), Some(ARTIFACT));
}

#[test]
fn another_bar_begins_no_run_and_changes_none_that_goes_on() {
    let world = settled(revised(settled(scene("25ms")), 1, better()));
    let mut world = ends(world, &result(Some(OLDER), 0.98));
    let moved = |world: &mut World| {
        let mut live = serde_json::to_value(world.trainings[&at("digits")].as_ref()).unwrap();
        let runs = live["status"]["runs"].as_array_mut().unwrap();
        *runs.iter_mut().find_map(|run| run.get_mut("artifact")).unwrap() = json!(ARTIFACT);
        put(&mut world.trainings, live);
    };
    let mut settled_on_another = world.clone();
    moved(&mut settled_on_another);
    let settled_on_another = settled(settled_on_another);
    assert_eq!((settled_on_another.jobs.len(), said(&settled_on_another, "Training")), (1, "False/Ended".into()));
    world = settled(revised(world, 2, better()));
    let name = job(&mut world, json!({"active": 1}));
    pod_of(&mut world, &name, json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), Value::Null);
    world = settled(world);
    moved(&mut world);
    let jobs = world.jobs.clone();
    let world = settled(world);
    assert_eq!((status(&world).runs[0].state, world.jobs), (RunState::Running, jobs));
}
