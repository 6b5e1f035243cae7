//! The status of an EdgeTraining.

use super::{Claim, Truth, conditions, ready};
use crate::observe::World;
use crate::trigger::Due;
use kube::ResourceExt;
use sconce_api::{EdgeTraining, EdgeTrainingStatus, Reason, RunState, TrainingRun};

/// So many runs are told of.
const RUNS: usize = 6;

/// Why no run goes on although the recipe asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    pub reason: Reason,
    pub message: String,
}

/// What is seen of a recipe.
pub struct Seen<'a> {
    /// The newest first.
    pub runs: Vec<TrainingRun>,
    pub cursor: Option<i64>,
    /// Whether another is to begin, if none goes on.
    pub due: &'a Due,
    pub hindrance: Option<&'a Hindrance>,
}

pub fn edge_training(world: &World, training: &EdgeTraining, seen: Seen<'_>) -> EdgeTrainingStatus {
    let Seen { runs, cursor, due, hindrance } = seen;
    let old = training.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let (generation, newest) = (training.metadata.generation, runs.first());
    let active = newest.filter(|run| !run.state.is_over());
    let training_now = going_on(active, newest, hindrance, due);
    let (accepted, published) = (accepted(&runs), published(&runs));
    let is_awaited = due.wait().filter(|wait| newest.is_none() || wait.reason == Reason::InvalidSpec);
    let suspended = training.spec.suspend && (*due != Due::Settled || active.is_some());
    let (claim, busy) = if suspended {
        (Claim::new("Ready", false, Reason::Suspended, "spec.suspend is set: no run goes on"), false)
    } else if let Some(hindrance) = hindrance {
        (Claim::new("Ready", false, hindrance.reason, &*hindrance.message), true)
    } else if *due == Due::Now || active.is_some() {
        (Claim::new("Ready", Truth::Unknown, Reason::Progressing, &*training_now.message), true)
    } else if let Some(wait) = is_awaited {
        (Claim::new("Ready", false, wait.reason, &*wait.message), false)
    } else {
        (ready(&[&accepted, &published], &published.message), false)
    };
    let reconciling = busy.then(|| Claim::new("Reconciling", true, Reason::Progressing, &*training_now.message));
    let stalled = (is_stuck(newest, due) && !busy && !suspended).then(|| Claim {
        kind: "Stalled",
        truth: Truth::True,
        ..claim.clone()
    });
    let claims = [claim, training_now, accepted, published].into_iter().chain(reconciling).chain(stalled).collect();
    EdgeTrainingStatus {
        observed_generation: generation,
        conditions: conditions(claims, old, generation, world.now),
        runs: kept(runs),
        cursor,
    }
}

/// Whether only a person helps: the same recipe with the same data would end as it did.
fn is_stuck(newest: Option<&TrainingRun>, due: &Due) -> bool {
    let in_vain = newest.is_some_and(|run| matches!(run.state, RunState::Failed | RunState::Rejected));
    match due {
        Due::Waiting(wait) if wait.reason == Reason::InvalidSpec => true,
        Due::Waiting(wait) => in_vain && wait.reason == Reason::WaitingForRequest,
        Due::Settled => in_vain,
        Due::Now | Due::At(..) => false,
    }
}

fn going_on(
    active: Option<&TrainingRun>,
    newest: Option<&TrainingRun>,
    hindrance: Option<&Hindrance>,
    due: &Due,
) -> Claim {
    let say = |truth: bool, reason, message: String| Claim::new("Training", truth, reason, message);
    let Some(run) = active else {
        return match (hindrance, due.wait(), newest) {
            (Some(hindrance), ..) => say(false, hindrance.reason, hindrance.message.clone()),
            (None, Some(wait), _) => say(false, wait.reason, wait.message.clone()),
            (None, None, Some(newest)) => say(false, Reason::Ended, format!("{} has ended", newest.name)),
            (None, None, None) => say(false, Reason::Waiting, "the first run begins".into()),
        };
    };
    let why = run.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    match run.state {
        RunState::Suspended => say(false, Reason::Suspended, format!("{} is suspended", run.name)),
        RunState::Running => {
            let all =
                run.progress.as_ref().map(|progress| format!(" ({} epochs)", progress.epochs)).unwrap_or_default();
            say(true, Reason::Running, format!("{} trains{all}{why}", run.name))
        }
        _ => say(false, Reason::Waiting, format!("{} waits{why}", run.name)),
    }
}

/// Of the newest run that has ended.
fn accepted(runs: &[TrainingRun]) -> Claim {
    let say = |truth: Truth, reason, message: String| Claim::new("Accepted", truth, reason, message);
    let Some(run) = runs.iter().find(|run| run.state.is_over()) else {
        return say(Truth::Unknown, Reason::Progressing, "no run has ended yet".into());
    };
    let accuracy = run.accuracy.as_ref().map_or_else(String::new, |accuracy| format!(", accuracy {accuracy}"));
    let why = run.message.as_deref().unwrap_or("it was not said why");
    match run.state {
        RunState::Succeeded => say(Truth::True, Reason::Accepted, format!("{}{accuracy}", run.name)),
        RunState::Rejected => say(Truth::False, Reason::NotAccepted, format!("{}{accuracy}: {why}", run.name)),
        _ => say(Truth::False, Reason::RunFailed, format!("{}: {why}", run.name)),
    }
}

fn published(runs: &[TrainingRun]) -> Claim {
    match newest_published(runs).and_then(|at| runs.get(at)?.artifact.as_ref()) {
        Some(artifact) => Claim::new("Published", true, Reason::Published, artifact.clone()),
        None => Claim::new("Published", false, Reason::NotPublished, "no run has published a model yet"),
    }
}

fn newest_published(runs: &[TrainingRun]) -> Option<usize> {
    runs.iter().position(|run| run.state == RunState::Succeeded)
}

/// The newest, and among them the newest that was published, however old: models may follow it.
fn kept(mut runs: Vec<TrainingRun>) -> Vec<TrainingRun> {
    if let Some(at) = newest_published(&runs).filter(|at| *at >= RUNS) {
        runs.swap(RUNS - 1, at);
    }
    runs.truncate(RUNS);
    runs
}

/// No node may run it.
pub fn no_nodes(training: &EdgeTraining, tier: sconce_api::Tier) -> Hindrance {
    let field = if tier == sconce_api::Tier::Edge { "spec.sites.nodeSelector" } else { "spec.cloud.nodeSelector" };
    let message = format!("no EdgeFleet names {tier} nodes for {}: make one with {field}", training.name_any());
    Hindrance { reason: Reason::NoNodes, message }
}

/// What it is to learn from is not there.
pub fn no_dataset(name: &str) -> Hindrance {
    let message = format!("there is no EdgeDataset {name} in this namespace: make it, or correct spec.dataset.ref");
    Hindrance { reason: Reason::DatasetNotFound, message }
}
