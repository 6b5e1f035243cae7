//! Which commands and flags exist.

use clap::{Args, Parser, Subcommand, ValueEnum};
use sconce_api::DurationText;
use std::path::PathBuf;
use std::time::Duration;

/// Asks where models run, why, and what would change. It reads, and writes nothing to the cluster.
#[derive(Parser, Debug)]
#[command(name = "sconce", version)]
pub struct Cli {
    #[command(flatten)]
    pub source: Source,
    /// text is for people, wide has more columns where there are more; json and yaml are for programs.
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
    /// Shows fleets, their sites, and what runs there. Ends with 0; with --wait once all is as decided; with 3 if it is not so
    /// within --timeout; with 1 if it cannot be told, and with 2 if the flags make no sense.
    Status(Status),
    /// Shows what clients wait now, by site and model: requests, p50 and p99 as the routers count them, beside the budget.
    Top(Top),
    /// Checks what Sconce needs of a cluster, and what it is there. Each failure names its cause and what to do. Ends with 1 if
    /// one fails.
    Check(Check),
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

#[derive(Args, Debug)]
pub struct Status {
    /// Only this EdgeFleet.
    #[arg(long, value_name = "NAME")]
    pub fleet: Option<String>,
    /// Only this EdgeModel, of the namespace.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Waits until every placement serves as it was decided. Sites without contact are not waited for.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, requires = "wait")]
    pub timeout: Duration,
}

#[derive(Args, Debug)]
pub struct Top {
    /// Only this EdgeSite.
    #[arg(long, value_name = "NAME")]
    pub site: Option<String>,
    /// How long requests are counted.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub over: Duration,
}

#[derive(Args, Debug)]
pub struct Check {
    /// Before Sconce is installed: whether it can be.
    #[arg(long)]
    pub pre: bool,
    /// Also asks the registry for this artifact, from here, as the operator will.
    #[arg(long, value_name = "oci://HOST/REPOSITORY:TAG", requires = "pre")]
    pub artifact: Option<String>,
    /// Registries that speak plain HTTP.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', requires = "artifact")]
    pub insecure_registry: Vec<String>,
}

/// As in the resources: `90s`, `5m`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    DurationText::from(text).parse().ok_or_else(|| format!("\"{text}\": need a number with a unit, such as 90s or 5m"))
}

#[derive(Subcommand, Debug)]
pub enum Snapshot {
    /// Writes all that the planner reads, as a Kubernetes List; no Secrets, no environment of pods. `-` = standard output.
    Save { file: PathBuf },
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Text,
    Wide,
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

    #[test]
    fn a_wait_has_a_timeout() {
        let parsed = |args: &[&str]| Cli::try_parse_from(["sconce", "status"].iter().chain(args));
        let Command::Status(status) = parsed(&["--wait", "--timeout", "1m30s"]).unwrap().command else {
            unreachable!()
        };
        assert_eq!(status.timeout, Duration::from_secs(90));
        assert!(parsed(&["--wait", "--timeout", "soon"]).unwrap_err().to_string().contains("such as 90s or 5m"));
        assert!(parsed(&["--timeout", "1m"]).unwrap_err().to_string().contains("--wait"));
    }
}
