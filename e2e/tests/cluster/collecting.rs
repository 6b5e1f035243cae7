//! Requests of a model become samples in a bucket, each once, with their answers; and the dataset says how many.

#[path = "../../../model/examples/against_onnx_runtime/python.rs"]
mod python;

use crate::suite::bed;
use anyhow::{Context as _, Result, ensure};
use kube::api::Api;
use python::Nothing;
use sconce_api::{EdgeDataset, EdgeDatasetStatus, condition};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, tool};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

const NAME: &str = "seen";
const LIMIT: Duration = Duration::from_secs(180);
/// As the Secret of the suite says it, and as the control plane's node has it.
const VARIABLES: [(&str, &str); 4] = [
    ("AWS_ENDPOINT_URL", "http://10.89.0.1:9000"),
    ("AWS_ACCESS_KEY_ID", "key"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
    ("AWS_REGION", "us-east-1"),
];
/// Of moto and pyarrow; the collector's own tests read with the same.
const REQUIREMENTS: &str = include_str!("../../../collector/tests/readers/requirements.txt");
/// The file that is told why nothing was tried, where nothing can be had from PyPI.
const UNTRIED: &str = "SCONCE_STRANGERS_UNTRIED";

const DATASET: &str = "apiVersion: sconce.dev/v1alpha1
kind: EdgeDataset
metadata: {name: seen, namespace: vision}
spec:
  fleetRef: {name: shops}
  uri: 's3://lake/seen'
  kind: Image
  privacy: {policy: Raw}
  upload: {delay: 1s}
";

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
keys = [item['Key'] for item in s3.list_objects_v2(Bucket='lake').get('Contents', [])]
get = lambda key: io.BytesIO(s3.get_object(Bucket='lake', Key=key)['Body'].read())
rows = [dict(row, key=key) for key in keys if '/manifests/' in key for row in parquet.read_table(get(key)).to_pylist()]
names = ['key', 'id', 'media', 'model', 'tier', 'why', 'probability', 'score']
print(json.dumps([{name: row[name] for name in names} for row in rows]), flush=True)
os._exit(0)
";

#[derive(Deserialize, Debug)]
struct Row {
    key: String,
    id: String,
    media: String,
    model: String,
    tier: String,
    why: String,
    probability: f64,
    score: f64,
}

#[tokio::test]
async fn requests_of_a_model_are_collected_and_the_dataset_counts_them() -> Result<()> {
    let bed = bed().await?;
    // At first nobody collects: the model says so before its dataset is there.
    let collect = json!({"spec": {"collect": {"datasetRef": {"name": NAME}, "share": "100%"}}});
    bed.patch("em", NAMESPACE, "digits", collect).await?;
    bed.apply_text(DATASET).await?;
    let outcome = from_requests_to_a_bucket(&bed).await;
    bed.patch("em", NAMESPACE, "digits", json!({"spec": {"collect": null}})).await?;
    bed.kubectl().args(["delete", "ed", NAME, "-n", NAMESPACE]).output().await?;
    outcome
}

async fn from_requests_to_a_bucket(bed: &Bed) -> Result<()> {
    let told = until_told(bed, "both sites say that they collect", |status| {
        status.nodes == 2 && condition(&status.conditions, "Ready").is_some_and(|ready| ready.status == "True")
    });
    println!("{:?}", told.await?.conditions);
    let Some(python) = interpreter()? else { return Ok(()) };

    let lake = Lake { bed, python };
    let _serving = lake.serve()?;
    lake.run(CREATE).await?;
    let site_a = bed.ask("site-a-1", &ClientRun::of("digits.vision").count(40)).await?;
    let site_b = bed.ask("site-b-1", &ClientRun::of("digits.vision").count(10)).await?;
    ensure!(site_a.failed + site_b.failed == 0, "{site_a:?} {site_b:?}");

    let status = until_told(bed, "samples have arrived", |status| status.samples > 0).await?;
    ensure!(status.last_arrival.is_some() && status.dropped == 0, "{status:?}");
    // Whoever else asks the model meanwhile is collected, too.
    let rows = lake.rows_until(|rows| of(rows, "site-a-1") >= 40 && of(rows, "site-b-1") >= 10).await?;
    let once: BTreeSet<_> = rows.iter().map(|row| (node(row), &row.id)).collect();
    ensure!(once.len() == rows.len(), "a node sent a sample twice: {rows:?}");
    let has = |name: &str, tier: &str| rows.iter().any(|row| node(row) == Some(name) && row.tier == tier);
    ensure!(has("site-a-1", "Edge") && has("site-b-1", "Cloud"), "who answered is not told: {rows:?}");
    for row in &rows {
        ensure!((row.media.as_str(), row.model.as_str()) == ("npy", "digits.vision"), "{row:?}");
        ensure!(row.why == "Uniform" && row.probability == 1.0 && (0.1..=1.0).contains(&row.score), "{row:?}");
    }
    println!("{} samples, {} held: {:?}", status.samples, status.held, status.last_arrival);
    Ok(())
}

/// Of which node: keys are `seen/manifests/NODE-…`, and nodes `SITE-NUMBER`.
fn node(row: &Row) -> Option<&str> {
    let name = row.key.strip_prefix("seen/manifests/")?;
    Some(name.split_at_checked("site-a-1".len())?.0)
}

fn of(rows: &[Row], name: &str) -> usize {
    rows.iter().filter(|row| node(row) == Some(name)).count()
}

async fn until_told(bed: &Bed, what: &str, holds: impl Fn(&EdgeDatasetStatus) -> bool) -> Result<EdgeDatasetStatus> {
    let datasets: Api<EdgeDataset> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let is_so = |found: Option<&EdgeDataset>| found.and_then(|dataset| dataset.status.as_ref()).is_some_and(&holds);
    let found = bed.until(&datasets, NAME, what, LIMIT, is_so).await?;
    found.and_then(|dataset| dataset.status).context("it was just there")
}

/// `None` where nothing can be had, and that may be so.
fn interpreter() -> Result<Option<PathBuf>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("collector-strangers");
    match (python::python(&folder, REQUIREMENTS), std::env::var_os(UNTRIED)) {
        (Ok(interpreter), _) => Ok(Some(interpreter)),
        (Err(why), Some(file)) if why.is::<Nothing>() => {
            let told = format!("the bucket of collected samples was NOT tried: {Nothing}: {why}\n");
            std::io::stderr().write_all(told.as_bytes())?;
            std::fs::write(file, told)?;
            Ok(None)
        }
        (Err(error), _) => Err(error),
    }
}

/// An S3 server (moto) on the control plane's node, and its clients there.
struct Lake<'a> {
    bed: &'a Bed,
    python: PathBuf,
}

impl Lake<'_> {
    fn command(&self, script: &str) -> Result<Command> {
        let mut command = Command::new(tool("kubebox")?);
        command.args(["exec", "--name", self.bed.spec.name, "cp", "--"]).arg(&self.python).args(["-c", script]);
        command.envs(VARIABLES).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// Ends with what is returned: its standard input is cut.
    fn serve(&self) -> Result<Child> {
        Ok(self.command(SERVE)?.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?)
    }

    async fn run(&self, script: &str) -> Result<String> {
        let ended = self.command(script)?.stderr(Stdio::piped()).output();
        let ended = tokio::time::timeout(LIMIT, ended).await.context("no bucket")??;
        ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        Ok(String::from_utf8(ended.stdout)?)
    }

    /// The rows of all manifests, once they are enough.
    async fn rows_until(&self, are_enough: impl Fn(&[Row]) -> bool) -> Result<Vec<Row>> {
        let reading = async {
            loop {
                let rows: Vec<Row> = serde_json::from_str(&self.run(READ).await?)?;
                if are_enough(&rows) {
                    return anyhow::Ok(rows);
                }
            }
        };
        tokio::time::timeout(LIMIT, reading).await.context("not all samples have arrived")?
    }
}
