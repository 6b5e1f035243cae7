//! Asks the measurer beside us for profiles of what may run here, by two files in a folder that both have.

use crate::metrics::Metrics;
use crate::profiles::{Ask, Measured, Profiles, SCHEMA, Wanted, asks, profiles, wanted};
use crate::watch::Here;
use kube::{Api, Client};
use sconce_api::{EdgeModelVersion, NodeProfile};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

const CALL: Duration = Duration::from_secs(20);
/// How often its file is looked at.
const PACE: Duration = Duration::from_secs(1);
/// Until a version that could not be read is asked for again.
const RETRY: Duration = Duration::from_secs(30);

type Key = (String, String);

/// What the EdgeNode says of this node's class; `None` until it was read.
pub type Told = Option<Vec<NodeProfile>>;

pub struct Measurer {
    pub client: Client,
    pub class: String,
    /// `None`: nobody measures here.
    pub folder: Option<PathBuf>,
    pub here: watch::Receiver<Option<Here>>,
    pub told: watch::Receiver<Told>,
    pub metrics: Metrics,
}

/// What is known of versions.
#[derive(Default)]
struct Versions {
    read: BTreeMap<Key, EdgeModelVersion>,
    /// When one that was not read may be asked for again.
    again: BTreeMap<Key, Instant>,
}

impl Measurer {
    /// Follows for ever what may run here.
    pub async fn follow(mut self, sender: watch::Sender<Option<Profiles>>) {
        let Some(folder) = self.folder.clone() else { return std::future::pending().await };
        let (mut versions, mut written) = (Versions::default(), None);
        loop {
            let (here, told) = (self.here.borrow_and_update().clone(), self.told.borrow_and_update().clone());
            if let Some((here, told)) = here.zip(told) {
                self.read(&mut versions, &here).await;
                let asks = asks(versions.read.values());
                let wanted = wanted(&self.class, &asks, &told);
                if written.as_ref() != Some(&wanted) && write(&folder, &wanted) {
                    tracing::info!(variants = wanted.variants.len(), "to be measured here");
                    written = Some(wanted);
                }
                let mut known = self.known(&folder, &asks, &told);
                // What versions ask for that are still to be read is not known: something.
                known.standing.asked += here.versions.len() - versions.read.len();
                publish(&sender, known);
            }
            tokio::select! {
                changed = self.here.changed() => if changed.is_err() { return },
                changed = self.told.changed() => if changed.is_err() { return },
                () = sleep(PACE) => {}
            }
        }
    }

    fn known(&self, folder: &std::path::Path, asks: &[Ask], told: &[NodeProfile]) -> Profiles {
        let measured = std::fs::read(folder.join("measured.json")).ok();
        // One that is being replaced, or of another version of ours: nothing came of it yet.
        let measured = measured.and_then(|bytes| serde_json::from_slice::<Measured>(&bytes).ok());
        let measured = measured.filter(|measured| measured.schema == SCHEMA).unwrap_or_default();
        profiles(&self.class, asks, told, &measured)
    }

    /// A version never changes, and is read once.
    async fn read(&self, versions: &mut Versions, here: &Here) {
        versions.read.retain(|key, _| here.versions.contains(key));
        versions.again.retain(|key, again| here.versions.contains(key) && *again > Instant::now());
        for key in &here.versions {
            if versions.read.contains_key(key) || versions.again.contains_key(key) {
                continue;
            }
            let api: Api<EdgeModelVersion> = Api::namespaced(self.client.clone(), &key.0);
            match timeout(CALL, api.get(&key.1)).await {
                Ok(Ok(version)) if version.status.as_ref().is_some_and(|status| !status.variants.is_empty()) => {
                    versions.read.insert(key.clone(), version);
                    continue;
                }
                Ok(Ok(_)) => tracing::debug!(version = key.1, "not read by the operator yet"),
                Ok(Err(error)) => self.unread(&key.1, &error.to_string()),
                Err(_) => self.unread(&key.1, "no answer in 20 s"),
            }
            versions.again.insert(key.clone(), Instant::now() + RETRY);
        }
    }

    fn unread(&self, version: &str, why: &str) {
        self.metrics.api_error("get the EdgeModelVersion");
        tracing::debug!(version, why, "EdgeModelVersion not read; its variants are not measured yet");
    }
}

fn publish(sender: &watch::Sender<Option<Profiles>>, new: Profiles) {
    sender.send_if_modified(|old| {
        if let Some(failure) =
            new.standing.failure.as_ref().filter(|_| old.as_ref().map(|old| &old.standing) != Some(&new.standing))
        {
            tracing::warn!(failure, "a variant cannot be measured here; its estimate stands");
        }
        let is_new = old.as_ref() != Some(&new);
        if is_new {
            *old = Some(new);
        }
        is_new
    });
}

/// Whole, so that the measurer reads the old one or the new one.
fn write(folder: &std::path::Path, wanted: &Wanted) -> bool {
    let (path, new) = (folder.join("wanted.json"), folder.join("wanted.json.new"));
    let written = serde_json::to_vec(wanted)
        .map_err(std::io::Error::other)
        .and_then(|bytes| std::fs::write(&new, bytes))
        .and_then(|()| std::fs::rename(&new, &path));
    written
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "nothing can be asked of the measurer"))
        .is_ok()
}
