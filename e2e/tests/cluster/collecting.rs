//! Requests of a model become samples in a bucket, each once, with their answers; and the dataset says how many.

use crate::lake::{Lake, Row};
use crate::suite::bed;
use anyhow::{Context as _, Result, ensure};
use kube::api::Api;
use sconce_api::{EdgeDataset, EdgeDatasetStatus, Tier, condition};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, serves_from};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const NAME: &str = "seen";
const LIMIT: Duration = Duration::from_secs(180);

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
    let Some(lake) = Lake::open(bed).await? else { return Ok(()) };
    bed.until_placement("digits", "site-a", "served from its edge", |ep| serves_from(ep, Tier::Edge)).await?;
    let site_a = bed.ask("site-a-1", &ClientRun::of("digits.vision").count(40)).await?;
    let site_b = bed.ask("site-b-1", &ClientRun::of("digits.vision").count(10)).await?;
    ensure!(site_a.failed + site_b.failed == 0, "{site_a:?} {site_b:?}");

    let status = until_told(bed, "samples have arrived", |status| status.samples > 0).await?;
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

fn of(rows: &[Row], name: &str) -> usize {
    rows.iter().filter(|row| row.node(NAME) == Some(name)).count()
}

async fn until_told(bed: &Bed, what: &str, holds: impl Fn(&EdgeDatasetStatus) -> bool) -> Result<EdgeDatasetStatus> {
    let datasets: Api<EdgeDataset> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let is_so = |found: Option<&EdgeDataset>| found.and_then(|dataset| dataset.status.as_ref()).is_some_and(&holds);
    let found = bed.until(&datasets, NAME, what, LIMIT, is_so).await?;
    found.and_then(|dataset| dataset.status).context("it was just there")
}
