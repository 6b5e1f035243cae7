//! One node's store from start to SIGTERM.

use super::metrics::Metrics;
use super::{Store, server};
use crate::args;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("cannot catch signals")]
    Signal(#[source] std::io::Error),
    #[error("cannot open a client of registries")]
    Client(#[from] reqwest::Error),
}

/// Runs until SIGTERM or SIGINT; what is on its way then goes on from there the next time.
///
/// # Errors
/// If this process cannot do its work: sockets, signals, TLS. A folder that cannot be used is no error.
pub async fn run(args: args::Store) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let (pods, health) = (listen(args.listen).await?, listen(args.health).await?);
    let metrics = Metrics::default();
    let store = Store::new(args.folder, args.most_bytes, args.insecure_registries, metrics.clone())?;
    if let (Ok(listen), Ok(health)) = (pods.local_addr(), health.local_addr()) {
        tracing::info!(%listen, %health, folder = %store.path.display(), most_bytes = store.most_bytes, "ready");
    }
    // None of these ends.
    tokio::select! {
        () = server::serve(pods, server::api(store), server::is_near) => {}
        () = server::serve(health, server::health(metrics), |_| true) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopped; what is kept stays");
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}
