//! ONNX Runtime in a process of its own, which answers each line by a line.

use crate::describe;
use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use sconce_model::network::Network;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/against_onnx_runtime/peer.py");

pub struct Peer {
    pub about: About,
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where the network lies, which is read until the end.
    _folder: TempDir,
}

/// What the peer says of itself.
#[derive(Deserialize)]
pub struct About {
    /// Microseconds of a call that computes nothing: what Python and ONNX Runtime take for any.
    pub empty_call: f64,
    /// Why it has no int8.
    pub no_int8: Option<String>,
}

#[derive(Clone, Copy)]
pub enum Precision {
    F32,
    Int8,
}

impl Precision {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        }
    }
}

impl Peer {
    /// Gives it the network, and inputs `(rows, ..input)`.
    pub fn start(python: &Path, network: &Network, xs: &Tensor) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("graph.json"), describe::graph(network.graph()).to_string())?;
        let weights = network.variables().iter().map(|(name, variable)| (name.clone(), variable.as_detached_tensor()));
        candle_core::safetensors::save(&weights.collect::<HashMap<_, _>>(), file("weights.safetensors"))?;
        xs.save_safetensors("input", file("input.safetensors"))?;
        let mut process = Command::new(python)
            .arg(PROGRAM)
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {} {PROGRAM}", python.display()))?;
        let asks = process.stdin.take().context("a pipe to the peer")?;
        let mut answers = BufReader::new(process.stdout.take().context("a pipe from the peer")?);
        let about = answer(&mut answers, "the beginning")?;
        Ok(Self { about, process, asks, answers, _folder: folder })
    }

    /// The outputs of the first so many inputs, one after the other.
    pub fn infer(&mut self, precision: Precision, batch: usize) -> Result<Vec<f32>> {
        self.ask(&format!("infer {} {batch}", precision.name()))
    }

    /// Microseconds, as [`crate::ours::Ours::slice`] counts them.
    pub fn slice(&mut self, precision: Precision, batch: usize, lasts: Duration) -> Result<f64> {
        self.ask(&format!("slice {} {batch} {}", precision.name(), lasts.as_millis()))
    }

    fn ask<T: DeserializeOwned>(&mut self, line: &str) -> Result<T> {
        writeln!(self.asks, "{line}").with_context(|| format!("the peer does not read \"{line}\""))?;
        answer(&mut self.answers, line)
    }

    pub fn stop(mut self) -> Result<()> {
        drop(self.asks);
        let status = self.process.wait()?;
        ensure!(status.success(), "the peer ended with {status}; what it said stands above");
        Ok(())
    }
}

fn answer<T: DeserializeOwned>(answers: &mut impl BufRead, to: &str) -> Result<T> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(!line.is_empty(), "the peer ended before its answer to \"{to}\"; what it said stands above");
    serde_json::from_str(&line).with_context(|| format!("the peer's answer to \"{to}\" is {line}"))
}
