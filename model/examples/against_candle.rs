//! Known networks, once through candle's own layers and once through the plan, in turn, on one core; prints the medians.
//!
//! `cargo run --release -p sconce-model --example against_candle [ROUNDS] [NETWORK]`

use anyhow::Result;
use candle_core::{Device, Tensor};
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::architecture::Architecture;
use sconce_model::network::Network;
use sconce_model::plan::Plan;
use sconce_model::variant::{Arithmetic, Variant};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Each slice of a turn lasts at least this long.
const SLICE: Duration = Duration::from_millis(20);

/// As typed, with the batches that are timed.
const NETWORKS: [(&str, &str, &[usize]); 4] = [
    ("seed_cnn", include_str!("../zoo/seed_cnn.json"), &[1, 8, 32]),
    ("gru", include_str!("../zoo/gru.json"), &[1, 8]),
    ("mobilenet_v2", include_str!("../zoo/mobilenet_v2.json"), &[1]),
    ("resnet_18", include_str!("../zoo/resnet_18.json"), &[1]),
];

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |word| word.parse::<usize>())?;
    let only = std::env::args().nth(2);
    let threads = Threads::one();
    let (candle, plan, halved, ratio) = ("candle", "plan f32", "plan f16", "f32/candle");
    println!("{:12} {:10} {:>5} {candle:>12} {plan:>12} {halved:>12} {ratio:>10}", "network", "isa", "batch");
    for (name, typed, batches) in NETWORKS.iter().filter(|(name, ..)| only.as_ref().is_none_or(|only| only == name)) {
        let graph = serde_json::from_str::<Architecture>(typed)?.graph()?;
        let network = Network::initialise(Arc::new(graph), 7)?;
        let plans = [Plan::compile(&network, &Arithmetic::F32)?, Variant::f16(&network)?.plan()?];
        for isa in IsaToken::all_present().into_iter().filter(|isa| isa.name() != "portable") {
            for &batch in *batches {
                let shape: Vec<usize> = std::iter::once(batch).chain(plans[0].input().iter().copied()).collect();
                let xs = Tensor::rand(0f32, 1.0, shape, &Device::Cpu)?;
                let [candle, f32, f16] = times(&network, &plans, Cpu { isa, threads: &threads }, &xs, rounds)?;
                let ratio = f32 / candle;
                println!(
                    "{name:12} {:10} {batch:5} {candle:9.1} us {f32:9.1} us {f16:9.1} us {ratio:10.3}",
                    isa.name()
                );
            }
        }
    }
    Ok(())
}

/// Medians of candle's forward and of each plan, in turn.
fn times(network: &Network, plans: &[Plan; 2], cpu: Cpu<'_>, xs: &Tensor, rounds: usize) -> Result<[f64; 3]> {
    let mut scratches = plans.each_ref().map(|plan| plan.scratch(xs.dims()[0]));
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        times[0].push(slice(|| network.infer(xs).map(drop))?);
        for ((plan, scratch), times) in plans.iter().zip(&mut scratches).zip(&mut times[1..]) {
            times.push(slice(|| plan.infer(cpu, &[xs], scratch).map(drop))?);
        }
    }
    Ok(times.map(median))
}

/// Microseconds per call.
fn slice(mut call: impl FnMut() -> candle_core::Result<()>) -> Result<f64> {
    let (began, mut calls) = (Instant::now(), 0);
    while began.elapsed() < SLICE {
        black_box(call()?);
        calls += 1;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(calls))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
