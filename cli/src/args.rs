//! Which commands and flags exist.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Asks where models run, why, and what would change. It reads, and writes nothing to the cluster.
#[derive(Parser, Debug)]
#[command(name = "sconce", version)]
pub struct Cli {
    #[command(flatten)]
    pub source: Source,
    /// text is for people; json and yaml for programs.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub output: Output,
    #[command(subcommand)]
    pub command: Command,
}

/// Where objects are read from.
#[derive(Args, Debug)]
pub struct Source {
    /// Context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig. Default: $KUBECONFIG, else ~/.kube/config, else the pod's own account.
    #[arg(long, global = true, value_name = "FILE", env = "KUBECONFIG", hide_env_values = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the model. Default: that of the kubeconfig's context.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// Reads a file of `sconce snapshot save` instead of a cluster.
    #[arg(long, global = true, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Says where a model runs at each site and why: the decision as it was recorded, its numbers, what was rejected.
    Explain {
        /// Name of the EdgeModel.
        model: String,
        /// Only this site.
        #[arg(long)]
        site: Option<String>,
    },
    /// Shows fleets, their sites, and what runs there.
    Status,
    /// Plans as the operator would if these files were applied, and shows what would move. Changes nothing.
    Simulate {
        /// Manifests of EdgeFleets, EdgeSites and EdgeModels; may be given several times. `-` = standard input.
        #[arg(short, long, required = true, value_name = "FILE")]
        filename: Vec<PathBuf>,
    },
    /// Keeps what decisions are made of, to be asked later or elsewhere.
    Snapshot {
        #[command(subcommand)]
        command: Snapshot,
    },
}

#[derive(Subcommand, Debug)]
pub enum Snapshot {
    /// Writes all that the planner reads, as a Kubernetes List; no Secrets, no environment of pods. `-` = standard output.
    Save { file: PathBuf },
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Text,
    Json,
    Yaml,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn flags_stand_before_or_behind_their_command() {
        Cli::command().debug_assert();
        let before = Cli::parse_from(["sconce", "-n", "vision", "-o", "json", "explain", "digits", "--site", "a"]);
        let behind = Cli::parse_from(["sconce", "explain", "digits", "--site", "a", "-n", "vision", "-o", "json"]);
        assert_eq!(format!("{before:?}"), format!("{behind:?}"));
    }
}
