//! `make bench-scale`: the operator against a real API server, controllers and scheduler, with hollow nodes. What it asks of the
//! API server is counted by the audit log, what it takes of the machine by `/proc`.

mod audit;
mod hollow;
mod operator;

use anyhow::{Context as _, Result, bail};
use audit::{Audit, Requests};
use clap::Parser;
use futures::StreamExt as _;
use hollow::{Hollow, Lost};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{ResourceExt as _, runtime::WatchStreamExt as _};
use operator::{Operator, Taken};
use sconce_api::{EdgePlacement, condition};
use sconce_e2e::{Bed, Command, NAMESPACE, Spec, program, root, tool};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CLUSTER: Spec = Spec { name: "sconce-scale", api_port: 29443, registry_port: 29000, grace: 40 };
const USER: &str = "system:serviceaccount:sconce-system:sconce-operator";

/// Measures the operator on an embedded Kubernetes with hollow nodes, one per site and two in the cloud.
#[derive(Parser)]
#[command(name = "sconce-scale", version)]
struct Args {
    #[arg(long, default_value_t = 20)]
    sites: usize,
    #[arg(long, default_value_t = 5)]
    models: usize,
    /// Seconds that are watched at rest.
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// Seconds without a write, after which what was done counts as done.
    #[arg(long, default_value_t = 15)]
    quiet: u64,
    /// What is measured instead of the operator, by the same flags: `e2e/baseline`.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Folder of a trained model: `sconce-trainer train` makes one.
    #[arg(long)]
    artifact: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if CLUSTER.folder().exists() {
        bail!("a cluster {0} is there already: `kubebox down --name {0}` removes it", CLUSTER.name);
    }
    let up = Command::new(tool("kubebox")?)
        .args(["up", "--name", CLUSTER.name, "--config"])
        .arg(root().join("e2e/scale.yaml"));
    let (api, registry) = (CLUSTER.api_port.to_string(), CLUSTER.registry_port.to_string());
    let up = up.args(["--api-port", &api, "--registry-port", &registry, "--grace", "40"]);
    let measured = tokio::select! {
        measured = async {
            up.show().await?;
            measure(&args).await
        } => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    Bed::stop(CLUSTER).await?;
    measured
}

async fn measure(args: &Args) -> Result<()> {
    let bed = Bed::open(CLUSTER).await?;
    let scratch = tempfile::tempdir()?;
    let kubeconfig = prepare(&bed, scratch.path()).await?;
    let digest = bed.publish(&args.artifact, "models/scale").await?;
    let uri = format!("oci://{}/models/scale@{digest}", bed.registry_outside());

    let nodes = fleet(args.sites);
    let lost = Lost::default();
    hollow::make(&bed.client, &nodes).await?;
    tokio::spawn(hollow::beat(bed.client.clone(), nodes.clone(), lost.clone()));
    let names = nodes.iter().map(|node| node.name.clone()).collect();
    tokio::spawn(hollow::run_pods(bed.client.clone(), names, lost.clone()));
    bed.apply_text(FLEET).await?;

    let mut bench = Bench {
        args,
        audit: Audit::new(CLUSTER.folder().join("cp/audit.log"), USER),
        operator: start(args, &bed, &kubeconfig, scratch.path()).await?,
        before: Taken::default(),
    };
    println!("{} sites × {} models; 1 minute load {}", args.sites, args.models, load());
    bench.step("start", async { Ok(()) }).await?;

    let placements = args.sites * args.models;
    let create = async {
        bed.apply_text(&models(args.models, &uri)).await?;
        ready(&bed, placements).await
    };
    let made = bench.step("create", create).await?;
    println!("  {:.2} writes per placement", ratio(made.writes(), placements));

    bench
        .step("rest", async {
            tokio::time::sleep(Duration::from_secs(args.rest)).await;
            Ok(())
        })
        .await?;

    let site = &nodes[0].name;
    bench
        .step("label flip", async { bed.kubectl().args(["label", "node", site, "camera-"]).output().await.map(drop) })
        .await?;
    let site = &nodes[1].name;
    bench
        .step("site lost", async {
            lost.add(site);
            silent(&bed, site).await
        })
        .await?;

    let Bench { operator, mut audit, .. } = bench;
    operator.stop().await?;
    audit.since()?;
    let operator = start(args, &bed, &kubeconfig, scratch.path()).await?;
    println!("restart: every kind listed after {:.1} s", operator.ready_after.as_secs_f64());
    let mut bench = Bench { args, audit, operator, before: Taken::default() };
    bench.step("restart", async { Ok(()) }).await?;
    bench.operator.stop().await
}

struct Bench<'a> {
    args: &'a Args,
    audit: Audit,
    operator: Operator,
    before: Taken,
}

impl Bench<'_> {
    /// Does something, waits until the operator has nothing more to write, and tells what that took.
    async fn step(&mut self, name: &str, act: impl Future<Output = Result<()>>) -> Result<Requests> {
        let began = Instant::now();
        act.await.with_context(|| name.to_owned())?;
        let acted = began.elapsed();
        let mut asked = self.audit.since()?;
        loop {
            tokio::time::sleep(Duration::from_secs(self.args.quiet)).await;
            let more = self.audit.since()?;
            let quiet = more.writes() == 0;
            asked = asked.and(more);
            if quiet {
                break;
            }
        }
        let taken = self.operator.taken()?;
        let cpu = taken.cpu_seconds - self.before.cpu_seconds;
        self.before = taken;
        println!(
            "{name}: {:.1} s, {} writes, at most {} lists of a kind, {cpu:.2} CPU s, {} MiB resident (at most {})",
            acted.as_secs_f64(),
            asked.writes(),
            asked.lists(),
            taken.resident_mib,
            taken.most_resident_mib
        );
        println!("  {asked}");
        Ok(asked)
    }
}

async fn start(args: &Args, bed: &Bed, kubeconfig: &Path, scratch: &Path) -> Result<Operator> {
    let ours = program("sconce-operator")?;
    let measured = args.program.as_ref().unwrap_or(&ours);
    Operator::start(measured, kubeconfig, &bed.registry_outside(), &scratch.join("operator.log")).await
}

/// Definitions, namespaces, and an account for the operator, so that the audit log knows it.
async fn prepare(bed: &Bed, scratch: &Path) -> Result<PathBuf> {
    bed.apply(&root().join("crds")).await?;
    bed.apply_text(ACCOUNT).await?;
    let token = bed
        .kubectl()
        .args(["create", "token", "sconce-operator", "-n", "sconce-system", "--duration=24h"])
        .output()
        .await?;
    let kubeconfig = scratch.join("kubeconfig");
    fs::copy(bed.kubeconfig(), &kubeconfig)?;
    let configure = |args: &[&str]| bed.kubectl().arg("config").args(args).env("KUBECONFIG", &kubeconfig).output();
    configure(&["set-credentials", "operator", &format!("--token={}", token.trim())]).await?;
    configure(&["set-context", "--current", "--user=operator"]).await?;
    Ok(kubeconfig)
}

const ACCOUNT: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: vision}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: sconce-system}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: sconce-operator, namespace: sconce-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: sconce-scale}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: sconce-operator, namespace: sconce-system}]
";

const FLEET: &str = "
apiVersion: sconce.dev/v1alpha1
kind: EdgeFleet
metadata: {name: scale}
spec:
  sites: {nodeSelector: {matchLabels: {sconce.dev/tier: edge}}}
  cloud: {nodeSelector: {matchLabels: {sconce.dev/tier: cloud}}}
";

/// Sites first, by number; each has a camera.
fn fleet(sites: usize) -> Vec<Hollow> {
    let site = |i| {
        let name = format!("site-{i:04}");
        let labels = json!({"sconce.dev/tier": "edge", "topology.kubernetes.io/zone": name, "kubernetes.io/arch": "amd64", "camera": "yes"});
        Hollow { name, labels }
    };
    let cloud = |i| Hollow {
        name: format!("cloud-{i}"),
        labels: json!({"sconce.dev/tier": "cloud", "kubernetes.io/arch": "amd64"}),
    };
    (1..=sites).map(site).chain((1..=2).map(cloud)).collect()
}

/// All run at the edge, the first one only where there is a camera.
fn models(count: usize, uri: &str) -> String {
    let model = |i: usize| {
        let require = json!([{"key": "camera", "operator": "Exists"}]);
        let mut model = json!({"apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeModel",
            "metadata": {"name": format!("model-{i:02}"), "namespace": NAMESPACE},
            "spec": {"fleetRef": {"name": "scale"}, "model": {"uri": uri}, "latencyBudget": "100ms", "placement": {"tier": "Edge"}}});
        if i == 1 {
            model["spec"]["hardware"] = json!({"require": require});
        }
        model.to_string()
    };
    (1..=count).map(model).collect::<Vec<_>>().join("\n---\n")
}

/// Waits until so many placements are Ready.
async fn ready(bed: &Bed, wanted: usize) -> Result<()> {
    let all = Api::<EdgePlacement>::all(bed.client.clone());
    let mut events = std::pin::pin!(watcher(all, watcher::Config::default()).default_backoff());
    let mut ready = BTreeSet::new();
    while let Some(event) = events.next().await {
        let Ok(Event::Apply(placement) | Event::InitApply(placement)) = event else { continue };
        let conditions = placement.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if condition(conditions, "Ready").is_some_and(|ready| ready.status == "True") {
            ready.insert(placement.name_any());
        } else {
            ready.remove(&placement.name_any());
        }
        if ready.len() == wanted {
            return Ok(());
        }
    }
    bail!("the watch ended")
}

/// Waits until the node counts as lost.
async fn silent(bed: &Bed, node: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(bed.client.clone());
    bed.until(&nodes, node, "not Ready", Duration::from_secs(300), is_silent).await.map(drop)
}

fn is_silent(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status != "True")
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn ratio(writes: u64, placements: usize) -> f64 {
    writes as f64 / placements.max(1) as f64
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}
