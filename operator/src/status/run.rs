//! What a run is, by its Job and the Job's pod.

use super::shortened;
use crate::training::{Outcome, Told, outcome};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use sconce_api::{Percent, RunData, RunState, TrainingProgress, TrainingRun, labels};

/// What its registry says of a run whose pod is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Recorded {
    Published {
        artifact: String,
        accuracy: Option<Percent>,
    },
    /// It has not published.
    Nothing,
    /// Why it cannot be told.
    Unknown(String),
}

/// `old` is what was said of it before, `progress` what its log tells, and `recorded` is asked for where there is no pod.
pub fn run(
    job: &Job,
    (pod, recorded): (Option<&Pod>, Option<&Recorded>),
    progress: Option<&TrainingProgress>,
    old: Option<&TrainingRun>,
) -> TrainingRun {
    let status = job.status.clone().unwrap_or_default();
    let annotation = |name: &str| job.annotations().get(name).cloned();
    let labelled = annotation(crate::render::LABELLED).and_then(|labelled| labelled.parse().ok());
    let mut run = TrainingRun {
        name: job.name_any(),
        recipe_hash: annotation(crate::render::RECIPE).unwrap_or_default(),
        state: RunState::Waiting,
        dataset: labelled.map(|samples| RunData { samples, digest: None }),
        request: annotation(labels::RUN_REQUESTED),
        message: None,
        progress: progress.cloned().or_else(|| old.and_then(|old| old.progress.clone())),
        verdicts: Vec::new(),
        accuracy: None,
        artifact: None,
        start_time: status.start_time,
        completion_time: None,
    };
    if let Some(failed) = condition_time(job, "Failed") {
        run.completion_time = Some(failed.0);
        run.state = RunState::Failed;
        run.message = Some(why_failed(job, &failed.1, pod, old));
    } else if let Some((ended, _)) = condition_time(job, "Complete") {
        match pod {
            Some(pod) => ended_well(&mut run, pod, ended),
            None => ended_unseen(&mut run, recorded, ended),
        }
    } else if job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) {
        (run.state, run.message) = stopped(job);
    } else {
        (run.state, run.message) = alive(pod, old);
    }
    run.message = run.message.map(|message| shortened(&message, 512));
    run
}

/// Whether the Job has ended well.
pub fn is_complete(job: &Job) -> bool {
    condition_time(job, "Complete").is_some()
}

/// When the condition became true, and its reason.
fn condition_time(job: &Job, kind: &str) -> Option<(Time, String)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")?;
    Some((found.last_transition_time.clone()?, found.reason.clone().unwrap_or_default()))
}

fn stopped(job: &Job) -> (RunState, Option<String>) {
    match job.labels().get("kueue.x-k8s.io/queue-name") {
        Some(queue) => (RunState::Waiting, Some(format!("the queue {queue} has not admitted it"))),
        None => (RunState::Suspended, None),
    }
}

/// Seen before its pod has said what came of it, the run goes on a moment longer.
fn ended_well(run: &mut TrainingRun, pod: &Pod, ended: Time) {
    let Some(last_words) = container(pod).and_then(|container| container.state.as_ref()?.terminated.as_ref()) else {
        run.state = RunState::Running;
        return;
    };
    run.completion_time = Some(ended);
    let mut measured = |told: Told| {
        run.accuracy = told.accuracy;
        run.verdicts = told.verdicts;
        if let Some(dataset) = run.dataset.as_mut() {
            dataset.digest = told.digest;
        }
    };
    match last_words.message.as_deref().and_then(outcome) {
        Some(Outcome::Published { artifact, told }) => {
            measured(told);
            run.state = RunState::Succeeded;
            run.artifact = Some(artifact);
        }
        Some(Outcome::NotAccepted(told)) => {
            let why = told.why.clone().unwrap_or_else(|| "it is below spec.accept".into());
            measured(told);
            run.state = RunState::Rejected;
            run.message = Some(format!("nothing was published: {why}"));
        }
        Some(Outcome::Refused(why)) => {
            run.state = RunState::Failed;
            run.message = Some(why);
        }
        None => {
            run.state = RunState::Failed;
            run.message =
                Some("the Job completed, but said nothing of what came of it; change the recipe to run again".into());
        }
    }
}

/// Its pod went before it was seen, and its last words with it. What was published is in the registry.
fn ended_unseen(run: &mut TrainingRun, recorded: Option<&Recorded>, ended: Time) {
    const GONE: &str = "the Job completed, but its pod is gone, and with it what it said";
    let Some(recorded) = recorded else {
        run.state = RunState::Running;
        run.message = Some(format!("{GONE}: the registry is asked what was published"));
        return;
    };
    run.completion_time = Some(ended);
    run.state = RunState::Failed;
    match recorded {
        Recorded::Published { artifact, accuracy } => {
            run.state = RunState::Succeeded;
            run.artifact = Some(artifact.clone());
            run.accuracy.clone_from(accuracy);
        }
        Recorded::Nothing => {
            let told = "the registry has nothing of this run; change the recipe to run again";
            run.message = Some(format!("{GONE}; {told}"));
        }
        Recorded::Unknown(why) => run.message = Some(format!("{GONE}; {why}")),
    }
}

fn why_failed(job: &Job, reason: &str, pod: Option<&Pod>, old: Option<&TrainingRun>) -> String {
    let spec = job.spec.as_ref();
    let told = match reason {
        "DeadlineExceeded" => {
            let seconds = spec.and_then(|spec| spec.active_deadline_seconds).unwrap_or_default();
            format!("it took longer than run.deadline ({seconds} s)")
        }
        "BackoffLimitExceeded" => {
            let retries = spec.and_then(|spec| spec.backoff_limit).unwrap_or_default();
            format!("it crashed, and so did {retries} tries more (run.retries)")
        }
        other => format!("the Job failed: {other}"),
    };
    // The Job controller deletes a pod that it gives up: what it said was noted while it ran.
    match pod.and_then(crash).or_else(|| old.and_then(|old| old.message.clone())) {
        Some(said) => format!("{told}; {said}"),
        None => told,
    }
}

/// While it is neither suspended nor over.
fn alive(pod: Option<&Pod>, old: Option<&TrainingRun>) -> (RunState, Option<String>) {
    let Some(pod) = pod else { return (RunState::Waiting, old.and_then(|old| old.message.clone())) };
    let crash = crash(pod);
    let state = container(pod).and_then(|container| container.state.as_ref());
    if state.is_some_and(|state| state.running.is_some() || state.terminated.is_some()) {
        return (RunState::Running, crash);
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let why = waiting.and_then(|waiting| {
        let reason =
            waiting.reason.clone().filter(|reason| reason != "ContainerCreating" && reason != "PodInitializing")?;
        Some(waiting.message.clone().map_or_else(|| reason.clone(), |message| format!("{reason}: {message}")))
    });
    (RunState::Waiting, crash.or(why).or_else(|| unscheduled(pod)))
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    found.message.clone()
}

/// How the trainer ended the last time, if not well.
fn crash(pod: &Pod) -> Option<String> {
    let container = container(pod)?;
    let ended = |state: Option<&ContainerState>| state?.terminated.clone();
    let ended = ended(container.state.as_ref()).or_else(|| ended(container.last_state.as_ref()));
    let ContainerStateTerminated { exit_code, reason, message, .. } = ended.filter(|ended| ended.exit_code != 0)?;
    let reason = reason.filter(|reason| reason == "OOMKilled");
    Some(match (reason, message.as_deref().and_then(complaint)) {
        (Some(_), _) => "it was ended for its memory: raise run.resources.memory".into(),
        (None, Some(told)) => format!("it ended with {exit_code}: {told}"),
        (None, None) => format!("it ended with {exit_code}"),
    })
}

/// Of the end of a log the error with its causes, in one line; where there is none, the last line.
fn complaint(log: &str) -> Option<String> {
    let log = log.trim();
    let from = log.rfind("Error: ").or_else(|| log.rfind('\n')).unwrap_or_default();
    let words: Vec<&str> = log[from..].split_whitespace().collect();
    (!words.is_empty()).then(|| shortened(&words.join(" "), 300))
}

/// Whether the trainer has begun, ever: in this pod, or in one that is gone.
pub fn has_started(run: &TrainingRun, pod: Option<&Pod>) -> bool {
    let runs = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
    let here = pod.and_then(container).is_some_and(|container| {
        container.restart_count > 0 || [&container.state, &container.last_state].into_iter().flatten().any(runs)
    });
    // A Job counts a pod among those that failed though it never left the queue: that tells nothing.
    here || run.progress.is_some()
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_error_is_told_with_its_causes() {
        let check = |log: &str, expected: Option<&str>| assert_eq!(complaint(log).as_deref(), expected, "{log:?}");
        check(
            "epoch 1\nError: cannot push\n\nCaused by:\n    0: no route\n",
            Some("Error: cannot push Caused by: 0: no route"),
        );
        check("epoch 1\nkilled\n", Some("killed"));
        check("one line", Some("one line"));
        check(" \n", None);
    }
}
