//! One node's agent from start to SIGTERM.

use crate::args::Run;
use crate::hardware;
use crate::health::Health;
use crate::hop;
use crate::link::{self, Alone, Link, Prober};
use crate::measure::Measurer;
use crate::metrics::Metrics;
use crate::node::{Reporter, Seen, Tell};
use crate::profiles::Profiles;
use crate::watch::{Keeper, Scope};
use crate::{collect, router, uplink, usage};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Where the servers of models answer.
const MODELS: u16 = 8001;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("cannot measure the hardware")]
    Hardware(#[from] hardware::Error),
    #[error("the measurement of the hardware broke off")]
    Measurement(#[from] tokio::task::JoinError),
    #[error("--cloud or --router is no HOST:PORT")]
    Cloud(#[from] tonic::transport::Error),
    #[error("no way to the API server is configured")]
    Config(#[from] kube::config::InferConfigError),
    #[error("cannot build the API server's client")]
    Client(#[source] Box<kube::Error>),
    #[error("cannot listen on {address}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot catch signals")]
    Signal(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT. An API server or a cloud tier that is absent is waited for.
///
/// # Errors
/// If this process cannot do its work: flags, hardware, sockets.
pub async fn run(args: Run) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let metrics = Metrics::default();
    let health = Health::new(metrics.clone(), args.probe_interval);
    let listener =
        TcpListener::bind(args.health).await.map_err(|source| Error::Listen { address: args.health, source })?;
    let (endpoint, router) = (link::endpoint(&args.cloud)?, link::endpoint(&args.router)?);
    let (client, watching) = clients().await?;
    // Before the probes start: both want a quiet core.
    let hardware = tokio::task::spawn_blocking(hardware::measure).await??;
    tracing::info!(class = hardware.class, gflops = hardware.gflops, memory = %hardware.memory, "hardware measured");

    let (link_sender, link) = watch::channel(Link::default());
    let (local_sender, local) = watch::channel(Link::default());
    let (usage_sender, usage) = watch::channel(None);
    let (here_sender, here) = watch::channel(None);
    let (profiles_sender, profiles) = watch::channel(None);
    let (told_sender, told) = watch::channel(None);
    let (uplink_sender, uplink) = watch::channel(None);
    let (waits_sender, waits) = watch::channel(None);
    let (scope_sender, scope) = watch::channel(None);
    let (probed, alone, here_probed) = (link.clone(), Alone::default(), here.clone());
    let collecting = collecting(&args, &client, &watching, &scope, &metrics);
    let measurer = Measurer {
        client: client.clone(),
        class: hardware.class.clone(),
        folder: args.measure,
        here: here.clone(),
        told,
        metrics: metrics.clone(),
    };
    let is_measuring = {
        let profiles = profiles.clone();
        move || profiles.borrow().as_ref().is_some_and(|profiles: &Profiles| !profiles.standing.is_done())
    };
    let seen = Seen { hardware, link, local, uplink, usage, profiles, waits };
    let keeper = Keeper::new(args.node_name.clone(), args.routes, here_sender, metrics.clone());
    let tell = Tell { scope: scope_sender, told: told_sender };
    let reporter = Reporter::new(client, args.node_name, seen, tell, args.probe_interval, metrics.clone());
    let (turned, routed) = (health.clone(), health.clone());
    let mut to_cloud = Prober::new(alone.clone(), args.probe_interval, link_sender, metrics.clone());
    // Counted by nobody: a prober's metrics are those of the cloud tier.
    let to_models = Prober::new(alone.clone(), args.probe_interval, local_sender, Metrics::default());
    let server = axum::serve(listener, health.router());
    // None of these ends; SIGTERM drops them all. A routes file is written in one go, so that none is cut off half way.
    tokio::select! {
        () = link::probe("cloud tier", endpoint.clone(), &mut to_cloud) => {}
        () = hop::probe(router, MODELS, here_probed, to_models) => {}
        () = usage::read(args.probe_interval, here, is_measuring, usage_sender, metrics.clone()) => {}
        () = measurer.follow(profiles_sender) => {}
        () = uplink::probe(endpoint, alone, probed, uplink_sender) => {}
        () = router::read(args.router_metrics, args.probe_interval, waits_sender, metrics) => {}
        () = reporter.report(|reported| turned.turned(reported)) => {}
        () = collecting => {}
        () = keeper.keep(watching, scope, || routed.routed()) => {}
        _ = server.into_future() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopped; the routes stay");
    Ok(())
}

/// Keeps what is collected, where there is a collector; ends never.
fn collecting(
    args: &Run,
    client: &Client,
    watching: &Client,
    scope: &watch::Receiver<Option<Scope>>,
    metrics: &Metrics,
) -> impl Future<Output = ()> + use<> {
    let folder = args.routes.parent().map(Path::to_owned).unwrap_or_default();
    let (client, watching, node) = (client.clone(), watching.clone(), args.node_name.clone());
    let (address, pace) = (args.collector.clone(), args.probe_interval);
    let (scope, metrics) = (scope.clone(), metrics.clone());
    async move {
        let Some(address) = address else { return std::future::pending().await };
        tokio::select! {
            () = collect::keep(watching, folder, scope, metrics.clone()) => {}
            () = collect::report(client, node, address, pace, metrics) => {}
        }
    }
}

/// A client for single calls, and one for the watch, whose reads may wait.
async fn clients() -> Result<(Client, Client), Error> {
    let mut calls = Config::infer().await?;
    let watch = calls.clone();
    calls.read_timeout = Some(Duration::from_secs(15));
    calls.reset_reader_on_write = true;
    let client = |config| Client::try_from(config).map_err(|error| Error::Client(Box::new(error)));
    Ok((client(calls)?, client(watch)?))
}
