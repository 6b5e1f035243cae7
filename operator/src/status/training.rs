//! The status of an EdgeTraining.

use super::{Claim, Truth, conditions, ready};
use crate::observe::World;
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

/// `runs` are the newest first; `due` says that the newest is none of this recipe.
pub fn edge_training(
    world: &World,
    training: &EdgeTraining,
    runs: Vec<TrainingRun>,
    due: bool,
    hindrance: Option<&Hindrance>,
) -> EdgeTrainingStatus {
    let old = training.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let (generation, newest) = (training.metadata.generation, runs.first());
    let active = newest.filter(|run| !run.state.is_over());
    let (training_now, accepted, published) = (going_on(active, newest, hindrance), accepted(&runs), published(&runs));
    let suspended = training.spec.suspend && (due || active.is_some());
    let (claim, busy) = if suspended {
        (Claim::new("Ready", false, Reason::Suspended, "spec.suspend is set: no run goes on"), false)
    } else if let Some(hindrance) = hindrance {
        (Claim::new("Ready", false, hindrance.reason, &*hindrance.message), true)
    } else if due || active.is_some() {
        (Claim::new("Ready", Truth::Unknown, Reason::Progressing, &*training_now.message), true)
    } else {
        (ready(&[&accepted, &published], &published.message), false)
    };
    // The same recipe would fail again: only another one helps.
    let in_vain = !due && newest.is_some_and(|run| matches!(run.state, RunState::Failed | RunState::Rejected));
    let reconciling = busy.then(|| Claim::new("Reconciling", true, Reason::Progressing, &*training_now.message));
    let stalled =
        (in_vain && !busy && !suspended).then(|| Claim { kind: "Stalled", truth: Truth::True, ..claim.clone() });
    let claims = [claim, training_now, accepted, published].into_iter().chain(reconciling).chain(stalled).collect();
    EdgeTrainingStatus {
        observed_generation: generation,
        conditions: conditions(claims, old, generation, world.now),
        runs: kept(runs),
    }
}

fn going_on(active: Option<&TrainingRun>, newest: Option<&TrainingRun>, hindrance: Option<&Hindrance>) -> Claim {
    let say = |truth: bool, reason, message: String| Claim::new("Training", truth, reason, message);
    let Some(run) = active else {
        return match (hindrance, newest) {
            (Some(hindrance), _) => say(false, hindrance.reason, hindrance.message.clone()),
            (None, Some(newest)) => say(false, Reason::Ended, format!("{} has ended", newest.name)),
            (None, None) => say(false, Reason::Waiting, "the first run begins".into()),
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
