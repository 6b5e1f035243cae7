//! Requests of a model become samples in a bucket, each once, with their answers; files of nodes' folders become samples on a claim; and
//! the datasets say how many.

use crate::lake::{Lake, Row};
use crate::suite::{bed, volume};
use anyhow::{Context as _, Result, ensure};
use image::{GrayImage, Luma};
use kube::api::Api;
use sconce_api::{EdgeDataset, EdgeDatasetStatus, Tier, condition};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, serves_from};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NAME: &str = "seen";
const FILED: &str = "filed";
const NODES: [&str; 2] = ["site-a-1", "site-b-1"];
const LIMIT: Duration = Duration::from_secs(180);

const DATASETS: &str = "apiVersion: sconce.dev/v1alpha1
kind: EdgeDataset
metadata: {name: seen, namespace: vision}
spec:
  fleetRef: {name: shops}
  uri: 's3://lake/seen'
  kind: Image
  privacy: {policy: Raw}
  upload: {delay: 1s}
---
apiVersion: sconce.dev/v1alpha1
kind: EdgeDataset
metadata: {name: filed, namespace: vision}
spec:
  fleetRef: {name: shops}
  uri: 'pvc://lake/of/files'
  kind: Image
  sources: [{directory: {name: filed}}]
  privacy: {policy: Raw}
  upload: {delay: 1s}
";

#[tokio::test]
async fn requests_of_a_model_are_collected_and_the_dataset_counts_them() -> Result<()> {
    let bed = bed().await?;
    // At first nobody collects: the model says so before its dataset is there.
    let collect = json!({"spec": {"collect": {"datasetRef": {"name": NAME}, "share": "100%"}}});
    bed.patch("em", NAMESPACE, "digits", collect).await?;
    let pictures = tempfile::tempdir()?;
    put(&bed, pictures.path()).await?;
    bed.apply_text(DATASETS).await?;
    let outcome = tokio::try_join!(from_requests_to_a_bucket(&bed), from_folders_to_a_claim(&bed, pictures.path()));
    bed.patch("em", NAMESPACE, "digits", json!({"spec": {"collect": null}})).await?;
    bed.kubectl().args(["delete", "ed", NAME, FILED, "-n", NAMESPACE]).output().await?;
    outcome.map(drop)
}

async fn from_requests_to_a_bucket(bed: &Bed) -> Result<()> {
    let told = until_told(bed, NAME, "both sites say that they collect", |status| {
        status.nodes == 2 && condition(&status.conditions, "Ready").is_some_and(|ready| ready.status == "True")
    });
    println!("{:?}", told.await?.conditions);
    let Some(lake) = Lake::open(bed).await? else { return Ok(()) };
    bed.until_placement("digits", "site-a", "served from its edge", |ep| serves_from(ep, Tier::Edge)).await?;
    let site_a = bed.ask("site-a-1", &ClientRun::of("digits.vision").count(40)).await?;
    let site_b = bed.ask("site-b-1", &ClientRun::of("digits.vision").count(10)).await?;
    ensure!(site_a.failed + site_b.failed == 0, "{site_a:?} {site_b:?}");

    let status = until_told(bed, NAME, "samples have arrived", |status| status.samples > 0).await?;
    ensure!(status.last_arrival.is_some() && status.dropped == 0, "{status:?}");
    // Whoever else asks the model meanwhile is collected, too.
    let rows = lake.rows_until(NAME, |rows| of(rows, "site-a-1") >= 40 && of(rows, "site-b-1") >= 10).await?;
    let once: BTreeSet<_> = rows.iter().map(|row| (row.node(NAME), &row.id)).collect();
    ensure!(once.len() == rows.len(), "a node sent a sample twice: {rows:?}");
    let has = |name: &str, tier: &str| {
        rows.iter().any(|row| row.node(NAME) == Some(name) && row.tier.as_deref() == Some(tier))
    };
    ensure!(has("site-a-1", "Edge") && has("site-b-1", "Cloud"), "who answered is not told: {rows:?}");
    for row in &rows {
        ensure!((row.media.as_str(), row.model.as_deref()) == ("npy", Some("digits.vision")), "{row:?}");
        ensure!(
            row.why == "Uniform"
                && row.probability == 1.0
                && row.score.is_some_and(|score| (0.1..=1.0).contains(&score)),
            "{row:?}"
        );
    }
    println!("{} samples, {} held: {:?}", status.samples, status.held, status.last_arrival);
    Ok(())
}

/// Another picture in a folder of each node.
async fn put(bed: &Bed, pictures: &Path) -> Result<()> {
    for (shade, node) in (1..).zip(NODES) {
        let picture = picture(pictures, node);
        GrayImage::from_pixel(8, 8, Luma([shade])).save(&picture)?;
        let inbox = format!("/var/lib/sconce/inbox/{NAMESPACE}/{FILED}");
        bed.on(node, &format!("install -D -t {inbox} {}", picture.display())).await?;
    }
    Ok(())
}

fn picture(pictures: &Path, node: &str) -> PathBuf {
    pictures.join(format!("{node}.png"))
}

/// People have them from where the claim is mounted, as they were.
async fn from_folders_to_a_claim(bed: &Bed, pictures: &Path) -> Result<()> {
    let status = until_told(bed, FILED, "a picture of each node has arrived", |status| status.samples >= 2).await?;
    ensure!(status.samples == 2 && status.dropped == 0, "{status:?}");
    let (mounted, export) = (volume(bed).join("of/files"), pictures.join("export"));
    let data = bed.sconce()?.args(["data", "export", FILED, "-n", NAMESPACE, "--at"]).arg(&mounted);
    let told = data.arg("--to").arg(&export).output().await?;
    for node in NODES {
        let picture = std::fs::read(picture(pictures, node))?;
        let file = export.join(format!("files/{}.png", sconce_lake::id(&picture)));
        let exported = std::fs::read(&file).with_context(|| format!("{} of {node}: {told}", file.display()))?;
        ensure!(exported == picture, "{} is another picture than that of {node}", file.display());
    }
    println!("{told}");
    // Whose picture is forgotten, is in no export any more, and in no file of the claim.
    let [forgotten, kept] = NODES.map(|node| std::fs::read(picture(pictures, node)));
    let (forgotten, kept) = (forgotten?, kept?);
    let [gone, stays] = [&forgotten, &kept].map(|picture| sconce_lake::id(picture));
    let data = bed.sconce()?.args(["data", "forget", FILED, "-n", NAMESPACE, "--by", "suite", "--id", &gone, "--at"]);
    let told = data.arg(&mounted).output().await?;
    ensure!(told.contains("1 sample of 1 found; 1 shard and 0 tables of labels changed"), "{told}");
    let export = pictures.join("again");
    let data = bed.sconce()?.args(["data", "export", FILED, "-n", NAMESPACE, "--at"]).arg(&mounted);
    data.arg("--to").arg(&export).output().await?;
    let file = |id: &str| export.join(format!("files/{id}.png"));
    ensure!(!file(&gone).exists() && file(&stays).exists(), "{gone} is there, or {stays} is not");
    let held = [holding(&mounted, &forgotten)?, holding(&mounted, &kept)?];
    ensure!(held[0].is_empty() && held[1].len() == 1, "{gone} and {stays} are in {held:?}");
    println!("{told}");
    Ok(())
}

/// All files below a folder that hold these bytes.
fn holding(folder: &Path, bytes: &[u8]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(holding(&path, bytes)?);
        } else if std::fs::read(&path)?.windows(bytes.len()).any(|part| part == bytes) {
            found.push(path);
        }
    }
    Ok(found)
}

fn of(rows: &[Row], name: &str) -> usize {
    rows.iter().filter(|row| row.node(NAME) == Some(name)).count()
}

async fn until_told(
    bed: &Bed,
    name: &str,
    what: &str,
    holds: impl Fn(&EdgeDatasetStatus) -> bool,
) -> Result<EdgeDatasetStatus> {
    let datasets: Api<EdgeDataset> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let is_so = |found: Option<&EdgeDataset>| found.and_then(|dataset| dataset.status.as_ref()).is_some_and(&holds);
    let found = bed.until(&datasets, name, what, LIMIT, is_so).await?;
    found.and_then(|dataset| dataset.status).context("it was just there")
}
