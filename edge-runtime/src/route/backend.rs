//! A place that answers: its connection, how busy it is, and whether it has failed.
//!
//! A backend that fails is put aside and asked last, until a probe of its health gets through: no client's request is the probe.

use super::routes::Address;
use crate::wire::http2;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Full};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service as _, ServiceExt as _};

/// A dead peer is noticed within two seconds, by connection or by keep-alive, also while nobody asks it anything.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// When a backend that failed is probed; then after twice as long each time, up to the limit.
const PROBE: Duration = Duration::from_millis(250);
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

pub struct Backend {
    pub tier: String,
    pub address: SocketAddr,
    channel: Channel,
    /// Of its own, and not opened before there is a doubt: requests that wait can take all the places of a connection.
    probes: Channel,
    outstanding: AtomicUsize,
    aside: AtomicBool,
    probed: AtomicBool,
}

/// Why another backend is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It cannot be reached, says nothing, or broke off.
    Failed(String),
    /// It lives, but has no room.
    Refused(String),
}

/// A whole answer: gRPC tells in the trailers whether it is one.
pub type Answer = http::Response<Collected<Bytes>>;

impl Backend {
    pub fn new(address: &Address) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", address.address))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(http2::STREAM_WINDOW)
            .initial_connection_window_size(http2::CONNECTION_WINDOW);
        Ok(Self {
            tier: address.tier.clone(),
            address: address.address,
            channel: endpoint.connect_lazy(),
            probes: endpoint.connect_lazy(),
            outstanding: AtomicUsize::new(0),
            aside: AtomicBool::new(false),
            probed: AtomicBool::new(false),
        })
    }

    /// Sends a request and waits for the whole answer, for so long as `patience` says.
    ///
    /// # Errors
    /// Why there is no answer that a client should see; a backend that failed is asked last from now on.
    pub async fn ask(
        self: &Arc<Self>,
        head: &http::request::Parts,
        body: &Bytes,
        patience: Option<Duration>,
    ) -> Result<Answer, NoAnswer> {
        let mut busy = Busy::new(self);
        let mut request = http::Request::new(Body::new(Full::new(body.clone())));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers.clone();
        let asked = async {
            let mut channel = self.channel.clone();
            let response = channel.ready().await.map_err(told)?.call(request).await.map_err(told)?;
            let (head, body) = response.into_parts();
            Ok(http::Response::from_parts(head, body.collect().await.map_err(told)?))
        };
        let answer = match patience {
            None => asked.await,
            Some(patience) => tokio::time::timeout(patience, asked)
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {patience:?}"))),
        };
        busy.over = true;
        let answer = answer.map_err(NoAnswer::Failed).and_then(whole);
        match &answer {
            Err(NoAnswer::Failed(error)) => {
                if !self.aside.swap(true, Ordering::Relaxed) {
                    tracing::warn!(tier = self.tier, address = %self.address, error, "put aside");
                }
                self.doubt(PROBE);
            }
            Err(NoAnswer::Refused(_)) => {}
            Ok(_) => self.aside.store(false, Ordering::Relaxed),
        }
        answer
    }

    /// Asks for its health after `wait`, unless somebody does already.
    fn doubt(self: &Arc<Self>, wait: Duration) {
        // A router that ends has no runtime any more.
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.probed.swap(true, Ordering::Relaxed) {
            runtime.spawn(probe(Arc::downgrade(self), wait));
        }
    }

    async fn healthy(&self) -> bool {
        let check = HealthCheckRequest { service: String::new() };
        match tokio::time::timeout(PROBE_TIMEOUT, HealthClient::new(self.probes.clone()).check(check)).await {
            Ok(Ok(response)) => response.into_inner().status == tonic_health::ServingStatus::Serving as i32,
            // A server that knows no health has answered.
            Ok(Err(status)) => status.code() == Code::Unimplemented,
            Err(_) => false,
        }
    }

    pub fn aside(&self) -> bool {
        self.aside.load(Ordering::Relaxed)
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }
}

/// Probes until the backend is well or gone from the routes.
async fn probe(backend: Weak<Backend>, mut wait: Duration) {
    loop {
        tokio::time::sleep(wait).await;
        let Some(backend) = backend.upgrade() else { return };
        let healthy = backend.healthy().await;
        let was_aside = backend.aside.swap(!healthy, Ordering::Relaxed);
        if was_aside == healthy {
            tracing::warn!(tier = backend.tier, address = %backend.address, healthy, "probed");
        }
        if healthy {
            return backend.probed.store(false, Ordering::Relaxed);
        }
        wait = (wait * 2).clamp(PROBE, PROBE_LIMIT);
    }
}

/// Counts a request while it is out. One whose client waits no longer, perhaps for good reason, is a doubt.
struct Busy<'a> {
    backend: &'a Arc<Backend>,
    over: bool,
}

impl<'a> Busy<'a> {
    fn new(backend: &'a Arc<Backend>) -> Self {
        backend.outstanding.fetch_add(1, Ordering::Relaxed);
        Self { backend, over: false }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.backend.outstanding.fetch_sub(1, Ordering::Relaxed);
        if !self.over {
            self.backend.doubt(Duration::ZERO);
        }
    }
}

/// The error with its causes: transports say little at the top.
fn told(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The answer's gRPC status, from its trailers, or from its headers where it has no body.
fn status(answer: &Answer) -> Option<Status> {
    let trailers = answer.body().trailers().and_then(Status::from_header_map);
    trailers.or_else(|| Status::from_header_map(answer.headers()))
}

pub fn code(answer: &Answer) -> Code {
    status(answer).map_or(Code::Unknown, |status| status.code())
}

/// Refuses what another backend may answer better: a server without room or about to leave, an answer that is none.
fn whole(answer: Answer) -> Result<Answer, NoAnswer> {
    match status(&answer) {
        Some(status) if matches!(status.code(), Code::Unavailable | Code::Cancelled) => {
            Err(NoAnswer::Refused(status.message().to_owned()))
        }
        Some(_) => Ok(answer),
        None => Err(NoAnswer::Failed(format!("HTTP {} without a gRPC status", answer.status().as_u16()))),
    }
}
