//! Which flags exist.

use clap::{Parser, Subcommand, ValueEnum};
use sconce_api::DurationText;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Parser, Debug)]
#[command(name = "sconce-operator", version, about = "Decides where models run, and keeps it so.")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Runs until it is told to stop. Of several replicas one works, the others wait.
    Run(Run),
}

#[derive(clap::Args, Debug)]
pub struct Run {
    /// Image of the pods that serve models; it holds `fetch` and `serve`.
    #[arg(long, value_name = "IMAGE")]
    pub runtime_image: String,
    /// Image of the Jobs that train.
    #[arg(long, value_name = "IMAGE")]
    pub trainer_image: String,
    #[arg(long, default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: String,
    /// Registry that is spoken to without TLS. May be given several times.
    #[arg(long = "insecure-registry", value_name = "HOST:PORT")]
    pub insecure_registries: Vec<String>,
    /// Port of each node where its store answers: pods ask it for models before the registry. Default: nodes have none.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub store_port: Option<u16>,
    /// Namespace of the lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "sconce-system")]
    pub namespace: String,
    /// Name of this replica in the lease. Default: a name made from the process and the time.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    #[arg(long, default_value = "0.0.0.0:8081")]
    pub health: SocketAddr,
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub metrics: SocketAddr,
    /// Where to show what is decided, as a page to look at; without a login. Default: nowhere.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page: Option<SocketAddr>,
    /// A name that the page is asked by, beside addresses, localhost and names of Services; of the proxy before it. May be given
    /// several times.
    #[arg(long = "page-host", value_name = "HOST")]
    pub page_hosts: Vec<String>,
    /// How long a replaced place serves on, so that every router has the new routes before it goes.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub drain: Duration,
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    DurationText::from(text).parse().ok_or_else(|| format!("{text:?} is not a duration such as 10s or 1m30s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_are_all_that_must_be_given() {
        let Args { command: Command::Run(run) } = Args::parse_from([
            "sconce-operator",
            "run",
            "--runtime-image",
            "runtime:1",
            "--trainer-image=trainer:1",
            "--insecure-registry=r:5000",
        ]);
        assert_eq!((&*run.runtime_image, &*run.trainer_image), ("runtime:1", "trainer:1"));
        assert_eq!(run.insecure_registries, ["r:5000"]);
        assert_eq!(run.drain, Duration::from_secs(10));
        assert_eq!((run.page, run.store_port), (None, None));
        assert!(Args::try_parse_from(["sconce-operator", "run"]).is_err());
        assert!(
            Args::try_parse_from(["sconce-operator", "run", "--runtime-image=i", "--trainer-image=t", "--drain=soon"])
                .is_err()
        );
    }
}
