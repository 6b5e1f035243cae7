//! Flags and environment.

use clap::{Args as Flags, Parser, Subcommand, ValueEnum};
use sconce_api::{Amount, DurationText};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Measures this node's hardware and link, and keeps the routes file of its router; or keeps files of models.
#[derive(Parser, Debug)]
#[command(name = "edge-agent", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run until SIGTERM.
    Run(Box<Run>),
    /// Keep files of models for the pods of this node, and bring them from their registries, until SIGTERM.
    Store(Store),
}

impl Command {
    pub fn log_format(&self) -> LogFormat {
        match self {
            Self::Run(run) => run.log_format,
            Self::Store(store) => store.log_format,
        }
    }
}

#[derive(Flags, Debug)]
pub struct Run {
    /// Name of the node that this agent runs on; names its EdgeNode too.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// File that the router reads.
    #[arg(long, default_value = "/run/sconce/routes.json")]
    pub routes: PathBuf,

    /// Where the cloud tier answers gRPC health checks, HOST:PORT.
    #[arg(long, default_value = "sconce-cloud.sconce-node.svc:8001")]
    pub cloud: String,

    /// Time between two bursts of probes, from 1s to 10m.
    #[arg(long, default_value = "15s", value_parser = probe_interval)]
    pub probe_interval: Duration,

    /// Where the router beside us answers gRPC health checks, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:8001")]
    pub router: String,

    /// Folder that the measurer beside us has too; without it no model is measured here.
    #[arg(long, value_name = "DIR")]
    pub measure: Option<PathBuf>,

    /// Where the router beside us tells its metrics.
    #[arg(long, default_value = "http://127.0.0.1:8002/metrics", value_name = "URL")]
    pub router_metrics: axum::http::Uri,

    /// Where the collector beside us tells what it has counted; absent = nothing is collected here.
    #[arg(long, value_name = "URL")]
    pub collector: Option<axum::http::Uri>,

    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8083")]
    pub health: SocketAddr,

    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Flags, Debug)]
pub struct Store {
    /// Folder of the node where files are kept, by their digests; no other process may have it.
    #[arg(long, value_name = "DIR")]
    pub folder: PathBuf,

    /// Bytes that they may take in all, such as 4Gi: those that were used longest ago go first. Whatever this says, what is fetched leaves a tenth of the
    /// disk stays free.
    #[arg(long, value_name = "BYTES", default_value = "4Gi", value_parser = bytes)]
    pub most_bytes: u64,

    /// Registry without TLS, beside those on loopback addresses. May be given several times.
    #[arg(long = "insecure-registry", value_name = "HOST:PORT")]
    pub insecure_registries: Vec<String>,

    /// Where pods ask.
    #[arg(long, default_value = "0.0.0.0:8003")]
    pub listen: SocketAddr,

    /// Address of /healthz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8083")]
    pub health: SocketAddr,

    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum LogFormat {
    Text,
    Json,
}

fn probe_interval(text: &str) -> Result<Duration, String> {
    let interval = DurationText::from(text).parse().ok_or("expected a duration such as 15s")?;
    if (Duration::from_secs(1)..=Duration::from_secs(600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("expected between 1s and 10m".into())
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    Amount(text.into()).units().ok_or_else(|| "expected a number of bytes, such as 4Gi".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_interval_carries_its_unit_and_has_bounds() {
        assert_eq!(probe_interval("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(probe_interval("1m30s"), Ok(Duration::from_secs(90)));
        assert!(probe_interval("15").is_err());
        assert!(probe_interval("200ms").is_err());
        assert!(probe_interval("11m").is_err());
    }

    #[test]
    fn room_is_told_in_bytes() {
        assert_eq!((bytes("4Gi"), bytes("1000")), (Ok(4 << 30), Ok(1000)));
        assert!(bytes("much").is_err() && bytes("-1").is_err());
    }
}
