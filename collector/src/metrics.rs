//! What is counted, for Prometheus: numbers by dataset and reason, and nothing of any sample.

use crate::counts::Drop;
use crate::door::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    dataset: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Dropped {
    dataset: String,
    reason: &'static str,
}

/// Made anew for each reading: the stores are what counts, over restarts too.
pub fn text(statuses: &BTreeMap<String, Status>, refused: usize) -> String {
    let mut registry = Registry::default();
    let (kept, sent, sent_bytes) =
        (Family::<Of, Counter>::default(), Family::<Of, Counter>::default(), Family::<Of, Counter>::default());
    let (duplicates, labelled) = (Family::<Of, Counter>::default(), Family::<Of, Counter>::default());
    let dropped = Family::<Dropped, Counter>::default();
    let (held, held_bytes) = (Family::<Of, Gauge>::default(), Family::<Of, Gauge>::default());
    for (name, Status { held: samples, held_bytes: bytes, counts }) in statuses {
        let of = Of { dataset: name.clone() };
        kept.get_or_create(&of).inc_by(counts.kept);
        duplicates.get_or_create(&of).inc_by(counts.duplicates);
        sent.get_or_create(&of).inc_by(counts.sent);
        labelled.get_or_create(&of).inc_by(counts.labelled);
        sent_bytes.get_or_create(&of).inc_by(counts.sent_bytes);
        held.get_or_create(&of).set(i64::try_from(*samples).unwrap_or(i64::MAX));
        held_bytes.get_or_create(&of).set(i64::try_from(*bytes).unwrap_or(i64::MAX));
        for why in Drop::ALL {
            let label = Dropped { dataset: name.clone(), reason: why.name() };
            dropped.get_or_create(&label).inc_by(counts.dropped.get(&why).copied().unwrap_or(0));
        }
    }
    registry.register("sconce_collector_kept_samples", "Samples that were kept", kept);
    registry.register("sconce_collector_duplicate_samples", "Samples that came again", duplicates);
    registry.register("sconce_collector_sent_samples", "Samples that have arrived where they go", sent);
    registry.register("sconce_collector_labelled_samples", "Samples that have arrived with a label", labelled);
    registry.register_with_unit("sconce_collector_sent", "Sent, of shards and manifests", Unit::Bytes, sent_bytes);
    registry.register("sconce_collector_dropped_samples", "Samples that are gone unsent, by reason", dropped);
    registry.register("sconce_collector_held_samples", "Samples that are held", held);
    registry.register_with_unit("sconce_collector_held", "Held, of samples", Unit::Bytes, held_bytes);
    let unread = Gauge::<i64>::default();
    unread.set(i64::try_from(refused).unwrap_or(i64::MAX));
    registry.register("sconce_collector_refused_datasets", "Configured, but not as they can be collected", unread);
    let mut text = String::new();
    // Into a String nothing fails.
    encode(&mut text, &registry).ok();
    text
}
