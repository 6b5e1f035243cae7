//! One request through the router: name → backends → the first that answers.

use super::Limits;
use super::backend::{Answer, Backend, NoAnswer, code};
use super::body::Bodies;
use super::peek::{PeekError, model_name};
use super::watch::Table;
use crate::deadline::deadline;
use crate::server::{BESIDE, DRIFTS, shortened};
use crate::tap::{Answered, CONSENT, LONGEST_CONSENT, Tap};
use crate::wire::{ServerLiveResponse, ServerMetadataResponse, ServerReadyResponse};
use bytes::Bytes;
use http::HeaderValue;
use http_body_util::{BodyExt as _, Full};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use prost::Message as _;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};

/// How long a request waits for a backend that is being restarted or moved.
const BRIDGE: Duration = Duration::from_secs(2);
/// Backends that one round asks, at most.
const ATTEMPTS: usize = 3;
/// An attempt has at least so long, and at most half of the time until the deadline: then another can still be made.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);
/// How soon backends are tried again that all have just failed; then twice as long each time.
const AGAIN: Duration = Duration::from_millis(50);

const INFER: &str = "ModelInfer";
/// What requests for nobody are counted as.
const UNKNOWN: &str = "unknown";

#[derive(Clone)]
pub struct Router {
    table: watch::Receiver<Arc<Table>>,
    metrics: Arc<RouterMetrics>,
    bodies: Bodies,
    attempt_timeout: Duration,
    tap: Tap,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Place {
    model: String,
    tier: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    model: String,
    tier: String,
    code: String,
}

pub struct RouterMetrics {
    waited: Family<Place, Histogram>,
    drifts: Family<Place, Counter>,
    requests: Family<Outcome, Counter>,
    failovers: Counter,
}

/// Seconds from 100 µs to 72 s, beyond the longest budget; steps of 1.2, so that a p99 read from them, by which predictions are judged
/// and corrected, is at most so much off.
fn waited() -> Histogram {
    Histogram::new(exponential_buckets(100e-6, 1.2, 75))
}

impl RouterMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            waited: Family::new_with_constructor(waited as fn() -> Histogram),
            drifts: Family::default(),
            requests: Family::default(),
            failovers: Counter::default(),
        };
        registry.register_with_unit(
            "sconce_router_request",
            "What clients wait, by model and tier that answered",
            Unit::Seconds,
            metrics.waited.clone(),
        );
        registry.register(
            "sconce_router_requests",
            "Requests by model, tier that answered, and gRPC code",
            metrics.requests.clone(),
        );
        registry.register(
            "sconce_router_requests_drifted",
            "Answers of models that say of late something else than they said of held-out samples",
            metrics.drifts.clone(),
        );
        registry.register(
            "sconce_router_failovers",
            "Attempts that failed and went elsewhere",
            metrics.failovers.clone(),
        );
        metrics
    }

    fn answered(&self, model: &str, tier: &str, (code, drifts): (Code, bool), waited: Duration) {
        let (model, tier) = (model.to_owned(), tier.to_owned());
        self.requests
            .get_or_create(&Outcome { model: model.clone(), tier: tier.clone(), code: format!("{code:?}") })
            .inc();
        if code == Code::Ok {
            let place = Place { model, tier };
            self.waited.get_or_create(&place).observe(waited.as_secs_f64());
            if drifts {
                self.drifts.get_or_create(&place).inc();
            }
        }
    }
}

impl NamedService for Router {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl tower::Service<http::Request<Body>> for Router {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let router = self.clone();
        let told = |status: Status| Status::new(status.code(), shortened(status.message().to_owned())).into_http();
        Box::pin(async move { Ok(router.answer(request).await.unwrap_or_else(told)) })
    }
}

impl Router {
    pub fn new(table: watch::Receiver<Arc<Table>>, metrics: Arc<RouterMetrics>, limits: Limits, tap: Tap) -> Self {
        Self { table, metrics, bodies: Bodies::new(limits), attempt_timeout: limits.attempt_timeout, tap }
    }

    async fn answer(mut self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let arrived = Instant::now();
        let (head, body) = request.into_parts();
        let method = head.uri.path().rsplit('/').next().unwrap_or_default();
        if ![INFER, "ModelMetadata", "ModelReady", "ModelConfig", "ModelStatistics"].contains(&method) {
            return own(method);
        }
        // What is asked about a model is no wait for it.
        let is_counted = method == INFER;
        let (body, _room) = self.bodies.read(body).await.inspect_err(|status| {
            if is_counted {
                self.metrics.answered(UNKNOWN, "none", (status.code(), false), arrived.elapsed());
            }
        })?;
        let name = model_name(&body)?.to_owned();
        let timeout = head.headers.get("grpc-timeout").and_then(|header| header.to_str().ok());
        let deadline = deadline(timeout, arrived);
        let forwarded = self.forward(&name, &head, &body, arrived, deadline);
        let answered = match deadline {
            None => forwarded.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), forwarded).await.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!("no answer for \"{name}\" within {:?}", arrived.elapsed())))
            }),
        };
        match answered {
            Ok((answer, backend)) => {
                if is_counted && !answer.headers().contains_key(BESIDE) {
                    let said = (code(&answer), answer.headers().contains_key(DRIFTS));
                    self.metrics.answered(&name, &backend.tier, said, arrived.elapsed());
                    if code(&answer) == Code::Ok && self.tap.wants(&name) {
                        // One that is longer than a collector takes is none, and fills no queue.
                        let consent = head.headers.get(CONSENT).filter(|said| said.len() <= LONGEST_CONSENT).cloned();
                        return Ok(tapped(&self.tap, (name, &backend, consent), body, answer));
                    }
                }
                Ok(passed_on(answer))
            }
            Err(status) => {
                // Names that nobody routes are the clients' invention: they make no series.
                let name = if self.table.borrow().known.contains(&name) { &name } else { UNKNOWN };
                if is_counted {
                    self.metrics.answered(name, "none", (status.code(), false), arrived.elapsed());
                }
                Err(status)
            }
        }
    }

    /// Asks backends in order of preference until one answers; waits a little where none does.
    async fn forward(
        &mut self,
        name: &str,
        head: &http::request::Parts,
        body: &Bytes,
        arrived: Instant,
        deadline: Option<Instant>,
    ) -> Result<(Answer, Arc<Backend>), Status> {
        let give_up = arrived + BRIDGE;
        let mut again = AGAIN;
        loop {
            let table = self.table.borrow_and_update().clone();
            let mut trouble = match table.models.get(name) {
                Some(backends) if !backends.is_empty() => String::new(),
                Some(_) => "it has no place to run now".to_owned(),
                None if table.known.contains(name) => "it is not routed now".to_owned(),
                None if !table.loaded => "no routes have been read yet".to_owned(),
                None => return Err(Status::not_found(unknown(name, &table))),
            };
            let mut backends = preferred(table.models.get(name).map(Vec::as_slice).unwrap_or_default());
            backends.truncate(ATTEMPTS);
            let mut all_refused = !backends.is_empty();
            for (attempt, backend) in backends.iter().enumerate() {
                // The last one may take its time: nobody else is left to ask.
                let patience = (attempt + 1 < backends.len()).then(|| self.patience(deadline));
                let error = match backend.ask(head, body, patience).await {
                    Ok(answer) => return Ok((answer, backend.clone())),
                    Err(NoAnswer::Refused(error)) => error,
                    Err(NoAnswer::Failed(error)) => {
                        all_refused = false;
                        error
                    }
                };
                trouble = format!("{} at {}: {error}", backend.tier, backend.address);
                if patience.is_some() {
                    self.metrics.failovers.inc();
                    tracing::debug!(model = name, trouble, "asking elsewhere");
                }
            }
            if all_refused {
                // They live and are full: asking again would only add to that.
                return Err(Status::unavailable(format!("every backend of \"{name}\" refuses: {trouble}")));
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Status::unavailable(format!("no backend answers for \"{name}\": {trouble}")));
            }
            // Woken by new routes; else what failed may have come back.
            let wait = if backends.is_empty() { left } else { left.min(again) };
            again *= 2;
            tokio::time::timeout(wait, self.table.changed()).await.ok();
        }
    }

    fn patience(&self, deadline: Option<Instant>) -> Duration {
        let half = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()) / 2);
        half.map_or(self.attempt_timeout, |half| {
            half.clamp(LEAST_PATIENCE.min(self.attempt_timeout), self.attempt_timeout)
        })
    }
}

impl From<PeekError> for Status {
    fn from(error: PeekError) -> Self {
        match error {
            PeekError::Compressed => Status::unimplemented(error.to_string()),
            PeekError::Frame => Status::invalid_argument(error.to_string()),
        }
    }
}

/// A refusal is a head alone and stays so: clients on gRPC's C core see no status where a body follows, were it empty.
fn passed_on(answer: Answer) -> http::Response<Body> {
    let (head, body) = answer.into_parts();
    let body = if head.headers.contains_key("grpc-status") { Body::empty() } else { Body::new(body) };
    http::Response::from_parts(head, body)
}

/// As it was passed on; the tap gets another reference to the same bytes.
fn tapped(
    tap: &Tap,
    (model, backend, consent): (String, &Backend, Option<HeaderValue>),
    request: Bytes,
    answer: Answer,
) -> http::Response<Body> {
    let (head, body) = answer.into_parts();
    let trailers = body.trailers().cloned();
    let answer = body.to_bytes();
    let (tier, server) = (backend.tier.clone(), backend.address);
    tap.offer(Answered { model, tier, server, consent, request, answer: answer.clone() });
    let body = Full::new(answer).with_trailers(async { trailers.map(Ok) });
    http::Response::from_parts(head, Body::new(body))
}

/// What the router answers itself: it lives.
// The status is tonic's, and large; it is made once a request.
#[allow(clippy::result_large_err)]
fn own(method: &str) -> Result<http::Response<Body>, Status> {
    let message = match method {
        "ServerLive" => ServerLiveResponse { live: true }.encode_to_vec(),
        "ServerReady" => ServerReadyResponse { ready: true }.encode_to_vec(),
        "ServerMetadata" => {
            let (name, version) = ("sconce-router".into(), env!("CARGO_PKG_VERSION").into());
            ServerMetadataResponse { name, version, extensions: Vec::new() }.encode_to_vec()
        }
        _ => return Err(Status::unimplemented(format!("the router does not know \"{method}\""))),
    };
    let frame = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let mut response =
        http::Response::new(Body::new(Full::new(Bytes::from(frame)).with_trailers(async { Some(Ok(trailers)) })));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// Backends that have failed come last; then the order of tiers; then the least busy.
fn preferred(backends: &[Arc<Backend>]) -> Vec<Arc<Backend>> {
    let tier = |backend: &Backend| backends.iter().position(|other| other.tier == backend.tier);
    let mut order = backends.to_vec();
    order.sort_by_key(|backend| (backend.aside(), tier(backend), backend.outstanding()));
    order
}

fn unknown(name: &str, table: &Table) -> String {
    let routed: Vec<&str> = table.models.keys().map(String::as_str).take(16).collect();
    let routed = if routed.is_empty() { "none".to_owned() } else { routed.join(", ") };
    format!("no model \"{name}\" is routed here; routed are: {routed}. Names are NAME.NAMESPACE of an EdgeModel")
}
