//! Reads how far a run is from the end of its pod's log.

use crate::observe::Key;
use crate::training::progress;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};
use sconce_api::TrainingProgress;
use std::collections::BTreeMap;
use std::time::Duration;

/// An epoch is one line, and lines for people stand between.
const LINES: i64 = 20;
const BYTES: i64 = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// What the logs of pods told, by pod.
pub type Readings = BTreeMap<Key, Reading>;

#[derive(Clone, Debug)]
pub struct Reading {
    /// When it was asked for.
    pub at: Timestamp,
    pub progress: Option<TrainingProgress>,
}

/// `None` if the log cannot be read now, or tells of no epoch yet.
pub async fn read(client: Client, (namespace, name): &Key) -> Option<TrainingProgress> {
    let tail = LogParams { tail_lines: Some(LINES), limit_bytes: Some(BYTES), ..LogParams::default() };
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    match tokio::time::timeout(PATIENCE, pods.logs(name, &tail)).await {
        Ok(Ok(log)) => progress(&log),
        Ok(Err(error)) => {
            tracing::debug!(namespace, name, %error, "a log was not read");
            None
        }
        Err(_) => None,
    }
}
