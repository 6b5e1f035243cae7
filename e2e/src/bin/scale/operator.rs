//! The operator under measurement, as a process of this machine.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const HEALTH: &str = "127.0.0.1:28081";

pub struct Operator {
    process: Child,
    /// From its start until all kinds were listed.
    pub ready_after: Duration,
}

/// What a process has taken so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    pub cpu_seconds: f64,
    pub resident_mib: u64,
    pub most_resident_mib: u64,
}

impl Operator {
    pub async fn start(program: &Path, kubeconfig: &Path, registry: &str, log: &Path) -> Result<Self> {
        let said = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let began = Instant::now();
        let mut process = Command::new(program)
            .args([
                "run",
                "--runtime-image=runtime:none",
                "--trainer-image=trainer:none",
                "--namespace=sconce-system",
                "--insecure-registry",
                registry,
            ])
            .args(["--health", HEALTH, "--metrics", "127.0.0.1:28080"])
            .env("KUBECONFIG", kubeconfig)
            // As the chart has it.
            .env("MALLOC_ARENA_MAX", "1")
            .stderr(said)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        while !is_ready().await {
            if let Some(ended) = process.try_wait()? {
                bail!("the operator ended: {ended}; see {}", log.display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { process, ready_after: began.elapsed() })
    }

    pub fn taken(&self) -> Result<Taken> {
        let process = self.process.id().context("the operator has ended")?;
        let folder = PathBuf::from(format!("/proc/{process}"));
        let stat = fs::read_to_string(folder.join("stat"))?;
        let status = fs::read_to_string(folder.join("status"))?;
        taken(&stat, &status).context("/proc is not as it should be")
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        let process = self.process.id().context("the operator has ended")?;
        Command::new("kill").arg(process.to_string()).status().await?;
        self.process.wait().await?;
        Ok(())
    }
}

async fn is_ready() -> bool {
    let Ok(mut stream) = TcpStream::connect(HEALTH).await else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await;
    asked.is_ok() && stream.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.0 200")
}

/// Of Linux' `stat` and `status`. Its clock has ticks of 10 ms.
fn taken(stat: &str, status: &str) -> Option<Taken> {
    let after_name = stat.rsplit_once(')')?.1;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
    };
    Some(Taken {
        cpu_seconds: (ticks(11)? + ticks(12)?) / 100.0,
        resident_mib: mib("VmRSS:")?,
        most_resident_mib: mib("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_took_is_read_from_proc() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0";
        let taken = taken(stat, "Name:\tx\nVmHWM:\t  20480 kB\nVmRSS:\t  10240 kB\n").unwrap();
        assert_eq!(taken.cpu_seconds.to_string(), "3");
        assert_eq!((taken.resident_mib, taken.most_resident_mib), (10, 20));
    }
}
