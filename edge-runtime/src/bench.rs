//! What requests wait, and what a router adds: the same requests to a target and its peer, in turn, so that noise meets both.

use crate::args::Bench;
use crate::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::wire::model_infer_request::InferInputTensor;
use crate::wire::{ModelInferRequest, ModelMetadataRequest, raw_fp32};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

type Client = GrpcInferenceServiceClient<Channel>;

/// # Errors
/// If one of them does not answer.
pub async fn run(args: &Bench) -> Result<()> {
    let mut clients = Vec::new();
    for address in std::iter::once(&args.target).chain(&args.peer) {
        clients.push(connect(address).await?);
    }
    let request = request(&mut clients[0], &args.model).await?;
    let mut waited = vec![Vec::new(); clients.len()];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(args.seconds.into()) {
        for (client, waited) in clients.iter_mut().zip(&mut waited) {
            let sent = Instant::now();
            client.model_infer(request.clone()).await?;
            waited.push(sent.elapsed().as_secs_f64() * 1e3);
        }
    }
    println!("{}", serde_json::to_string_pretty(&report(waited))?);
    Ok(())
}

/// What the model takes, as its metadata says, full of zeros.
async fn request(client: &mut Client, model: &str) -> Result<ModelInferRequest> {
    let metadata = ModelMetadataRequest { name: model.into(), version: String::new() };
    let metadata = client.model_metadata(metadata).await?.into_inner();
    let input = metadata.inputs.into_iter().next().context("the model takes no input")?;
    let shape: Vec<i64> = input.shape.iter().map(|&size| size.max(1)).collect();
    let zeros = vec![0.0; shape.iter().product::<i64>() as usize];
    let tensor = InferInputTensor { name: input.name, datatype: input.datatype, shape, ..Default::default() };
    let raw_input_contents = vec![raw_fp32(&zeros)];
    Ok(ModelInferRequest { model_name: model.into(), inputs: vec![tensor], raw_input_contents, ..Default::default() })
}

/// `waited` is in milliseconds, of the target and of the peer, if there is one.
fn report(waited: Vec<Vec<f64>>) -> serde_json::Value {
    let percentiles: Vec<(f64, f64)> = waited
        .into_iter()
        .map(|mut waited| {
            // The first requests warm connections and caches up.
            waited.drain(..waited.len() / 20);
            waited.sort_by(f64::total_cmp);
            (waited[waited.len() / 2], waited[waited.len() * 99 / 100])
        })
        .collect();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let isa: Vec<&str> = ["avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd"]
        .into_iter()
        .filter(|flag| cpu.split_whitespace().any(|word| word == *flag))
        .collect();
    let (p50, p99) = percentiles[0];
    let mut report = json!({"target": {"p50Ms": p50, "p99Ms": p99}, "cpu": name.unwrap_or("unknown"), "isa": isa});
    if let Some((peer50, peer99)) = percentiles.get(1) {
        report["peer"] = json!({"p50Ms": peer50, "p99Ms": peer99});
        report["p50Ratio"] = json!(peer50 / p50);
        report["p50AddedMs"] = json!(peer50 - p50);
        report["p99Ratio"] = json!(peer99 / p99);
        report["p99AddedMs"] = json!(peer99 - p99);
    }
    report
}

async fn connect(address: &str) -> Result<Client> {
    let endpoint = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let channel = endpoint.connect().await.with_context(|| format!("cannot reach {address}"))?;
    Ok(GrpcInferenceServiceClient::new(channel))
}
