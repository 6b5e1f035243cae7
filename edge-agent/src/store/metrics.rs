//! What is counted.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was here.
    Kept,
    /// Somebody else's download was under way.
    Shared,
    /// It was downloaded for this one.
    Fetched,
    /// It was passed on without being kept.
    Relayed,
    Refused,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Label {
    outcome: &'static str,
}

#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Label, Counter>,
    served_bytes: Counter,
    upstream_bytes: Counter,
    evictions: Counter,
    rotten: Counter,
    kept_bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sconce_store");
        let mut metrics = Self {
            registry: Arc::default(),
            requests: Family::default(),
            served_bytes: Counter::default(),
            upstream_bytes: Counter::default(),
            evictions: Counter::default(),
            rotten: Counter::default(),
            kept_bytes: Gauge::default(),
        };
        registry.register("requests", "Requests by what became of them", metrics.requests.clone());
        registry.register("served_bytes", "Bytes given to pods", metrics.served_bytes.clone());
        registry.register("upstream_bytes", "Bytes fetched from registries", metrics.upstream_bytes.clone());
        registry.register("evictions", "Files that went to make room", metrics.evictions.clone());
        registry.register("rotten", "Kept files that were found to have changed", metrics.rotten.clone());
        registry.register("kept_bytes", "Bytes of all files", metrics.kept_bytes.clone());
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    pub fn asked(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Kept => "kept",
            Outcome::Shared => "shared",
            Outcome::Fetched => "fetched",
            Outcome::Relayed => "relayed",
            Outcome::Refused => "refused",
        };
        self.requests.get_or_create(&Label { outcome }).inc();
    }

    pub fn served(&self, bytes: usize) {
        self.served_bytes.inc_by(bytes as u64);
    }

    pub fn fetched(&self, bytes: usize) {
        self.upstream_bytes.inc_by(bytes as u64);
    }

    pub fn evicted(&self) {
        self.evictions.inc();
    }

    pub fn rotten(&self) {
        self.rotten.inc();
    }

    pub fn kept(&self, bytes: u64) {
        self.kept_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}
