//! The statistics under Triton's names: its dashboards and alerts work as they are.

use crate::statistics::{Statistics, Totals};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Sums of one model since the start.
#[derive(Debug)]
pub(super) struct Triton {
    pub statistics: Arc<Statistics>,
    /// Model and version.
    pub labels: [(&'static str, String); 2],
}

impl Collector for Triton {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in figures(&self.statistics.totals()) {
            // A counter's name would end with _total, and these do not.
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Unknown)?;
            ConstGauge::new(value).encode(metric.encode_family(&self.labels)?)?;
        }
        Ok(())
    }
}

fn figures(totals: &Totals) -> [(&'static str, &'static str, i64); 9] {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    [
        ("nv_inference_request_success", "Requests that were answered", count(totals.success.count)),
        ("nv_inference_request_failure", "Requests that were refused, or failed", count(totals.fail.count)),
        ("nv_inference_count", "Rows that the model has answered", count(totals.rows)),
        ("nv_inference_exec_count", "Batches that it took for them", count(totals.executions)),
        ("nv_inference_request_duration_us", "From arrival to answer, over requests", us(totals.success.time)),
        ("nv_inference_queue_duration_us", "Waiting for a batch, over requests", us(totals.queue.time)),
        ("nv_inference_compute_input_duration_us", "Being read, over requests", us(totals.compute_input.time)),
        ("nv_inference_compute_infer_duration_us", "Their batch running, over requests", us(totals.compute_infer.time)),
        ("nv_inference_compute_output_duration_us", "Being answered, over requests", us(totals.compute_output.time)),
    ]
}
