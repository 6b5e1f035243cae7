//! Where the time of a network of `model/zoo` goes: each step of its plans, and what the CPU could do at best.
//!
//! `cargo run --release -p sconce-model --example steps NETWORK [BATCH] [f32|f16|int8]`

#[path = "against_onnx_runtime/draw.rs"]
mod draw;
#[path = "against_onnx_runtime/ours.rs"]
mod ours;

use anyhow::{Context, Result};
use candle_core::Tensor;
use ours::{Ours, Plans};
use sconce_kernels::{Cpu, IsaToken, Threads, isa};
use sconce_model::plan::Plan;
use std::path::Path;
use std::time::Duration;

const RUNS: usize = 50;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let name = words.next().context("name a network of model/zoo, such as mobilenet_v2")?;
    let batch = words.next().map_or(Ok(1), |word| word.parse::<usize>())?.clamp(1, draw::ROWS);
    let arithmetic = words.next();
    let typed = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo").join(&name).with_extension("json");
    let typed = std::fs::read_to_string(&typed).with_context(|| format!("{}: no such network", typed.display()))?;
    let (network, xs) = draw::network(&typed)?;
    let plans = Plans::compile(&network, &xs)?;
    let xs = xs.narrow(0, 0, batch)?;
    let (isa, threads) = (IsaToken::detect()?, Threads::one());
    println!("{name}, batches of {batch}, {}: at most {:.0} GFLOP/s in f32", isa.name(), isa::peak_gflops(isa));
    for (as_, plan) in [("f32", Some(&plans.f32)), ("f16", Some(&plans.f16)), ("int8", plans.int8.as_ref())] {
        if let Some(plan) = plan.filter(|_| arithmetic.as_ref().is_none_or(|only| only == as_)) {
            let cpu = Cpu { isa, threads: &threads };
            let whole = Ours::of(plan, batch).slice(cpu, &xs, Duration::from_millis(300))?;
            println!("\n{as_}: {whole:.1} us");
            steps(plan, cpu, &xs)?;
        }
    }
    Ok(())
}

/// The least of many runs: what else runs on the machine only adds to the others.
fn steps(plan: &Plan, cpu: Cpu<'_>, xs: &Tensor) -> Result<()> {
    let (mut scratch, peak) = (plan.scratch(xs.dims()[0]), isa::peak_gflops(cpu.isa));
    let mut least = vec![Duration::MAX; plan.steps().len()];
    for _ in 0..RUNS {
        let times = plan.times(cpu, xs, &mut scratch)?;
        least.iter_mut().zip(times).for_each(|(least, time)| *least = time.min(*least));
    }
    for (step, time) in plan.steps().iter().zip(least) {
        let gflops = 2.0 * (step.multiplications() * xs.dims()[0]) as f64 / time.as_secs_f64() / 1e9;
        println!("{:>9.1} us {:>4.0} %  {step}", time.as_secs_f64() * 1e6, 100.0 * gflops / peak);
    }
    Ok(())
}
