//! What things take, as JSON on stdout.

mod model;
mod overload;
mod server;
mod swaps;
mod tree;

use crate::args::Bench;
use anyhow::Result;
use futures::future::{BoxFuture, FutureExt as _};
use serde_json::{Value, json};
use std::time::Duration;

/// # Errors
/// If what is measured cannot be: there are no figures then.
pub fn run(args: &Bench) -> BoxFuture<'_, Result<()>> {
    tell(args).boxed()
}

async fn tell(args: &Bench) -> Result<()> {
    let report = match &args.servers.target {
        Some(target) => server::run(target, &args.servers, &args.model, duration(args)).await?,
        None => model::run(&args.alone, args.model.as_ref(), duration(args))?,
    };
    println!("{report:#}");
    Ok(())
}

fn duration(args: &Bench) -> Duration {
    Duration::from_secs(args.seconds.into())
}

/// The CPU of this machine: its name, and those of its instruction sets that matter here.
fn cpu() -> (String, Vec<&'static str>) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let known = ["avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd"];
    let has = |flag: &&str| cpu.split_whitespace().any(|word| word == *flag);
    (name.unwrap_or("unknown").to_owned(), known.into_iter().filter(has).collect())
}

/// The median and the 99th percentile. `took` is in milliseconds, in any order, and not empty.
fn percentiles(took: &mut [f64]) -> Value {
    took.sort_by(f64::total_cmp);
    json!({"p50Ms": took[took.len() / 2], "p99Ms": took[took.len() * 99 / 100]})
}
