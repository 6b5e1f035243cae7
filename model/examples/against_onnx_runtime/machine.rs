//! What the CPU calls itself, and which of its instructions matter here.

use anyhow::{Context, Result};
use std::fs::read_to_string;

/// Those that a product of ours or of the peer may be computed with.
const INSTRUCTIONS: [&str; 10] =
    ["avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm"];

/// Name and instructions, and the CPUs that may be used.
pub fn cpu() -> Result<String> {
    let (cpus, status) = (read("/proc/cpuinfo")?, read("/proc/self/status")?);
    let name = field(&cpus, "model name").unwrap_or("CPU without a name");
    let flags: Vec<&str> =
        field(&cpus, "flags").or_else(|| field(&cpus, "Features")).unwrap_or_default().split(' ').collect();
    let known: Vec<&str> = INSTRUCTIONS.into_iter().filter(|name| flags.contains(name)).collect();
    let allowed = field(&status, "Cpus_allowed_list").unwrap_or("unknown");
    Ok(format!("{name} ({}), on CPU {allowed}", known.join(" ")))
}

fn read(file: &str) -> Result<String> {
    read_to_string(file).with_context(|| format!("cannot read {file}"))
}

/// The value of the first line `NAME : VALUE`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(field, _)| field.trim() == name).map(|(_, value)| value.trim()).next()
}
