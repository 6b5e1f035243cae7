//! Models: what `spec.model` resolved to, and what is said of it.

use super::source::{newer, source};
use super::{Input, Steps, conditions, news};
use crate::names;
use crate::observe::{FleetView, Key, Measurements, World};
use crate::registry::{Ask, Outcome as Asked};
use crate::render::{self, Kind, Object};
use crate::status::{self, Outcome, Resolving};
use kube::ResourceExt;
use sconce_api::{DesiredVersion, EdgeModel, EdgeModelVersion, EdgeModelVersionStatus};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where one model stands.
pub struct Standing {
    pub model: Arc<EdgeModel>,
    resolving: Resolving,
    desired: Option<DesiredVersion>,
}

/// The model with its version's facts, if it is of this fleet and can be planned.
pub fn resolved<'a>(
    world: &'a World,
    view: &FleetView,
    model: &'a EdgeModel,
) -> Option<(&'a EdgeModel, &'a EdgeModelVersion)> {
    let stays = model.metadata.deletion_timestamp.is_none();
    let of_fleet = model.spec.fleet_ref.name == view.fleet.name_any();
    (stays && of_fleet).then(|| world.version_of(model)).flatten().map(|version| (model, version))
}

/// Of every model that is not being deleted: whether its version is known, and what is to be asked for.
pub fn resolve(input: &Input<'_>, steps: &mut Steps) -> BTreeMap<Key, Standing> {
    let alive = input.world.models.iter().filter(|(_, model)| model.metadata.deletion_timestamp.is_none());
    alive.map(|(key, model)| (key.clone(), standing(input, key, model, steps))).collect()
}

fn standing(input: &Input<'_>, key: &Key, model: &Arc<EdgeModel>, steps: &mut Steps) -> Standing {
    let old = model.status.as_ref().and_then(|status| status.desired.clone());
    // A suspended model stays at the version that it has.
    let stays = old.as_ref().filter(|_| model.spec.suspend);
    let uri = match stays.map_or_else(|| source(input.world, model, old.as_ref()), |old| Ok(old.uri.clone())) {
        Ok(uri) => uri,
        Err(failure) => {
            return Standing { model: Arc::clone(model), resolving: Resolving::Failed(failure), desired: old };
        }
    };
    let resolved_once = old.as_ref().filter(|old| old.uri == uri);
    let secret = stays.map_or(&model.spec.model.pull_secret_ref, |old| &old.pull_secret_ref).clone();
    let is_opened = resolved_once.is_some_and(|old| old.pull_secret_ref == secret);
    let (resolving, desired) = if is_opened && input.world.version_of(model).is_some() {
        (newer(input.world, model, &uri).map_or(Resolving::Resolved, Resolving::Newer), old)
    } else {
        // A version that was deleted, or is to be had by another Secret, is read again as what it was, even if the tag has moved.
        let address = resolved_once.map_or_else(|| uri.clone(), |old| pinned(&uri, &old.digest));
        let ask = Ask { uri: address, secret: secret.as_ref().map(|secret| secret.name.clone()) };
        let resolution = input.resolutions.get(key).filter(|resolution| resolution.ask == ask);
        match resolution.map(|resolution| &resolution.outcome) {
            None => {
                steps.to_resolve.push((key.clone(), ask));
                (Resolving::Asking, old)
            }
            Some(Asked::Asking { failed: None, .. }) => (Resolving::Asking, old),
            // While it is asked for again, the last answer stands.
            Some(Asked::Asking { failed: Some(failure), .. }) => (Resolving::Failed(failure.clone()), old),
            Some(Asked::Failed { failure, retry_at, .. }) => {
                if *retry_at <= input.clock {
                    steps.to_resolve.push((key.clone(), ask));
                }
                (Resolving::Failed(failure.clone()), old)
            }
            Some(Asked::Found(artifact)) => {
                let version = names::version(&model.name_any(), &artifact.digest);
                let live = input.world.versions.get(&(key.0.clone(), version.clone()));
                let object = render::version(model, artifact);
                let new = status::edge_model_version(input.world, live.map(Arc::as_ref), artifact);
                if live.is_none_or(|live| live.status.as_ref() != Some(&new)) {
                    let status =
                        Object::new(Kind::EdgeModelVersion, &key.0, &version, json!({}), json!({"status": new}));
                    steps.statuses.push(crate::apply::Write::Status { object: status.into(), news: Vec::new() });
                }
                steps.apply(input.world, object);
                let digest = artifact.digest.clone();
                let desired = DesiredVersion { version, digest, uri, pull_secret_ref: secret };
                (Resolving::Resolved, Some(desired))
            }
        }
    };
    Standing { model: Arc::clone(model), resolving, desired }
}

/// What nodes have measured of every version that is read, as medians of their classes.
pub fn profiles(world: &World, steps: &mut Steps) {
    let measured = Measurements::of_all(world);
    for version in world.versions.values() {
        let Some(old) = version.status.as_ref().filter(|status| status.artifact.is_some()) else { continue };
        let profiles = status::class_profiles(&measured, &version.spec.digest, &old.profiles);
        let new = EdgeModelVersionStatus { profiles, ..old.clone() };
        steps.status(Kind::EdgeModelVersion, version.as_ref(), Some(old), &new, Vec::new());
    }
}

/// The same repository, by digest.
fn pinned(uri: &str, digest: &str) -> String {
    let untagged = uri.split('@').next().unwrap_or(uri);
    let name_at = untagged.rfind('/').unwrap_or(0);
    let end = untagged[name_at..].find(':').map_or(untagged.len(), |colon| name_at + colon);
    format!("{}@{digest}", &untagged[..end])
}

/// The status of every model, from what was decided for its sites.
pub fn report(
    world: &World,
    views: &[FleetView],
    standing: BTreeMap<Key, Standing>,
    outcomes: &BTreeMap<Key, Vec<Outcome>>,
    steps: &mut Steps,
) {
    for (key, Standing { model, resolving, desired }) in standing {
        let fleet_found = views.iter().any(|view| view.fleet.name_any() == model.spec.fleet_ref.name);
        let outcomes = outcomes.get(&key).map(Vec::as_slice);
        let new = status::edge_model(world, &model, desired, &resolving, fleet_found, outcomes);
        let old = conditions(&model.status, |status| &status.conditions);
        let news = news(model.as_ref(), &["Resolved", "Serving", "Stalled"], old, &new.conditions);
        steps.status(Kind::EdgeModel, model.as_ref(), model.status.as_ref(), &new, news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_uri_names_the_same_repository() {
        let check = |uri| assert_eq!(pinned(uri, "sha256:00"), "oci://r:5000/m/digits@sha256:00", "{uri}");
        check("oci://r:5000/m/digits:1.0.0");
        check("oci://r:5000/m/digits");
        check("oci://r:5000/m/digits:1@sha256:11");
    }
}
