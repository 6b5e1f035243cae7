//! The decision follows the wish, and clients do not notice.

use crate::suite::{BUDGET, altered, bed, examples};
use anyhow::Result;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use sconce_api::{Basis, EdgeModelVersion, EdgePlacement, Rejection, Tier};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, placement_name, serves_from, stands};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const MODEL: &str = "digits.vision";

async fn wish(bed: &Bed, spec: serde_json::Value) -> Result<()> {
    bed.patch("em", NAMESPACE, "digits", json!({ "spec": spec })).await.map(drop)
}

#[tokio::test]
async fn budget_decides_the_tier_and_every_number_names_its_basis() -> Result<()> {
    let bed = bed().await?;
    // Until 500 probes are done the fleet's assumption stands, with which the cloud would be too far only with its margin; until
    // the node has measured the variants, an estimate of their service times.
    bed.until_placement("digits", "site-a", "all measured, and the cloud rejected by its link", |ep| {
        let rejected = ep.status.as_ref().map(|status| status.rejected.as_slice()).unwrap_or_default();
        basis(ep) == Some(Basis::Measured)
            && rejected.iter().any(|one| one.candidate.starts_with("cloud") && one.reason == "LinkTooSlow")
    })
    .await?;
    // In the cloud by the median of three nodes of a class.
    let measured = |ep: &EdgePlacement| basis(ep) == Some(Basis::Measured);
    let b = bed.until_placement("digits", "site-b", "all measured, the uplink too", measured).await?;
    let version = b.spec.version_ref.name;
    let versions: Api<EdgeModelVersion> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let facts = versions.get(&version).await?.status.expect("a placed version was read");
    assert!(facts.profiles.iter().all(|profile| profile.nodes == 3), "{:?}", facts.profiles);
    let names = |profiles: Vec<&str>| profiles.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let of_class = names(facts.profiles.iter().map(|profile| profile.variant.as_str()).collect());
    assert_eq!(of_class, names(facts.variants.iter().map(|variant| variant.name.as_str()).collect()));
    println!("{:?}", facts.profiles);
    let explain = bed.sconce()?.args(["explain", "digits", "-n", NAMESPACE, "--site", "site-a"]).output().await?;
    assert!(explain.contains("compute") && !explain.contains("estimated"), "{explain}");

    for node in ["site-a-1", "site-b-1"] {
        let answers = bed.ask(node, &ClientRun::of(MODEL).count(500)).await?;
        assert_eq!((answers.sent, answers.failed), (500, 0), "{:?}", answers.errors);
        assert!(answers.accuracy >= 0.95, "{} at {node}", answers.accuracy);
    }
    Ok(())
}

/// Of the least trusted part.
fn basis(placement: &EdgePlacement) -> Option<Basis> {
    Some(placement.status.as_ref()?.predicted.as_ref()?.basis)
}

#[tokio::test]
async fn moving_between_tiers_under_load_fails_no_request() -> Result<()> {
    let bed = bed().await?;
    for (budget, tier) in [("3s", Tier::Cloud), (BUDGET, Tier::Edge)] {
        let run = ClientRun::of(MODEL).rate(50).duration("30s");
        let moving = async {
            wish(&bed, json!({"latencyBudget": budget})).await?;
            bed.until_served("digits", "site-a", tier).await
        };
        let (answers, moved) = tokio::join!(bed.ask("site-a-1", &run), moving);
        moved?;
        let answers = answers?;
        println!(
            "to {tier}: {} requests, {} failed, p50 {} ms, p99 {} ms",
            answers.sent, answers.failed, answers.p50_ms, answers.p99_ms
        );
        assert!(answers.sent >= 1000, "only {} requests in 30 s", answers.sent);
        assert_eq!(answers.failed, 0, "{:?}", answers.errors);
    }
    Ok(())
}

/// By the router's histogram alone: the agent tells it within two minutes, the operator compares it with the budget.
#[tokio::test]
async fn what_clients_wait_is_told_and_held_against_the_budget() -> Result<()> {
    let bed = bed().await?;
    bed.until_served("digits", "site-a", Tier::Edge).await?;
    // So many that what failed in the scenarios before, within the same five minutes, is less than one in a hundred.
    let run = ClientRun::of(MODEL).rate(100).duration("30s");
    let answers = bed.ask("site-a-1", &run).await?;
    assert_eq!(answers.failed, 0, "{:?}", answers.errors);
    let observed = |ep: &EdgePlacement| ep.status.as_ref().and_then(|status| status.observed.clone());
    let told = bed
        .until_placement("digits", "site-a", "what clients waited is told", |ep| {
            stands(ep, "WithinBudget") == "True/Within" && observed(ep).is_some_and(|waited| waited.count >= 1500)
        })
        .await?;
    let waited = observed(&told).and_then(|waited| waited.p99).and_then(|p99| p99.parse()).expect("a p99");
    println!("observed p99 {waited:?}, the client's own {} ms", answers.p99_ms);
    // Sent to the cloud whatever that takes, clients wait for the link.
    wish(&bed, json!({"placement": {"tier": "Cloud"}})).await?;
    bed.until_served("digits", "site-a", Tier::Cloud).await?;
    bed.ask("site-a-1", &run).await?;
    let over = |ep: &EdgePlacement| stands(ep, "WithinBudget") == "False/OverBudget";
    let told = bed.until_placement("digits", "site-a", "the budget is not kept", over).await?;
    println!("{:?}", observed(&told));
    let top = bed.sconce()?.args(["top", "--site", "site-a", "-o", "json"]).output().await?;
    let top: serde_json::Value = serde_json::from_str(&top)?;
    assert_eq!((&top[0]["tier"], &top[0]["withinBudget"]), (&json!("Cloud"), &json!(false)), "{top}");
    Ok(())
}

#[tokio::test]
async fn what_is_simulated_is_what_then_happens_and_is_explained() -> Result<()> {
    let bed = bed().await?;
    let wider = std::fs::read_to_string(examples("model.yaml"))?.replace("latencyBudget: 25ms", "latencyBudget: 3s");
    let simulated = bed.sconce()?.args(["simulate", "-f", "-", "-o", "json"]).input(&*wider).output().await?;
    let simulated: serde_json::Value = serde_json::from_str(&simulated)?;
    let moves = simulated["moves"].as_array().cloned().unwrap_or_default();
    assert_eq!(moves.len(), 1, "site-b stays in the cloud: {simulated}");
    assert_eq!((&moves[0]["site"], &moves[0]["model"]), (&json!("site-a"), &json!("vision/digits")), "{simulated}");
    assert!(moves[0]["now"]["home"].as_str().is_some_and(|home| home.starts_with("edge/")), "{simulated}");

    bed.apply_text(&wider).await?;
    let a = bed.until_served("digits", "site-a", Tier::Cloud).await?;
    let variant = a.status.and_then(|status| status.decision).map(|decision| decision.variant).unwrap_or_default();
    assert_eq!(moves[0]["then"]["home"], json!(format!("cloud/{variant}")));

    // Asked of the cluster, and of a snapshot of it.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("snapshot.json");
    bed.sconce()?.args(["snapshot", "save"]).arg(&file).output().await?;
    let snapshot = format!("--snapshot={}", file.display());
    for source in [None, Some(snapshot)] {
        let explain = bed.sconce()?.args(["explain", "digits", "-n", NAMESPACE, "--site", "site-a"]);
        let said = explain.args(source).output().await?;
        println!("{said}");
        assert!(said.contains(&format!("✓ cloud/{variant}   ChosenInCloud")) && said.contains("of 3 s"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn accuracy_floor_decides_the_variant() -> Result<()> {
    let bed = bed().await?;
    // The suite's variants are equally good, and f32 the dearest: here they differ.
    let graded = altered("evaluation.json", |evaluation| {
        for (variant, accuracy) in [("f16", 0.90), ("int8", 0.94)] {
            evaluation["variants"][variant]["value"] = json!(accuracy);
        }
    })?;
    let digest = bed.publish(graded.path(), "models/graded:1.0.0").await?;
    let model = json!({"uri": format!("{}@{digest}", Bed::model_uri("models/graded"))});
    for (floor, variant, too_bad) in [("92%", "int8", 1), ("96%", "f32", 2)] {
        wish(&bed, json!({"model": model, "accuracyFloor": floor})).await?;
        let served = format!("{variant} serves");
        bed.until_placement("digits", "site-a", &served, |ep| {
            let status = ep.status.clone().unwrap_or_default();
            let below = |one: &&Rejection| one.candidate.contains("site-a-1") && one.reason == "BelowAccuracyFloor";
            serves_from(ep, Tier::Edge)
                && stands(ep, "Reconciling").is_empty()
                && status.decision.is_some_and(|decision| decision.variant == variant)
                && status.rejected.iter().filter(below).count() == too_bad
        })
        .await?;
        let answers = bed.ask("site-a-1", &ClientRun::of(MODEL).count(200)).await?;
        assert_eq!(answers.failed, 0, "{:?}", answers.errors);
        assert!(answers.accuracy >= 0.95, "{} with {variant}", answers.accuracy);
    }
    Ok(())
}

#[tokio::test]
async fn hardware_label_leaves_a_site_without_place_and_says_why() -> Result<()> {
    let bed = bed().await?;
    let label = |node: &'static str, value: &'static str| {
        bed.kubectl().args(["label", "node", node, value, "--overwrite"]).output()
    };
    label("site-b-1", "sconce.dev/camera=v2").await?;
    wish(&bed, json!({"hardware": {"require": [{"key": "sconce.dev/camera", "operator": "In", "values": ["v2"]}]}}))
        .await?;
    let a = bed
        .until_placement("digits", "site-a", "without place", |ep| stands(ep, "Placed") == "False/NoCandidate")
        .await?;
    let conditions = a.status.map(|status| status.conditions).unwrap_or_default();
    let message = sconce_e2e::condition(&conditions, "Placed").map(|placed| placed.message.clone()).unwrap_or_default();
    assert!(message.contains("HardwareMismatch") && message.contains("sconce.dev/camera"), "{message}");
    bed.until_served("digits", "site-b", Tier::Edge).await?;

    label("cloud-1", "sconce.dev/camera=v2").await?;
    bed.until_placement("digits", "site-a", "in the cloud, which has the label", |ep| serves_from(ep, Tier::Cloud))
        .await?;
    for node in ["site-b-1", "cloud-1"] {
        label(node, "sconce.dev/camera-").await?;
    }
    Ok(())
}

#[tokio::test]
async fn load_makes_the_edge_cheaper_where_bytes_are_dear() -> Result<()> {
    let bed = bed().await?;
    wish(&bed, json!({"load": {"requestsPerSecond": 50}})).await?;
    bed.until_served("digits", "site-b", Tier::Edge).await?;
    Ok(())
}

#[tokio::test]
async fn site_that_is_selected_no_longer_loses_its_placement() -> Result<()> {
    let bed = bed().await?;
    let label = |value: &'static str| bed.kubectl().args(["label", "es", "site-a", value, "--overwrite"]).output();
    label("opened=yes").await?;
    wish(&bed, json!({"sites": {"matchLabels": {"opened": "yes"}}})).await?;
    let name = placement_name("digits", "site-b");
    let gone = |found: Option<&EdgePlacement>| found.is_none();
    bed.until(&bed.placements(), &name, "gone", Duration::from_secs(60), gone).await?;
    bed.until_served("digits", "site-a", Tier::Edge).await?;
    label("opened-").await?;
    wish(&bed, json!({"sites": null})).await?;
    bed.until_served("digits", "site-b", Tier::Cloud).await?;
    Ok(())
}

#[tokio::test]
async fn model_that_may_not_run_in_the_cloud_leaves_no_pool_there() -> Result<()> {
    let bed = bed().await?;
    let services: Api<Service> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=sconce");
    let pools: Vec<String> = services.list(&ours).await?.iter().map(ResourceExt::name_any).collect();
    assert!(!pools.is_empty(), "site-b is served by a pool");
    wish(&bed, json!({"placement": {"tier": "Edge"}})).await?;
    bed.until_served("digits", "site-b", Tier::Edge).await?;
    let limit = Duration::from_secs(60);
    for pool in &pools {
        bed.until(&services, pool, "gone", limit, |found: Option<&Service>| found.is_none()).await?;
        bed.until(&budgets, pool, "gone", limit, |found: Option<&PodDisruptionBudget>| found.is_none()).await?;
    }
    Ok(())
}
