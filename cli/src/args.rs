//! Which commands and flags exist.

use clap::{Args, Parser, Subcommand, ValueEnum};
use sconce_api::DurationText;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Asks where models run, why, and what would change. It reads, and writes nothing to the cluster but how many labels `data
/// import` has kept.
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
    /// Shows what clients waited in the last five minutes, by site and model: requests, p50 and p99 as the routers counted them,
    /// beside the budget.
    Top {
        /// Only this site.
        #[arg(long)]
        site: Option<String>,
    },
    /// Checks what Sconce needs of a cluster, and what it is there. Each failure names its cause and what to do. Ends with 1 if
    /// one fails.
    Check(Check),
    /// Plans as the operator would if these files were applied, and shows what would move. Changes nothing.
    Simulate {
        /// Manifests of EdgeFleets, EdgeSites and EdgeModels; may be given several times. `-` = standard input.
        #[arg(short, long, required = true, value_name = "FILE")]
        filename: Vec<PathBuf>,
    },
    /// Takes samples of a data set out to be labelled, and labels in; and makes it forget samples. Of a bucket the environment says endpoint and credentials, by
    /// the names of the AWS tools (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
    Data {
        #[command(subcommand)]
        command: Data,
    },
    /// Keeps what decisions are made of, to be asked later or elsewhere.
    Snapshot {
        #[command(subcommand)]
        command: Snapshot,
    },
    /// Makes the variants of a trained artifact anew, and shows size, latency and accuracy of each beside those of the trained
    /// network. It is `sconce-trainer compress`, with its flags.
    #[command(disable_help_flag = true)]
    Compress {
        /// As `--help` lists them.
        #[arg(value_name = "WORDS", trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
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

#[derive(Subcommand, Debug)]
pub enum Data {
    /// Writes samples as files, with a table of labels to fill in and a page to look at them and label them.
    Export(Export),
    /// Keeps the labels of a filled-in table beside the samples, and counts them in the EdgeDataset's status. Rows without a label,
    /// of ids that are not there, or that say what is known, are left out and told.
    Import(Import),
    /// Makes a data set forget samples, for ever: from the first moment on no reader sees them and no node sends them; then they are
    /// taken out of the shards and labels that hold them. The same command again ends what was interrupted. Models that have
    /// learned from them, exports, and what a bucket keeps of older versions stay.
    Forget(Forget),
}

#[derive(Args, Debug)]
pub struct Export {
    /// Name of the EdgeDataset; without a cluster, s3://BUCKET/PREFIX or file:///FOLDER.
    #[arg(value_name = "DATASET")]
    pub dataset: String,
    /// Of an EdgeDataset at pvc://CLAIM/FOLDER: that folder, where the claim is mounted here.
    #[arg(long, value_name = "FOLDER")]
    pub at: Option<PathBuf>,
    /// A folder that is absent or empty.
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// Which come first: margin = those of whose class the model was least sure. Default: the newest.
    #[arg(long, value_enum)]
    pub by: Option<Order>,
    /// At most so many.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
    /// Only those that nobody has labelled.
    #[arg(long)]
    pub unlabelled: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Margin,
}

#[derive(Args, Debug)]
pub struct Import {
    /// As for export.
    #[arg(value_name = "DATASET")]
    pub dataset: String,
    /// As for export.
    #[arg(long, value_name = "FOLDER")]
    pub at: Option<PathBuf>,
    /// A table (CSV) with the columns id and label.
    #[arg(value_name = "LABELS")]
    pub file: PathBuf,
    /// Who says so.
    #[arg(long, value_name = "WHO", value_parser = who)]
    pub by: String,
}

#[derive(Args, Debug)]
pub struct Forget {
    /// As for export.
    #[arg(value_name = "DATASET")]
    pub dataset: String,
    /// As for export.
    #[arg(long, value_name = "FOLDER")]
    pub at: Option<PathBuf>,
    /// Of a sample: 64 hexadecimal digits, as an export names its file; may be given several times.
    #[arg(long, required = true, value_name = "ID", value_parser = id)]
    pub id: Vec<String>,
    /// Who asks for it.
    #[arg(long, value_name = "WHO", value_parser = who)]
    pub by: String,
}

fn id(text: &str) -> Result<String, String> {
    let id = text.trim().to_ascii_lowercase();
    if !sconce_lake::is_id(&id) {
        return Err("need 64 hexadecimal digits, the SHA-256 of the sample's bytes, as an export names its file".into());
    }
    Ok(id)
}

fn who(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > sconce_lake::labels::LONGEST || text.chars().any(char::is_control) {
        return Err(format!("need a name of at most {} bytes", sconce_lake::labels::LONGEST));
    }
    Ok(text.into())
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
    fn what_the_trainer_is_told_is_not_read_here() {
        let check = |words: &[&str]| {
            let Command::Compress { words: told } = Cli::parse_from(["sconce", "compress"].iter().chain(words)).command
            else {
                unreachable!()
            };
            assert_eq!(told, words);
        };
        check(&[]);
        check(&["--help"]);
        check(&["-h"]);
        check(&["--version"]);
        check(&["digits", "training.yaml", "--data", "mnist"]);
        check(&["--data", "mnist", "digits", "training.yaml", "-o", "json", "--context", "a"]);
    }

    #[test]
    fn what_is_forgotten_is_named_by_ids() {
        let parsed = |ids: &[&str]| {
            let words = ["sconce", "data", "forget", "digits", "--by", "ann"];
            Cli::try_parse_from(words.iter().chain(ids)).map_err(|error| error.to_string())
        };
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let Command::Data { command: Data::Forget(forget) } = parsed(&["--id", &a, "--id", &b]).unwrap().command else {
            unreachable!()
        };
        assert_eq!(forget.id, [a.clone(), b.to_lowercase()]);
        for wrong in ["seven", &a[1..], "../../etc/passwd"] {
            let told = parsed(&["--id", &a, "--id", wrong]).unwrap_err();
            assert!(told.contains("need 64 hexadecimal digits, the SHA-256 of the sample's bytes"), "{told}");
        }
        assert!(parsed(&[]).unwrap_err().contains("--id <ID>"));
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
