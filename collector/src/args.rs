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

#[derive(Flags, Debug)]
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

    /// Where devices and people post.
    #[arg(long, default_value = "0.0.0.0:8084")]
    pub http: SocketAddr,

    /// Where this machine's router and agent ask.
    #[arg(long, default_value = "127.0.0.1:8085")]
    pub local: SocketAddr,

    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum LogFormat {
    Text,
    Json,
}
