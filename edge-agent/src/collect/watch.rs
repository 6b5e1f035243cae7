//! Follows the objects that say what this site collects, and keeps both files by them. A file is never written from a list that is
//! not complete.

use super::files::{Files, files};
use crate::metrics::Metrics;
use crate::routes;
use crate::watch::Scope;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use sconce_api::{EdgeDataset, EdgeModel, EdgeSite};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Changes that come together are taken up together.
const TOGETHER: Duration = Duration::from_millis(200);
/// A file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps `collect.json` and `taps.json` in a folder for ever.
pub async fn keep(client: Client, folder: PathBuf, mut scope: watch::Receiver<Option<Scope>>, metrics: Metrics) {
    loop {
        let current = scope.borrow_and_update().clone();
        tokio::select! {
            // From a cloud node nothing is collected; without labels the files stay.
            () = follow(&client, &folder, current.as_ref(), &metrics) => {}
            changed = scope.changed() => if changed.is_err() { return },
        }
    }
}

async fn follow(client: &Client, folder: &Path, scope: Option<&Scope>, metrics: &Metrics) {
    let Some(Scope::Site(site)) = scope else { return std::future::pending().await };
    let (bell, mut watching) = (Arc::new(Notify::new()), JoinSet::new());
    // A connection that died silently is noticed within a minute.
    let config = watcher::Config::default().timeout(60);
    let own = config.clone().fields(&format!("metadata.name={site}"));
    let sites = reflect::<EdgeSite>(client, own, &bell, &mut watching, metrics);
    let datasets = reflect::<EdgeDataset>(client, config.clone(), &bell, &mut watching, metrics);
    let models = reflect::<EdgeModel>(client, config, &bell, &mut watching, metrics);
    let ready = tokio::join!(sites.wait_until_ready(), datasets.wait_until_ready(), models.wait_until_ready());
    if ready.0.is_err() || ready.1.is_err() || ready.2.is_err() {
        return;
    }
    let mut written = None;
    loop {
        sleep(TOGETHER).await;
        let (datasets, models) = (readable(&datasets.state()), readable(&models.state()));
        // A site that is gone tells nothing: the files stay.
        let next = readable(&sites.state()).first().map(|site| files(site, datasets.iter(), models.iter()));
        match next {
            Some(next) if written.as_ref() != Some(&next) => match write(folder, &next) {
                Ok(()) => {
                    tracing::info!("what is collected is written");
                    written = Some(next);
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "not written; the old files stay");
                    timeout(RETRY, bell.notified()).await.ok();
                    continue;
                }
            },
            _ => {}
        }
        bell.notified().await;
    }
}

fn write(folder: &Path, files: &Files) -> Result<(), routes::WriteError> {
    routes::write(&folder.join("collect.json"), &files.collect)?;
    routes::write(&folder.join("taps.json"), &files.taps)
}

fn tell_unreadable<K: Resource<DynamicType = ()>>(event: &Event<DeserializeGuard<K>>) {
    if let Event::InitApply(guard) | Event::Apply(guard) = event
        && let Err(error) = &guard.0
    {
        tracing::warn!(kind = %K::kind(&()), name = error.metadata.name, error = error.error, "an object cannot be read");
    }
}

/// Those that can be read; what a newer version has said is not collected, and stops nothing else.
fn readable<K: Clone>(guards: &[Arc<DeserializeGuard<K>>]) -> Vec<K> {
    guards.iter().filter_map(|guard| guard.0.as_ref().ok().cloned()).collect()
}

/// A store of all objects of a kind, kept while `watching` lives. One that cannot be read takes the place of what it was: what it
/// said before is not what is wished now.
fn reflect<K>(
    client: &Client,
    config: watcher::Config,
    bell: &Arc<Notify>,
    watching: &mut JoinSet<()>,
    metrics: &Metrics,
) -> Store<DeserializeGuard<K>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq,
{
    let (reader, writer) = reflector::store();
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    let (bell, metrics, kind) = (bell.clone(), metrics.clone(), K::kind(&()).into_owned());
    watching.spawn(async move {
        let watched = watcher(api, config).inspect_ok(tell_unreadable);
        let mut events = std::pin::pin!(reflector::reflector(writer, watched).default_backoff());
        let mut failing = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => failing = false,
                Err(error) => {
                    metrics.api_error("watch what is collected");
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            kind,
                            error = &error as &dyn std::error::Error,
                            "not followed; what is collected stays"
                        );
                    }
                }
            }
            bell.notify_one();
        }
    });
    reader
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::reflector::store;
    use serde_json::json;

    fn dataset(policy: &str) -> DeserializeGuard<EdgeDataset> {
        let spec = json!({"uri": "s3://lake/digits", "kind": "Image",
            "fleetRef": {"name": "shops"}, "privacy": {"policy": policy}});
        let metadata = json!({"name": "digits", "namespace": "vision"});
        let dataset =
            json!({"apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeDataset", "metadata": metadata, "spec": spec});
        serde_json::from_value(dataset).unwrap()
    }

    /// Its events were left out: what it had said before went on, and when it was deleted, too.
    #[test]
    fn an_object_that_cannot_be_read_any_more_is_not_what_it_was() {
        let (reader, mut writer) = store();
        let names = || readable::<EdgeDataset>(&reader.state()).len();
        writer.apply_watcher_event(&Event::Apply(dataset("Raw")));
        assert_eq!(names(), 1);
        writer.apply_watcher_event(&Event::Apply(dataset("FromTheFuture")));
        assert_eq!(names(), 0);
        writer.apply_watcher_event(&Event::Apply(dataset("Raw")));
        writer.apply_watcher_event(&Event::Delete(dataset("FromTheFuture")));
        assert_eq!((names(), reader.state().len()), (0, 0));
    }
}
