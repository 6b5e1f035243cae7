//! Sends requests at a pace, and sums up what came back.

use crate::samples::Samples;
use anyhow::Result;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use sconce_edge_runtime::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use sconce_edge_runtime::wire::model_infer_request::InferInputTensor;
use sconce_edge_runtime::wire::{ModelInferRequest, ModelInferResponse, raw_fp32};
use sconce_model::metrics::argmax;
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::transport::Channel;
use tonic::{Code, Request};

/// A client at a site would rather hear nothing than wait longer.
const DEADLINE: Duration = Duration::from_secs(5);
const KEPT_ERRORS: usize = 5;

pub struct Ask {
    client: GrpcInferenceServiceClient<Channel>,
    /// Each is asked in turn, with the same images.
    models: Vec<String>,
    samples: Samples,
}

/// What a run says; the names are those of its JSON.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub model: String,
    pub sent: usize,
    pub failed: usize,
    /// The first few.
    pub errors: Vec<String>,
    /// Share of answered requests whose answer was right.
    pub accuracy: f64,
    #[serde(rename = "p50Ms")]
    pub p50_ms: f64,
    #[serde(rename = "p99Ms")]
    pub p99_ms: f64,
    /// Mean, as encoded in protobuf.
    pub request_bytes: usize,
    pub response_bytes: usize,
}

/// What came of one request.
struct Answer {
    model: usize,
    waited: Duration,
    request_bytes: usize,
    answer: Result<(bool, usize), String>,
}

impl Ask {
    pub fn new(router: &str, models: Vec<String>, samples: Samples) -> Result<Self> {
        let endpoint = Channel::from_shared(format!("http://{router}"))?.tcp_nodelay(true).connect_timeout(DEADLINE);
        Ok(Self { client: GrpcInferenceServiceClient::new(endpoint.connect_lazy()), models, samples })
    }

    /// Sends up to `count` requests to each model: at `rate` a second, each at its time however long others take, or one after the other.
    pub async fn run(&self, count: usize, rate: Option<u32>, duration: Option<Duration>) -> Vec<Summary> {
        let count = count.saturating_mul(self.models.len());
        let mut answers = Vec::new();
        let end = duration.map(|duration| Instant::now() + duration);
        let over = |sent: usize| sent >= count || end.is_some_and(|end| Instant::now() >= end);
        match rate {
            None => {
                while !over(answers.len()) {
                    answers.push(self.ask(answers.len()).await);
                }
            }
            Some(rate) => {
                let mut pace = interval(Duration::from_secs(1) / rate);
                pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let (mut sent, mut open) = (0, FuturesUnordered::new());
                while !over(sent) {
                    tokio::select! {
                        _ = pace.tick() => {
                            open.push(self.ask(sent));
                            sent += 1;
                        }
                        Some(answer) = open.next() => answers.push(answer),
                    }
                }
                answers.extend(open.collect::<Vec<_>>().await);
            }
        }
        let mut each: Vec<Vec<Answer>> = self.models.iter().map(|_| Vec::new()).collect();
        for answer in answers {
            each[answer.model].push(answer);
        }
        self.models.iter().zip(each).map(|(model, answers)| summed(model, answers)).collect()
    }

    async fn ask(&self, number: usize) -> Answer {
        let (model, which) = (number % self.models.len(), number / self.models.len() % self.samples.images.len());
        let tensor = InferInputTensor {
            name: "input".into(),
            datatype: "FP32".into(),
            shape: self.samples.shape.clone(),
            ..Default::default()
        };
        let request = ModelInferRequest {
            model_name: self.models[model].clone(),
            inputs: vec![tensor],
            raw_input_contents: vec![raw_fp32(&self.samples.images[which])],
            ..Default::default()
        };
        let request_bytes = prost::Message::encoded_len(&request);
        let mut request = Request::new(request);
        request.set_timeout(DEADLINE);
        let began = Instant::now();
        let answer = self.client.clone().model_infer(request).await;
        let waited = began.elapsed();
        let answer = match answer {
            Ok(response) => {
                let response = response.into_inner();
                let bytes = prost::Message::encoded_len(&response);
                scores(&response).map(|scores| (argmax(&scores) == usize::from(self.samples.labels[which]), bytes))
            }
            Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
        };
        Answer { model, waited, request_bytes, answer }
    }
}

fn scores(response: &ModelInferResponse) -> Result<Vec<f32>, String> {
    match &response.raw_output_contents[..] {
        [bytes] if !bytes.is_empty() && bytes.len() % 4 == 0 => {
            Ok(bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
        }
        other => Err(format!("{:?}: an answer with {} raw outputs", Code::DataLoss, other.len())),
    }
}

fn summed(model: &str, answers: Vec<Answer>) -> Summary {
    let sent = answers.len();
    let mut summary = Summary { model: model.into(), sent, ..Summary::default() };
    let (mut waited, mut right) = (Vec::with_capacity(sent), 0);
    for answer in answers {
        summary.request_bytes += answer.request_bytes;
        match answer.answer {
            Ok((correct, bytes)) => {
                waited.push(answer.waited.as_secs_f64() * 1e3);
                right += usize::from(correct);
                summary.response_bytes += bytes;
            }
            Err(error) => {
                summary.failed += 1;
                if summary.errors.len() < KEPT_ERRORS {
                    summary.errors.push(error);
                }
            }
        }
    }
    summary.request_bytes /= sent.max(1);
    if !waited.is_empty() {
        waited.sort_by(f64::total_cmp);
        summary.accuracy = right as f64 / waited.len() as f64;
        summary.response_bytes /= waited.len();
        summary.p50_ms = waited[waited.len() / 2];
        summary.p99_ms = waited[(waited.len() * 99 / 100).min(waited.len() - 1)];
    }
    summary
}

/// Two models that were asked in turn; in JSON the first model's own fields, with the other beside them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    #[serde(flatten)]
    pub summary: Summary,
    pub compare: Summary,
    /// How many times as long the other one takes.
    #[serde(rename = "p50Ratio")]
    pub p50_ratio: f64,
    #[serde(rename = "p99Ratio")]
    pub p99_ratio: f64,
}

impl Comparison {
    pub fn of(summary: Summary, compare: Summary) -> Self {
        // Where one has not answered at all there is nothing to compare.
        let ratio = |of: f64, to: f64| if to > 0.0 { of / to } else { 0.0 };
        let (p50_ratio, p99_ratio) = (ratio(compare.p50_ms, summary.p50_ms), ratio(compare.p99_ms, summary.p99_ms));
        Self { summary, compare, p50_ratio, p99_ratio }
    }

    pub fn lines(&self) -> String {
        let Self { summary, compare, p50_ratio, p99_ratio } = self;
        let width = summary.model.len().max(compare.model.len());
        format!(
            "{:width$}  {}\n{:width$}  {}\n{} takes {p50_ratio:.2} × as long in p50, {p99_ratio:.2} × in p99",
            summary.model,
            summary.line(),
            compare.model,
            compare.line(),
            compare.model
        )
    }
}

impl Summary {
    pub fn line(&self) -> String {
        let Summary { sent, failed, accuracy, p50_ms, p99_ms, request_bytes, response_bytes, .. } = self;
        let first = self.errors.first().map(|error| format!("  first error: {error}")).unwrap_or_default();
        format!(
            "sent {sent} failed {failed} accuracy {accuracy:.4} p50 {p50_ms:.2} ms p99 {p99_ms:.2} ms \
             request {request_bytes} B response {response_bytes} B{first}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_summed_up_with_its_failures() {
        let answer = |ms, answer| Answer { model: 0, waited: Duration::from_millis(ms), request_bytes: 100, answer };
        let summary = summed(
            "digits.vision",
            vec![answer(1, Ok((true, 40))), answer(3, Ok((false, 60))), answer(9, Err("Unavailable: gone".into()))],
        );
        assert_eq!(
            summary.line(),
            "sent 3 failed 1 accuracy 0.5000 p50 3.00 ms p99 3.00 ms request 100 B response 50 B  first error: Unavailable: gone"
        );
        assert_eq!((summary.request_bytes, summary.response_bytes), (100, 50));
    }
}
