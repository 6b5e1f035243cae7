//! The flags.

mod models;

pub use models::{Asked, Place};

use crate::fetch::is_sha256;
use crate::tls::Files;
use clap::{Parser, Subcommand};
use sconce_model::artifact::signature::Trust;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Serves models at the edge and in the cloud, and routes requests to them.
#[derive(Parser, Debug)]
#[command(name = "edge-runtime", version)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
    #[arg(long, global = true, value_enum, default_value = "text", env = "LOG_FORMAT")]
    pub log_format: LogFormat,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Bring one variant of a version from a registry, by digest, verified.
    Fetch(Fetch),
    /// Serve models over gRPC and REST (Open Inference Protocol v2).
    Serve(Box<Serve>),
    /// Route requests by model name, as the routes file says.
    Route(Route),
    /// Measure a model by variant and batch size; or what requests wait and cost at a server, or at two in turn.
    Bench(Bench),
    /// Measure, until told to stop, what this node's agent asks for: how long variants take here.
    Measure(Measure),
    /// Tell what an artifact is, and how it would run here.
    Inspect(Inspect),
}

#[derive(clap::Args, Debug)]
pub struct Fetch {
    /// The registry; and, repeated, stores near by that are asked before it, as its mirrors: http://HOST:PORT.
    #[arg(long, value_name = "oci://HOST/REPOSITORY|http://HOST:PORT", required = true)]
    pub from: Vec<String>,
    /// Digest of the artifact's manifest.
    #[arg(long, value_name = "sha256:HEX", value_parser = sha256)]
    pub digest: String,
    #[arg(long, default_value = "f32")]
    pub variant: String,
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    #[command(flatten)]
    pub registries: Registries,
    #[command(flatten)]
    pub trusted: Trusted,
    /// Where the reason of a failure is left for Kubernetes; ignored where it cannot be written.
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// How registries are asked.
#[derive(clap::Args, Debug)]
pub struct Registries {
    /// Registries without TLS, beside those on loopback addresses.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub insecure_registry: Vec<String>,
    /// How long the registry may bring nothing before this ends with the reason; what it has brought is kept.
    #[arg(long, default_value = "15s", value_parser = seconds)]
    pub patience: Duration,
}

/// Whose models are served.
#[derive(clap::Args, Debug)]
pub struct Trusted {
    /// Public keys (P-256), one after another: a model is served only if one of them signed it. Without any it is trusted by its
    /// digest.
    #[arg(long = "trusted-keys", value_name = "FILE|PEM", env = "SCONCE_TRUSTED_KEYS", value_parser = trust)]
    keys: Option<Trust>,
}

impl Trusted {
    pub fn trust(&self) -> Trust {
        self.keys.clone().unwrap_or_default()
    }
}

#[derive(clap::Args, Debug)]
pub struct Serve {
    /// An artifact, and the name that clients ask for: NAME=DIR, a folder, or NAME=oci://HOST/REPOSITORY[:TAG|@sha256:HEX], which
    /// is fetched. Repeated for more models. Without NAME= the name is --name, or that of the repository.
    #[arg(long, value_name = "NAME=DIR|oci://...", required_unless_present_any = ["model_repository", "test_models"])]
    pub model: Vec<String>,
    /// Name that clients ask for, of the one --model; in Kubernetes NAME.NAMESPACE.
    #[arg(long)]
    pub name: Option<String>,
    /// The manifest's digest: what the one --model must be. Without it a folder without manifest.json is served as it is, and of
    /// a registry what the tag stands for at the start.
    #[arg(long, value_name = "sha256:HEX", value_parser = sha256, requires = "name")]
    pub digest: Option<String>,
    /// Where models of registries are kept, by digest; what is there is not fetched again. Default: $XDG_CACHE_HOME/sconce/models,
    /// or ~/.cache/sconce/models.
    #[arg(long, value_name = "DIR")]
    pub model_store: Option<PathBuf>,
    #[command(flatten)]
    pub registries: Registries,
    #[command(flatten)]
    pub trusted: Trusted,
    /// Folder of models, DIR/NAME/VERSION with an artifact in each, versions being numbers: all are served, the newest to those
    /// who name none.
    #[arg(long, value_name = "DIR")]
    pub model_repository: Option<PathBuf>,
    /// Whether clients may load and unload models, and change the level of the log.
    #[arg(long, value_enum, default_value = "none")]
    pub model_control_mode: ControlMode,
    /// Of the repository, from the start, where clients may load others; * is all.
    #[arg(long, value_name = "NAME", requires = "model_repository")]
    pub load_model: Vec<String>,
    /// Also serve what Triton's public examples ask: "simple", sums and differences of whole numbers, "simple_string", the same
    /// of texts, and "simple_identity", which gives back what it gets.
    #[arg(long)]
    pub test_models: bool,
    /// Name of the server in its metadata, as Triton's flag has it; some of its examples look for "triton".
    #[arg(long, value_name = "NAME", default_value = "sconce")]
    pub id: String,
    /// Of each model.
    #[arg(long, default_value = "f32")]
    pub variant: String,
    #[arg(long, default_value = "0.0.0.0:8001")]
    pub grpc: SocketAddr,
    #[arg(long, default_value = "0.0.0.0:8000")]
    pub rest: SocketAddr,
    #[arg(long, default_value = "0.0.0.0:8002")]
    pub metrics: SocketAddr,
    #[arg(long, default_value = "16", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_batch_size: u16,
    /// How long the oldest request may wait for others to join its batch, never over its deadline; 0: not at all.
    #[arg(long, default_value = "0", value_parser = seconds)]
    pub max_queue_delay: Duration,
    /// Requests that may wait; one more is refused at once.
    #[arg(long, default_value = "256", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub queue_size: u32,
    /// How long to finish what has begun, once told to stop.
    #[arg(long, default_value = "20s", value_parser = seconds)]
    pub drain: Duration,
    /// Threads that read requests, and as many that compute; default: the processors that this process may use.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where batches run; auto: inline if one row takes at most 300 µs.
    #[arg(long, value_enum, default_value = "auto")]
    pub executor: Execute,
    /// Of a request, uncompressed; where the model's largest batch needs less, less is taken.
    #[arg(long, default_value = "67108864")]
    pub max_message_bytes: usize,
    /// How long a client of REST may take for the head of a request, and be idle between two; and any client for TLS' handshake.
    #[arg(long, default_value = "60s", value_parser = seconds)]
    pub head_timeout: Duration,
    /// PEM: gRPC and REST by TLS, with this certificate; read again when it changes. Without it they are plain.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// PEM: clients need a certificate by one of these authorities.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// How long a client of REST may take for the body of a request.
    #[arg(long, default_value = "60s", value_parser = seconds)]
    pub body_timeout: Duration,
    /// Where the reason of a failure is left for Kubernetes; ignored where it cannot be written.
    #[arg(long, value_name = "FILE", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execute {
    Auto,
    /// On the threads that read requests.
    Inline,
    /// On a thread of its own, with helpers.
    Thread,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMode {
    /// All is loaded from the start, and stays.
    None,
    /// The repository's are loaded when somebody asks for it, and again, and unloaded.
    Explicit,
}

impl Serve {
    pub fn tls(&self) -> Option<Files> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(Files { cert, key, client_ca: self.tls_client_ca.clone() })
    }

    pub fn threads(&self) -> usize {
        threads(self.threads)
    }
}

/// As many as are asked for, or the processors that this process may use.
pub fn threads(asked: Option<u16>) -> usize {
    asked.map_or_else(|| std::thread::available_parallelism().map_or(1, Into::into), usize::from)
}

#[derive(clap::Args, Debug)]
pub struct Route {
    /// JSON: models and their backends; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub routes: PathBuf,
    #[arg(long, default_value = "0.0.0.0:8001")]
    pub grpc: SocketAddr,
    #[arg(long, default_value = "0.0.0.0:8002")]
    pub metrics: SocketAddr,
    /// Of a request.
    #[arg(long, default_value = "67108864")]
    pub max_message_bytes: usize,
    /// Of all requests under way; one that finds no room is refused. Default: half of the memory that this process may have, at most
    /// 1 GiB.
    #[arg(long, value_name = "BYTES")]
    pub room_bytes: Option<usize>,
    /// How long a client may take for the body of a request.
    #[arg(long, default_value = "60s", value_parser = seconds)]
    pub body_timeout: Duration,
    /// After so long another backend is asked, where there is one.
    #[arg(long, default_value = "1s", value_parser = seconds)]
    pub attempt_timeout: Duration,
    /// JSON: models of whose requests samples are taken; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub taps: Option<PathBuf>,
    /// The collector beside us, which samples are handed to.
    #[arg(long, default_value = "http://127.0.0.1:8085/", value_name = "URL")]
    pub collector: http::Uri,
}

#[derive(clap::Args, Debug)]
pub struct Bench {
    /// Folder of the artifact; with --target the name that servers know the model by.
    #[arg(long, value_name = "DIR|NAME")]
    pub model: String,
    /// In all, at least.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub seconds: u16,
    #[command(flatten, next_help_heading = "Of a model, without a server")]
    pub alone: BenchModel,
    #[command(flatten, next_help_heading = "Of servers")]
    pub servers: BenchServers,
}

impl Bench {
    /// Whether models run in this process.
    pub fn runs_models(&self) -> bool {
        self.servers.target.is_none()
    }
}

#[derive(clap::Args, Debug)]
pub struct BenchModel {
    /// May be repeated; default: those whose files are there.
    #[arg(long, conflicts_with_all = ["target", "in_flight", "target_metrics"])]
    pub variant: Vec<String>,
    /// As of serve: what computes, where a model does not run inline.
    #[arg(long, conflicts_with_all = ["target", "in_flight", "target_metrics"], value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

#[derive(clap::Args, Debug)]
pub struct BenchServers {
    /// A server, or a router.
    #[arg(long, value_name = "HOST:PORT")]
    pub target: Option<String>,
    /// What is compared with it, in turn: another server, or the router in front of it.
    #[arg(long, value_name = "HOST:PORT", requires = "target")]
    pub peer: Option<String>,
    /// Requests under way at once, over at most four connections.
    #[arg(long, value_name = "N", default_value = "1", requires = "target", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub in_flight: u16,
    /// Of one request.
    #[arg(long, value_name = "N", default_value = "1", requires = "target", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub rows: u16,
    /// Also offers so many times what the target answers with N requests under way, whatever comes back, and tells what
    /// becomes of it.
    #[arg(long, value_name = "FACTOR", requires = "target", conflicts_with_all = ["peer", "target_metrics", "target_pid"], value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub overload: Option<u16>,
    /// Also loads the model anew so many times, while N requests are under way, and tells what becomes of them and of the target's
    /// memory; it runs with --model-control-mode explicit.
    #[arg(long, value_name = "COUNT", requires_all = ["target", "target_metrics"], conflicts_with_all = ["peer", "overload"], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub swaps: Option<u32>,
    /// Where the target tells its metrics: its CPU time per request is read there.
    #[arg(long, value_name = "HOST:PORT", requires = "target")]
    pub target_metrics: Option<String>,
    #[arg(long, value_name = "HOST:PORT", requires = "peer")]
    pub peer_metrics: Option<String>,
    /// The target's process, where it runs on this machine: what it takes with all that it has started is read in /proc.
    #[arg(long, value_name = "PID", requires = "target", conflicts_with = "target_metrics")]
    pub target_pid: Option<u32>,
    #[arg(long, value_name = "PID", requires = "peer", conflicts_with = "peer_metrics")]
    pub peer_pid: Option<u32>,
}

#[derive(clap::Args, Debug)]
pub struct Measure {
    /// Where the agent says what it wants, and reads what came of it; meanwhile the files of one variant are there.
    #[arg(long, value_name = "DIR")]
    pub folder: PathBuf,
    /// Variants whose files are larger are not measured.
    #[arg(long, value_name = "BYTES", default_value = "268435456")]
    pub most_bytes: u64,
    /// A store near by that is asked before the registry that the agent names, as its mirror. May be repeated.
    #[arg(long, value_name = "http://HOST:PORT")]
    pub from: Vec<String>,
    #[command(flatten)]
    pub registries: Registries,
}

#[derive(clap::Args, Debug)]
pub struct Inspect {
    /// Folder of the artifact.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The manifest's digest: what the folder must hold.
    #[arg(long, value_name = "sha256:HEX", value_parser = sha256)]
    pub digest: Option<String>,
    #[arg(long, value_enum, default_value = "text")]
    pub output: OutputFormat,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    Text,
    Json,
}

/// `sha256:` and 64 hexadecimal digits.
fn sha256(text: &str) -> Result<String, String> {
    is_sha256(text).then(|| text.to_owned()).ok_or_else(|| "need sha256: and 64 hexadecimal digits".into())
}

/// Keys, or the file that they are in.
fn trust(text: &str) -> Result<Trust, String> {
    let read = || std::fs::read_to_string(text).map_err(|error| format!("cannot read it: {error}"));
    let pem = if text.contains("-----BEGIN") { text.to_owned() } else { read()? };
    Trust::from_pem(&pem).map_err(|error| error.to_string())
}

/// `20s`, `250ms`, `2m`, `500us` or `0`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 =
        text[..digits].parse().map_err(|_| format!("\"{text}\": need a number with a unit, such as 20s"))?;
    match &text[digits..] {
        "us" => Ok(Duration::from_micros(count)),
        "ms" => Ok(Duration::from_millis(count)),
        "s" => Ok(Duration::from_secs(count)),
        "m" => Ok(Duration::from_secs(count.saturating_mul(60))),
        "" if count == 0 => Ok(Duration::ZERO),
        unit => Err(format!("\"{text}\": unit \"{unit}\" is none of us, ms, s, m")),
    }
}
