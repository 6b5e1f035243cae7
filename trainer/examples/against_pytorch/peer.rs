//! PyTorch in a process of its own, which answers each line by a line.

use crate::Steps;
use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/against_pytorch/peer.py");

pub struct Peer {
    /// What it says of itself.
    pub about: String,
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// With what lies in `folder`.
    pub fn start(python: &Path, folder: &Path, network: &str, rate: f32) -> Result<Self> {
        let mut command = Command::new(python);
        command.args(["-B", PROGRAM]).arg(folder).args([network, &rate.to_string()]).env("OMP_NUM_THREADS", "1");
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start PyTorch")?;
        let asks = process.stdin.take().context("a pipe to the peer")?;
        let mut answers = BufReader::new(process.stdout.take().context("a pipe from the peer")?);
        let about = answer(&mut answers)?;
        Ok(Self { about, process, asks, answers })
    }

    /// `optimiser` is `plain` or `fused`.
    pub fn steps(&mut self, optimiser: &str, count: usize) -> Result<Steps> {
        writeln!(self.asks, "{optimiser} {count}").context("PyTorch does not read")?;
        answer(&mut self.answers)
    }

    pub fn stop(mut self) -> Result<()> {
        drop(self.asks);
        let status = self.process.wait()?;
        ensure!(status.success(), "PyTorch ended with {status}; what it said stands above");
        Ok(())
    }
}

fn answer<T: DeserializeOwned>(answers: &mut BufReader<ChildStdout>) -> Result<T> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(!line.is_empty(), "PyTorch ended before its answer; what it said stands above");
    serde_json::from_str(&line).with_context(|| format!("the answer of PyTorch is {line}"))
}
