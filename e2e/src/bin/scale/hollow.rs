//! Nodes without machines: each has its Node, its EdgeNode and its Lease, and says that every pod it is given runs.

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use sconce_api::EdgeNode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Requests at a time.
const WIDTH: usize = 24;
const HEARTBEAT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Hollow {
    pub name: String,
    pub labels: Value,
}

/// Makes the nodes, Ready and measured.
pub async fn make(client: &Client, nodes: &[Hollow]) -> Result<()> {
    stream::iter(nodes).map(Ok).try_for_each_concurrent(WIDTH, |node| make_one(client, node)).await
}

async fn make_one(client: &Client, hollow: &Hollow) -> Result<()> {
    let name = &hollow.name;
    let post = PostParams::default();
    let nodes: Api<Node> = Api::all(client.clone());
    let metadata = json!({"name": name, "labels": hollow.labels});
    nodes.create(&post, &serde_json::from_value(json!({"metadata": metadata}))?).await?;
    leases(client).create(&post, &serde_json::from_value(lease(name))?).await?;
    let size = json!({"cpu": "64", "memory": "256Gi", "pods": "500"});
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "hollow",
        "lastHeartbeatTime": Timestamp::now(), "lastTransitionTime": Timestamp::now()});
    let status = json!({"status": {"capacity": size, "allocatable": size, "conditions": [ready]}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    let edge_nodes: Api<EdgeNode> = Api::all(client.clone());
    edge_nodes.create(&post, &serde_json::from_value(json!({"metadata": {"name": name}, "spec": {}}))?).await?;
    let status = json!({"status": {
        "hardware": {"class": "amd64-avx2-64", "architecture": "amd64", "isa": ["avx2"], "gflops": 30,
            "cpuModel": "hollow", "cores": 64, "memory": "256Gi"},
        "link": {"roundTrip": {"p50": "40ms", "p99": "46ms", "samples": 500, "basis": "Measured"}}}});
    edge_nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Those that have lost their power.
#[derive(Clone, Default)]
pub struct Lost(Arc<Mutex<BTreeSet<String>>>);

impl Lost {
    pub fn add(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }
}

/// Keeps the leases of all that are not lost.
pub async fn beat(client: Client, nodes: Vec<Hollow>, lost: Lost) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    loop {
        ticks.tick().await;
        let alive = nodes.iter().filter(|node| !lost.has(&node.name));
        let renewed = stream::iter(alive).for_each_concurrent(WIDTH, |node| {
            let leases = leases(&client);
            async move {
                let renewal = Patch::Merge(json!({"spec": {"renewTime": now()}}));
                if let Err(error) = leases.patch(&node.name, &PatchParams::default(), &renewal).await {
                    eprintln!("{}: its lease was not renewed: {error}", node.name);
                }
            }
        });
        renewed.await;
    }
}

/// Runs every pod that is bound to a hollow node, and ends every one that is to go.
pub async fn run_pods(client: Client, nodes: BTreeSet<String>, lost: Lost) {
    let all = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    let addresses = AtomicU32::new(1);
    let changes = all.default_backoff().applied_objects();
    changes
        .filter_map(|pod| std::future::ready(pod.ok()))
        .for_each_concurrent(WIDTH, |pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            let ours = nodes.contains(&node) && !lost.has(&node);
            let (client, addresses) = (client.clone(), &addresses);
            async move {
                if ours && let Err(error) = tend(&client, &pod, addresses).await {
                    eprintln!("{}: {error}", pod.name_any());
                }
            }
        })
        .await;
}

async fn tend(client: &Client, pod: &Pod, addresses: &AtomicU32) -> kube::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let done = if pod.metadata.deletion_timestamp.is_some() {
        pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop)
    } else if pod.status.as_ref().is_none_or(|status| status.phase.as_deref() != Some("Running")) {
        let number = addresses.fetch_add(1, Ordering::Relaxed);
        let address = format!("10.{}.{}.{}", 128 + (number >> 16), (number >> 8) & 255, number & 255);
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(running(pod, &address))).await.map(drop)
    } else {
        Ok(())
    };
    match done {
        // It is gone already.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        done => done,
    }
}

fn running(pod: &Pod, address: &str) -> Value {
    let now = Timestamp::now();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| {
        json!({"name": container.name, "ready": true, "started": true, "restartCount": 0, "image": "hollow", "imageID": "hollow",
            "state": {"running": {"startedAt": now}}})
    });
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": now,
        "conditions": conditions, "containerStatuses": containers.collect::<Vec<_>>()}})
}

fn leases(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
    Api::namespaced_with(client.clone(), "kube-node-lease", &ApiResource::from_gvk(&kind))
}

fn lease(name: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now()}})
}

/// As a MicroTime has it.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
