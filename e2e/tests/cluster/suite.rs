//! What the scenarios share: the cluster, installed once, and the digits model as every scenario finds it.

use anyhow::{Context as _, Result, bail};
use sconce_api::{Rejection, Tier};
use sconce_e2e::{Bed, NAMESPACE, Spec, Training, placement_name, root};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Below site-a's round trip of 260 ms; far above site-b's, however busy the machine.
pub const BUDGET: &str = "220ms";

/// Why the cloud is rejected by a link's tail, alone or with what is corrected for what clients waited.
const TOO_SLOW: [&str; 2] = ["LinkTooSlow", "OverBudget"];
/// Longer than a move takes.
const SOON: Duration = Duration::from_secs(60);

/// What the collectors need before they start: their namespace, as Helm takes it over; where the bucket is, though nothing answers there
/// until `collecting` starts it; and a claim on a volume, at VOLUME on each node.
const LAKE: &str = "apiVersion: v1
kind: Namespace
metadata:
  name: sconce-node
  labels: {app.kubernetes.io/managed-by: Helm}
  annotations: {meta.helm.sh/release-name: sconce, meta.helm.sh/release-namespace: sconce-system}
---
apiVersion: v1
kind: Secret
metadata: {name: lake, namespace: sconce-node}
stringData:
  AWS_ENDPOINT_URL: http://10.89.0.1:9000
  AWS_ALLOW_HTTP: 'true'
  AWS_REGION: us-east-1
  AWS_ACCESS_KEY_ID: key
  AWS_SECRET_ACCESS_KEY: secret
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: lake}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  storageClassName: ''
  hostPath: {path: VOLUME, type: DirectoryOrCreate}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: lake, namespace: sconce-node}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: ''
  volumeName: lake
  resources: {requests: {storage: 1Gi}}
";
/// Of the chart.
const COLLECTOR: [&str; 3] =
    ["node.collector.enabled=true", "node.collector.secretName=lake", "node.collector.claims={lake}"];

static INSTALLED: OnceCell<()> = OnceCell::const_new();
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Why the cluster could not be brought to where every scenario begins: those that follow need not wait for it again.
static UNSETTLED: OnceLock<String> = OnceLock::new();

/// Folder of the suite's trained model.
pub fn training() -> Training {
    let folder = std::env::var("SCONCE_E2E_TRAINING").expect("SCONCE_E2E_TRAINING is set by e2e/test.sh");
    Training::in_folder(Path::new(&folder))
}

/// Of the claim `lake`: in the cluster's folder, which is the same one for all nodes, and goes with the cluster.
pub fn volume(bed: &Bed) -> PathBuf {
    bed.spec.folder().join("volume")
}

pub fn examples(file: &str) -> PathBuf {
    root().join("examples/digits").join(file)
}

/// The cluster with Sconce, the fleet, the digits model placed at both sites, and a client at each.
pub async fn bed() -> Result<Bed> {
    println!("({} s so far)", BEGAN.elapsed().as_secs());
    if let Some(why) = UNSETTLED.get() {
        bail!("not tried, since an earlier scenario found the cluster unsettled: {why}");
    }
    // A client of its own: each test has a runtime of its own, and connections do not outlive theirs.
    let bed = Bed::open(Spec::TEST).await?;
    INSTALLED
        .get_or_try_init(|| async {
            let training = training();
            bed.publish(&training.artifact, "models/digits:1.0.0").await?;
            bed.apply_text(&LAKE.replace("VOLUME", &volume(&bed).display().to_string())).await?;
            bed.install(&training.held_out, &COLLECTOR).await?;
            for file in ["fleet.yaml", "model.yaml", "client/daemonset.yaml"] {
                bed.apply(&examples(file)).await?;
            }
            bed.kubectl()
                .args(["rollout", "status", "ds/digits-client", "-n", NAMESPACE, "--timeout=120s"])
                .output()
                .await?;
            anyhow::Ok(())
        })
        .await
        .context("cannot install Sconce")?;
    settle(&bed).await.inspect_err(|error| drop(UNSETTLED.set(error.to_string())))?;
    Ok(bed)
}

/// The digits model as the example says it, with the suite's budget, placed: at the edge of site-a, in the cloud for site-b.
pub async fn settle(bed: &Bed) -> Result<()> {
    // The scenarios do not wait for what has to last.
    pace(bed, json!({"settle": "0s", "minGain": "1%"}), json!(null)).await?;
    bed.kubectl()
        .args(["apply", "--server-side", "--force-conflicts", "-f"])
        .arg(examples("model.yaml"))
        .output()
        .await?;
    bed.patch(
        "em",
        NAMESPACE,
        "digits",
        json!({"spec": {"hardware": null, "overrides": null, "load": {"requestsPerSecond": 10}, "latencyBudget": BUDGET}}),
    )
    .await?;
    bed.until_served("digits", "site-a", Tier::Edge).await?;
    let served = || bed.until_served("digits", "site-b", Tier::Cloud);
    if let Ok(served) = timeout(SOON, served()).await {
        return served.map(drop);
    }
    // A machine that stood still for moments made the link's tail, and for an hour the agent remembers them.
    let placement = bed.placements().get(&placement_name("digits", "site-b")).await?;
    let rejected = placement.status.map(|status| status.rejected).unwrap_or_default();
    let is_too_slow = |one: &&Rejection| one.candidate.starts_with("cloud") && TOO_SLOW.contains(&one.reason.as_str());
    if let Some(one) = rejected.iter().find(is_too_slow) {
        println!("site-b's link is measured anew: {}", one.message);
        measure_anew(bed, "site-b-1").await?;
    }
    served().await.map(drop)
}

/// An edge node's agent forgets what it has measured: its pod, with the router, starts anew.
pub async fn measure_anew(bed: &Bed, node: &str) -> Result<()> {
    let of_node = format!("spec.nodeName={node}");
    let pod = ["-l", "app.kubernetes.io/name=sconce-node", "--field-selector", &of_node];
    bed.kubectl().args(["delete", "pod", "-n", "sconce-node"]).args(pod).output().await?;
    let again = ["rollout", "status", "ds/sconce-node-edge", "-n", "sconce-node", "--timeout=120s"];
    bed.kubectl().args(again).output().await.map(drop)
}

/// How fast the fleet follows what would be best: its `stability` and `limits`.
pub async fn pace(bed: &Bed, stability: Value, limits: Value) -> Result<()> {
    let spec = json!({"stability": stability, "limits": limits});
    bed.patch("ef", NAMESPACE, "shops", json!({ "spec": spec })).await.map(drop)
}

/// The suite's artifact, whose variants are equally good, as if `f32` alone were good enough.
pub fn exact() -> Result<tempfile::TempDir> {
    altered("evaluation.json", |evaluation| {
        for variant in ["f16", "int8"] {
            evaluation["variants"][variant]["value"] = json!(0.9);
        }
    })
}

/// A copy of the suite's artifact with one JSON file changed.
pub fn altered(file: &str, change: impl FnOnce(&mut Value)) -> Result<tempfile::TempDir> {
    let copy = tempfile::tempdir()?;
    copy_folder(&training().artifact, copy.path())?;
    let path = copy.path().join(file);
    let mut value = serde_json::from_slice(&std::fs::read(&path)?)?;
    change(&mut value);
    std::fs::write(path, serde_json::to_vec(&value)?)?;
    Ok(copy)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
