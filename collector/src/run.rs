//! One node's collector from start to SIGTERM: follows its configuration file, and runs each dataset beside the others.

use crate::args::Run;
use crate::bounds;
use crate::clock::Now;
use crate::config::{Config, ConfigError, Dataset, Refused, parse};
use crate::door::{self, Datasets, Open};
use crate::forward::forward;
use crate::intake::Intake;
use crate::keeper::Keeper;
use crate::sources;
use crate::store::{Limits, Store, StoreError, allocate};
use crate::watch::Changes;
use notify::RecursiveMode;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot catch signals")]
    Signal(#[source] std::io::Error),
    #[error("cannot serve")]
    Serve(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT. A configuration that is absent is waited for.
///
/// # Errors
/// If this process cannot do its work: sockets and signals.
pub async fn run(args: Run) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let (public, private) = (listen(args.http).await?, listen(args.local).await?);
    let address = |listener: &TcpListener| listener.local_addr().map_err(Error::Serve);
    tracing::info!(http = %address(&public)?, local = %address(&private)?, config = %args.config.display(), "collecting");
    let datasets = Datasets::default();
    let collector = Collector { args, datasets: datasets.clone(), stores: BTreeMap::new(), running: BTreeMap::new() };
    // None of these ends: what is on the disk is there for the next process.
    tokio::select! {
        () = collector.follow() => {}
        () = bounds::serve(public, door::public(datasets.clone()), bounds::HEAD) => {}
        () = bounds::serve(private, door::private(datasets), bounds::HEAD) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopped; what is held stays");
    Ok(())
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

struct Collector {
    args: Run,
    datasets: Datasets,
    /// Once opened, a store stays open: whoever posts now may still hold it.
    stores: BTreeMap<String, Keeper>,
    running: BTreeMap<String, (Dataset, JoinSet<()>)>,
}

impl Collector {
    async fn follow(mut self) {
        let folder = self.args.config.parent().unwrap_or(Path::new("/")).to_owned();
        let mut changes = Changes::of(&folder, RecursiveMode::NonRecursive);
        let (mut config, mut left_out) = (None, Refused::new());
        loop {
            match read(&self.args.config) {
                Ok(Some((read, refused))) => {
                    for (dataset, why) in refused.iter().filter(|(dataset, why)| left_out.get(*dataset) != Some(*why)) {
                        tracing::error!(dataset, why, "not collected");
                    }
                    self.datasets.refuse(refused.len());
                    (config, left_out) = (Some(read), refused);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "bad configuration: going on as before");
                }
            }
            if let Some(config) = &config {
                self.take(config).await;
            }
            changes.next().await;
        }
    }

    /// Ends what is not as it was, and begins what is new, or could not begin before: another process may have had its folder.
    async fn take(&mut self, config: &Config) {
        let is_as_it_was = |name: &String, dataset: &Dataset| config.datasets.get(name) == Some(dataset);
        let ended: Vec<String> = self
            .running
            .iter()
            .filter(|(name, (dataset, _))| !is_as_it_was(name, dataset))
            .map(|(name, _)| name.clone())
            .collect();
        for name in ended {
            self.datasets.remove(&name);
            if let Some((_, mut tasks)) = self.running.remove(&name) {
                tasks.shutdown().await;
            }
        }
        for (name, dataset) in &config.datasets {
            if self.running.contains_key(name) {
                continue;
            }
            match self.begin(name, dataset.clone()).await {
                Ok(()) => tracing::info!(dataset = name, privacy = dataset.privacy.name(), "collected"),
                Err(error) => {
                    tracing::error!(dataset = name, error = &error as &dyn std::error::Error, "not collected");
                }
            }
        }
    }

    async fn begin(&mut self, name: &str, dataset: Dataset) -> Result<(), StoreError> {
        let keeper = self.keeper(name, &dataset).await?;
        let (uri, privacy, consent) = (dataset.uri.clone(), dataset.privacy.clone(), dataset.consent);
        let turn = move |store: &mut Store| {
            let now = Now::read();
            Ok::<_, StoreError>((store.bound_for(&uri, &now)?, store.tighten(privacy, consent, &now)?))
        };
        let turned = keeper.with(turn).await;
        let (elsewhere, forgotten) = turned.map_err(std::io::Error::other).map_err(StoreError::Write)??;
        if elsewhere > 0 {
            tracing::warn!(
                dataset = name,
                elsewhere,
                "samples go elsewhere now: what was held for the place before is dropped"
            );
        }
        if forgotten > 0 {
            tracing::warn!(
                dataset = name,
                forgotten,
                "the policy is another now: what was held under the old one is dropped"
            );
        }
        let open = Arc::new(Open { intake: Intake::new(keeper, &dataset), dataset: dataset.clone() });
        let mut tasks = JoinSet::new();
        let (of, args, forwarded) = (name.to_owned(), self.args.clone(), open.clone());
        tasks.spawn(async move {
            let statistics = Duration::from_secs(args.statistics_seconds);
            forward(&of, &args.node_name, &args.claims, statistics, &forwarded.dataset, &forwarded.intake).await;
        });
        for (number, source) in dataset.sources.iter().cloned().enumerate() {
            let client = format!("sconce-{}-{}-{number}", self.args.node_name, name.replace('/', "-"));
            let open = open.clone();
            tasks.spawn(async move { sources::run(source, &open.intake, &client).await });
        }
        self.datasets.insert(name.to_owned(), open);
        self.running.insert(name.to_owned(), (dataset, tasks));
        Ok(())
    }

    async fn keeper(&mut self, name: &str, dataset: &Dataset) -> Result<Keeper, StoreError> {
        let limits = Limits {
            max_bytes: dataset.buffer.max_bytes,
            max_age: Duration::from_secs(dataset.buffer.max_age_seconds),
        };
        if let Some(keeper) = self.stores.get(name) {
            let limited = keeper.with(move |store| store.limit(limits, &Now::read())).await;
            if let Ok(Err(error)) = limited {
                tracing::warn!(
                    dataset = name,
                    error = &error as &dyn std::error::Error,
                    "a smaller buffer is met later"
                );
            }
            return Ok(keeper.clone());
        }
        let folder = self.args.data.join(name);
        let opened = tokio::task::spawn_blocking(move || Store::open(&folder, limits, &Now::read(), allocate)).await;
        let store = opened.map_err(std::io::Error::other).map_err(StoreError::Write)??;
        let (held, held_bytes) = store.holds();
        tracing::info!(dataset = name, held, held_bytes, "store opened");
        let keeper = Keeper::start(store);
        self.stores.insert(name.to_owned(), keeper.clone());
        Ok(keeper)
    }
}

/// `None` if there is no file yet.
fn read(file: &Path) -> Result<Option<(Config, Refused)>, ConfigError> {
    match std::fs::read(file) {
        Ok(bytes) => parse(&bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Read { file: file.to_owned(), source }),
    }
}
