//! The seed's network, once through candle's own layers and once through the plan, in turn, on one core; prints the medians.
//!
//! `cargo run --release -p sconce-model --example against_candle [ROUNDS]`

use anyhow::Result;
use candle_core::{Device, Tensor};
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::architecture::Architecture;
use sconce_model::network::Network;
use sconce_model::plan::Plan;
use sconce_model::variant::Arithmetic;
use serde_json::json;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Each slice of a turn lasts at least this long.
const SLICE: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(15), |word| word.parse::<usize>())?;
    let architecture: Architecture = serde_json::from_value(json!({"input": {"shape": [1, 28, 28]}, "layers": [
        {"conv2d": {"filters": 32, "kernel": 3, "activation": "relu"}},
        {"maxPool2d": {}},
        {"flatten": {}},
        {"dense": {"units": 128, "activation": "relu"}},
        {"dense": {"units": 10, "activation": "softmax"}},
    ]}))?;
    let network = Network::initialise(Arc::new(architecture.graph()?), 7)?;
    let threads = Threads::one();
    println!("{:12} {:>5} {:>12} {:>12} {:>12} {:>10}", "isa", "batch", "candle", "plan f32", "plan f16", "f32/candle");
    for isa in IsaToken::all_present() {
        let cpu = Cpu { isa, threads: &threads };
        let plans = [Plan::compile(&network, &Arithmetic::F32)?, Plan::compile(&network, &Arithmetic::F16)?];
        for batch in [1, 8, 32] {
            let xs = Tensor::rand(0f32, 1.0, (batch, 1, 28, 28), &Device::Cpu)?;
            let mut scratches = [plans[0].scratch(batch), plans[1].scratch(batch)];
            let mut times: [Vec<f64>; 3] = Default::default();
            for _ in 0..rounds {
                times[0].push(slice(|| network.infer(&xs).map(drop))?);
                for ((plan, scratch), times) in plans.iter().zip(&mut scratches).zip(&mut times[1..]) {
                    times.push(slice(|| plan.infer(cpu, &[&xs], scratch).map(drop))?);
                }
            }
            let [candle, f32, f16] = times.map(median);
            let ratio = f32 / candle;
            println!("{:12} {batch:5} {candle:9.1} us {f32:9.1} us {f16:9.1} us {ratio:10.3}", isa.name());
        }
    }
    Ok(())
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
