//! Publishes an artifact as a CNCF ModelPack: blobs first, the manifest last, so that nothing is ever half published.

mod may;

pub use may::may_publish;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::{Reference, RegistryOperation};
use sconce_model::artifact::signature::{PrivateKey, SIGNATURE, SignatureError, is_of, sign};
use sconce_model::artifact::{Artifact, ArtifactError, File, files};
use sconce_model::digest::sha256;
use sconce_registry::{Keyring, Registry, RegistryError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

const ARTIFACT_TYPE: &str = "application/vnd.cncf.model.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.cncf.model.config.v1+json";
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const PATH: &str = "org.cncf.model.filepath";

#[derive(Debug, Error)]
pub enum PublishError {
    #[error("\"{uri}\": need oci://HOST/REPOSITORY:TAG ({why})")]
    Uri { uri: String, why: String },
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("{}: {why}; sign it again with --signing-key, or delete it", path.display())]
    Signature { path: PathBuf, why: SignatureError },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot wait for a registry")]
    Wait(#[source] std::io::Error),
    #[error("{registry} takes no model in {repository} from somebody {who}: {to_do}")]
    Closed { registry: String, repository: String, who: String, to_do: &'static str },
    #[error("cannot log in at {registry}: {source}")]
    Login { registry: String, source: Box<RegistryError> },
    #[error(
        "cannot {what} at {registry}; does it run, and may you write there? Without TLS it needs --insecure-registry {registry}"
    )]
    Registry { what: String, registry: String, source: Box<oci_client::errors::OciDistributionError> },
}

/// A ModelPack, ready to be pushed: the same folder makes the same bytes.
pub struct Pack {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub files: Vec<File>,
}

impl Pack {
    /// # Errors
    /// [`PublishError`] if the folder holds no artifact of ours, or a signature of another.
    pub fn new(folder: &Path) -> Result<Self, PublishError> {
        let artifact = Artifact::open(folder)?;
        let files = files(folder)?;
        if let Some(signature) = files.iter().find(|file| file.path == SIGNATURE) {
            let invalid = |why| PublishError::Signature { path: folder.join(SIGNATURE), why };
            is_of(&signature.bytes, &digests(&files)).map_err(invalid)?;
        }
        let config = json!({
            "descriptor": {"name": artifact.config().task},
            "config": {"architecture": "sconce", "format": "safetensors", "paramSize": artifact.graph().parameter_count().to_string(), "precision": "float32"},
            "modelfs": {"type": "layers", "diffIds": files.iter().map(|file| file.digest.as_str()).collect::<Vec<_>>()},
        });
        let config = bytes(&config);
        let descriptor = |media_type: &str, digest: &str, size: usize| json!({"mediaType": media_type, "digest": digest, "size": size});
        let layers: Vec<Value> = files
            .iter()
            .map(|file| {
                let mut layer = descriptor(file.media_type, &file.digest, file.bytes.len());
                layer["annotations"] = json!({PATH: file.path});
                layer
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": descriptor(CONFIG_TYPE, &sha256(&config), config.len()),
            "layers": layers,
        });
        Ok(Self { manifest: bytes(&manifest), config, files })
    }

    /// The version's identity.
    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }
}

/// Signs an artifact: writes its `model.sig`. The same key makes the same signature.
///
/// # Errors
/// [`PublishError`] if it is no artifact of ours, or cannot be written.
pub fn signed(folder: &Path, reference: &Reference, key: &PrivateKey) -> Result<(), PublishError> {
    let name = reference.repository().rsplit('/').next().unwrap_or_default();
    let path = folder.join(SIGNATURE);
    let signature = sign(name, &digests(&files(folder)?), key);
    std::fs::write(&path, signature).map_err(|source| PublishError::Write { path, source })
}

fn digests(files: &[File]) -> BTreeMap<String, String> {
    files.iter().map(|file| (file.path.clone(), file.digest.clone())).collect()
}

/// JSON with sorted keys.
fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Where to publish: `oci://HOST/REPOSITORY:TAG`.
///
/// # Errors
/// [`PublishError::Uri`] says what it needs.
pub fn reference(uri: &str) -> Result<Reference, PublishError> {
    let bad = |why: String| PublishError::Uri { uri: uri.into(), why };
    let address = uri.strip_prefix("oci://").ok_or_else(|| bad("another scheme".into()))?;
    let reference: Reference = address.parse().map_err(|error: oci_client::ParseError| bad(error.to_string()))?;
    if reference.digest().is_some() { Err(bad("a digest is found, not chosen".into())) } else { Ok(reference) }
}

/// Where an artifact goes, and who answers for it.
pub struct Publishing<'a> {
    pub target: &'a Reference,
    /// Registries without TLS.
    pub insecure: &'a [String],
    pub key: Option<&'a PrivateKey>,
}

impl Publishing<'_> {
    /// Signs the artifact, where there is a key.
    ///
    /// # Errors
    /// As [`signed`].
    pub fn sign(&self, folder: &Path) -> Result<(), PublishError> {
        self.key.map_or(Ok(()), |key| signed(folder, self.target, key))
    }

    /// Pushes it, waiting for that; returns the address by digest.
    ///
    /// # Errors
    /// As [`publish`], and if nothing can be waited for.
    pub fn publish(&self, folder: &Path) -> Result<String, PublishError> {
        waiting()?.block_on(publish(folder, self.target, self.insecure, keyring(self.target)?))
    }

    /// As [`may_publish`], waiting for that.
    ///
    /// # Errors
    /// As that, and if nothing can be waited for.
    pub fn may(&self) -> Result<(), PublishError> {
        waiting()?.block_on(may_publish(self.target, self.insecure, keyring(self.target)?))
    }
}

fn waiting() -> Result<tokio::runtime::Runtime, PublishError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PublishError::Wait)
}

/// As docker has it, of whoever runs this.
fn keyring(target: &Reference) -> Result<Keyring, PublishError> {
    let failed = |source: sconce_registry::KeyringError| PublishError::Login {
        registry: target.registry().into(),
        source: Box::new(source.into()),
    };
    Keyring::of_user().map_err(failed)
}

/// Pushes what the registry lacks; returns the address by digest.
///
/// # Errors
/// [`PublishError`]; the tag then still names what it named before.
pub async fn publish(
    folder: &Path,
    reference: &Reference,
    insecure: &[String],
    keyring: Keyring,
) -> Result<String, PublishError> {
    let registry = reference.registry();
    let failed = |what: String| {
        move |source| PublishError::Registry { what, registry: registry.into(), source: Box::new(source) }
    };
    let pack = Pack::new(folder)?;
    let opened = opened(reference, insecure, keyring, RegistryOperation::Push);
    // A token may end before the last of many bytes is sent.
    let client = async || {
        opened
            .client()
            .await
            .map_err(|source| PublishError::Login { registry: registry.into(), source: Box::new(source) })
    };
    let (identity, manifest) = (pack.digest(), pack.manifest);
    let files = pack.files.into_iter().map(|file| (file.digest, file.bytes));
    for (digest, bytes) in [(sha256(&pack.config), pack.config)].into_iter().chain(files) {
        let client = client().await?;
        // A registry that cannot tell gets the bytes once more.
        if !client.blob_exists(reference, &digest).await.unwrap_or(false) {
            client.push_blob(reference, bytes, &digest).await.map_err(failed(format!("push {digest}")))?;
        }
    }
    let content_type = http::HeaderValue::from_static(MANIFEST_TYPE);
    let pushed = client().await?.push_manifest_raw(reference, manifest, content_type).await;
    pushed.map_err(failed("push the manifest".into()))?;
    Ok(format!("oci://{registry}/{}@{identity}", reference.repository()))
}

pub(crate) fn opened(
    reference: &Reference,
    insecure: &[String],
    keyring: Keyring,
    operation: RegistryOperation,
) -> Registry {
    // In one piece: an artifact is small, and not every registry takes chunks as the specification has them.
    let configured =
        |protocol: ClientProtocol| ClientConfig { protocol, use_monolithic_push: true, ..ClientConfig::default() };
    Registry::new(reference.clone(), operation, insecure, Arc::new(keyring), configured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_reproducible_and_names_every_file() {
        let [a, b] = [1, 2].map(|_| {
            let folder = tempfile::tempdir().unwrap();
            sconce_model::artifact::testing::write_tiny(folder.path(), 7).unwrap();
            Pack::new(folder.path()).unwrap()
        });
        assert_eq!((a.digest(), &a.manifest), (b.digest(), &b.manifest));
        let manifest: Value = serde_json::from_slice(&a.manifest).unwrap();
        assert_eq!(manifest["artifactType"], "application/vnd.cncf.model.manifest.v1+json");
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.cncf.model.config.v1+json");
        assert_eq!(manifest["config"]["digest"], sha256(&a.config));
        let types: Vec<_> = manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["mediaType"]).collect();
        let [config, doc, weights] = ["weight.config.v1.raw", "doc.v1.raw", "weight.v1.raw"]
            .map(|kind| format!("application/vnd.cncf.model.{kind}"));
        assert_eq!(types[..4], [&config, &doc, &config, &config]);
        assert_eq!(types[4..], [&weights; 6]);
        let config: Value = serde_json::from_slice(&a.config).unwrap();
        assert_eq!(config["config"]["format"], "safetensors");
        assert_eq!(config["config"]["paramSize"], "151");
        assert_eq!(config["modelfs"]["diffIds"][0], manifest["layers"][0]["digest"]);
        let paths: Vec<_> =
            manifest["layers"].as_array().unwrap().iter().map(|layer| &layer["annotations"][PATH]).collect();
        assert_eq!(
            paths,
            [
                "config.json",
                "evaluation.json",
                "preprocess.json",
                "variants.json",
                "weights/f16/backbone.safetensors",
                "weights/f16/head.safetensors",
                "weights/f32/backbone.safetensors",
                "weights/f32/head.safetensors",
                "weights/int8/backbone.safetensors",
                "weights/int8/head.safetensors"
            ]
        );
    }

    #[tokio::test]
    async fn addresses_are_checked_before_anything_is_read() {
        let check = async |uri: &str, expected: &str| {
            let published = match reference(uri) {
                Ok(reference) => publish(Path::new("nowhere"), &reference, &[], Keyring::none()).await,
                Err(error) => Err(error),
            };
            let error = published.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("s3://models/digits", "need oci://HOST/REPOSITORY:TAG").await;
        check(&format!("oci://localhost:1/models/digits@sha256:{}", "0".repeat(64)), "a digest is found, not chosen")
            .await;
        check("oci://Host:1/UPPER", "need oci://HOST/REPOSITORY:TAG").await;
        check("oci://localhost:1/models/digits:1.0.0", "config.json is missing").await;
    }
}
