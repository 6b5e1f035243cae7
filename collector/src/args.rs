//! Flags and environment.

use clap::{Args as Flags, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Collects samples on a node, and forwards them.
#[derive(Parser, Debug)]
#[command(name = "sconce-collector", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run until SIGTERM.
    Run(Run),
}

#[derive(Flags, Clone, Debug)]
pub struct Run {
    /// Name of the node: in the names of all that it sends.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// File that says what is collected; read anew when it changes.
    #[arg(long, default_value = "/run/sconce/collect.json")]
    pub config: PathBuf,

    /// Folder in which samples are held.
    #[arg(long, default_value = "/var/lib/sconce/collector")]
    pub data: PathBuf,

    /// Folder in which PersistentVolumeClaims are mounted, each under its name: where samples of pvc://CLAIM/FOLDER go.
    #[arg(long, default_value = "/claims")]
    pub claims: PathBuf,

    /// Where devices and people post.
    #[arg(long, default_value = "0.0.0.0:8084")]
    pub http: SocketAddr,

    /// Where this machine's router and agent ask.
    #[arg(long, default_value = "127.0.0.1:8085")]
    pub local: SocketAddr,

    /// Over how many seconds the statistics of StatisticsOnly are taken.
    #[arg(long, env = "SCONCE_STATISTICS_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub statistics_seconds: u64,

    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum LogFormat {
    Text,
    Json,
}
