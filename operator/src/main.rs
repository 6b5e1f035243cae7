//! Starts the operator: flags, clients, servers, the lease, the hall; and ends it in the opposite order.

use anyhow::{Context as _, Result};
use clap::Parser as _;
use kube::client::ClientBuilder;
use kube::{Api, Client, Config};
use sconce_operator::args::{Args, Command, LogFormat, Run};
use sconce_operator::controller::Controller;
use sconce_operator::datasets;
use sconce_operator::health::{Pulse, Readiness, serve_health, serve_metrics};
use sconce_operator::lease::Candidate;
use sconce_operator::metrics::Metrics;
use sconce_operator::observe::Stores;
use sconce_operator::page::serve_page;
use sconce_operator::registry::Registries;
use sconce_operator::render::Settings;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Requests to the API at a time, watches aside.
const REQUESTS: usize = 64;
/// A pass that has begun is given so long to end.
const PATIENCE: Duration = Duration::from_secs(25);

#[tokio::main]
async fn main() -> Result<()> {
    let Args { command: Command::Run(run) } = Args::parse();
    log(run.log_format);
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("a second provider of cryptography is installed");
    }
    operate(run).await
}

async fn operate(run: Run) -> Result<()> {
    let stop = CancellationToken::new();
    end_on_signal(&stop)?;
    let (metrics, readiness, pulse) = (Metrics::new(), Readiness::default(), Pulse::default());
    let health = listen(run.health).await?;
    let scrapes = listen(run.metrics).await?;
    let page = match run.page {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    tokio::spawn(serve_health(health, readiness.clone(), pulse.clone(), stop.clone()));
    tokio::spawn(serve_metrics(scrapes, metrics.clone(), stop.clone()));

    let config = Config::infer().await.context("finding the cluster")?;
    let client = requests(config.clone())?;
    let news = watch::Sender::new(());
    // Watches have a client of their own: it waits as long as it takes.
    let stores = Stores::watch(&Client::try_from(config)?, &metrics, &news);
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        listed = stores.wait_until_listed() => listed.context("listing all kinds")?,
    }
    readiness.set();
    if let Some(page) = page {
        let (hosts, source, news, stop) =
            (run.page_hosts.clone(), Arc::new(stores.clone()), news.subscribe(), stop.clone());
        tokio::spawn(async move { serve_page(page, &hosts, source, news, stop).await });
    }
    tracing::info!("all kinds are listed");

    let identity = run.identity.clone().unwrap_or_else(own_name);
    let mut candidate = Candidate::new(Api::namespaced(client.clone(), &run.namespace), identity.clone());
    if !candidate.acquire(&stop).await {
        return Ok(());
    }
    metrics.leading.set(1);
    tracing::info!(identity, "leading");
    tokio::spawn(datasets::keep(client.clone(), stores.clone(), news.subscribe(), stop.clone()));
    let controller = Controller {
        client,
        stores,
        news: news.subscribe(),
        metrics: metrics.clone(),
        registries: Registries::new(&run.insecure_registries),
        settings: Settings {
            image: run.runtime_image,
            trainer_image: run.trainer_image,
            pull_policy: run.image_pull_policy,
            insecure_registries: run.insecure_registries,
            store_port: run.store_port,
            trusted_keys: None,
        },
        drain: run.drain,
        pulse,
        identity,
    };
    let mut hall = tokio::spawn(controller.run(stop.clone()));
    tokio::select! {
        held = candidate.hold(&stop) => {
            held.context("leading")?;
            // Held on until the last write is done, so that nobody else begins before.
            tokio::time::timeout(PATIENCE, hall).await.context("ending the pass")??;
            candidate.release().await;
            tracing::info!("ended");
            Ok(())
        }
        ended = &mut hall => {
            ended.context("the hall")?;
            candidate.release().await;
            Ok(())
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

fn requests(mut config: Config) -> Result<Client> {
    config.read_timeout = Some(Duration::from_secs(30));
    config.reset_reader_on_write = true;
    // Who fails is tried again by us, one object at a time.
    config.default_retry = false;
    let limit = tower::limit::GlobalConcurrencyLimitLayer::new(REQUESTS);
    Ok(ClientBuilder::try_from(config)?.with_layer(&limit).build())
}

fn end_on_signal(stop: &CancellationToken) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to end");
        stop.cancel();
    });
    Ok(())
}

/// Outside of a pod: unlike that of any other process.
fn own_name() -> String {
    format!("sconce-operator-{}-{}", std::process::id(), jiff::Timestamp::now().as_millisecond())
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
