//! The statistics under Triton's names: its dashboards and alerts work as they are.

use super::OfModel;
use crate::statistics::Totals;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Sums of each model since it is served; `labels` are its name and its version.
pub(super) fn encode<'a, L: EncodeLabelSet>(
    mut encoder: DescriptorEncoder<'_>,
    models: &'a [Arc<OfModel>],
    labels: impl Fn(&'a OfModel) -> L,
) -> Result<(), fmt::Error> {
    let totals: Vec<_> = models.iter().map(|model| (labels(model), model.statistics.totals())).collect();
    for (name, help, value) in FIGURES {
        // A counter's name would end with _total, and these do not.
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
        for (labels, totals) in &totals {
            ConstGauge::new(value(totals)).encode(metric.encode_family(labels)?)?;
        }
    }
    Ok(())
}

type Figure = (&'static str, &'static str, fn(&Totals) -> i64);

const FIGURES: [Figure; 9] = [
    ("nv_inference_request_success", "Requests that were answered", |totals| count(totals.success.count)),
    ("nv_inference_request_failure", "Requests that were refused, or failed", |totals| count(totals.fail.count)),
    ("nv_inference_count", "Rows that the model has answered", |totals| count(totals.rows)),
    ("nv_inference_exec_count", "Batches that it took for them", |totals| count(totals.executions)),
    ("nv_inference_request_duration_us", "From arrival to answer, over requests", |totals| us(totals.success.time)),
    ("nv_inference_queue_duration_us", "Waiting for a batch, over requests", |totals| us(totals.queue.time)),
    ("nv_inference_compute_input_duration_us", "Being read, over requests", |totals| us(totals.compute_input.time)),
    ("nv_inference_compute_infer_duration_us", "Their batch running, over requests", |totals| {
        us(totals.compute_infer.time)
    }),
    ("nv_inference_compute_output_duration_us", "Being answered, over requests", |totals| {
        us(totals.compute_output.time)
    }),
];

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn us(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
