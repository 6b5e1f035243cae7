//! Others in processes of their own, each of which answers each line by a line.

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

/// What answers.
pub struct Program {
    pub name: &'static str,
    pub path: &'static str,
    pub requirements: &'static str,
}

/// It writes the networks that others read.
pub const ONNX_RUNTIME: Program = Program {
    name: "ONNX Runtime",
    path: concat!(env!("CARGO_MANIFEST_DIR"), "/examples/against_onnx_runtime/peer.py"),
    requirements: include_str!("requirements.txt"),
};

pub const OPENVINO: Program = Program {
    name: "OpenVINO",
    path: concat!(env!("CARGO_MANIFEST_DIR"), "/examples/against_onnx_runtime/openvino_peer.py"),
    requirements: include_str!("openvino.txt"),
};

/// A folder that has a network, and inputs `(rows, ..input)`. It is there for as long as this is.
pub fn folder(network: &Network, xs: &Tensor) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("graph.json"), describe::graph(network.graph()).to_string())?;
    let weights = network.variables().iter().map(|(name, variable)| (name.clone(), variable.as_detached_tensor()));
    candle_core::safetensors::save(&weights.collect::<HashMap<_, _>>(), file("weights.safetensors"))?;
    xs.save_safetensors("input", file("input.safetensors"))?;
    Ok(folder)
}

pub struct Peer {
    pub name: &'static str,
    pub about: About,
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the peer says of itself.
#[derive(Deserialize)]
pub struct About {
    /// Microseconds of a call that computes nothing: what Python and the peer take for any.
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
    /// With what lies in `folder`.
    pub fn start(program: &Program, python: &Path, folder: &Path) -> Result<Self> {
        let &Program { name, path, .. } = program;
        let mut process = Command::new(python)
            .args(["-B", path])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {} {path}", python.display()))?;
        let asks = process.stdin.take().context("a pipe to the peer")?;
        let mut answers = BufReader::new(process.stdout.take().context("a pipe from the peer")?);
        let about = answer(name, &mut answers, "the beginning")?;
        Ok(Self { name, about, process, asks, answers })
    }

    pub fn has(&self, precision: Precision) -> bool {
        matches!(precision, Precision::F32) || self.about.no_int8.is_none()
    }

    /// The outputs of the first so many inputs, one after the other.
    pub fn infer(&mut self, precision: Precision, batch: usize) -> Result<Vec<f32>> {
        self.ask(&format!("infer {} {batch}", precision.name()))
    }

    /// Microseconds, as [`crate::ours::Ours::slice`] counts them; `None` if it has no such form.
    pub fn slice(&mut self, precision: Precision, batch: usize, lasts: Duration) -> Result<Option<f64>> {
        if !self.has(precision) {
            return Ok(None);
        }
        self.ask(&format!("slice {} {batch} {}", precision.name(), lasts.as_millis())).map(Some)
    }

    fn ask<T: DeserializeOwned>(&mut self, line: &str) -> Result<T> {
        writeln!(self.asks, "{line}").with_context(|| format!("{} does not read \"{line}\"", self.name))?;
        answer(self.name, &mut self.answers, line)
    }

    pub fn stop(mut self) -> Result<()> {
        drop(self.asks);
        let status = self.process.wait()?;
        ensure!(status.success(), "{} ended with {status}; what it said stands above", self.name);
        Ok(())
    }
}

fn answer<T: DeserializeOwned>(of: &str, answers: &mut impl BufRead, to: &str) -> Result<T> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(!line.is_empty(), "{of} ended before its answer to \"{to}\"; what it said stands above");
    serde_json::from_str(&line).with_context(|| format!("the answer of {of} to \"{to}\" is {line}"))
}
