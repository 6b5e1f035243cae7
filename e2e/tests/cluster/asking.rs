//! What `sconce` tells of a running cluster: that all is as decided, that nothing is missing.

use crate::suite::bed;
use anyhow::{Result, ensure};
use sconce_e2e::{Bed, NAMESPACE};
use serde_json::{Value, json};

async fn asked(bed: &Bed, args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&bed.sconce()?.args(args).args(["-o", "json"]).output().await?)?)
}

#[tokio::test]
async fn a_wait_ends_once_all_is_as_decided() -> Result<()> {
    let bed = bed().await?;
    let hardware =
        async |hardware: Value| bed.patch("em", NAMESPACE, "digits", json!({"spec": {"hardware": hardware}})).await;
    let wait = ["status", "--wait", "--model", "digits", "-n", NAMESPACE];
    hardware(json!({"require": [{"key": "sconce.dev/none", "operator": "Exists"}]})).await?;
    let (succeeded, _, told) = bed.sconce()?.args(wait).args(["--timeout", "5s"]).try_output().await?;
    ensure!(!succeeded && told.contains("after 5s still not as decided: vision/digits"), "{told}");

    hardware(Value::Null).await?;
    let fleets = asked(&bed, &wait).await?;
    let sites = fleets[0]["sites"].as_array().cloned().unwrap_or_default();
    ensure!(sites.len() == 2 && sites.iter().all(|site| site["models"][0]["ready"] == true), "{fleets}");
    Ok(())
}

#[tokio::test]
async fn a_check_passes_and_says_what_is_missing() -> Result<()> {
    let bed = bed().await?;
    let artifact = format!("oci://{}/models/digits:1.0.0", bed.registry_outside());
    let plain = bed.registry_outside();
    println!(
        "{}",
        bed.sconce()?.args(["check", "--pre", "--artifact", &artifact, "--insecure-registry", &plain]).output().await?
    );
    println!("{}", bed.sconce()?.arg("check").output().await?);

    let operator = ["-n", "sconce-system", "deploy/sconce-operator"];
    let scale = async |replicas: &str| bed.kubectl().arg("scale").args(operator).arg(replicas).output().await;
    scale("--replicas=0").await?;
    let gone = ["wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=sconce-operator", "--timeout=60s"];
    let gone = bed.kubectl().args(gone).args(["-n", "sconce-system"]).output().await;
    let checked = bed.sconce()?.arg("check").try_output().await;
    // Whatever came of it: the others need one.
    scale("--replicas=1").await?;
    gone?;
    let (succeeded, told, _) = checked?;
    bed.kubectl().args(["rollout", "status", "--timeout=60s"]).args(operator).output().await?;
    ensure!(!succeeded && told.contains("✗ none of its replicas is Ready"), "{told}");
    ensure!(told.contains("✗ no replica leads") && told.contains("next: kubectl logs"), "{told}");
    Ok(())
}
