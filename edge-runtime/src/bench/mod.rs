//! What things take, as JSON on stdout.

mod server;

use crate::args::Bench;
use anyhow::Result;
use serde_json::{Value, json};

/// # Errors
/// If what is measured cannot be: there are no figures then.
pub async fn run(args: &Bench) -> Result<()> {
    println!("{:#}", server::run(args).await?);
    Ok(())
}

/// The CPU of this machine: its name, and those of its instruction sets that matter here.
fn cpu() -> (String, Vec<&'static str>) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let known = ["avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd"];
    let has = |flag: &&str| cpu.split_whitespace().any(|word| word == *flag);
    (name.unwrap_or("unknown").to_owned(), known.into_iter().filter(has).collect())
}

/// The median and the 99th percentile. `waited` is in milliseconds, in any order, and not empty.
fn percentiles(waited: &mut [f64]) -> Value {
    waited.sort_by(f64::total_cmp);
    json!({"p50Ms": waited[waited.len() / 2], "p99Ms": waited[waited.len() * 99 / 100]})
}
