//! What is counted.

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    pub verb: &'static str,
    pub kind: String,
    pub result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    pub kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    pub result: &'static str,
}

/// Cheap to clone: all clones count together.
#[derive(Clone)]
pub struct Metrics {
    pub leading: Gauge,
    pub passes: Histogram,
    pub panics: Counter,
    pub writes: Family<WriteLabels, Counter>,
    pub watch_errors: Family<KindLabel, Counter>,
    pub undecodable: Family<KindLabel, Counter>,
    pub resolutions: Family<ResultLabel, Counter>,
    registry: Arc<Registry>,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("sconce_operator");
        let leading = Gauge::default();
        let passes = Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);
        let panics = Counter::default();
        let writes = Family::default();
        let watch_errors = Family::default();
        let undecodable = Family::default();
        let resolutions = Family::default();
        registry.register("leading", "1 while this replica holds the lease", leading.clone());
        registry.register("pass_seconds", "Time of one pass over everything, writes included", passes.clone());
        registry.register("panics", "Decisions that panicked; they are skipped", panics.clone());
        registry.register("writes", "Writes to the API, by verb, kind and result", writes.clone());
        registry.register("watch_errors", "Errors of watches; they are tried again", Family::clone(&watch_errors));
        registry.register("undecodable", "Objects that could not be read", Family::clone(&undecodable));
        registry.register("resolutions", "Artifacts asked for at registries, by result", Family::clone(&resolutions));
        Self { leading, passes, panics, writes, watch_errors, undecodable, resolutions, registry: Arc::new(registry) }
    }

    /// All metrics in the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
