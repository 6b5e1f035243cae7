//! `edge-runtime bench` on a core of its own, and what it tells.

use crate::running::Running;
use crate::servers::MODEL;
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub struct Load {
    pub program: PathBuf,
    pub cpu: usize,
    pub seconds: u16,
    /// Requests under way where there are many.
    pub in_flight: u16,
}

/// What a pair of servers did, ours first.
pub struct Round {
    pub ready: [Duration; 2],
    /// With many requests under way.
    pub many: Both,
    /// With one.
    pub one: Both,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Both {
    pub target: Side,
    pub peer: Side,
    pub bench_cpus: f64,
    pub cpu: String,
    pub isa: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub requests_per_second: f64,
    pub cpu_us_per_request: f64,
    pub memory_bytes: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overload {
    pub capacity_per_second: f64,
    pub offered_per_second: f64,
    pub goodput_ratio: f64,
    pub answered: Waited,
    pub refused: BTreeMap<String, Waited>,
    pub bench_cpus: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waited {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Load {
    /// Both are asked in turn.
    pub fn both(&self, ours: &Running, theirs: &Running, in_flight: u16) -> Result<Both> {
        let pids = format!("--target-pid {} --peer-pid {}", ours.pid, theirs.pid);
        self.bench(&format!("--target {} --peer {} {pids} --in-flight {in_flight}", ours.address, theirs.address))
    }

    /// One is offered more than it can.
    pub fn overload(&self, server: &Running, factor: u16, rows: u16) -> Result<Overload> {
        self.bench(&format!("--target {} --in-flight 16 --overload {factor} --rows {rows}", server.address))
    }

    fn bench<T: DeserializeOwned>(&self, args: &str) -> Result<T> {
        let ended = Command::new("taskset")
            .args(["--cpu-list", &self.cpu.to_string()])
            .arg(&self.program)
            .args(["bench", "--model", MODEL, "--seconds", &self.seconds.to_string()])
            .args(args.split_whitespace())
            .output()
            .context("cannot start taskset: install util-linux")?;
        ensure!(ended.status.success(), "bench {args}: {}", String::from_utf8_lossy(&ended.stderr).trim());
        serde_json::from_slice(&ended.stdout).with_context(|| format!("what bench {args} told"))
    }
}
