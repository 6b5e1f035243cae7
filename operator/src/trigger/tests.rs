use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use sconce_api::RunData;
use serde_json::{Value, json};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
/// A midnight in January, UTC.
const START: i64 = 1_800_000_000 / 86_400 * 86_400;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn training(trigger: Value) -> EdgeTraining {
    let spec = json!({"dataset": {"ref": {"name": "digits"}}, "trigger": trigger, "architecture": {"input": {"shape": [1, 28, 28]},
        "layers": [{"flatten": {}}]}, "output": {"uri": "oci://r:5000/m/d"}});
    let metadata = json!({"name": "digits", "namespace": "vision", "creationTimestamp": at(0).to_string()});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn run(number: usize, state: RunState, start: i64, end: i64, samples: i64) -> TrainingRun {
    TrainingRun {
        name: format!("digits-{number}"),
        recipe_hash: "recipe".into(),
        state,
        dataset: Some(RunData { samples, digest: None }),
        request: None,
        message: None,
        progress: None,
        verdicts: Vec::new(),
        accuracy: None,
        artifact: None,
        start_time: Some(Time(at(start))),
        completion_time: Some(Time(at(end))),
    }
}

fn asked(training: &EdgeTraining, runs: &[TrainingRun], new: i64, now: i64) -> Due {
    asked_while(training, runs, new, now, false)
}

fn asked_while(training: &EdgeTraining, runs: &[TrainingRun], new: i64, now: i64, drifts: bool) -> Due {
    let drift = Drift { drifts, message: "digits drifts".into() };
    due(training, &Known { recipe_hash: "recipe", runs, new, drift: &drift, now: at(now) })
}

/// The time, if there is one, and the reason.
fn waits(due: &Due) -> (Option<i64>, Option<Reason>) {
    let time = match due {
        Due::At(time, _) => Some(time.as_second() - START),
        _ => None,
    };
    (time, due.wait().map(|wait| wait.reason))
}

#[test]
fn without_a_trigger_it_runs_once_for_each_recipe() {
    let plain = training(Value::Null);
    assert_eq!(asked(&plain, &[], 0, 0), Due::Now);
    let mut ran = [run(1, RunState::Failed, 0, 9, 0)];
    assert_eq!(asked(&plain, &ran, 500, 10), Due::Settled, "new samples begin nothing");
    ran[0].recipe_hash = "another".into();
    assert_eq!(asked(&plain, &ran, 0, 10), Due::Now);
}

#[test]
fn new_labelled_samples_begin_a_run_when_they_are_enough() {
    let trained = training(json!({"samples": {"new": 500}}));
    let Due::Waiting(wait) = asked(&trained, &[], 310, 10) else { panic!("310 are not enough") };
    assert_eq!((wait.reason, &*wait.message), (Reason::WaitingForSamples, "310 of 500 new labelled samples"));
    assert_eq!(asked(&trained, &[], 500, 10), Due::Now);
}

#[test]
fn a_schedule_is_kept_in_its_time_zone_and_made_up_for_once() {
    let nightly = training(json!({"schedule": {"cron": "0 3 * * *", "timeZone": "Europe/Berlin"}, "minNew": 50}));
    assert_eq!(
        waits(&asked(&nightly, &[], 900, HOUR)),
        (Some(2 * HOUR), Some(Reason::WaitingForSchedule)),
        "winter there"
    );
    assert_eq!(
        waits(&asked(&nightly, &[], 49, 5 * HOUR)),
        (None, Some(Reason::WaitingForSamples)),
        "due, with too little"
    );
    assert_eq!(asked(&nightly, &[], 50, 5 * HOUR), Due::Now);
    let late = [run(1, RunState::Succeeded, 100 * HOUR, 101 * HOUR, 0)];
    assert_eq!(waits(&asked(&nightly, &late, 50, 102 * HOUR)).0, Some(122 * HOUR));
    let wrong = |schedule: Value| waits(&asked(&training(json!({ "schedule": schedule })), &[], 0, 0));
    for schedule in [
        json!({"cron": "0 25 * * *"}),
        json!({"cron": "0 0 30 2 *"}),
        json!({"cron": "0 3 * * *", "timeZone": "Atlantis"}),
    ] {
        assert_eq!(wrong(schedule.clone()), (None, Some(Reason::InvalidSpec)), "{schedule}");
    }
}

#[test]
fn a_run_that_began_on_time_by_a_clock_that_is_behind_is_not_repeated() {
    let nightly = training(json!({"schedule": {"cron": "0 3 * * *"}}));
    let began = |second: i64| [run(1, RunState::Succeeded, second, 3 * HOUR + MINUTE, 0)];
    let next = |second: i64| waits(&asked(&nightly, &began(second), 0, 4 * HOUR)).0;
    assert_eq!([next(3 * HOUR - 1), next(3 * HOUR)], [Some(27 * HOUR); 2]);
    assert_eq!(asked(&nightly, &began(3 * HOUR - MINUTE), 0, 4 * HOUR), Due::Now);
}

#[test]
fn drift_begins_a_run_once_there_is_something_new_to_learn() {
    let drifting = training(json!({"drift": {}, "minNew": 50, "cooldown": "24h"}));
    assert_eq!(waits(&asked(&drifting, &[], 900, 0)), (None, Some(Reason::WaitingForDrift)), "labels alone begin none");
    let Due::Waiting(wait) = asked_while(&drifting, &[], 12, 0, true) else { panic!("12 are not enough") };
    assert_eq!(
        (wait.reason, &*wait.message),
        (Reason::WaitingForSamples, "digits drifts: 12 of 50 new labelled samples")
    );
    assert_eq!(asked_while(&drifting, &[], 50, 0, true), Due::Now);
    let ran = [run(1, RunState::Rejected, 0, HOUR, 0)];
    assert_eq!(
        waits(&asked_while(&drifting, &ran, 50, 2 * HOUR, true)),
        (Some(24 * HOUR), Some(Reason::CoolingDown)),
        "it drifts on, and the last run has mended nothing"
    );
    let plain = training(json!({"drift": {}}));
    assert_eq!(waits(&asked_while(&plain, &[], 0, 0, true)).1, Some(Reason::WaitingForSamples));
    assert_eq!(asked_while(&plain, &[], 1, 0, true), Due::Now);
}

#[test]
fn a_request_begins_one_run_with_any_trigger() {
    for trigger in [
        Value::Null,
        json!({"manual": {}}),
        json!({"samples": {"new": 500}}),
        json!({"schedule": {"cron": "0 3 * * *"}}),
        json!({"drift": {}}),
    ] {
        let mut asked_for = training(trigger);
        let mut ran = [run(1, RunState::Succeeded, 0, MINUTE, 0)];
        assert_ne!(asked(&asked_for, &ran, 0, HOUR), Due::Now);
        asked_for.annotations_mut().insert(labels::RUN_REQUESTED.into(), "monday".into());
        assert_eq!(asked(&asked_for, &ran, 0, HOUR), Due::Now);
        ran[0].request = request(&asked_for);
        assert_ne!(asked(&asked_for, &ran, 0, HOUR), Due::Now, "that request is met");
        asked_for.annotations_mut().insert(labels::RUN_REQUESTED.into(), "tuesday".into());
        assert_eq!(asked(&asked_for, &ran, 0, HOUR), Due::Now);
    }
}

#[test]
fn runs_are_apart_by_the_cooldown_and_failed_ones_further_each_time() {
    let mut trained = training(json!({"samples": {"new": 1}, "cooldown": "1h"}));
    let ran = |states: &[RunState]| -> Vec<TrainingRun> {
        states.iter().enumerate().map(|(number, state)| run(number, *state, 0, 55 * MINUTE, 0)).collect()
    };
    let (ended, failed) = (RunState::Rejected, RunState::Failed);
    let cooling = (Some(HOUR), Some(Reason::CoolingDown));
    assert_eq!(waits(&asked(&trained, &ran(&[ended]), 1, HOUR - 1)), cooling);
    assert_eq!(asked(&trained, &ran(&[ended]), 1, HOUR), Due::Now);
    assert_eq!(asked(&trained, &ran(&[ended, failed]), 1, HOUR), Due::Now, "that is over");
    let backing = |minutes: i64| (Some(minutes * MINUTE), Some(Reason::BackingOff));
    assert_eq!(waits(&asked(&trained, &ran(&[failed]), 1, HOUR)), backing(65));
    assert_eq!(waits(&asked(&trained, &ran(&[failed; 3]), 1, HOUR)), backing(95));
    assert_eq!(waits(&asked(&trained, &ran(&[failed; 6]), 1, HOUR)), backing(375));
    // Another recipe need not wait for the failures of this one; who asks need not, either.
    let another =
        Known { recipe_hash: "another", runs: &ran(&[failed; 3]), new: 1, drift: &Drift::default(), now: at(HOUR) };
    assert_eq!(due(&trained, &another), Due::Now);
    trained.annotations_mut().insert(labels::RUN_REQUESTED.into(), "now".into());
    assert_eq!(asked(&trained, &ran(&[failed; 3]), 0, HOUR), Due::Now);
    assert_eq!(waits(&asked(&trained, &ran(&[failed; 3]), 0, HOUR - 1)), cooling);
}

#[test]
fn the_cursor_moves_with_runs_that_have_learned_and_comes_down_with_nodes_that_are_gone() {
    let told = |cursor: Option<i64>, runs: Vec<TrainingRun>| EdgeTrainingStatus { cursor, runs, ..Default::default() };
    let ended = |state| run(1, state, 0, 9, 700);
    let going_on = told(Some(200), vec![ended(RunState::Running)]);
    for state in [RunState::Succeeded, RunState::Rejected] {
        assert_eq!(cursor(Some(&going_on), &[ended(state)], Some(900)), Some(700));
    }
    assert_eq!(cursor(Some(&going_on), &[ended(RunState::Failed)], Some(900)), Some(200));
    assert_eq!(cursor(None, &[], Some(900)), None);
    assert_eq!(cursor(None, &[ended(RunState::Succeeded)], None), Some(700), "a lost status");
    let before = told(Some(700), vec![ended(RunState::Succeeded)]);
    let fewer = cursor(Some(&before), &before.runs, Some(300));
    assert_eq!(fewer, Some(300));
    assert_eq!(cursor(Some(&told(fewer, before.runs.clone())), &before.runs, Some(450)), Some(300), "150 are new");
    assert_eq!(cursor(Some(&before), &before.runs, None), Some(700), "the dataset has said nothing");
}

#[derive(Clone, Debug)]
enum Step {
    Pass { minutes: i64 },
    Label { samples: i64 },
    Lose { samples: i64 },
    Drift(bool),
    Ask,
    End(RunState),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_i64..400).prop_map(|minutes| Step::Pass { minutes }),
        3 => (1_i64..60).prop_map(|samples| Step::Label { samples }),
        1 => (1_i64..60).prop_map(|samples| Step::Lose { samples }),
        1 => any::<bool>().prop_map(Step::Drift),
        1 => Just(Step::Ask),
        3 => prop_oneof![Just(RunState::Succeeded), Just(RunState::Rejected), Just(RunState::Failed)].prop_map(Step::End),
    ]
}

fn triggers() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1_i64..80).prop_map(|new| json!({"samples": {"new": new}})),
        (0_i64..24).prop_map(|hour| json!({"schedule": {"cron": format!("15 {hour} * * *")}})),
        (1_i64..80).prop_map(|new| json!({"schedule": {"cron": "*/7 * * * *"}, "minNew": new})),
        Just(json!({"manual": {}})),
        (1_i64..80).prop_map(|new| json!({"drift": {}, "minNew": new})),
    ]
}

proptest! {
    /// Whatever happens: starts are apart by the cooldown, a run that has learned resets what is new, one that failed does not and is
    /// followed late, what waits for a time is told no later than that, and nothing begins without enough that is new.
    #[test]
    fn runs_begin_when_they_should_and_no_sooner(
        trigger in triggers(),
        cooldown in prop::option::of(1_i64..2000),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut trigger = trigger;
        if let Some(minutes) = cooldown {
            trigger["cooldown"] = json!(format!("{minutes}m"));
        }
        let mut recipe = training(trigger.clone());
        let least = trigger["samples"]["new"].as_i64().or(trigger["minNew"].as_i64()).unwrap_or(0);
        let (mut now, mut labelled, mut requests, mut number, mut drifts) = (0, 0, 0, 0, false);
        let mut status = EdgeTrainingStatus::default();
        let mut going_on: Option<TrainingRun> = None;
        for step in steps {
            match step {
                Step::Pass { minutes } => now += minutes * MINUTE,
                Step::Label { samples } => labelled += samples,
                Step::Lose { samples } => labelled = (labelled - samples).max(0),
                Step::Drift(to) => drifts = to,
                Step::Ask => {
                    requests += 1;
                    recipe.annotations_mut().insert(labels::RUN_REQUESTED.into(), requests.to_string());
                }
                Step::End(state) => if let Some(run) = going_on.as_mut() {
                    run.state = state;
                    run.completion_time = Some(Time(at(now)));
                }
            }
            let before = status.cursor;
            let mut runs = status.runs.clone();
            if let Some(run) = going_on.take_if(|run| run.state.is_over()) {
                runs.insert(0, run);
            }
            runs.truncate(6);
            status.cursor = cursor(Some(&status), &runs, Some(labelled));
            if runs.len() > status.runs.len() || runs.first().map(|run| &run.name) != status.runs.first().map(|run| &run.name) {
                let ended = &runs[0];
                let expected = match ended.state {
                    RunState::Failed => before.map(|before| before.min(labelled)),
                    _ => Some(ended.dataset.as_ref().unwrap().samples.min(labelled)),
                };
                prop_assert_eq!(status.cursor, expected);
            }
            status.runs = runs;
            if going_on.is_some() {
                continue;
            }
            let new = (labelled - status.cursor.unwrap_or(0)).max(0);
            let due = asked_while(&recipe, &status.runs, new, now, drifts);
            if let Due::At(time, _) = &due {
                prop_assert!(*time > at(now));
                if let Due::At(later, _) = asked_while(&recipe, &status.runs, new, time.as_second() - START, drifts) {
                    prop_assert!(later > *time, "it waits for a time that has come");
                }
            }
            if due != Due::Now {
                continue;
            }
            let newest = status.runs.first();
            let request = request(&recipe);
            let is_asked_for = request.is_some() && newest.is_none_or(|run| run.request != request);
            prop_assert!(new >= least || is_asked_for);
            prop_assert!(drifts || is_asked_for || trigger.get("drift").is_none());
            if let Some(before) = newest {
                let since = at(now).duration_since(began(before).unwrap());
                prop_assert!(since >= SignedDuration::from_mins(cooldown.unwrap_or(0)));
                let ended = at(now).duration_since(before.completion_time.as_ref().unwrap().0);
                prop_assert!(before.state != RunState::Failed || is_asked_for || ended >= BACKOFF);
            }
            number += 1;
            let mut run = run(number, RunState::Running, now, now, labelled);
            run.completion_time = None;
            run.request = request;
            going_on = Some(run);
        }
    }
}
