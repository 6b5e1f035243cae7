//! Where a model's artifact is, as `spec.model` says it: by its address, or as an EdgeTraining publishes it.

use crate::artifact::Failure;
use crate::observe::World;
use kube::ResourceExt;
use sconce_api::{DesiredVersion, EdgeModel, EdgeTraining, PROMOTE, Promotion, Reason, RunState, TrainingRun};

/// The artifact's address; or why there is none.
pub fn source(world: &World, model: &EdgeModel, desired: Option<&DesiredVersion>) -> Result<String, Failure> {
    let model_source = &model.spec.model;
    if let Some(uri) = &model_source.uri {
        return Ok(uri.clone());
    }
    let training = training(world, model)?;
    let (newest, artifact) = training.published().ok_or_else(|| nothing(training))?;
    if model_source.promotion == Some(Promotion::Automatic) {
        return Ok(artifact.to_owned());
    }
    let Some(promoted) = model.annotations().get(PROMOTE) else {
        return Err(failure(Reason::NotPromoted, invitation(model, newest, artifact)));
    };
    let is_it = |artifact: &&str| artifact.rsplit_once('@').is_some_and(|(_, digest)| digest == promoted);
    let known = desired.filter(|desired| desired.digest == *promoted).map(|desired| desired.uri.as_str());
    artifacts(training).find(is_it).or(known).map(str::to_owned).ok_or_else(|| {
        let told = format!("the annotation {PROMOTE} names {promoted}, which is no digest of a published model");
        failure(Reason::NotPromoted, format!("{told}; {}", invitation(model, newest, artifact)))
    })
}

/// That something newer than what is served waits for a person.
pub fn newer(world: &World, model: &EdgeModel, served: &str) -> Option<String> {
    if model.spec.model.uri.is_some() || model.spec.model.promotion == Some(Promotion::Automatic) {
        return None;
    }
    let (newest, artifact) = training(world, model).ok()?.published()?;
    (artifact != served).then(|| invitation(model, newest, artifact))
}

fn training<'a>(world: &'a World, model: &EdgeModel) -> Result<&'a EdgeTraining, Failure> {
    let name = model.spec.model.training_ref.as_ref().map(|training| training.name.clone()).unwrap_or_default();
    let namespace = model.namespace().unwrap_or_default();
    let found = world.trainings.get(&(namespace.clone(), name.clone())).map(AsRef::as_ref);
    let missing =
        || format!("there is no EdgeTraining {name} in {namespace}: make it, or correct spec.model.trainingRef");
    found.ok_or_else(|| failure(Reason::TrainingNotFound, missing()))
}

fn nothing(training: &EdgeTraining) -> Failure {
    let name = training.name_any();
    let runs = training.status.iter().flat_map(|status| &status.runs);
    let stands = match runs.map(|run| (run, run.state)).next() {
        Some((run, RunState::Failed | RunState::Rejected)) => {
            let why = run.message.as_deref().unwrap_or("it did not say why");
            format!("{} has ended without: {why}", run.name)
        }
        Some((run, state)) => format!("{} is {state:?}", run.name),
        None => "no run has begun".into(),
    };
    failure(Reason::NotPublished, format!("EdgeTraining {name} has published nothing yet; {stands}"))
}

/// What to type to serve it.
fn invitation(model: &EdgeModel, run: &TrainingRun, artifact: &str) -> String {
    let digest = artifact.rsplit_once('@').map_or(artifact, |(_, digest)| digest);
    let accuracy = run.accuracy.as_ref().map_or_else(String::new, |accuracy| format!(" (accuracy {accuracy})"));
    let (name, namespace) = (model.name_any(), model.namespace().unwrap_or_default());
    let patch = serde_json::json!({"metadata": {"annotations": {PROMOTE: digest}}});
    format!(
        "{} has published {digest}{accuracy}; to serve it: kubectl patch em {name} -n {namespace} --type=merge -p '{patch}'",
        run.name
    )
}

fn artifacts(training: &EdgeTraining) -> impl Iterator<Item = &str> {
    let runs = training.status.iter().flat_map(|status| &status.runs);
    runs.filter(|run| run.state == RunState::Succeeded).filter_map(|run| run.artifact.as_deref())
}

fn failure(reason: Reason, message: String) -> Failure {
    Failure { reason, message }
}
