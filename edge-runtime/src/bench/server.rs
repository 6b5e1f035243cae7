//! What requests wait and cost: the same to a target and its peer, in turn, so that noise meets both.

use super::{cpu, overload, percentiles, swaps, tree};
use crate::args::BenchServers;
use crate::process;
use crate::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::wire::model_infer_request::InferInputTensor;
use crate::wire::{ModelInferRequest, ModelMetadataRequest, raw_fp32};
use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;

type Client = GrpcInferenceServiceClient<Channel>;

/// A turn of one side: long enough that its begin and end weigh little, short enough that noise meets both sides.
pub(super) const TURN: Duration = Duration::from_millis(100);
/// Requests that share a connection are read together, as those of real clients are.
const CONNECTIONS: usize = 4;
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);
/// As Prometheus' client libraries call it.
const CPU: &str = "process_cpu_seconds_total";
const RESIDENT: &str = "process_resident_memory_bytes";

/// The report.
///
/// # Errors
/// If a side does not answer, or does not tell what it takes although it is asked.
pub(super) async fn run(target: &str, args: &BenchServers, model: &str, length: Duration) -> Result<Value> {
    let in_flight = usize::from(args.in_flight);
    let told_by = Source::of(args.target_metrics.as_deref(), args.target_pid);
    let mut sides = vec![Side::connect(target, told_by, in_flight).await?];
    if let Some(peer) = &args.peer {
        let told_by = Source::of(args.peer_metrics.as_deref(), args.peer_pid);
        sides.push(Side::connect(peer, told_by, in_flight).await?);
    }
    let request = request(&mut sides[0].clients[0], model, args.rows).await?;
    let special = match (args.overload, args.swaps) {
        (Some(factor), _) => {
            Some(overload::run(&mut sides[0], &request, (in_flight, f64::from(factor)), length).await?)
        }
        (None, Some(count)) => Some(swaps::run(&mut sides[0], &request, in_flight, count as usize).await?),
        (None, None) => None,
    };
    if let Some(mut report) = special {
        let (name, isa) = cpu();
        report["cpu"] = json!(name);
        report["isa"] = json!(isa);
        return Ok(report);
    }
    for side in &mut sides {
        // Connections and caches warm up, uncounted.
        side.turn(&request, in_flight).await?;
        side.begin().await?;
    }
    let (began, own) = (Instant::now(), process::cpu());
    while began.elapsed() < length {
        for side in &mut sides {
            side.turn(&request, in_flight).await?;
        }
    }
    // Near 1 for each of its cores the measure is of the bench, not of the server.
    let busy = (process::cpu() - own).div_duration_f64(began.elapsed());
    let mut told = Vec::new();
    for side in sides {
        told.push(side.told().await?);
    }
    let (name, isa) = cpu();
    let mut report = json!({"inFlight": in_flight, "target": told[0], "cpu": name, "isa": isa, "benchCpus": busy});
    if let [target, peer] = &told[..] {
        report["peer"] = peer.clone();
        compare(&mut report, target, peer);
    }
    Ok(report)
}

/// Adds what the peer has, divided by what the target has, and what it adds.
fn compare(report: &mut Value, target: &Value, peer: &Value) {
    let both = |of: &str| Some((target[of].as_f64()?, peer[of].as_f64()?));
    for (of, ratio, added) in [
        ("p50Ms", "p50Ratio", Some("p50AddedMs")),
        ("p99Ms", "p99Ratio", Some("p99AddedMs")),
        ("requestsPerSecond", "requestsPerSecondRatio", None),
        ("cpuUsPerRequest", "cpuRatio", None),
    ] {
        let Some((target, peer)) = both(of) else { continue };
        report[ratio] = json!(peer / target);
        if let Some(added) = added {
            report[added] = json!(peer - target);
        }
    }
}

/// Who tells what a side takes.
enum Source {
    /// The address of its metrics.
    Metrics(String),
    /// The kernel, of its process here.
    Process(u32),
}

impl Source {
    fn of(metrics: Option<&str>, pid: Option<u32>) -> Option<Self> {
        metrics.map(|address| Self::Metrics(address.into())).or(pid.map(Self::Process))
    }

    /// CPU that it has taken since its start.
    async fn cpu_seconds(&self) -> Result<f64> {
        match self {
            Self::Process(pid) => Ok(tree::cpu(*pid)?.as_secs_f64()),
            Self::Metrics(address) => metric(address, CPU).await,
        }
    }

    /// Memory in RAM.
    async fn resident_bytes(&self) -> Result<f64> {
        match self {
            Self::Process(pid) => Ok(tree::memory_bytes(*pid)? as f64),
            Self::Metrics(address) => metric(address, RESIDENT).await,
        }
    }
}

/// A figure that a server tells.
async fn metric(address: &str, name: &str) -> Result<f64> {
    let text = tokio::time::timeout(METRICS_TIMEOUT, scrape(address)).await;
    let text = text.with_context(|| format!("no metrics from {address} within {METRICS_TIMEOUT:?}"))?;
    let text = text.with_context(|| format!("cannot read metrics from {address}"))?;
    let Some(value) = value(&text, name) else { bail!("{address} tells no {name}: is it a server's --metrics?") };
    Ok(value)
}

/// One that is asked.
pub(super) struct Side {
    clients: Vec<Client>,
    /// `None` if it is not known whom to ask.
    told_by: Option<Source>,
    /// CPU that it had taken before it was asked.
    cpu_before: Option<f64>,
    /// Of each request, in milliseconds.
    waited: Vec<f64>,
    /// Time in which it was asked.
    asked: Duration,
}

impl Side {
    async fn connect(address: &str, told_by: Option<Source>, in_flight: usize) -> Result<Self> {
        let endpoint = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        let connect = || async { endpoint.connect().await.with_context(|| format!("cannot reach {address}")) };
        let channels = try_join_all((0..in_flight.min(CONNECTIONS)).map(|_| connect())).await?;
        let clients = channels.into_iter().map(Client::new).collect();
        Ok(Self { clients, told_by, cpu_before: None, waited: Vec::new(), asked: Duration::ZERO })
    }

    /// Asks for the length of a turn, with so many requests under way.
    pub(super) async fn turn(&mut self, request: &ModelInferRequest, in_flight: usize) -> Result<()> {
        let began = Instant::now();
        let clients = self.clients.iter().cycle().take(in_flight).cloned();
        let asking = clients.map(|client| tokio::spawn(ask(client, request.clone(), began + TURN)));
        for waited in try_join_all(asking).await? {
            self.waited.extend(waited?);
        }
        self.asked += began.elapsed();
        Ok(())
    }

    /// What was until now does not count.
    pub(super) async fn begin(&mut self) -> Result<()> {
        self.cpu_before = self.cpu_seconds().await?;
        self.waited.clear();
        self.asked = Duration::ZERO;
        Ok(())
    }

    /// Connections, each with a client.
    pub(super) fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Requests a second that it answered in its turns.
    pub(super) fn capacity(&self) -> f64 {
        self.waited.len() as f64 / self.asked.as_secs_f64()
    }

    async fn told(mut self) -> Result<Value> {
        let (cpu, capacity) = (self.cpu_seconds().await?, self.capacity());
        let requests = self.waited.len() as f64;
        let mut told = percentiles(&mut self.waited);
        told["requests"] = json!(requests);
        told["requestsPerSecond"] = json!(capacity);
        if let (Some(before), Some(after)) = (self.cpu_before, cpu) {
            told["cpuUsPerRequest"] = json!((after - before) * 1e6 / requests);
        }
        if let Some(Source::Process(pid)) = self.told_by {
            told["memoryBytes"] = json!(tree::memory_bytes(pid)?);
        }
        Ok(told)
    }

    async fn cpu_seconds(&self) -> Result<Option<f64>> {
        let Some(source) = &self.told_by else { return Ok(None) };
        source.cpu_seconds().await.map(Some)
    }

    /// Memory in RAM; `None` if it is not known whom to ask.
    pub(super) async fn resident_bytes(&self) -> Result<Option<f64>> {
        let Some(source) = &self.told_by else { return Ok(None) };
        source.resident_bytes().await.map(Some)
    }
}

/// What each request waited, in milliseconds: one after another, until then.
async fn ask(mut client: Client, request: ModelInferRequest, until: Instant) -> Result<Vec<f64>> {
    let mut waited = Vec::new();
    let mut sent = Instant::now();
    while sent < until {
        client.model_infer(request.clone()).await?;
        let answered = Instant::now();
        waited.push((answered - sent).as_secs_f64() * 1e3);
        sent = answered;
    }
    Ok(waited)
}

/// What the model takes, as its metadata says, full of zeros, in so many rows.
async fn request(client: &mut Client, model: &str, rows: u16) -> Result<ModelInferRequest> {
    let metadata = ModelMetadataRequest { name: model.into(), version: String::new() };
    let metadata = client.model_metadata(metadata).await?.into_inner();
    let input = metadata.inputs.into_iter().next().context("the model takes no input")?;
    let [_, row @ ..] = &input.shape[..] else { bail!("input \"{}\" has no batch", input.name) };
    if row.iter().any(|size| *size < 0) {
        bail!("{model} takes sequences of any length; bench asks it by its folder, with the longest: --model FOLDER");
    }
    let shape: Vec<i64> = std::iter::once(i64::from(rows)).chain(row.iter().copied()).collect();
    let zeros = vec![0.0; shape.iter().product::<i64>() as usize];
    let tensor = InferInputTensor { name: input.name, datatype: input.datatype, shape, ..Default::default() };
    let raw_input_contents = vec![raw_fp32(&zeros)];
    Ok(ModelInferRequest { model_name: model.into(), inputs: vec![tensor], raw_input_contents, ..Default::default() })
}

async fn scrape(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Of a metric without labels.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let text = "HTTP/1.1 200 OK\r\n\r\n# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total_x 3\n\
            process_cpu_seconds_total 1.25\n# EOF\n";
        assert_eq!(value(text, CPU), Some(1.25));
        assert_eq!(value(text, "process_cpu_seconds"), None);
        assert_eq!(value("process_cpu_seconds_total much\n", CPU), None);
    }

    #[test]
    fn what_only_one_side_tells_is_not_compared() {
        let mut report = json!({});
        compare(&mut report, &json!({"p50Ms": 2.0, "cpuUsPerRequest": 10.0}), &json!({"p50Ms": 3.0}));
        assert_eq!(report, json!({"p50Ratio": 1.5, "p50AddedMs": 1.0}));
    }
}
