//! A place that answers: its connection, how busy it is, and whether it has failed of late.

use super::routes::Address;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Full};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};

/// A dead peer is noticed within two seconds, by connection or by keep-alive, also while nobody asks it anything.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A backend that fails is asked last for so long, twice as long each time, up to the limit.
const ASIDE: Duration = Duration::from_millis(500);
const ASIDE_LIMIT: Duration = Duration::from_secs(5);

pub struct Backend {
    pub tier: String,
    pub address: SocketAddr,
    channel: Channel,
    outstanding: AtomicUsize,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    failures: u32,
    until: Option<Instant>,
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
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        Ok(Self {
            tier: address.tier.clone(),
            address: address.address,
            channel: endpoint.connect_lazy(),
            outstanding: AtomicUsize::new(0),
            trouble: Mutex::default(),
        })
    }

    /// Sends a request and waits for the whole answer, for so long as `patience` says.
    ///
    /// # Errors
    /// Why there is no answer that a client should see; the backend is then asked last for a while.
    pub async fn ask(
        &self,
        head: &http::request::Parts,
        body: &Bytes,
        patience: Option<Duration>,
    ) -> Result<Answer, String> {
        let busy = Busy::new(&self.outstanding);
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
        let answer: Result<Answer, String> = match patience {
            None => asked.await,
            Some(patience) => tokio::time::timeout(patience, asked)
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {patience:?}"))),
        };
        drop(busy);
        let answer = answer.and_then(whole);
        self.note(answer.is_err());
        answer
    }

    fn note(&self, failed: bool) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if failed {
            let aside = ASIDE.saturating_mul(1 << trouble.failures.min(8)).min(ASIDE_LIMIT);
            *trouble = Trouble { failures: trouble.failures + 1, until: Some(Instant::now() + aside) };
        } else if trouble.failures > 0 {
            *trouble = Trouble::default();
        }
    }

    pub fn aside(&self, now: Instant) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).until.is_some_and(|until| until > now)
    }

    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }
}

/// Counts a request while it is out, also if its client goes away.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

/// Refuses what another backend may answer better: a server without room or about to leave, a connection that was cut.
fn whole(answer: Answer) -> Result<Answer, String> {
    match status(&answer) {
        Some(status) if matches!(status.code(), Code::Unavailable | Code::Cancelled) => {
            Err(format!("{:?}: {}", status.code(), status.message()))
        }
        Some(_) => Ok(answer),
        None => Err(format!("HTTP {} without a gRPC status", answer.status().as_u16())),
    }
}
