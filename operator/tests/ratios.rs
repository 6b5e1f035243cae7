//! How far predictions are off is counted as dashboards read it.

#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use sconce_api::Tier;
use sconce_operator::learn::Learned;
use sconce_operator::metrics::Metrics;
use sconce_operator::plan::{RatioKey, RatioSample};

#[test]
fn what_clients_waited_over_what_was_predicted_is_a_metric_by_class_variant_and_tier() {
    let (metrics, mut learned) = (Metrics::new(), Learned::default());
    let key = RatioKey { class: "arm64-asimddp-4".into(), variant: "int8".into(), tier: Tier::Edge };
    learned.learn(vec![RatioSample { key, percent: 140 }], Timestamp::from_second(0).unwrap());
    metrics.tell_ratios(&learned);
    let wanted = "sconce_prediction_ratio{class=\"arm64-asimddp-4\",variant=\"int8\",tier=\"Edge\"} 1.4\n";
    assert!(metrics.text().contains(wanted), "{}", metrics.text());
}
