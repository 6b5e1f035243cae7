//! What a node keeps of models: an update costs its link what is new, and a pod starts again while no registry can be reached.

use crate::suite::{bed, training};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use sconce_api::{EdgeModelVersion, EdgePlacement};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, placement_name, stands};
use sconce_model::artifact::testing::write_update;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const NODE: &str = "site-a-1";
const LIMIT: Duration = Duration::from_secs(180);
/// The registry as pods reach it: refused by the node, as by a link that is cut, while the API server is still reached.
const CUT: &str =
    "nft 'add table ip registry; add chain ip registry forward { type filter hook forward priority -10; };
    add rule ip registry forward ip daddr 10.89.0.1 tcp dport 5000 reject'";
const HEALED: &str = "nft delete table ip registry";

#[tokio::test]
async fn an_update_of_the_head_is_all_that_crosses_the_link_and_pods_start_without_the_registry() -> Result<()> {
    let bed = bed().await?;
    pulled_once(&bed).await?;
    bed.on(NODE, CUT).await?;
    let started = started_again(&bed).await;
    bed.on(NODE, HEALED).await?;
    started
}

async fn pulled_once(bed: &Bed) -> Result<()> {
    let [base, update] = [tempfile::tempdir()?, tempfile::tempdir()?];
    write_update(base.path(), &training().artifact, 1)?;
    write_update(update.path(), base.path(), 2)?;
    serve(bed, base.path(), "models/stored:1.0.0").await?;
    let before = Counted::read(bed).await?;
    serve(bed, update.path(), "models/stored:1.0.1").await?;
    let after = Counted::read(bed).await?;
    let (pulled, served) = (after.upstream - before.upstream, after.served - before.served);
    let heads = bytes(update.path(), "head")?;
    let backbones = bytes(update.path(), "backbone")?;
    println!("{NODE} pulled {pulled} bytes for an update of heads of {heads} bytes, and gave {served} to its pods");
    // Its pods take one variant, and who measures takes all.
    ensure!(pulled <= heads + (64 << 10), "{pulled} of {heads}");
    ensure!(served >= backbones, "the pods have their {backbones} bytes from elsewhere");
    Ok(())
}

/// Publishes it, and waits until it serves at the site, and all its variants are measured on all nodes.
async fn serve(bed: &Bed, artifact: &Path, repository: &str) -> Result<()> {
    let digest = bed.publish(artifact, repository).await?;
    let name = repository.split(':').next().unwrap_or_default();
    let uri = format!("{}@{digest}", Bed::model_uri(name));
    bed.patch("em", NAMESPACE, "digits", json!({"spec": {"model": {"uri": uri}}})).await?;
    let version = digest.trim_start_matches("sha256:")[..10].to_owned();
    let is_served =
        |ep: &EdgePlacement| stands(ep, "Ready").starts_with("True") && ep.spec.version_ref.name.contains(&version);
    let placement = bed.until_placement("digits", "site-a", "the version serves", is_served).await?;
    let versions: Api<EdgeModelVersion> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let is_measured = |found: Option<&EdgeModelVersion>| {
        let status = found.and_then(|version| version.status.as_ref());
        let on_all = status.into_iter().flat_map(|status| &status.profiles).filter(|profile| profile.nodes == 3);
        let measured: BTreeSet<_> = on_all.map(|profile| profile.variant.as_str()).collect();
        status.is_some_and(|status| !status.variants.is_empty() && measured.len() == status.variants.len())
    };
    let what = "all variants are measured on all nodes";
    bed.until(&versions, &placement.spec.version_ref.name, what, LIMIT, is_measured).await.map(drop)
}

async fn started_again(bed: &Bed) -> Result<()> {
    let before = Counted::read(bed).await?;
    let pods =
        ["delete", "pod", "-n", NAMESPACE, "--wait=true", "-l", "sconce.dev/model=digits,sconce.dev/site=site-a"];
    bed.kubectl().args(pods).output().await?;
    let deployment = format!("deploy/{}", placement_name("digits", "site-a"));
    let status = ["rollout", "status", &deployment, "-n", NAMESPACE, "--timeout=120s"];
    bed.kubectl().args(status).output().await?;
    let after = Counted::read(bed).await?;
    ensure!(after.served > before.served, "the pod had its model from elsewhere");
    ensure!(after.upstream == before.upstream, "the registry cannot be reached");
    let answers = bed.ask(NODE, &ClientRun::of("digits.vision").count(50)).await?;
    ensure!(answers.failed == 0, "{:?}", answers.errors);
    Ok(())
}

/// Of all variants.
fn bytes(artifact: &Path, part: &str) -> Result<u64> {
    let sizes = ["f32", "f16", "int8"].map(|variant| {
        let file = artifact.join(format!("weights/{variant}/{part}.safetensors"));
        Ok::<_, anyhow::Error>(std::fs::metadata(file)?.len())
    });
    sizes.into_iter().sum()
}

/// Bytes that the node's store has had from registries, and given to pods.
struct Counted {
    upstream: u64,
    served: u64,
}

impl Counted {
    async fn read(bed: &Bed) -> Result<Self> {
        let pods: Api<Pod> = Api::namespaced(bed.client.clone(), "sconce-node");
        let of_node = ListParams::default().labels("app.kubernetes.io/name=sconce-store");
        let pod = pods.list(&of_node.fields(&format!("spec.nodeName={NODE}"))).await?.items.pop();
        let address = pod.and_then(|pod| pod.status?.pod_ip).context("the node has no store")?;
        let ask = format!("exec 3<>/dev/tcp/{address}/8083; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
        let text = bed.on(NODE, &ask).await?;
        let counted = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            value.with_context(|| format!("no {name} in {text}"))
        };
        Ok(Self {
            upstream: counted("sconce_store_upstream_bytes_total")?,
            served: counted("sconce_store_served_bytes_total")?,
        })
    }
}
