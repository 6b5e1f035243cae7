//! A recipe becomes a Job, its model is published, and an EdgeModel that follows it serves it. And a run at the edge is stopped, and
//! goes on by what its claim keeps.

use crate::suite::bed;
use anyhow::{Context as _, Result, ensure};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, ListParams, LogParams};
use kube::runtime::wait::conditions::is_deleted;
use kube::{Resource, ResourceExt as _};
use sconce_api::{RunState, TrainingRun};
use sconce_e2e::{Bed, NAMESPACE};
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "strokes";
const LIMIT: Duration = Duration::from_secs(300);
const CLOUD_NODE: &str = "cloud-1";
const EDGE_NODE: &str = "site-b-1";

/// As many epochs as let it be ended half-way; another seed makes it another recipe. `run` is what it asks for beside.
fn recipe(seed: u64, epochs: u32, run: &str) -> String {
    format!(
        "apiVersion: sconce.dev/v1alpha1
kind: EdgeTraining
metadata: {{name: {NAME}, namespace: {NAMESPACE}}}
spec:
  dataset: {{uri: 'synthetic:digits', format: idx}}
  architecture:
    input: {{shape: [1, 28, 28]}}
    layers: [{{flatten: {{}}}}, {{dense: {{units: 64, activation: relu}}}}, {{dense: {{units: 10, activation: softmax}}}}]
  preprocess: [{{scale: {{by: 0.003921569}}}}]
  fit: {{epochs: {epochs}, batchSize: 16, seed: {seed}}}
  compress: {{variants: [f16], maxAccuracyDrop: 2%}}
  accept: {{minAccuracy: 80%}}
  output: {{uri: 'oci://10.89.0.1:5000/models/{NAME}'}}
  run: {{resources: {{cpu: 500m, memory: 512Mi}}, retries: 3, keep: {{succeeded: 0}}{run}}}
"
    )
}

const LONG: u32 = 600;
/// Some seconds of what a run may have of a core.
const SHORT: u32 = 150;
const AT_THE_EDGE: &str = ", tier: Edge, claimName: strokes";

/// A folder of either node, whichever a run is sent to: so a run's tier chooses, and not its claim.
const CLAIM: &str = "apiVersion: v1
kind: PersistentVolume
metadata: {name: strokes}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: ''
  hostPath: {path: /var/lib/strokes}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [cloud-1, site-b-1]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: strokes, namespace: vision}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: ''
  volumeName: strokes
  resources: {requests: {storage: 1Gi}}
";
/// `fsGroup` changes nothing of such a folder: it is a trainer's from the start.
const MAKE_FOLDER: &str = "install -d -o 65532 -g 65532 /var/lib/strokes";
const REMOVE_FOLDER: &str = "rm -rf /var/lib/strokes";

const MODEL: &str = "apiVersion: sconce.dev/v1alpha1
kind: EdgeModel
metadata: {name: strokes, namespace: vision}
spec:
  fleetRef: {name: shops}
  model: {trainingRef: {name: strokes}, promotion: Automatic}
  latencyBudget: 3s
  placement: {tier: Cloud}
";

#[tokio::test]
async fn a_recipe_becomes_a_model_that_is_served_and_a_crash_only_delays_it() -> Result<()> {
    let bed = bed().await?;
    bed.on(EDGE_NODE, MAKE_FOLDER).await?;
    bed.apply_text(CLAIM).await?;
    bed.apply_text(&recipe(1, LONG, "")).await?;
    bed.apply_text(MODEL).await?;
    let outcome = from_recipe_to_service(&bed).await;
    bed.kubectl().args(["delete", "em,et", NAME, "-n", NAMESPACE, "--ignore-not-found"]).output().await?;
    bed.kubectl().args(["delete", "pvc", NAME, "-n", NAMESPACE]).output().await?;
    bed.kubectl().args(["delete", "pv", NAME]).output().await?;
    bed.on(EDGE_NODE, REMOVE_FOLDER).await?;
    outcome
}

async fn from_recipe_to_service(bed: &Bed) -> Result<()> {
    let running = bed.until_run(NAME, 0, "a run trains", |run| run.state == RunState::Running).await?;
    let pod = pod_of(bed, &running.name).await?;
    is_restricted_on_the_cloud_node(bed, &pod).await?;
    until_told(bed, &pod, "its third epoch", |line| epoch(line) >= Some(3)).await?;
    let told = bed.until_run(NAME, 0, "its progress is told", |run| run.progress.is_some()).await?;
    let progress = told.progress.context("it was just there")?;
    println!("{progress:?}");
    let (loss, percent) = (progress.loss.parse::<f64>(), progress.accuracy.is_some());
    ensure!(progress.epoch >= 1 && progress.epochs == i64::from(LONG) && loss.is_ok() && percent, "{progress:?}");
    ensure!(progress.eta.is_some(), "what is left takes: {progress:?}");

    kill_trainer(&running.name).await?;
    let crashed = |run: &TrainingRun| run.message.as_ref().is_some_and(|message| message.contains("137"));
    bed.until_run(NAME, 0, "the crash is told", crashed).await?;
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    bed.until(&pods, &pod.name_any(), "the same pod goes on", LIMIT, started_again).await?;
    until_told(bed, &pod, "the checkpoint", |line| line.starts_with("going on from a checkpoint: epoch ")).await?;
    let done = bed.until_run(NAME, 0, "the run has ended", |run| run.state.is_over()).await?;
    ensure!(done.state == RunState::Succeeded, "{done:?}");
    let artifact = done.artifact.clone().context("what succeeded is published")?;
    println!("{artifact}: accuracy {:?}, {:?}", done.accuracy, done.verdicts);
    let passed: Vec<_> = done.verdicts.iter().filter(|verdict| verdict.passed).map(|it| &it.variant[..]).collect();
    ensure!(done.accuracy.is_some() && passed == ["f32", "f16"], "{done:?}");

    bed.until_follows(NAME, &artifact).await?;
    suspended_at_the_edge_it_goes_on_by_its_claim(bed).await?;
    deleting_it_stops_the_job(bed).await
}

async fn suspended_at_the_edge_it_goes_on_by_its_claim(bed: &Bed) -> Result<()> {
    let jobs: Api<Job> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let suspend = async |suspend: bool| bed.patch("et", NAMESPACE, NAME, json!({"spec": {"suspend": suspend}})).await;

    bed.apply_text(&recipe(2, SHORT, AT_THE_EDGE)).await?;
    let run = bed.until_run(NAME, 1, "a run trains at the edge", |run| run.state == RunState::Running).await?;
    let pod = pod_of(bed, &run.name).await?;
    runs_on(EDGE_NODE, &pod)?;
    until_told(bed, &pod, "its third epoch", |line| epoch(line) >= Some(3)).await?;

    suspend(true).await?;
    bed.until_run(NAME, 1, "it is suspended", |run| run.state == RunState::Suspended).await?;
    bed.until(&pods, &pod.name_any(), "its pod goes", LIMIT, is_deleted(&uid(&pod)?)).await?;
    let job = jobs.get(&run.name).await?;
    ensure!(job.spec.and_then(|spec| spec.suspend) == Some(true), "the Job stays, suspended");

    suspend(false).await?;
    let again = bed.until_run(NAME, 1, "it trains again", |run| run.state == RunState::Running).await?;
    ensure!(again.name == run.name, "{again:?} is another run than {}", run.name);
    let pod = pod_of(bed, &run.name).await?;
    runs_on(EDGE_NODE, &pod)?;
    until_told(bed, &pod, "the checkpoint", |line| line.starts_with("going on from a checkpoint: epoch ")).await?;
    let done = bed.until_run(NAME, 1, "it has ended after all", |run| run.state.is_over()).await?;
    ensure!(done.state == RunState::Succeeded && done.name == run.name, "{done:?}");
    Ok(())
}

async fn deleting_it_stops_the_job(bed: &Bed) -> Result<()> {
    bed.apply_text(&recipe(3, LONG, "")).await?;
    let run = bed.until_run(NAME, 0, "another recipe trains", |run| run.state == RunState::Running).await?;
    let jobs: Api<Job> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let (job, pod) = (jobs.get(&run.name).await?, pod_of(bed, &run.name).await?);
    bed.kubectl().args(["delete", "et", NAME, "-n", NAMESPACE]).output().await?;
    bed.until(&jobs, &run.name, "the Job goes with its recipe", LIMIT, is_deleted(&uid(&job)?)).await?;
    bed.until(&pods, &pod.name_any(), "and its pod", LIMIT, is_deleted(&uid(&pod)?)).await?;
    Ok(())
}

fn uid<K: Resource>(object: &K) -> Result<String> {
    object.meta().uid.clone().context("an object that is there has a uid")
}

async fn pod_of(bed: &Bed, job: &str) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    pods.list(&of_job).await?.items.into_iter().next().with_context(|| format!("the Job {job} has a pod"))
}

/// The namespace admits no other pods.
async fn is_restricted_on_the_cloud_node(bed: &Bed, pod: &Pod) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(bed.client.clone());
    let namespace = namespaces.get(NAMESPACE).await?;
    ensure!(namespace.labels().get("pod-security.kubernetes.io/enforce").is_some_and(|level| level == "restricted"));
    runs_on(CLOUD_NODE, pod)
}

fn runs_on(wanted: &str, pod: &Pod) -> Result<()> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    ensure!(node == Some(wanted), "it runs on {node:?}");
    Ok(())
}

fn started_again(pod: Option<&Pod>) -> bool {
    let containers = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
    containers.is_some_and(|all| all.iter().all(|one| one.restart_count > 0 && one.started == Some(true)))
}

/// Reads the pod's log until a line is as wanted.
async fn until_told(bed: &Bed, pod: &Pod, what: &str, holds: impl Fn(&str) -> bool) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream(&pod.name_any(), &follow).await?.lines();
    while let Some(line) = lines.try_next().await? {
        if holds(&line) {
            println!("{line}");
            return Ok(());
        }
    }
    anyhow::bail!("the log of {} ended before it told of {what}", pod.name_any())
}

fn epoch(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?["epoch"].as_u64()
}

/// As the kernel does when memory runs out: by the process that has this run's folder among its arguments.
async fn kill_trainer(run: &str) -> Result<()> {
    let folder = format!("/{run}/artifact");
    for entry in std::fs::read_dir("/proc")? {
        let process = entry?.path();
        let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
        if command.split(|byte| *byte == 0).any(|word| word.ends_with(folder.as_bytes())) {
            let pid = process.file_name().context("a process has a number")?.to_string_lossy().into_owned();
            sconce_e2e::Command::new("kill").args(["-9", &pid]).output().await?;
            return Ok(());
        }
    }
    anyhow::bail!("no process trains into {folder}")
}
