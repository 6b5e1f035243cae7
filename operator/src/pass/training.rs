//! Trainings: which run begins, goes on, stops or is forgotten, and what is said of them.

use super::drift::drift;
use super::{Input, Steps, caught, conditions, news};
use crate::apply::{Target, Write};
use crate::names;
use crate::observe::{Key, NAME_LABEL, TRAINING_POD, World};
use crate::registry::{self, Ask, Outcome as Asked};
use crate::render::{self, Kind, Object, Run};
use crate::status::{self, Hindrance, Recorded, Seen};
use crate::training::Recipe;
use crate::trigger::{self, Drift, Due, Known};
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use sconce_api::{EdgeDataset, EdgeFleet, EdgeTraining, Reason, RunState, Tier, TrainingRun, labels};
use std::sync::Arc;

/// A log is read no more often, and so a status is written no more often.
const PACE: SignedDuration = SignedDuration::from_secs(30);
/// A registry that is down is asked so often what a run has published: for six minutes.
const ASKED: u32 = 10;

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
    let against = against(training, &runs);
    let next = Next { recipe: &recipe, labelled: dataset.and(labelled.or(Some(0))), against };
    if let Some(run) = newest.filter(|run| !run.state.is_over()) {
        hold(input, training, (run, &next), &jobs, steps);
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
                hindrance = begin(input, training, newest, &next, steps).err();
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
    let lost = pod.is_none() && status::is_complete(job);
    let recorded = lost.then(|| recorded(input, job, steps)).flatten();
    let progress = reading.and_then(|reading| reading.progress.as_ref());
    let run = status::run(job, (pod, recorded.as_ref()), progress, old);
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

/// What the registry tells of a run whose pod is gone, and with it its last words.
fn recorded(input: &Input<'_>, job: &Job, steps: &mut Steps) -> Option<Recorded> {
    let Some(uri) = render::target(job) else { return Some(Recorded::Nothing) };
    let key = registry::of_run(&crate::observe::key(job));
    let ask = Ask { uri, secret: render::opens(job) };
    match input.resolutions.get(&key).filter(|resolution| resolution.ask == ask).map(|asked| &asked.outcome) {
        Some(Asked::Found(artifact)) => {
            let full = artifact.variants.iter().find(|variant| variant.name == "f32");
            let artifact = format!("{}@{}", artifact.repository, artifact.digest);
            return Some(Recorded::Published { artifact, accuracy: full.and_then(|full| full.accuracy.clone()) });
        }
        Some(Asked::Failed { failure, .. }) if failure.reason == Reason::ArtifactMissing => {
            return Some(Recorded::Nothing);
        }
        Some(Asked::Failed { failure, attempts, .. }) if *attempts >= ASKED => {
            return Some(Recorded::Unknown(failure.message.clone()));
        }
        Some(Asked::Failed { retry_at, .. }) if *retry_at > input.clock => {}
        Some(Asked::Asking { .. }) => {}
        Some(Asked::Failed { .. }) | None => steps.to_resolve.push((key, ask)),
    }
    None
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
/// deleted instead; and so is one that has not started and is asked for otherwise by now, since it may never start as it is.
fn hold(
    input: &Input<'_>,
    training: &EdgeTraining,
    (run, next): (&TrainingRun, &Next<'_>),
    jobs: &[&Job],
    steps: &mut Steps,
) {
    let Some(job) = jobs.iter().find(|job| job.name_any() == run.name) else { return };
    if job.metadata.deletion_timestamp.is_some() {
        return;
    }
    let (target, suspend) = (Target::of(Kind::Job, *job), training.spec.suspend);
    let queued = job.labels().contains_key("kueue.x-k8s.io/queue-name");
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or_default();
    match queued {
        true if suspend => steps.farewells.push(Write::Delete(target)),
        false if suspend != suspended => steps.objects.push(Write::Suspend { target, suspend }),
        _ if !suspend && run.state == RunState::Waiting && is_outdated(input, training, (run, job), next) => {
            steps.farewells.push(Write::Delete(target));
        }
        _ => {}
    }
}

/// Whether a Job has not started, and would be another one if it were made now.
fn is_outdated(input: &Input<'_>, training: &EdgeTraining, (run, job): (&TrainingRun, &Job), next: &Next<'_>) -> bool {
    let is_known = training.spec.dataset.reference.is_none() || next.labelled.is_some();
    let has_started = status::has_started(run, pod_of(input.world, job));
    let Some(wanted) = rendered(input, training, &job.name_any(), next).ok().filter(|_| is_known && !has_started)
    else {
        return false;
    };
    let has = |name: &str| job.annotations().get(name).map(String::as_str);
    // One that an earlier version made says only of what recipe it is.
    let said = if has(render::FORM).is_some() { render::FORM } else { render::RECIPE };
    has(said) != wanted.body["metadata"]["annotations"][said].as_str()
}

/// The run that is to begin.
struct Next<'a> {
    recipe: &'a Recipe,
    labelled: Option<i64>,
    against: Option<&'a str>,
}

/// What the next run must be better than: what the newest that was published has published, as models follow it, in the repository
/// where this run publishes. What opens that need not open another: one of before `spec.output` moved could not be had, at any try. `runs` is
/// what is seen now, the newest first: one that ends in this pass stands in no status yet.
fn against<'a>(training: &EdgeTraining, runs: &'a [TrainingRun]) -> Option<&'a str> {
    training.spec.accept.as_ref()?.improve_by.as_ref()?;
    let mut published = runs.iter().filter_map(TrainingRun::published);
    published.find(|artifact| registry::in_one_place(artifact, &training.spec.output.uri))
}

/// The next run.
///
/// # Errors
/// What keeps it from beginning.
fn begin(
    input: &Input<'_>,
    training: &EdgeTraining,
    newest: Option<&TrainingRun>,
    next: &Next<'_>,
    steps: &mut Steps,
) -> Result<(), Hindrance> {
    let uid = training.uid().unwrap_or_default();
    let before = newest.map(|run| run.name.as_str()).unwrap_or_default();
    let name = names::run(&training.name_any(), &uid, &next.recipe.hash, before);
    let job = rendered(input, training, &name, next)?;
    // Without a claim each pod has a folder of its own.
    let has_claim = training.spec.run.as_ref().is_some_and(|run| run.claim_name.is_some());
    if let Some(pod) = alive(input.world, training).filter(|_| has_claim) {
        let message = format!("the pod {pod} of an earlier run has not ended: it may still write to the claim");
        return Err(Hindrance { reason: Reason::Waiting, message });
    }
    steps.apply(input.world, job);
    let key: Key = (training.namespace().unwrap_or_default(), name);
    let Some(refusal) = input.refusals.get(&(Kind::Job, key)) else { return Ok(()) };
    let reason = if refusal.reason == Reason::NameConflict { refusal.reason } else { Reason::Waiting };
    Err(Hindrance { reason, message: refusal.message.clone() })
}

/// The Job of a run of this name, as it would be made now.
fn rendered(input: &Input<'_>, training: &EdgeTraining, name: &str, next: &Next<'_>) -> Result<Object, Hindrance> {
    let tier = training.spec.run.as_ref().and_then(|run| run.tier).unwrap_or(Tier::Cloud);
    let has_nodes = |fleet: &&EdgeFleet| tier == Tier::Edge || fleet.spec.cloud.is_some();
    let stays = |fleet: &&EdgeFleet| fleet.metadata.deletion_timestamp.is_none();
    let fleets = input.world.fleets.values().map(|fleet| fleet.as_ref());
    let fleets: Vec<&EdgeFleet> = fleets.filter(stays).filter(has_nodes).collect();
    if fleets.is_empty() {
        return Err(status::no_nodes(training, tier));
    }
    let (manifest, recipe_hash) = (&next.recipe.manifest, &*next.recipe.hash);
    let request = trigger::request(training);
    let (request, labelled, against) = (request.as_deref(), next.labelled, next.against);
    let run = Run { training, name, recipe_hash, manifest, labelled, request, against, fleets: &fleets };
    Ok(render::job(&run, input.settings))
}

/// A pod of any of the training's runs that has not ended.
fn alive(world: &World, training: &EdgeTraining) -> Option<String> {
    let is_ours = |pod: &&Arc<Pod>| {
        pod.namespace() == training.namespace() && pod.labels().get(labels::TRAINING) == training.metadata.name.as_ref()
    };
    let has_ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let found = world.training_pods.values().filter(is_ours).find(|pod| !has_ended(pod))?;
    Some(found.name_any())
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
