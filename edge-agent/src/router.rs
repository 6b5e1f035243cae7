//! Reads what the router beside us has counted.

use crate::metrics::Metrics;
use crate::waits::{Counters, Readings};
use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sconce_api::ObservedModel;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// It answers at once, or not at all.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of its metrics.
const MOST_BYTES: usize = 8 << 20;

/// The least often that it is read, so that five minutes are five minutes.
const PACE: Duration = Duration::from_secs(60);

pub type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// What its clients waited; `None` until that is known.
pub type Waits = Option<Waited>;

#[derive(Clone, Debug, PartialEq)]
pub struct Waited {
    pub rows: Vec<ObservedModel>,
    /// In five minutes, and not in the time since a start.
    pub is_whole: bool,
}

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("no answer in 2 s")]
    Timeout,
    #[error("not reached")]
    Unreached(#[from] hyper_util::client::legacy::Error),
    #[error("it answers {0}")]
    Refused(axum::http::StatusCode),
    #[error("its metrics cannot be read")]
    Unread(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads its metrics for ever, each `pace`, or each minute.
pub async fn read(address: axum::http::Uri, pace: Duration, waits: watch::Sender<Waits>, metrics: Metrics) {
    let client = client();
    let (mut readings, mut failing, started) = (Readings::default(), false, Instant::now());
    let pace = pace.min(PACE);
    // Both are starting.
    let mut tick = interval_at(started + pace, pace);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = tick.tick().await;
        match text_within(&client, &address).await {
            Ok(text) => {
                failing = false;
                readings.push(now, Counters::read(&text));
                if let Some(rows) = readings.waited() {
                    waits.send_replace(Some(Waited { rows, is_whole: readings.are_whole() }));
                }
            }
            Err(error) => {
                metrics.router_lost();
                if !std::mem::replace(&mut failing, true) {
                    let source = &error as &dyn std::error::Error;
                    tracing::warn!(error = source, %address, "router not read; trying until it is");
                }
                // What it said, to us or to who was before us, is no longer so.
                if readings.is_stale(started, Instant::now()) {
                    waits.send_replace(Some(Waited { rows: Vec::new(), is_whole: true }));
                }
            }
        }
    }
}

pub fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Metrics, of our router or of a model's server.
///
/// # Errors
/// If it does not answer at once.
pub async fn text_within(client: &HttpClient, address: &axum::http::Uri) -> Result<String, Error> {
    timeout(PATIENCE, text(client, address)).await.unwrap_or(Err(Error::Timeout))
}

async fn text(client: &HttpClient, address: &axum::http::Uri) -> Result<String, Error> {
    let answer = client.get(address.clone()).await?;
    if !answer.status().is_success() {
        return Err(Error::Refused(answer.status()));
    }
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map_err(Error::Unread)?.to_bytes();
    String::from_utf8(body.into()).map_err(|error| Error::Unread(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn a_router_is_read_again_and_again() {
        let answered = Arc::new(AtomicU64::new(0));
        let metrics = move || {
            let count = answered.fetch_add(150, Ordering::Relaxed);
            async move {
                let name = "sconce_router_request_seconds";
                let bucket =
                    |le| format!("{name}_bucket{{le=\"{le}\",model=\"digits.vision\",tier=\"Edge\"}} {count}\n");
                format!("# TYPE {name} histogram\n{}{}# EOF\n", bucket("0.004"), bucket("+Inf"))
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/metrics", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(axum::serve(listener, Router::new().route("/metrics", get(metrics))).into_future());
        let (sender, mut waits) = watch::channel(None);
        tokio::spawn(read(address, Duration::from_millis(20), sender, Metrics::default()));
        let told = |waits: &Waits| waits.as_ref().is_some_and(|waited| !waited.rows.is_empty());
        let row = waits.wait_for(told).await.unwrap().clone().unwrap().rows.remove(0);
        assert_eq!((row.name.as_str(), row.waited.p99.unwrap().0.as_str()), ("digits", "4ms"));
    }
}
