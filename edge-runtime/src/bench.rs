//! What the router adds: the same requests to the server and through the router, in turn, so that noise meets both.

use crate::args::Bench;
use crate::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::wire::model_infer_request::InferInputTensor;
use crate::wire::{ModelInferRequest, ModelMetadataRequest, raw_fp32};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// # Errors
/// If either does not answer.
pub async fn run(args: &Bench) -> Result<()> {
    let (mut direct, mut routed) = (connect(&args.direct).await?, connect(&args.routed).await?);
    let metadata = direct
        .model_metadata(ModelMetadataRequest { name: args.model.clone(), version: String::new() })
        .await?
        .into_inner();
    let input = metadata.inputs.first().context("the model takes no input")?;
    let shape: Vec<i64> = input.shape.iter().map(|&size| size.max(1)).collect();
    let zeros = vec![0.0; shape.iter().product::<i64>() as usize];
    let tensor =
        InferInputTensor { name: input.name.clone(), datatype: input.datatype.clone(), shape, ..Default::default() };
    let request = ModelInferRequest {
        model_name: args.model.clone(),
        inputs: vec![tensor],
        raw_input_contents: vec![raw_fp32(&zeros)],
        ..Default::default()
    };

    let mut waited = [Vec::new(), Vec::new()];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(args.seconds.into()) {
        for (client, waited) in [&mut direct, &mut routed].into_iter().zip(&mut waited) {
            let sent = Instant::now();
            client.model_infer(request.clone()).await?;
            waited.push(sent.elapsed().as_secs_f64() * 1e3);
        }
    }
    let [(direct, direct99), (routed, routed99)] = waited.map(|mut waited| {
        // The first requests warm connections and caches up.
        waited.drain(..waited.len() / 20);
        waited.sort_by(f64::total_cmp);
        (waited[waited.len() / 2], waited[waited.len() * 99 / 100])
    });
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let isa: Vec<&str> = ["avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd"]
        .into_iter()
        .filter(|flag| cpu.split_whitespace().any(|word| word == *flag))
        .collect();
    let report = json!({
        "direct": {"p50Ms": direct, "p99Ms": direct99},
        "routed": {"p50Ms": routed, "p99Ms": routed99},
        "p50Ratio": routed / direct,
        "p50AddedMs": routed - direct,
        "p99Ratio": routed99 / direct99,
        "p99AddedMs": routed99 - direct99,
        "cpu": model,
        "isa": isa,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

async fn connect(address: &str) -> Result<GrpcInferenceServiceClient<Channel>> {
    let endpoint = Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let channel = endpoint.connect().await.with_context(|| format!("cannot reach {address}"))?;
    Ok(GrpcInferenceServiceClient::new(channel))
}
