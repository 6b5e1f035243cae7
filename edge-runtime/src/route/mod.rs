//! The node's router: one address for all clients of the node. Forwards by model name, measures what the client waits, and goes
//! to the other tier when one fails.

mod backend;
mod body;
mod peek;
mod routes;
mod service;
mod watch;

pub use body::room_bytes;
pub use routes::{Address, Route, Routes, RoutesError, parse};
pub use service::{Router, RouterMetrics};
pub use watch::{Table, watch};

use crate::metrics;
use crate::stop::Stop;
use crate::tap::Tap;
use crate::wire::http2;
use futures::future::{BoxFuture, FutureExt as _};
use prometheus_client::registry::Registry;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

/// Longer than any request waits here; a client that watches health never ends by itself.
const DRAIN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a request.
    pub max_message_bytes: usize,
    /// Of all requests under way.
    pub room_bytes: usize,
    /// How long a client may take for the body of a request.
    pub body_timeout: Duration,
    /// After so long the next backend is asked, where there is one.
    pub attempt_timeout: Duration,
}

/// What the agent beside us writes.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    pub routes: &'a Path,
    /// Of whose requests samples are taken; none without it.
    pub taps: Option<&'a Path>,
    /// Whom samples are handed to.
    pub collector: &'a http::Uri,
}

/// Serves until `stop`; requests that have begun are finished.
///
/// # Errors
/// If a listener fails, or the folder of a file cannot be watched.
pub fn run(
    grpc: TcpListener,
    metrics: TcpListener,
    files: Files<'_>,
    limits: Limits,
    stop: Stop,
) -> BoxFuture<'_, anyhow::Result<()>> {
    route(grpc, metrics, files, limits, stop).boxed()
}

async fn route(
    grpc: TcpListener,
    metrics_listener: TcpListener,
    files: Files<'_>,
    limits: Limits,
    stop: Stop,
) -> anyhow::Result<()> {
    let (table, _watcher) = watch(files.routes)?;
    let mut registry = Registry::default();
    let (tap, _watching) = Tap::start(files.taps, files.collector, &mut registry)?;
    let router = Router::new(table, Arc::new(RouterMetrics::new(&mut registry)), limits, tap);
    let (health, health_service) = tonic_health::server::health_reporter();
    // Healthy before there are routes: the router is, and agents measure the link by asking it.
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let grpc = http2::server(http2::STREAMS)
        .add_service(health_service)
        .add_service(router)
        .serve_with_incoming_shutdown(TcpIncoming::from(grpc).with_nodelay(Some(true)), stop.clone());
    let metrics = metrics::serve(metrics_listener, registry, stop.clone());
    let served = async { tokio::try_join!(async { anyhow::Ok(grpc.await?) }, async { anyhow::Ok(metrics.await?) }) };
    let drained = async {
        stop.await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = served => drop(served?),
        () = drained => tracing::warn!("still busy after the drain: leaving"),
    }
    Ok(())
}
