//! What is counted.

use crate::window::Summary;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Quantile {
    quantile: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    call: &'static str,
}

#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    probes: Family<Outcome, Counter>,
    round_trip: Family<Quantile, Gauge<f64, AtomicU64>>,
    api_errors: Family<Call, Counter>,
    status_writes: Counter,
    routes_writes: Counter,
    routes_models: Gauge,
    router_lost: Counter,
    others_busy: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sconce_agent");
        let mut metrics = Self {
            registry: Arc::default(),
            probes: Family::default(),
            round_trip: Family::default(),
            api_errors: Family::default(),
            status_writes: Counter::default(),
            routes_writes: Counter::default(),
            routes_models: Gauge::default(),
            router_lost: Counter::default(),
            others_busy: Gauge::default(),
        };
        registry.register("probes", "Probes of the cloud tier", metrics.probes.clone());
        registry.register(
            "round_trip_seconds",
            "Round trip to the cloud tier over the kept samples, not rounded",
            metrics.round_trip.clone(),
        );
        registry.register("api_errors", "Calls to the API server that failed", metrics.api_errors.clone());
        registry.register("status_writes", "Writes of the EdgeNode's status", metrics.status_writes.clone());
        registry.register("routes_writes", "Writes of the routes file", metrics.routes_writes.clone());
        registry.register("routes_models", "Models in the routes file", metrics.routes_models.clone());
        registry.register("router_lost", "Readings of the router's metrics that failed", metrics.router_lost.clone());
        registry.register(
            "others_busy_cores",
            "Cores that all but our models keep busy, since the reading before",
            metrics.others_busy.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    pub fn router_lost(&self) {
        self.router_lost.inc();
    }

    pub fn others_busy(&self, millis: u64) {
        self.others_busy.set(millis as f64 / 1e3);
    }

    pub fn probe_answered(&self) {
        self.probes.get_or_create(&Outcome { outcome: "answered" }).inc();
    }

    pub fn probe_lost(&self) {
        self.probes.get_or_create(&Outcome { outcome: "lost" }).inc();
    }

    pub fn round_trip(&self, summary: Option<Summary>) {
        let Some(summary) = summary else { return };
        self.round_trip.get_or_create(&Quantile { quantile: "0.5" }).set(summary.p50.as_secs_f64());
        if let Some(p99) = summary.p99 {
            self.round_trip.get_or_create(&Quantile { quantile: "0.99" }).set(p99.as_secs_f64());
        }
    }

    pub fn api_error(&self, call: &'static str) {
        self.api_errors.get_or_create(&Call { call }).inc();
    }

    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    pub fn routes_written(&self, models: usize) {
        self.routes_writes.inc();
        self.routes_models.set(i64::try_from(models).unwrap_or(i64::MAX));
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_things_are_told_in_prometheus_text() {
        let metrics = Metrics::default();
        metrics.probe_answered();
        metrics.routes_written(3);
        let text = metrics.text();
        assert!(text.contains("sconce_agent_probes_total{outcome=\"answered\"} 1"), "{text}");
        assert!(text.contains("sconce_agent_routes_models 3"), "{text}");
    }
}
