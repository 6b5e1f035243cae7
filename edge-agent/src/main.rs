//! `edge-agent`: measures a node and keeps its router's routes; or keeps files of models for its pods.

use clap::Parser as _;
use sconce_edge_agent::args::{Args, Command, LogFormat};
use sconce_edge_agent::{run, store};
use std::io::IsTerminal as _;
use tracing_subscriber::{EnvFilter, fmt};

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))?;
    let command = Args::parse().command;
    // The client logs each failed call as an error of its own; ours say what the call was for.
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy()
        .add_directive("kube_client::client::builder=off".parse()?);
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match command.log_format() {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    // Two workers: a probe must not wait while a list of placements is decoded.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match command {
        Command::Run(args) => runtime.block_on(run(*args))?,
        Command::Store(args) => runtime.block_on(store::run(args))?,
    }
    Ok(())
}
