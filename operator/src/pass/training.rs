//! Trainings: which run begins, goes on, stops or is forgotten, and what is said of them.

use super::drift::drift;
use super::{Input, Steps, caught, conditions, news};
use crate::apply::{Target, Write};
use crate::names;
use crate::observe::{Key, NAME_LABEL, TRAINING_POD, World};
use crate::render::{self, Kind, Run};
use crate::status::{self, Hindrance, Seen};
use crate::training::Recipe;
use crate::trigger::{self, Drift, Due, Known};
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use sconce_api::{EdgeDataset, EdgeFleet, EdgeTraining, Reason, RunState, Tier, TrainingRun};

/// A log is read no more often, and so a status is written no more often.
const PACE: SignedDuration = SignedDuration::from_secs(30);

pub fn decide(input: &Input<'_>, steps: &mut Steps) {
    let alive = input.world.trainings.values().filter(|training| training.metadata.deletion_timestamp.is_none());
    for training in alive {
        let what = || format!("EdgeTraining {}/{}", training.namespace().unwrap_or_default(), training.name_any());
        let mut own = Steps::default();
        // What was decided before a panic is not written.
        if caught(what, &mut steps.panics, || one(input, training, &mut own)).is_some() {
            steps.join(own);
        }
    }
}

fn one(input: &Input<'_>, training: &EdgeTraining, steps: &mut Steps) {
    let world = input.world;
    let jobs = jobs(world, training);
    let runs = runs(input, training, &jobs, steps);
    let dataset = dataset(world, training);
    let recipe = Recipe::of(training, dataset);
    let labelled = dataset.and_then(|dataset| Some(dataset.status.as_ref()?.labelled));
    let cursor = trigger::cursor(training.status.as_ref(), &runs, labelled);
    let newest = runs.first();
    let (mut due, mut hindrance) = (Due::Settled, None);
    if let Some(run) = newest.filter(|run| !run.state.is_over()) {
        hold(training, run, &jobs, steps);
    } else {
        let new = (labelled.unwrap_or_default() - cursor.unwrap_or_default()).max(0);
        let is_asked = training.spec.trigger.as_ref().is_some_and(|trigger| trigger.drift.is_some());
        let drift = if is_asked { drift(world, training) } else { Drift::default() };
        let known = Known { recipe_hash: &recipe.hash, runs: &runs, new, drift: &drift, now: world.now };
        due = trigger::due(training, &known);
        let missing = training.spec.dataset.reference.as_ref().filter(|_| dataset.is_none() && due != Due::Settled);
        hindrance = missing.map(|missing| status::no_dataset(&missing.name));
        match due {
            Due::Now if !training.spec.suspend && missing.is_none() => {
                let next = Next { recipe: &recipe, newest, labelled: dataset.and(labelled.or(Some(0))) };
                hindrance = begin(input, training, &next, steps);
            }
            Due::At(time, _) => steps.look_at(Some(time)),
            _ => {}
        }
    }
    forget(training, &jobs, steps);
    let new = Seen { runs, cursor, due: &due, hindrance: hindrance.as_ref() };
    let new = status::edge_training(world, training, new);
    let old = conditions(&training.status, |status| &status.conditions);
    let news = news(training, &["Training", "Accepted", "Stalled"], old, &new.conditions);
    steps.status(Kind::EdgeTraining, training, training.status.as_ref(), &new, news);
}

/// What `spec.dataset.ref` names.
fn dataset<'a>(world: &'a World, training: &EdgeTraining) -> Option<&'a EdgeDataset> {
    let name = training.spec.dataset.reference.as_ref()?.name.clone();
    let found = world.datasets.get(&(training.namespace().unwrap_or_default(), name))?;
    Some(found.as_ref()).filter(|dataset| dataset.metadata.deletion_timestamp.is_none())
}

/// The training's Jobs, the newest first.
fn jobs<'a>(world: &'a World, training: &EdgeTraining) -> Vec<&'a Job> {
    let ours = |job: &&Job| {
        job.namespace() == training.namespace()
            && job.owner_references().iter().any(|owner| Some(&owner.uid) == training.metadata.uid.as_ref())
    };
    let mut jobs: Vec<_> = world.jobs.values().map(|job| job.as_ref()).filter(ours).collect();
    jobs.sort_by_key(|job| std::cmp::Reverse((job.creation_timestamp().map(|time| time.0), job.name_any())));
    jobs
}

/// All that is known of runs, the newest first: by their Jobs, and of those whose Job is gone what was said last. One that was
/// not over has gone with its Job, and begins again.
fn runs(input: &Input<'_>, training: &EdgeTraining, jobs: &[&Job], steps: &mut Steps) -> Vec<TrainingRun> {
    let old = told(training);
    let is_new = |job: &&&Job| {
        let known = old.iter().any(|run| run.name == job.name_any());
        !known && !is_forgotten(old, job) && job.metadata.deletion_timestamp.is_none()
    };
    let mut runs: Vec<_> = jobs.iter().filter(is_new).map(|job| seen(input, job, None, steps)).collect();
    for run in old {
        let job = jobs.iter().find(|job| job.name_any() == run.name);
        match job {
            // What was said of an ended run stays said: its pod may go before its Job.
            _ if run.state.is_over() => runs.push(run.clone()),
            Some(job) => runs.push(seen(input, job, Some(run), steps)),
            None => {}
        }
    }
    runs
}

fn told(training: &EdgeTraining) -> &[TrainingRun] {
    training.status.as_ref().map(|status| status.runs.as_slice()).unwrap_or_default()
}

/// Whether a Job is of a run that is told of no longer: later ones are.
fn is_forgotten(told: &[TrainingRun], job: &Job) -> bool {
    let began = job.creation_timestamp().map(|time| time.0);
    told.iter().filter_map(|run| run.start_time.as_ref()).any(|later| began.is_some_and(|began| began < later.0))
}

fn seen(input: &Input<'_>, job: &Job, old: Option<&TrainingRun>, steps: &mut Steps) -> TrainingRun {
    let pod = pod_of(input.world, job);
    let key = pod.map(crate::observe::key);
    let reading = key.as_ref().and_then(|key| input.readings.get(key));
    let run = status::run(job, pod, reading.and_then(|reading| reading.progress.as_ref()), old);
    if let Some(key) = key.filter(|_| run.state == RunState::Running) {
        let now = input.world.now;
        let later = reading.map(|reading| reading.at + PACE).filter(|next| *next > now);
        if later.is_none() {
            steps.to_read.push(key);
        }
        steps.look_at(Some(later.unwrap_or(now + PACE)));
    }
    run
}

/// The newest pod of a Job.
fn pod_of<'a>(world: &'a World, job: &Job) -> Option<&'a Pod> {
    let of_job = |pod: &&Pod| {
        pod.namespace() == job.namespace()
            && pod.labels().get(NAME_LABEL).is_some_and(|name| name == TRAINING_POD)
            && pod.owner_references().iter().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref())
    };
    let pods = world.training_pods.values().map(|pod| pod.as_ref()).filter(of_job);
    pods.max_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()))
}

/// A run that goes on is stopped, or let go on, as the spec says. What waits in a queue is the queue's to start: its Job is
/// deleted instead.
fn hold(training: &EdgeTraining, run: &TrainingRun, jobs: &[&Job], steps: &mut Steps) {
    let Some(job) = jobs.iter().find(|job| job.name_any() == run.name) else { return };
    let (target, suspend) = (Target::of(Kind::Job, *job), training.spec.suspend);
    let queued = job.labels().contains_key("kueue.x-k8s.io/queue-name");
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or_default();
    match queued {
        true if suspend => steps.farewells.push(Write::Delete(target)),
        false if suspend != suspended => steps.objects.push(Write::Suspend { target, suspend }),
        _ => {}
    }
}

/// The run that is to begin.
struct Next<'a> {
    recipe: &'a Recipe,
    newest: Option<&'a TrainingRun>,
    labelled: Option<i64>,
}

/// The next run; or what keeps it from beginning.
fn begin(input: &Input<'_>, training: &EdgeTraining, next: &Next<'_>, steps: &mut Steps) -> Option<Hindrance> {
    let &Next { recipe, newest, labelled } = next;
    let tier = training.spec.run.as_ref().and_then(|run| run.tier).unwrap_or(Tier::Cloud);
    let has_nodes = |fleet: &&EdgeFleet| tier == Tier::Edge || fleet.spec.cloud.is_some();
    let stays = |fleet: &&EdgeFleet| fleet.metadata.deletion_timestamp.is_none();
    let fleets = input.world.fleets.values().map(|fleet| fleet.as_ref());
    let fleets: Vec<&EdgeFleet> = fleets.filter(stays).filter(has_nodes).collect();
    if fleets.is_empty() {
        return Some(status::no_nodes(training, tier));
    }
    let uid = training.uid().unwrap_or_default();
    let before = newest.map(|run| run.name.as_str()).unwrap_or_default();
    let name = names::run(&training.name_any(), &uid, &recipe.hash, before);
    let (manifest, recipe_hash) = (&recipe.manifest, &*recipe.hash);
    let request = trigger::request(training);
    let request = request.as_deref();
    let run = Run { training, name: &name, recipe_hash, manifest, labelled, request, fleets: &fleets };
    steps.apply(input.world, render::job(&run, input.settings));
    let key: Key = (training.namespace().unwrap_or_default(), name);
    let refusal = input.refusals.get(&(Kind::Job, key))?;
    let reason = if refusal.reason == Reason::NameConflict { refusal.reason } else { Reason::Waiting };
    Some(Hindrance { reason, message: refusal.message.clone() })
}

/// Jobs of ended runs beyond those that are kept, once it is written what came of them.
fn forget(training: &EdgeTraining, jobs: &[&Job], steps: &mut Steps) {
    let keep = training.spec.run.as_ref().and_then(|run| run.keep.clone()).unwrap_or_default();
    let told = told(training);
    let is_written = |job: &Job| match told.iter().find(|run| run.name == job.name_any()) {
        Some(run) => run.state.is_over(),
        None => is_forgotten(told, job),
    };
    let (mut complete, mut failed) = (0, 0);
    for job in jobs.iter().filter(|job| is_written(job) && job.metadata.deletion_timestamp.is_none()) {
        let (seen, most) = match status::is_complete(job) {
            true => (&mut complete, keep.succeeded),
            false => (&mut failed, keep.failed),
        };
        *seen += 1;
        if *seen > most {
            steps.farewells.push(Write::Delete(Target::of(Kind::Job, *job)));
        }
    }
}
