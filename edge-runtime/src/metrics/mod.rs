//! What is counted, and where it is read: `/metrics` and `/healthz`.

mod model;
mod triton;

pub use model::{OfModel, Stage};

use crate::process::Process;
use crate::stop::Stop;
use axum::{Router, routing::get};
use futures::future::{BoxFuture, FutureExt as _};
use http::header::CONTENT_TYPE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::net::TcpListener;

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

/// Of `serve`: what each version of each model counts while it is served. Nothing that a client sent is a label.
#[derive(Debug, Default)]
pub struct Metrics {
    models: Mutex<Vec<Weak<OfModel>>>,
    /// Requests that found no model.
    pub nobody: OfModel,
}

/// Prometheus reads by it: as plain text it knows neither `info` nor `unknown`, and takes nothing of the whole.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds from 20 µs to about 10 s; steps of 1.4, so that a p99 read from them is at most so much off.
pub fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(20e-6, 1.4, 40))
}

impl Metrics {
    /// Told wherever the registry is.
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let metrics = Arc::new(Self::default());
        registry.register_collector(Box::new(metrics.clone()));
        metrics
    }

    /// What a version counts, until nobody holds it any more. One that is loaded anew goes on where it was.
    pub fn of(&self, served: Served<'_>) -> Arc<OfModel> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|model| model.strong_count() > 0);
        if let Some(model) = models.iter().filter_map(Weak::upgrade).find(|model| model.is(served)) {
            model.now_serves(served);
            return model;
        }
        let model = Arc::new(OfModel::new(served));
        models.push(Arc::downgrade(&model));
        model
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let models: Vec<_> = models.iter().filter_map(Weak::upgrade).collect();
        model::encode(encoder, &models, &self.nobody)
    }
}

/// Serves the registry, and what the process takes, until told to stop.
///
/// # Errors
/// If the listener fails.
pub fn serve(listener: TcpListener, mut registry: Registry, stop: Stop) -> BoxFuture<'static, std::io::Result<()>> {
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
    axum::serve(listener, router).with_graceful_shutdown(stop).into_future().boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_version_is_told_while_it_is_held_and_goes_on_when_it_is_loaded_anew() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let old = Served { model: "a", version: "1", digest: "sha256:0", variant: "f32", isa: "portable" };
        let (first, second) = (metrics.of(old), metrics.of(Served { version: "2", ..old }));
        first.answered(tonic::Code::Ok);
        second.answered(tonic::Code::Internal);
        metrics.nobody.answered(tonic::Code::NotFound);
        let again = metrics.of(Served { digest: "sha256:1", ..old });
        again.answered(tonic::Code::Ok);
        drop((first, second));
        let told = text(&registry);
        assert!(told.contains("\nsconce_requests_total{model=\"a\",version=\"1\",code=\"Ok\"} 2\n"), "{told}");
        assert!(told.contains("\nsconce_requests_total{code=\"NotFound\"} 1\n"), "{told}");
        assert!(told.contains("sconce_model_info{model=\"a\",version=\"1\",digest=\"sha256:1\""), "{told}");
        assert!(!told.contains("version=\"2\"") && !told.contains("sha256:0"), "{told}");
        assert_eq!(told.matches("# TYPE nv_inference_count ").count(), 1, "{told}");
    }
}
