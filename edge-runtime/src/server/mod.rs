//! The doors of one model: the Open Inference Protocol over gRPC and REST. Each wire only translates; the path is one.

mod about;
mod accept;
mod grpc;
mod preparing;
mod refusal;
mod rest;

pub use refusal::Refusal;

use crate::batch::level;
use crate::decode::{Checked, DecodeError, Signature, check};
use crate::encode::{Identity, answered};
use crate::engine::{Engine, Terms};
use crate::metrics::Metrics;
use crate::request::{Answer, Request, Wanted};
use crate::tls::Tls;
use accept::incoming;
use preparing::Preparing;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What one process serves.
pub struct Service {
    engine: Engine,
    preparing: Preparing,
    signature: Signature,
    identity: Identity,
    metrics: Arc<Metrics>,
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
    /// Of a request, uncompressed, and of a gRPC answer.
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
pub async fn serve(
    listeners: Listeners,
    service: Service,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
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
    /// Ready at once: the engine is expected to be warm.
    pub fn new(engine: Engine, signature: Signature, identity: Identity, metrics: Arc<Metrics>) -> Self {
        Self { engine, preparing: Preparing::new(), signature, identity, metrics, ready: watch::Sender::new(true) }
    }

    /// Completes when the server has been told to stop.
    fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ready = self.ready.subscribe();
        async move { drop(ready.wait_for(|ready| !ready).await) }
    }

    /// Whether this is the model, and the version if one is named.
    fn named(&self, name: &str, version: &str) -> Result<(), Refusal> {
        let Identity { name: served, version: current } = &self.identity;
        if name != served {
            return Err(Refusal::Model { asked: name.into(), served: served.clone() });
        }
        if !version.is_empty() && version != current {
            return Err(Refusal::Version { asked: version.into(), model: served.clone(), served: current.clone() });
        }
        Ok(())
    }

    /// As [`Service::named`], for a request that ends with the answer.
    fn known(&self, name: &str, version: &str) -> Result<(), Refusal> {
        self.named(name, version).inspect_err(|refusal| self.count(refusal))
    }

    fn count(&self, refusal: &Refusal) {
        self.metrics.answered(refusal.code());
        if let Some(reason) = refusal.counted() {
            self.metrics.refused(reason);
        }
    }

    /// The path of every request, whichever wire it came by: `read` is asked only if the model is this one.
    async fn infer(
        &self,
        name: &str,
        version: &str,
        (arrived, deadline): (Instant, Option<Instant>),
        read: impl FnOnce(&Signature) -> Result<Request, DecodeError>,
    ) -> Result<Answer, Refusal> {
        let answer = self.answer(name, version, (arrived, deadline), read).await;
        let took = arrived.elapsed();
        self.metrics.stage("total", took);
        match &answer {
            Ok(_) => self.metrics.answered(tonic::Code::Ok),
            Err(refusal) => {
                if !matches!(refusal, Refusal::Model { .. } | Refusal::Version { .. }) {
                    self.metrics.statistics.failed(took);
                }
                self.count(refusal);
            }
        }
        answer
    }

    async fn answer(
        &self,
        name: &str,
        version: &str,
        (arrived, deadline): (Instant, Option<Instant>),
        read: impl FnOnce(&Signature) -> Result<Request, DecodeError>,
    ) -> Result<Answer, Refusal> {
        self.named(name, version)?;
        let Request { id, inputs, outputs, form, priority, timeout } = read(&self.signature)?;
        let expires = timeout.and_then(|timeout| arrived.checked_add(timeout));
        let terms = Terms { deadline, expires, level: level(priority) };
        let input = match check(inputs, &outputs, &self.signature)? {
            Checked::Tensor(input) => input,
            Checked::Images(images, encoded) => self.preparing.input(images, encoded, terms).await?,
        };
        let decoding = arrived.elapsed();
        self.metrics.stage("decode", decoding);
        let output = self.engine.submit(input, terms).await?;
        let encoded = Instant::now();
        let whole = || vec![Wanted { name: self.signature.output.name.clone(), classes: None, form }];
        let wanted = if outputs.is_empty() { whole() } else { outputs };
        let outputs = answered(&output, wanted, &self.signature)
            .map_err(|error| Refusal::Encode { why: format!("it is no tensor of the model's: {error}") })?;
        let encoding = encoded.elapsed();
        self.metrics.stage("encode", encoding);
        self.metrics.statistics.succeeded(arrived.elapsed(), decoding, encoding);
        let Identity { name: model, version } = self.identity.clone();
        Ok(Answer { model, version, id, outputs })
    }
}
