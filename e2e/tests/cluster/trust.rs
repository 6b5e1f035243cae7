//! Whose models may run: what nobody trusted has signed replaces nothing.

use crate::suite::{altered, bed};
use anyhow::Result;
use sconce_api::Tier;
use sconce_e2e::{Bed, ClientRun, NAMESPACE, root, stands};
use serde_json::{Value, json};

async fn trust(bed: &Bed, trust: Value) -> Result<()> {
    bed.patch("ef", NAMESPACE, "shops", json!({"spec": {"trust": trust}})).await.map(drop)
}

#[tokio::test]
async fn only_what_a_trusted_key_has_signed_runs() -> Result<()> {
    let bed = bed().await?;
    let held = only_signed_runs(&bed).await;
    trust(&bed, Value::Null).await?;
    held
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
    Ok(())
}
