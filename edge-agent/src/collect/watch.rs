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
        let (datasets, models) = (datasets.state(), models.state());
        // A site that is gone tells nothing: the files stay.
        let next = sites
            .state()
            .first()
            .map(|site| files(site, datasets.iter().map(AsRef::as_ref), models.iter().map(AsRef::as_ref)));
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

/// Without what cannot be read, as what a newer version has said: it is not collected, and stops nothing else.
fn readable<K: Resource>(event: Event<DeserializeGuard<K>>) -> Option<Event<K>> {
    let read = |guard: DeserializeGuard<K>| {
        let unread = |error: &kube::core::error_boundary::InvalidObject| {
            tracing::warn!(name = error.metadata.name, error = error.error, "an object cannot be read");
        };
        guard.0.inspect_err(unread).ok()
    };
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(guard) => read(guard).map(Event::InitApply),
        Event::Apply(guard) => read(guard).map(Event::Apply),
        Event::Delete(guard) => read(guard).map(Event::Delete),
    }
}

/// A store of all objects of a kind, kept while `watching` lives.
fn reflect<K>(
    client: &Client,
    config: watcher::Config,
    bell: &Arc<Notify>,
    watching: &mut JoinSet<()>,
    metrics: &Metrics,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq,
{
    let (reader, writer) = reflector::store();
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    let (bell, metrics, kind) = (bell.clone(), metrics.clone(), K::kind(&()).into_owned());
    watching.spawn(async move {
        let readable = watcher(api, config).try_filter_map(|event| std::future::ready(Ok(readable(event))));
        let mut events = std::pin::pin!(reflector::reflector(writer, readable).default_backoff());
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
