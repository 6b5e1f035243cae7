//! What is counted, and where it is read: `/metrics` and `/healthz`.

mod triton;

use crate::process::Process;
use crate::statistics::Statistics;
use axum::{Router, routing::get};
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use triton::Triton;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Stage {
    model: Arc<str>,
    stage: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Code {
    model: Arc<str>,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refusal {
    reason: &'static str,
}

/// What is served, as its metrics name it.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    pub model: &'a str,
    pub version: &'a str,
    pub digest: &'a str,
    pub variant: &'a str,
    /// The instruction set of its kernels.
    pub isa: &'a str,
}

/// Of `serve`.
pub struct Metrics {
    /// The same, as the protocol's statistics count it.
    pub statistics: Arc<Statistics>,
    model: Arc<str>,
    stages: Family<Stage, Histogram>,
    requests: Family<Code, Counter>,
    batches: Histogram,
    refused: Family<Refusal, Counter>,
}

/// Prometheus reads by it: as plain text it knows neither `info` nor `unknown`, and takes nothing of the whole.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds from 20 µs to about 10 s; steps of 1.4, so that a p99 read from them is at most so much off.
pub fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(20e-6, 1.4, 40))
}

impl Metrics {
    /// Registers what is counted.
    pub fn new(registry: &mut Registry, served: Served<'_>) -> Self {
        let Served { model, version, digest, variant, isa } = served;
        let metrics = Self {
            statistics: Arc::default(),
            model: model.into(),
            stages: Family::new_with_constructor(seconds as fn() -> Histogram),
            requests: Family::default(),
            batches: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            refused: Family::default(),
        };
        let labels = [("model", model), ("digest", digest), ("variant", variant), ("isa", isa)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        registry.register("sconce_model", "The model that is served", Info::new(labels.to_vec()));
        registry.register_with_unit(
            "sconce_request",
            "Time of a request by stage",
            Unit::Seconds,
            metrics.stages.clone(),
        );
        registry.register("sconce_requests", "Requests by gRPC code", metrics.requests.clone());
        registry.register("sconce_batch_size", "Rows in a batch", metrics.batches.clone());
        registry.register(
            "sconce_refused",
            "Requests that never reached the model, by reason",
            metrics.refused.clone(),
        );
        let labels = [("model", model.to_owned()), ("version", version.to_owned())];
        registry.register_collector(Box::new(Triton { statistics: metrics.statistics.clone(), labels }));
        metrics
    }

    /// A request, or its batch, spent so long in a stage: decode, queue, infer, encode or total.
    pub fn stage(&self, stage: &'static str, took: Duration) {
        self.stages.get_or_create(&Stage { model: self.model.clone(), stage }).observe(took.as_secs_f64());
    }

    /// A batch of so many rows runs.
    pub fn batch(&self, rows: usize) {
        self.batches.observe(rows as f64);
    }

    /// A request ended so.
    pub fn answered(&self, code: tonic::Code) {
        self.requests.get_or_create(&Code { model: self.model.clone(), code: format!("{code:?}") }).inc();
    }

    /// A request whose client waited no longer left the queue.
    pub fn dropped(&self) {
        self.refused("abandoned");
    }

    /// A request never reached the model.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Refusal { reason }).inc();
    }
}

/// Serves the registry, and what the process takes, until told to stop.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    mut registry: Registry,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    registry.register_collector(Box::new(Process));
    let registry = Arc::new(registry);
    let metrics = move || async move {
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => Ok(([(CONTENT_TYPE, OPEN_METRICS)], text)),
            Err(error) => Err((http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        }
    };
    let router = Router::new().route("/metrics", get(metrics)).route("/healthz", get(|| async { "ok\n" }));
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}
