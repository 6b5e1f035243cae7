//! `/healthz`, `/readyz` and `/metrics`.

use crate::metrics::Metrics;
use axum::{Router, http::StatusCode, http::header, routing::get};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether every kind has been listed once.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

pub async fn serve_health(listener: TcpListener, readiness: Readiness, stop: CancellationToken) -> std::io::Result<()> {
    let ready = move || async move {
        if readiness.is_set() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "listing") }
    };
    let router = Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

pub async fn serve_metrics(listener: TcpListener, metrics: Metrics, stop: CancellationToken) -> std::io::Result<()> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text()) };
    axum::serve(listener, Router::new().route("/metrics", get(text)))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
