//! `/healthz`, `/readyz` and `/metrics`.

use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// What the probes of the kubelet may ask.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    /// Longest time between two turns of the report.
    patience: Duration,
    state: Mutex<Told>,
}

struct Told {
    turned: Instant,
    reported: bool,
    routed: bool,
}

impl Health {
    pub fn new(metrics: Metrics, interval: Duration) -> Self {
        let told = Told { turned: Instant::now(), reported: false, routed: false };
        // A turn is at most two calls of 20 s and a write.
        Self(Arc::new(Inner { metrics, patience: interval + Duration::from_secs(90), state: Mutex::new(told) }))
    }

    /// The report has turned once more; `reported`: the EdgeNode is written and labelled.
    pub fn turned(&self, reported: bool) {
        let mut told = self.told();
        told.turned = Instant::now();
        told.reported |= reported;
    }

    /// The routes file says what the placements ask for.
    pub fn routed(&self) {
        self.told().routed = true;
    }

    fn turns(&self, now: Instant) -> bool {
        now.duration_since(self.told().turned) < self.0.patience
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

/// The work turns, whether or not the API server answers: its outage must not restart us.
async fn healthz(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.turns(Instant::now()) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the report does not turn\n")
    }
}

/// All was said once. For people and tests: a pod whose readiness hung on this would take its router out of service.
async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    let told = health.told();
    match (told.reported, told.routed) {
        (true, true) => (StatusCode::OK, "ok\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "the EdgeNode is not written or not labelled yet\n"),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "the routes are not written yet\n"),
    }
}

async fn metrics(State(health): State<Health>) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], health.0.metrics.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn health_is_that_the_report_turns() {
        let health = Health::new(Metrics::default(), Duration::from_secs(15));
        health.turned(false);
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(health.turns(after(100)));
        assert!(!health.turns(after(106)));
        assert_eq!(healthz(State(health)).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn readiness_is_that_all_was_said_once() {
        let health = Health::new(Metrics::default(), Duration::from_secs(15));
        let status = async || readyz(State(health.clone())).await.0;
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
        health.turned(true);
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
        health.routed();
        health.turned(false);
        assert_eq!(status().await, StatusCode::OK);
    }
}
