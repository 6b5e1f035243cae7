//! A server that runs, on one core, with all that it starts.

use crate::servers::{MODEL, Server};
use anyhow::{Context as _, Result, bail, ensure};
use sconce_edge_runtime::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use sconce_edge_runtime::wire::model_infer_request::InferInputTensor;
use sconce_edge_runtime::wire::{ModelInferRequest, ModelReadyRequest, raw_fp32};
use std::io::Read as _;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tonic::transport::Channel;

/// Inputs whose answers are compared.
pub const ROWS: usize = 8;
/// After which a server that is not ready will not be.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions whether it is ready.
const PAUSE: Duration = Duration::from_millis(1);

type Client = GrpcInferenceServiceClient<Channel>;

pub struct Running {
    pub address: String,
    pub pid: u32,
    /// From the start of the process to the first answer that the model is ready.
    pub ready: Duration,
    client: Client,
    child: Child,
}

impl Running {
    /// # Errors
    /// If it ends, or is not ready in time: with what it said.
    pub async fn start(server: &Server, cpu: usize) -> Result<Self> {
        let ports = free_ports()?;
        let mut log = NamedTempFile::new()?;
        let began = Instant::now();
        let mut child = Command::new("taskset")
            .args(["--cpu-list", &cpu.to_string()])
            .arg(&server.program)
            .args(server.args(ports))
            .stdin(Stdio::null())
            .stdout(log.reopen()?)
            .stderr(log.reopen()?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start taskset: install util-linux")?;
        let pid = child.id().context("it ended at once")?;
        let address = format!("127.0.0.1:{}", ports[0]);
        loop {
            if let Ok(client) = ready(&address).await {
                return Ok(Self { address, pid, ready: began.elapsed(), client, child });
            }
            let ended = child.try_wait()?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                let mut said = String::new();
                log.read_to_string(&mut said)?;
                end(pid)?;
                bail!("{} is not ready after {:?} ({ended:?}). It said:\n{said}", server.name, began.elapsed());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// To inputs that are all different, one after another.
    pub async fn answers(&self) -> Result<Vec<f32>> {
        let pixels = (0..ROWS * 28 * 28).map(|index| (index * 7919 % 251) as f32 / 251.0);
        let shape = vec![ROWS as i64, 1, 28, 28];
        let tensor = InferInputTensor { name: "input".into(), datatype: "FP32".into(), shape, ..Default::default() };
        let raw_input_contents = vec![raw_fp32(&pixels.collect::<Vec<_>>())];
        let request = ModelInferRequest {
            model_name: MODEL.into(),
            inputs: vec![tensor],
            raw_input_contents,
            ..Default::default()
        };
        let answer = self.client.clone().model_infer(request).await?.into_inner();
        if let Some(raw) = answer.raw_output_contents.first() {
            return Ok(raw.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect());
        }
        let typed = answer.outputs.into_iter().next().and_then(|output| output.contents);
        Ok(typed.context("an answer without contents")?.fp32_contents)
    }

    pub async fn stop(mut self) -> Result<()> {
        signal("-TERM", &self.pid.to_string())?;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ensure!(ended.is_ok(), "{} did not end within {PATIENCE:?}", self.address);
        Ok(())
    }
}

/// Whatever happened: nothing that was started stays.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = end(self.pid);
    }
}

/// Connected, if the model is ready.
async fn ready(address: &str) -> Result<Client> {
    let mut client = Client::connect(format!("http://{address}")).await?;
    let request = ModelReadyRequest { name: MODEL.into(), version: String::new() };
    ensure!(client.model_ready(request).await?.into_inner().ready, "not yet");
    Ok(client)
}

/// All of the group that a process leads; there may be none of it left.
fn end(leader: u32) -> Result<()> {
    signal("-KILL", &format!("-{leader}"))
}

fn signal(which: &str, to: &str) -> Result<()> {
    let kill = std::process::Command::new("kill").args([which, "--", to]).stderr(Stdio::null()).status();
    kill.map(drop).context("cannot run kill")
}

/// Ports that nobody listens on now; all are held until all are known, so that they differ.
fn free_ports() -> Result<[u16; 3]> {
    let listeners = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        let listener = listener.as_ref().map_err(|error| anyhow::anyhow!("no free port: {error}"))?;
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
