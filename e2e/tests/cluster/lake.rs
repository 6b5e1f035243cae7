//! A bucket that nodes send samples to, as people reach it: an S3 server (moto), from PyPI like pyarrow, which reads what came.

#[path = "../../../model/examples/against_onnx_runtime/python.rs"]
mod python;

use anyhow::{Context as _, Result, ensure};
use python::Nothing;
use sconce_e2e::{Bed, program, tool, untried};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

const LIMIT: Duration = Duration::from_secs(180);
/// As the Secret of the suite says it, and as the control plane's node has it.
pub const VARIABLES: [(&str, &str); 5] = [
    ("AWS_ENDPOINT_URL", "http://10.89.0.1:9000"),
    ("AWS_ALLOW_HTTP", "true"),
    ("AWS_ACCESS_KEY_ID", "key"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
    ("AWS_REGION", "us-east-1"),
];
/// Of moto and pyarrow; the collector's own tests read with the same.
const REQUIREMENTS: &str = include_str!("../../../collector/tests/readers/requirements.txt");

/// Serves until its standard input ends.
const SERVE: &str = "import subprocess, sys
server = subprocess.Popen([sys.executable, '-m', 'moto.server', '-H', '10.89.0.1', '-p', '9000'])
sys.stdin.read()
server.kill()
";

const CREATE: &str = "import boto3, os, time
s3 = boto3.client('s3', endpoint_url=os.environ['AWS_ENDPOINT_URL'])
until = time.time() + 60
while True:
    try:
        s3.create_bucket(Bucket='lake')
        break
    except Exception:
        if time.time() > until:
            raise
        time.sleep(0.2)
";

/// It ends at once: threads of pyarrow that still run abort an interpreter that cleans up.
const READ: &str = "import boto3, io, json, os
import pyarrow.parquet as parquet
s3 = boto3.client('s3', endpoint_url=os.environ['AWS_ENDPOINT_URL'])
pages = s3.get_paginator('list_objects_v2').paginate(Bucket='lake')
keys = [item['Key'] for page in pages for item in page.get('Contents', [])]
get = lambda key: io.BytesIO(s3.get_object(Bucket='lake', Key=key)['Body'].read())
rows = [dict(row, key=key) for key in keys if '/manifests/' in key for row in parquet.read_table(get(key)).to_pylist()]
names = ['key', 'id', 'media', 'source', 'model', 'tier', 'why', 'probability', 'score']
print(json.dumps([{name: row[name] for name in names} for row in rows]), flush=True)
os._exit(0)
";

#[derive(Deserialize, Debug)]
pub struct Row {
    pub key: String,
    pub id: String,
    pub media: String,
    pub source: String,
    /// Of what a model was asked.
    pub model: Option<String>,
    pub tier: Option<String>,
    pub why: String,
    pub probability: f64,
    pub score: Option<f64>,
}

/// `None` where nothing can be had, and that may be so.
fn interpreter() -> Result<Option<PathBuf>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("collector-strangers");
    match python::python(&folder, REQUIREMENTS) {
        Ok(interpreter) => Ok(Some(interpreter)),
        Err(why) if why.is::<Nothing>() => {
            untried(&format!("the bucket of collected samples was NOT tried: {Nothing}: {why}"))?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// An S3 server on the control plane's node, with the bucket `lake`, and its clients there. It ends with this: its standard input is cut.
pub struct Lake {
    cluster: &'static str,
    python: PathBuf,
    kubeconfig: tempfile::NamedTempFile,
    _server: Option<Child>,
}

impl Lake {
    /// `None` where it cannot be had, and that may be so.
    pub async fn open(bed: &Bed) -> Result<Option<Self>> {
        let Some(python) = interpreter()? else { return Ok(None) };
        let lake = Self { cluster: bed.spec.name, python, kubeconfig: tempfile::NamedTempFile::new()?, _server: None };
        let server = lake.command(SERVE)?.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        lake.run(CREATE).await?;
        Ok(Some(Self { _server: Some(server), ..lake }))
    }

    fn command(&self, script: &str) -> Result<Command> {
        let mut command = Command::new(tool("kubebox")?);
        command.args(["exec", "--name", self.cluster, "cp", "--"]).arg(&self.python).args(["-c", script]);
        command.envs(VARIABLES).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    async fn run(&self, script: &str) -> Result<String> {
        let ended = self.command(script)?.stderr(Stdio::piped()).output();
        let ended = tokio::time::timeout(LIMIT, ended).await.context("no bucket")??;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        Ok(String::from_utf8(ended.stdout)?)
    }

    /// The CLI, where it reaches both the bucket and the API server.
    pub fn sconce(&self, bed: &Bed) -> Result<sconce_e2e::Command> {
        let outside = format!("127.0.0.1:{}", bed.spec.api_port);
        let kubeconfig = std::fs::read_to_string(bed.kubeconfig())?.replace(&outside, "127.0.0.1:6443");
        std::fs::write(self.kubeconfig.path(), kubeconfig)?;
        let exec = sconce_e2e::Command::new(tool("kubebox")?).args(["exec", "--name", self.cluster, "cp", "--"]);
        let sconce = exec.arg(program("sconce")?).env("KUBECONFIG", self.kubeconfig.path());
        Ok(VARIABLES.iter().fold(sconce, |sconce, (name, value)| sconce.env(name, value)))
    }

    /// The rows of all manifests of a dataset, whose name is its prefix, once they are enough.
    pub async fn rows_until(&self, dataset: &str, are_enough: impl Fn(&[Row]) -> bool) -> Result<Vec<Row>> {
        let reading = async {
            loop {
                let mut rows: Vec<Row> = serde_json::from_str(&self.run(READ).await?)?;
                rows.retain(|row| row.manifest(dataset).is_some());
                if are_enough(&rows) {
                    return anyhow::Ok(rows);
                }
            }
        };
        tokio::time::timeout(LIMIT, reading).await.context("not all samples have arrived")?
    }
}

impl Row {
    /// Name of its manifest, if it is of that dataset.
    fn manifest(&self, dataset: &str) -> Option<&str> {
        self.key.strip_prefix(dataset)?.strip_prefix("/manifests/")
    }

    /// Of which node: manifests are named `NODE-…`, and nodes `SITE-NUMBER`.
    pub fn node(&self, dataset: &str) -> Option<&str> {
        Some(self.manifest(dataset)?.split_at_checked("site-a-1".len())?.0)
    }
}
