//! The doors of the models: the Open Inference Protocol over gRPC and REST. Each wire only translates; the path is one.

mod about;
mod accept;
mod admission;
mod grpc;
mod preparing;
mod refusal;
mod rest;

pub(crate) use admission::let_go;
pub use grpc::{BESIDE, DRIFTS};
pub use refusal::Refusal;
pub(crate) use refusal::shortened;

use crate::batch::level;
use crate::builtin::Builtin;
use crate::catalogue::{Catalogue, Kind, Model, Network};
use crate::decode::{Checked, DecodeError, FEATURES, Input, check};
use crate::encode::{Identity, answered};
use crate::engine::Terms;
use crate::logs::Logs;
use crate::metrics::{OfModel, Stage};
use crate::request::{Answer, Answered, Form, Given, Request, Wanted};
use crate::spans;
use crate::stop::Stop;
use crate::tls::Tls;
use accept::incoming;
use futures::future::{BoxFuture, FutureExt as _};
use preparing::Preparing;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What one process serves.
pub struct Service {
    catalogue: Arc<Catalogue>,
    preparing: Preparing,
    logs: Logs,
    /// Of the server, as its metadata tells it.
    name: String,
    /// Until told to stop.
    ready: watch::Sender<bool>,
}

/// Where it is served.
pub struct Listeners {
    /// HTTP/2.
    pub grpc: TcpListener,
    /// HTTP/1.1.
    pub rest: TcpListener,
    /// Of both; `None`: plain.
    pub tls: Option<Tls>,
}

/// What clients may take of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a request, uncompressed.
    pub max_message_bytes: usize,
    /// How long a client of REST may take for the head of a request, and any client for TLS' handshake; idle connections of
    /// REST are closed after it, too.
    pub head_timeout: Duration,
    /// How long a client of REST may take for the body of a request.
    pub body_timeout: Duration,
    /// How long what has begun may take once the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    /// As the flags have it: 64 MiB, a minute for each part of a request, 20 s.
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        let (max_message_bytes, drain) = (64 << 20, Duration::from_secs(20));
        Self { max_message_bytes, head_timeout: minute, body_timeout: minute, drain }
    }
}

/// Serves until `stop`, then says so to those who watch its health, finishes what it has begun, and returns.
///
/// # Errors
/// If a listener fails.
pub fn serve(
    listeners: Listeners,
    service: Service,
    limits: Limits,
    stop: Stop,
) -> BoxFuture<'static, anyhow::Result<()>> {
    serve_all(listeners, service, limits, stop).boxed()
}

async fn serve_all(listeners: Listeners, service: Service, limits: Limits, stop: Stop) -> anyhow::Result<()> {
    let service = Arc::new(service);
    let served = async {
        let incoming = |listener, protocol| incoming(listener, listeners.tls.clone(), protocol, limits.head_timeout);
        let rest = rest::serve(incoming(listeners.rest, "http/1.1"), service.clone(), limits);
        let rest = async {
            rest.await;
            anyhow::Ok(())
        };
        tokio::try_join!(grpc::serve(incoming(listeners.grpc, "h2"), service.clone(), limits), rest)
    };
    let drained = async {
        stop.await;
        tracing::info!(drain = ?limits.drain, "draining");
        service.ready.send_replace(false);
        tokio::time::sleep(limits.drain).await;
    };
    tokio::select! {
        served = served => drop(served?),
        () = drained => tracing::warn!("still busy after the drain: leaving"),
    }
    Ok(())
}

impl Service {
    /// Ready at once: what the catalogue has is warm.
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        let (preparing, logs, ready) = (Preparing::new(), Logs::default(), watch::Sender::new(true));
        Self { catalogue, preparing, logs, name: "sconce".into(), ready }
    }

    /// With a log that clients may change, where they may load models.
    pub fn with_logs(self, logs: Logs) -> Self {
        Self { logs, ..self }
    }

    /// Under another name than ours: some clients look for one.
    pub fn with_name(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// Completes when the server has been told to stop.
    fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ready = self.ready.subscribe();
        async move { drop(ready.wait_for(|ready| !ready).await) }
    }

    /// Before it is read what is asked, where that can be one model only.
    ///
    /// # Errors
    /// If its queue is full.
    fn admit(&self) -> Result<(), Refusal> {
        let Some(model) = self.catalogue.only() else { return Ok(()) };
        model.admit().map_err(Refusal::from).inspect_err(|refusal| {
            // It took no time that a stage could tell.
            model.metrics.statistics.failed(Duration::ZERO);
            count(&model.metrics, refusal);
        })
    }

    /// The model that is asked, for a request that ends with the answer. Whoever holds it is answered by it, whatever is loaded
    /// meanwhile.
    fn asked(&self, name: &str, version: &str) -> Result<Arc<Model>, Refusal> {
        let model = self.catalogue.named(name, version).map_err(Refusal::from).inspect_err(|refusal| {
            count(&self.catalogue.metrics().nobody, refusal);
        });
        // Spans name no more models than there are: a client may ask any.
        let (name, version) = if model.is_ok() { (name, version) } else { ("unknown", "unknown") };
        spans::asked(name, version);
        model
    }

    /// The path of every request, whichever wire it came by.
    async fn infer(
        &self,
        model: &Model,
        (arrived, deadline): (Instant, Option<Instant>),
        read: impl FnOnce() -> Result<Request, DecodeError>,
    ) -> Result<Answer, Refusal> {
        let answer = match read() {
            Ok(request) => {
                let terms = terms(&request, (arrived, deadline));
                match whose_features(model, &request.outputs) {
                    // They are made beside the model, which is not asked: they tell nothing of how it answers, made or not.
                    Some(network) => return self.features(model, network, request, terms).await,
                    None => self.answer(model, arrived, request, terms).await,
                }
            }
            Err(error) => Err(error.into()),
        };
        let took = arrived.elapsed();
        model.metrics.stage(Stage::Total, took);
        match &answer {
            Ok(_) => model.metrics.answered(tonic::Code::Ok),
            Err(refusal) => {
                model.metrics.statistics.failed(took);
                count(&model.metrics, refusal);
            }
        }
        answer
    }

    async fn answer(
        &self,
        model: &Model,
        arrived: Instant,
        Request { id, inputs, outputs, form, .. }: Request,
        terms: Terms,
    ) -> Result<Answer, Refusal> {
        let asked = Asked { inputs, outputs, form, arrived };
        let (outputs, drifts) = match &model.kind {
            Kind::Network(network) => self.inferred(network, &model.metrics, asked, terms).await?,
            Kind::Builtin(builtin) => (calculated(*builtin, &model.metrics, asked)?, false),
        };
        let Identity { name: model, version } = model.identity.clone();
        Ok(Answer { model, version, id, outputs, drifts, backbone: None })
    }

    /// What the model's backbone makes of the input, and the backbone's digest.
    async fn features(
        &self,
        model: &Model,
        network: &Network,
        Request { id, inputs, outputs, .. }: Request,
        terms: Terms,
    ) -> Result<Answer, Refusal> {
        network.features.admit()?;
        let input = self.input(network, inputs, &[], terms).await?;
        let (features, digest) = network.features.of(input, terms).await?;
        let outputs = answered(&features, outputs, &network.signature).map_err(foreign)?;
        let Identity { name: model, version } = model.identity.clone();
        Ok(Answer { model, version, id, outputs, drifts: false, backbone: Some(digest) })
    }

    async fn input(
        &self,
        Network { signature, .. }: &Network,
        inputs: Vec<Given>,
        outputs: &[Wanted],
        terms: Terms,
    ) -> Result<Input, Refusal> {
        match check(inputs, outputs, signature)? {
            Checked::Tensor(input) => Ok(input),
            Checked::Images(images, encoded) => self.preparing.input(images, encoded, terms).await,
        }
    }

    async fn inferred(
        &self,
        network: &Network,
        metrics: &OfModel,
        Asked { inputs, outputs, form, arrived }: Asked,
        terms: Terms,
    ) -> Result<(Vec<Answered>, bool), Refusal> {
        let Network { signature, engine, .. } = network;
        let input = self.input(network, inputs, &outputs, terms).await?;
        let moments = network.moments(&input).map_err(foreign)?;
        let decoding = arrived.elapsed();
        metrics.stage(Stage::Decode, decoding);
        let output = engine.submit(input, terms).await?;
        let encoded = Instant::now();
        let whole = || vec![Wanted { name: signature.output.name.clone(), classes: None, form }];
        let wanted = if outputs.is_empty() { whole() } else { outputs };
        let drifts = network.drifts(|| output.rows(), moments.as_deref(), encoded).map_err(foreign)?;
        let outputs = answered(&output, wanted, signature).map_err(foreign)?;
        let encoding = encoded.elapsed();
        metrics.stage(Stage::Encode, encoding);
        metrics.statistics.succeeded(arrived.elapsed(), decoding, encoding);
        Ok((outputs, drifts))
    }
}

/// What is asked of a model, once it is read.
struct Asked {
    inputs: Vec<Given>,
    outputs: Vec<Wanted>,
    form: Form,
    arrived: Instant,
}

/// Until when, and before whom, a request is answered.
fn terms(request: &Request, (arrived, deadline): (Instant, Option<Instant>)) -> Terms {
    let expires = request.timeout.and_then(|timeout| arrived.checked_add(timeout));
    Terms { deadline, expires, level: level(request.priority) }
}

/// Of which network features are asked for, and nothing else. A model whose own output is called so gives that.
fn whose_features<'a>(model: &'a Model, outputs: &[Wanted]) -> Option<&'a Network> {
    let Kind::Network(network) = &model.kind else { return None };
    let is = matches!(outputs, [output] if output.name == FEATURES && network.signature.output.name != FEATURES);
    is.then_some(network)
}

fn foreign(error: impl std::fmt::Display) -> Refusal {
    Refusal::Encode { why: format!("it is no tensor of the model's: {error}") }
}

/// By a model that is built in, at once.
fn calculated(
    builtin: Builtin,
    metrics: &OfModel,
    Asked { inputs, outputs, form, arrived }: Asked,
) -> Result<Vec<Answered>, Refusal> {
    let (decoding, began) = (arrived.elapsed(), Instant::now());
    let outputs = builtin.answer(inputs, outputs, form)?;
    let rows = outputs.first().and_then(|output| output.shape.first()).map_or(1, |rows| rows.unsigned_abs() as usize);
    metrics.statistics.executed(rows, &[Duration::ZERO], began.elapsed());
    metrics.statistics.succeeded(arrived.elapsed(), decoding, Duration::ZERO);
    Ok(outputs)
}

fn count(metrics: &OfModel, refusal: &Refusal) {
    metrics.answered(refusal.code());
    if let Some(reason) = refusal.counted() {
        metrics.refused(reason);
    }
}
