//! What is counted.

use crate::learn::Learned;
use crate::plan::RatioKey;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RatioLabels {
    pub class: String,
    pub variant: String,
    pub tier: String,
}

/// Cheap to clone: all clones count together.
#[derive(Clone)]
pub struct Metrics {
    pub leading: Gauge,
    pub reconciles: Family<ResultLabel, Counter>,
    pub passes: Histogram,
    pub panics: Counter,
    pub writes: Family<WriteLabels, Counter>,
    pub watch_errors: Family<KindLabel, Counter>,
    pub undecodable: Family<KindLabel, Counter>,
    pub resolutions: Family<ResultLabel, Counter>,
    ratios: Family<RatioLabels, Gauge<f64, AtomicU64>>,
    registry: Arc<Registry>,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let leading = Gauge::default();
        let passes = Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);
        let reconciles = Family::default();
        let panics = Counter::default();
        let writes = Family::default();
        let watch_errors = Family::default();
        let undecodable = Family::default();
        let resolutions = Family::default();
        let ratios = Family::default();
        // The first four are called as controller-runtime calls them: dashboards exist.
        registry.register("leader_election_master_status", "1 while this replica holds the lease", leading.clone());
        registry.register("controller_runtime_reconcile", "Passes over everything, by result", reconciles.clone());
        let told = "Time of one pass over everything, writes included";
        registry.register("controller_runtime_reconcile_time_seconds", told, passes.clone());
        let told = "Decisions that panicked; they are skipped";
        registry.register("controller_runtime_reconcile_panics", told, panics.clone());
        let told = "What clients waited over what was predicted, p99, by hardware class, variant and tier";
        registry.register("sconce_prediction_ratio", told, Family::clone(&ratios));
        let ours = registry.sub_registry_with_prefix("sconce_operator");
        ours.register("writes", "Writes to the API, by verb, kind and result", writes.clone());
        ours.register("watch_errors", "Errors of watches; they are tried again", Family::clone(&watch_errors));
        ours.register("undecodable", "Objects that could not be read", Family::clone(&undecodable));
        ours.register("resolutions", "Artifacts asked for at registries, by result", Family::clone(&resolutions));
        Self {
            leading,
            reconciles,
            passes,
            panics,
            writes,
            watch_errors,
            undecodable,
            resolutions,
            ratios,
            registry: Arc::new(registry),
        }
    }

    pub fn tell_ratios(&self, learned: &Learned) {
        for (RatioKey { class, variant, tier }, percent) in learned.all() {
            let labels = RatioLabels { class: class.clone(), variant: variant.clone(), tier: tier.to_string() };
            self.ratios.get_or_create(&labels).set(percent / 100.0);
        }
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
