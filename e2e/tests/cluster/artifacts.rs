//! Bad artifacts: a condition says what, why and what to do; what already serves keeps serving.

use crate::suite::{bed, training};
use anyhow::{Context as _, Result, bail};
use kube::api::Api;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::{Reference, secrets::RegistryAuth};
use sconce_api::{EdgeModel, EdgePlacement, Tier};
use sconce_e2e::{Bed, ClientRun, NAMESPACE, Spec, stands};
use sconce_model::artifact::testing::write_update;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

async fn point_to(bed: &Bed, uri: &str) -> Result<()> {
    bed.patch("em", NAMESPACE, "digits", json!({"spec": {"model": {"uri": uri}}})).await.map(drop)
}

async fn until_resolved(bed: &Bed, reason: &'static str, part: &'static str) -> Result<()> {
    let models: Api<EdgeModel> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let holds = move |found: Option<&EdgeModel>| {
        let conditions = found
            .and_then(|model| model.status.as_ref())
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        sconce_e2e::condition(conditions, "Resolved")
            .is_some_and(|resolved| resolved.reason == reason && resolved.message.contains(part))
    };
    bed.until(&models, "digits", &format!("Resolved with {reason} and `{part}`"), LIMIT, holds).await?;
    let answers = bed.ask("site-a-1", &ClientRun::of("digits.vision").count(50)).await?;
    assert_eq!(answers.failed, 0, "what serves keeps serving: {:?}", answers.errors);
    Ok(())
}

#[tokio::test]
async fn missing_artifact_is_named() -> Result<()> {
    let bed = bed().await?;
    point_to(&bed, &Bed::model_uri("models/digits:9.9.9")).await?;
    until_resolved(&bed, "ArtifactMissing", "9.9.9").await
}

#[tokio::test]
async fn bytes_that_differ_from_their_digest_are_refused_by_the_node() -> Result<()> {
    let bed = bed().await?;
    bed.until_served("digits", "site-a", Tier::Edge).await?;
    let spoils: [(_, Spoil, _, _); 2] =
        [("tampered", flipped, "DigestMismatch", 11), ("cut-off", half, "FetchFailed", 12)];
    for (what, spoil, expected, seed) in spoils {
        // With a head of its own: what a node's store has of a model is right, whatever its registry says later.
        let other = tempfile::tempdir()?;
        write_update(other.path(), &training().artifact, seed)?;
        let digest = bed.publish(other.path(), &format!("models/{what}:1.0.0")).await?;
        // Whichever variant it will be; two may have the same.
        let heads =
            ["f32", "f16", "int8"].map(|variant| other.path().join(format!("weights/{variant}/head.safetensors")));
        let heads = heads.map(std::fs::read).into_iter().collect::<std::io::Result<BTreeSet<_>>>()?;
        let _spoilt = heads.iter().map(|good| Spoilt::new(good, spoil(good))).collect::<Result<Vec<_>>>()?;
        point_to(&bed, &format!("{}@{digest}", Bed::model_uri(&format!("models/{what}")))).await?;
        let wanted = format!("True/{expected}");
        let refused = bed
            .until_placement("digits", "site-a", &format!("bytes that are {what} are refused"), |ep| {
                stands(ep, "Reconciling") == wanted
            })
            .await?;
        println!("{what}: {}", condition_text(&refused, "Reconciling"));
        assert_eq!(stands(&refused, "Serving"), "True/Serving");
        let answers = bed.ask("site-a-1", &ClientRun::of("digits.vision").count(50)).await?;
        assert_eq!(answers.failed, 0, "what serves keeps serving: {:?}", answers.errors);
    }
    Ok(())
}

/// The registry's bytes are wrong while this lives.
struct Spoilt<'a> {
    stored: PathBuf,
    good: &'a [u8],
}

impl<'a> Spoilt<'a> {
    fn new(good: &'a [u8], bad: Vec<u8>) -> Result<Self> {
        let stored = stored_blob(good)?;
        std::fs::write(&stored, bad)?;
        Ok(Self { stored, good })
    }
}

impl Drop for Spoilt<'_> {
    fn drop(&mut self) {
        std::fs::write(&self.stored, self.good).expect("the registry's folder is ours");
    }
}

fn condition_text(placement: &EdgePlacement, kind: &str) -> String {
    let conditions = placement.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    sconce_e2e::condition(conditions, kind).map(|found| found.message.clone()).unwrap_or_default()
}

type Spoil = fn(&[u8]) -> Vec<u8>;

fn half(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len() / 2].to_vec()
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

/// Where the registry keeps these bytes: it has no door for wrong ones.
fn stored_blob(bytes: &[u8]) -> Result<PathBuf> {
    let mut folders = vec![Spec::TEST.folder().join("cp/registry")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.metadata()?.len() == bytes.len() as u64 && std::fs::read(entry.path())? == bytes {
                return Ok(entry.path());
            }
        }
    }
    bail!("the registry does not hold the weights")
}

#[tokio::test]
async fn unknown_architecture_is_refused_with_the_layer_that_is_unknown() -> Result<()> {
    let bed = bed().await?;
    push_strange(&bed).await?;
    point_to(&bed, &Bed::model_uri("models/digits:strange")).await?;
    until_resolved(&bed, "UnknownArchitecture", "attention").await
}

/// Pushes the digits model with a layer that nobody knows; the trainer would refuse to.
async fn push_strange(bed: &Bed) -> Result<()> {
    let plain = ClientConfig { protocol: ClientProtocol::Http, use_monolithic_push: true, ..ClientConfig::default() };
    let client = Client::try_from(plain)?;
    let tag = |tag: &str| Reference::with_tag(bed.registry_outside(), "models/digits".into(), tag.into());
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let (bytes, _) = client.pull_manifest_raw(&tag("1.0.0"), &RegistryAuth::Anonymous, &[manifest_type]).await?;
    let mut manifest: Value = serde_json::from_slice(&bytes)?;
    let layers = manifest["layers"].as_array_mut().context("a manifest has layers")?;
    let config = layers.iter_mut().find(|layer| layer["annotations"]["org.cncf.model.filepath"] == "config.json");
    let config = config.context("the manifest names config.json")?;
    let mut strange: Value = serde_json::from_slice(&std::fs::read(training().artifact.join("config.json"))?)?;
    strange["architecture"]["layers"][0] = json!({"attention": {"heads": 4}});
    let strange = serde_json::to_vec(&strange)?;
    let hex: String = Sha256::digest(&strange).iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = format!("sha256:{hex}");
    config["digest"] = json!(digest);
    config["size"] = json!(strange.len());
    client.push_blob(&tag("strange"), strange, &digest).await?;
    client.push_manifest_raw(&tag("strange"), serde_json::to_vec(&manifest)?, manifest_type.parse()?).await?;
    Ok(())
}
