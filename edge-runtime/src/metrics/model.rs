//! What one version of a model counts, and how all of them are told.

use super::{Served, seconds, triton};
use crate::statistics::Statistics;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tonic::Code;

/// Where a request, or its batch, spends its time.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    Decode,
    Queue,
    Infer,
    Encode,
    /// From its arrival to its answer.
    Total,
}

/// In the order of [`Stage`].
const STAGES: [&str; 5] = ["decode", "queue", "infer", "encode", "total"];
/// Those that gRPC has.
const CODES: usize = 17;

/// What one version counts. Held by whatever serves it.
#[derive(Debug)]
pub struct OfModel {
    /// The same, as the protocol's statistics count it.
    pub statistics: Statistics,
    /// `model` and `version`; none where no model was found.
    labels: Vec<(&'static str, String)>,
    /// What it is at the moment: digest, variant, instruction set.
    about: Mutex<[(&'static str, String); 3]>,
    stages: [Histogram; STAGES.len()],
    batches: Histogram,
    requests: [AtomicU64; CODES],
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl Default for OfModel {
    /// Of no model.
    fn default() -> Self {
        Self {
            statistics: Statistics::default(),
            labels: Vec::new(),
            about: Mutex::default(),
            stages: std::array::from_fn(|_| seconds()),
            batches: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            requests: Default::default(),
            refused: Mutex::default(),
        }
    }
}

impl OfModel {
    pub(super) fn new(served: Served<'_>) -> Self {
        let labels = vec![("model", served.model.to_owned()), ("version", served.version.to_owned())];
        Self { labels, about: about(served).into(), ..Self::default() }
    }

    pub(super) fn is(&self, served: Served<'_>) -> bool {
        self.labels.iter().map(|(_, value)| value.as_str()).eq([served.model, served.version])
    }

    /// The same version, perhaps of other bytes.
    pub(super) fn now_serves(&self, served: Served<'_>) {
        *lock(&self.about) = about(served);
    }

    /// A request, or its batch, spent so long in a stage.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages[stage as usize].observe(took.as_secs_f64());
    }

    /// A batch of so many rows runs.
    pub fn batch(&self, rows: usize) {
        self.batches.observe(rows as f64);
    }

    /// A request ended so.
    pub fn answered(&self, code: Code) {
        if let Some(requests) = self.requests.get(code as usize) {
            requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request whose client waited no longer left the queue.
    pub fn dropped(&self) {
        self.refused("abandoned");
    }

    /// A request never reached the model.
    pub fn refused(&self, reason: &'static str) {
        *lock(&self.refused).entry(reason).or_default() += 1;
    }

    fn with<'a>(&'a self, more: impl IntoIterator<Item = (&'static str, &'a str)>) -> Labels<'a> {
        self.labels.iter().map(|(key, value)| (*key, value.as_str())).chain(more).collect()
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

fn about(served: Served<'_>) -> [(&'static str, String); 3] {
    let Served { digest, variant, isa, .. } = served;
    [("digest", digest), ("variant", variant), ("isa", isa)].map(|(key, value)| (key, value.to_owned()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All of them under each name, as the format has it.
pub(super) fn encode(
    mut encoder: DescriptorEncoder<'_>,
    models: &[Arc<OfModel>],
    nobody: &OfModel,
) -> Result<(), fmt::Error> {
    let help = "The models that are served";
    let mut metric = encoder.encode_descriptor("sconce_model", help, None, MetricType::Info)?;
    for model in models {
        let about = lock(&model.about);
        let about = about.iter().map(|(key, value)| (*key, value.as_str()));
        metric.encode_info(&model.with(about))?;
    }
    let (help, unit) = ("Time of a request by stage", Unit::Seconds);
    let mut metric = encoder.encode_descriptor("sconce_request", help, Some(&unit), MetricType::Histogram)?;
    for model in models {
        for (name, stage) in STAGES.iter().zip(&model.stages) {
            stage.encode(metric.encode_family(&model.with([("stage", *name)]))?)?;
        }
    }
    let mut metric = encoder.encode_descriptor("sconce_batch_size", "Rows in a batch", None, MetricType::Histogram)?;
    for model in models {
        model.batches.encode(metric.encode_family(&model.with([]))?)?;
    }
    let all = || models.iter().map(Arc::as_ref).chain([nobody]);
    let mut metric =
        encoder.encode_descriptor("sconce_requests", "Requests by gRPC code", None, MetricType::Counter)?;
    for model in all() {
        for (code, count) in (0..).zip(&model.requests).map(|(code, count)| (code, count.load(Ordering::Relaxed))) {
            if count > 0 {
                let code = format!("{:?}", Code::from_i32(code));
                ConstCounter::new(count).encode(metric.encode_family(&model.with([("code", code.as_str())]))?)?;
            }
        }
    }
    let help = "Requests that never reached the model, by reason";
    let mut metric = encoder.encode_descriptor("sconce_refused", help, None, MetricType::Counter)?;
    for model in all() {
        for (reason, count) in lock(&model.refused).iter() {
            ConstCounter::new(*count).encode(metric.encode_family(&model.with([("reason", *reason)]))?)?;
        }
    }
    triton::encode(encoder, models, |model| model.with([]))
}
