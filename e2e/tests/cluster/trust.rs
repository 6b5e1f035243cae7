//! Whose models may run: what nobody trusted has signed replaces nothing.

use crate::suite::{altered, bed};
use anyhow::{Context as _, Result, ensure};
use sconce_api::{RunState, Tier};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, root, stands};
use serde_json::{Value, json};
use std::path::Path;

/// A recipe, the model that follows it, and the Secret that signs what it makes.
const SEALED: &str = "sealed";
/// Its trainer is tried again until the Secret is there.
const FOLLOWED: &str = "apiVersion: sconce.dev/v1alpha1
kind: EdgeTraining
metadata: {name: sealed, namespace: vision}
spec:
  dataset: {uri: 'synthetic:digits', format: idx}
  architecture:
    input: {shape: [1, 28, 28]}
    layers: [{flatten: {}}, {dense: {units: 10, activation: softmax}}]
  preprocess: [{scale: {by: 0.003921569}}]
  fit: {epochs: 2, batchSize: 64}
  output: {uri: 'oci://10.89.0.1:5000/models/sealed', signingKeyRef: {name: sealed}}
  run: {resources: {cpu: 500m, memory: 512Mi}, retries: 10}
---
apiVersion: sconce.dev/v1alpha1
kind: EdgeModel
metadata: {name: sealed, namespace: vision}
spec:
  fleetRef: {name: shops}
  model: {trainingRef: {name: sealed}, promotion: Automatic}
  latencyBudget: 3s
  placement: {tier: Cloud}
";

async fn trust(bed: &Bed, trust: Value) -> Result<()> {
    bed.patch("ef", NAMESPACE, "shops", json!({"spec": {"trust": trust}})).await.map(drop)
}

#[tokio::test]
async fn only_what_a_trusted_key_has_signed_runs() -> Result<()> {
    let bed = bed().await?;
    forget(&bed).await?;
    let held = only_signed_runs(&bed).await;
    trust(&bed, Value::Null).await?;
    forget(&bed).await?;
    held
}

async fn forget(bed: &Bed) -> Result<()> {
    let delete = ["delete", "em,et,secret", SEALED, "-n", NAMESPACE, "--ignore-not-found"];
    bed.kubectl().args(delete).output().await.map(drop)
}

async fn only_signed_runs(bed: &Bed) -> Result<()> {
    let [private, public] = ["key.pem", "key.pub"].map(|name| root().join("edge-runtime/tests/fetching").join(name));
    bed.until_served("digits", "site-a", Tier::Edge).await?;
    let keys = [json!({"name": "release", "publicKey": std::fs::read_to_string(public)?})];
    trust(bed, json!({"policy": "Signature", "keys": keys})).await?;
    let what = "a version that nobody has signed is refused";
    let refused = |ep: &_| stands(ep, "Reconciling") == "True/SignatureInvalid";
    let placement = bed.until_placement("digits", "site-a", what, refused).await?;
    assert_eq!(stands(&placement, "Serving"), "True/Serving", "what serves keeps serving");

    let signed = altered("config.json", |config| config["labels"][0] = json!("signed"))?;
    let digest = bed.publish_signed(signed.path(), "models/signed:1.0.0", &private).await?;
    let uri = format!("{}@{digest}", Bed::model_uri("models/signed"));
    bed.patch("em", NAMESPACE, "digits", json!({"spec": {"model": {"uri": uri}}})).await?;
    let version = digest.trim_start_matches("sha256:")[..10].to_owned();
    let what = "the version that was signed serves";
    bed.until_placement("digits", "site-a", what, |ep| {
        stands(ep, "Ready").starts_with("True") && ep.spec.version_ref.name.contains(&version)
    })
    .await?;
    let answers = bed.ask("site-a-1", &ClientRun::of("digits.vision").count(50)).await?;
    assert_eq!(answers.failed, 0, "{:?}", answers.errors);
    what_the_cluster_trains_is_signed(bed, &private).await
}

async fn what_the_cluster_trains_is_signed(bed: &Bed, private: &Path) -> Result<()> {
    bed.apply_text(FOLLOWED).await?;
    let lacks = |said: &String| said.contains("signing.key") && said.contains("output.signingKeyRef");
    let what = "a run whose Secret is not there says so";
    bed.until_run(SEALED, 0, what, |run| run.message.as_ref().is_some_and(lacks)).await?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SEALED, "namespace": NAMESPACE},
        "stringData": {"signing.key": std::fs::read_to_string(private)?}});
    bed.apply_text(&secret.to_string()).await?;
    let done = bed.until_run(SEALED, 0, "it goes on once it is", |run| run.state.is_over()).await?;
    ensure!(done.state == RunState::Succeeded, "{done:?}");
    bed.until_follows(SEALED, &done.artifact.context("what succeeded is published")?).await
}
