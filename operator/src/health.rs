//! `/healthz`, `/readyz` and `/metrics`.

use crate::metrics::Metrics;
use axum::{Router, http::StatusCode, http::header, routing::get};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
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

/// The hall's sign of life. Of a replica that does not lead, that it answers at all is sign enough.
#[derive(Clone, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// Longer than any one call to the API.
    const SILENCE: Duration = Duration::from_secs(60);

    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub fn is_alive(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|last| last.elapsed() < Self::SILENCE)
    }
}

pub async fn serve_health(
    listener: TcpListener,
    readiness: Readiness,
    pulse: Pulse,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let ready = move || async move {
        if readiness.is_set() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "listing") }
    };
    let alive = move || async move {
        if pulse.is_alive() {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the hall stands still")
        }
    };
    let router = Router::new().route("/healthz", get(alive)).route("/readyz", get(ready));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

pub async fn serve_metrics(listener: TcpListener, metrics: Metrics, stop: CancellationToken) -> std::io::Result<()> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text()) };
    axum::serve(listener, Router::new().route("/metrics", get(text)))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
