//! Asks an OCI registry what an artifact is. Every byte is checked against its digest before it is read.

use crate::artifact::{self, Artifact, Failure, Files};
use crate::observe::Key;
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use sconce_api::Reason;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

const MANIFEST_TYPES: &[&str] = &["application/vnd.oci.image.manifest.v1+json"];
/// Files of an artifact that say what it is; its weights are fetched by the pods that serve them.
const TITLES: [&str; 3] = ["config.json", "variants.json", "evaluation.json"];
const LIMIT: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Registries {
    client: Client,
}

impl Registries {
    /// `insecure` are spoken to without TLS.
    pub fn new(insecure: &[String]) -> Self {
        let client = Client::new(ClientConfig {
            protocol: ClientProtocol::HttpsExcept(insecure.to_vec()),
            connect_timeout: Some(Duration::from_secs(5)),
            read_timeout: Some(Duration::from_secs(10)),
            user_agent: concat!("sconce-operator/", env!("CARGO_PKG_VERSION")),
            ..Default::default()
        });
        Self { client }
    }

    /// # Errors
    /// [`Failure`] with what is wrong, why, and what to do.
    pub async fn resolve(&self, uri: &str) -> Result<Artifact, Failure> {
        let unreachable = || {
            let message = format!(
                "{uri}: the registry did not answer within {PATIENCE:?}; is it up and reachable from the cluster?"
            );
            Failure { reason: Reason::RegistryUnreachable, message }
        };
        tokio::time::timeout(PATIENCE, self.pull(uri)).await.unwrap_or_else(|_| Err(unreachable()))
    }

    async fn pull(&self, uri: &str) -> Result<Artifact, Failure> {
        let reference = reference(uri)?;
        let auth = RegistryAuth::Anonymous;
        let pulled = self.client.pull_manifest_raw(&reference, &auth, MANIFEST_TYPES).await;
        let (manifest, _) = pulled.map_err(|error| failure(uri, "the manifest", &error))?;
        let digest = digest_of(&manifest);
        if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
            let message =
                format!("{uri}: the registry sent a manifest of {digest} for {expected}; push the artifact again");
            return Err(Failure { reason: Reason::DigestMismatch, message });
        }
        let layers = artifact::layers(&manifest).map_err(|failure| failure.at(uri))?;
        let mut files = Files::new();
        for title in TITLES {
            let Some(layer) = layers.get(title) else { continue };
            if layer.size > LIMIT {
                let message = format!("{uri}: {title} is larger than {LIMIT} bytes; is this a model of ours?");
                return Err(Failure { reason: Reason::UnknownArchitecture, message });
            }
            let mut bytes = Vec::new();
            let pulled = self.client.pull_blob(&reference, layer.digest.as_str(), &mut bytes).await;
            pulled.map_err(|error| failure(uri, title, &error))?;
            if digest_of(&bytes) != layer.digest {
                return Err(mismatch(uri, title));
            }
            files.insert(title.to_owned(), bytes);
        }
        let repository = format!("oci://{}/{}", reference.registry(), reference.repository());
        artifact::read(repository, digest, &files).map_err(|failure| failure.at(uri))
    }
}

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn reference(uri: &str) -> Result<Reference, Failure> {
    uri.strip_prefix("oci://").and_then(|text| text.parse().ok()).ok_or_else(|| Failure {
        reason: Reason::ArtifactMissing,
        message: format!("{uri} is not the address of an artifact; write oci://HOST/REPOSITORY:TAG"),
    })
}

fn mismatch(uri: &str, file: &str) -> Failure {
    let message = format!("{uri}: the bytes of {file} do not match their digest; push the artifact again");
    Failure { reason: Reason::DigestMismatch, message }
}

fn failure(uri: &str, file: &str, error: &OciDistributionError) -> Failure {
    let missing = || Failure {
        reason: Reason::ArtifactMissing,
        message: format!(
            "{uri}: the registry has no such artifact ({file} is missing); push it, or correct spec.model"
        ),
    };
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => missing(),
        OciDistributionError::RegistryError { envelope, .. } => {
            let unknown = [OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::BlobUnknown];
            if envelope.errors.iter().any(|error| unknown.contains(&error.code)) {
                return missing();
            }
            unreachable(uri, error)
        }
        OciDistributionError::ServerError { code: 404, .. } => missing(),
        OciDistributionError::DigestError(_) => mismatch(uri, file),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => Failure {
            reason: Reason::RegistryUnreachable,
            message: format!(
                "{uri}: the registry asks for credentials; only artifacts that anybody may pull are served"
            ),
        },
        _ => unreachable(uri, error),
    }
}

/// The innermost cause says most: `connection refused` rather than `error sending request`.
fn unreachable(uri: &str, error: &OciDistributionError) -> Failure {
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        cause = inner.to_string();
        source = inner.source();
    }
    let message = format!("{uri}: the registry cannot be reached: {cause}; is it up, and does it speak TLS?");
    Failure { reason: Reason::RegistryUnreachable, message: message.chars().take(1000).collect() }
}

/// The key of what a run has published, by its Job's: no model has a name like that.
pub fn of_run((namespace, job): &Key) -> Key {
    (namespace.clone(), format!("{RUN}{job}"))
}

/// The Job, if the key is that of a run.
pub fn run_of((namespace, name): &Key) -> Option<Key> {
    Some((namespace.clone(), name.strip_prefix(RUN)?.to_owned()))
}

const RUN: &str = "run/";

/// What each model's `uri` resolved to, or why it did not, and when to ask again.
pub type Resolutions = BTreeMap<Key, Resolution>;

#[derive(Clone, Debug)]
pub struct Resolution {
    pub uri: String,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    /// `failed` is what it said the last time.
    Asking {
        failed: Option<Failure>,
        attempts: u32,
    },
    Found(Box<Artifact>),
    Failed {
        failure: Failure,
        attempts: u32,
        retry_at: std::time::Instant,
    },
}

/// 2 s, 4 s, … 60 s.
pub fn patience(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.clamp(1, 6)).min(Duration::from_secs(60))
}
