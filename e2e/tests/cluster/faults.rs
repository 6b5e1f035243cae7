//! What serves keeps serving: a node lost, a link cut, bad wishes.

use crate::suite::bed;
use anyhow::{Context as _, Result, ensure};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, LogParams};
use sconce_api::{EdgeModel, EdgeSite, Tier};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, placement_name, stands};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(150);

async fn until_connected(bed: &Bed, site: &str, wanted: &'static str) -> Result<()> {
    let sites: Api<EdgeSite> = Api::all(bed.client.clone());
    let holds = move |found: Option<&EdgeSite>| {
        let conditions =
            found.and_then(|site| site.status.as_ref()).map(|status| status.conditions.as_slice()).unwrap_or_default();
        sconce_e2e::condition(conditions, "Connected").is_some_and(|connected| connected.status == wanted)
    };
    bed.until(&sites, site, &format!("Connected={wanted}"), LIMIT, holds).await.map(drop)
}

/// UID of the edge Deployment: the same before and after = never deleted, never made anew.
async fn deployment_uid(bed: &Bed, site: &str) -> Result<String> {
    let deployments: Api<Deployment> = Api::namespaced(bed.client.clone(), NAMESPACE);
    deployments.get(&placement_name("digits", site)).await?.uid().context("a stored object has a UID")
}

/// When a client next sums up: what it tells after that says nothing of what was before.
async fn next_summary(bed: &Bed, pod: &str) -> Result<Timestamp> {
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let now = Timestamp::now();
    // Since this second: the API counts no parts of one, so each line's own time decides.
    let follow = LogParams { follow: true, timestamps: true, since_time: Some(now), ..LogParams::default() };
    let mut lines = pods.log_stream(pod, &follow).await?.lines();
    let waiting = async {
        while let Some(line) = lines.try_next().await? {
            if let Some((told, _)) = summary(&line).filter(|(told, _)| *told > now) {
                return Ok(told);
            }
        }
        anyhow::bail!("the client's log ended")
    };
    tokio::time::timeout(LIMIT, waiting).await.context("the client says nothing")?
}

/// A client's summary and when it was told, of a line that begins with its time.
fn summary(line: &str) -> Option<(Timestamp, &str)> {
    let (told, line) = line.split_once(' ').filter(|(_, line)| line.contains("failed"))?;
    Some((told.parse().ok()?, line))
}

#[tokio::test]
async fn lost_node_keeps_its_decision_and_serves_again_when_it_is_back() -> Result<()> {
    let bed = bed().await?;
    let before = deployment_uid(&bed, "site-a").await?;
    bed.node("stop", "site-a-1").await?;
    let lost = without_site_a(&bed, &before).await;
    bed.node("start", "site-a-1").await?;
    lost?;
    until_connected(&bed, "site-a", "True").await?;
    bed.until_served("digits", "site-a", Tier::Edge).await?;
    assert_eq!(deployment_uid(&bed, "site-a").await?, before);
    Ok(())
}

async fn without_site_a(bed: &Bed, before: &str) -> Result<()> {
    until_connected(bed, "site-a", "False").await?;
    let kept = bed
        .until_placement("digits", "site-a", "Serving=Unknown", |ep| stands(ep, "Serving").starts_with("Unknown"))
        .await?;
    ensure!(sconce_e2e::tier(&kept) == Some(Tier::Edge), "an unreachable site is not an empty one");
    ensure!(deployment_uid(bed, "site-a").await? == before, "the Deployment of an unreachable site was made anew");
    // The other site does not notice.
    let answers = bed.ask("site-b-1", &ClientRun::of("digits.vision").count(100)).await?;
    ensure!(answers.failed == 0, "site-b: {:?}", answers.errors);
    Ok(())
}

#[tokio::test]
async fn cut_link_leaves_connected_clients_served_and_moves_nothing() -> Result<()> {
    let bed = bed().await?;
    let before = deployment_uid(&bed, "site-a").await?;
    let pod = bed.client_pod("site-a-1").await?;
    let before_cut = next_summary(&bed, &pod).await?;
    bed.link("site-a-1", &["--down"]).await?;
    let cut = until_connected(&bed, "site-a", "False").await;
    // The site's client has been streaming to its router all the while; its log is read once the link is back.
    bed.link("site-a-1", &[]).await?;
    cut?;
    until_connected(&bed, "site-a", "True").await?;
    bed.until_served("digits", "site-a", Tier::Edge).await?;
    let since = format!("--since-time={before_cut}");
    let log = bed.kubectl().args(["logs", "-n", NAMESPACE, &pod, "--timestamps", &since]).output().await?;
    let after = log.lines().filter_map(summary).filter(|(told, _)| *told > before_cut);
    let summaries: Vec<&str> = after.map(|(_, line)| line).collect();
    assert!(!summaries.is_empty(), "the client's log has no summaries: {log}");
    assert!(summaries.iter().all(|line| line.contains("failed 0") || line.contains("failed=0")), "{summaries:#?}");
    assert_eq!(deployment_uid(&bed, "site-a").await?, before, "nothing was deleted");
    Ok(())
}

#[tokio::test]
async fn unknown_fleet_is_a_condition_that_says_what_to_do() -> Result<()> {
    let bed = bed().await?;
    let yaml = r#"{"apiVersion":"sconce.dev/v1alpha1","kind":"EdgeModel","metadata":{"name":"astray","namespace":"vision"},
        "spec":{"fleetRef":{"name":"shop"},"model":{"uri":"oci://10.89.0.1:5000/models/digits:1.0.0"},"latencyBudget":"25ms"}}"#;
    bed.apply_text(yaml).await?;
    let models: Api<EdgeModel> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let stalled = |found: Option<&EdgeModel>| {
        let conditions = found
            .and_then(|model| model.status.as_ref())
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        sconce_e2e::condition(conditions, "Stalled").is_some_and(|stalled| {
            stalled.reason == "FleetNotFound" && stalled.message.contains("shop") && stalled.message.contains("shops")
        })
    };
    bed.until(&models, "astray", "Stalled=True/FleetNotFound, naming the fleets there are", LIMIT, stalled).await?;
    bed.kubectl().args(["delete", "em", "astray", "-n", NAMESPACE]).output().await?;
    Ok(())
}
