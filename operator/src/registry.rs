//! Asks an OCI registry what an artifact is. Every byte is checked against its digest before it is read, and of no file are there
//! more than its manifest says.

use crate::artifact::{self, Artifact, Failure, Files};
use crate::observe::Key;
use crate::secrets;
use futures::{Stream, TryStreamExt as _};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use sconce_api::Reason;
use sconce_registry::{Keyring, Registry, RegistryError};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

const MANIFEST_TYPES: &[&str] = &["application/vnd.oci.image.manifest.v1+json"];
/// Files of an artifact that say what it is; its weights are fetched by the pods that serve them.
const TITLES: [&str; 3] = ["config.json", "variants.json", "evaluation.json"];
/// Most bytes of the manifest, and of each file: as many as registries take of a manifest.
const LIMIT: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// An artifact that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub uri: String,
    /// The Secret that opens its registry, in the namespace of who asks.
    pub secret: Option<String>,
}

#[derive(Clone)]
pub struct Registries {
    insecure: Vec<String>,
}

impl Registries {
    /// `insecure` are spoken to without TLS, beside those on loopback addresses.
    pub fn new(insecure: &[String]) -> Self {
        Self { insecure: insecure.to_vec() }
    }

    /// In the name that the Secret has; it is read anew each time, and kept nowhere.
    ///
    /// # Errors
    /// [`Failure`] with what is wrong, why, and what to do.
    pub async fn ask(&self, cluster: &kube::Client, namespace: &str, ask: &Ask) -> Result<Artifact, Failure> {
        let Some(secret) = &ask.secret else { return self.resolve(&ask.uri, Keyring::none()).await };
        let keyring = secrets::keyring(cluster, namespace, secret).await.map_err(|failure| failure.at(&ask.uri))?;
        let reference = reference(&ask.uri)?;
        let opened = keyring.must_open(reference.registry(), reference.repository()).await;
        opened.map_err(|error| shut(&ask.uri, error.into()))?;
        self.resolve(&ask.uri, keyring).await
    }

    /// # Errors
    /// [`Failure`] with what is wrong, why, and what to do.
    pub async fn resolve(&self, uri: &str, keyring: Keyring) -> Result<Artifact, Failure> {
        let unreachable = || {
            let message = format!(
                "{uri}: the registry did not answer within {PATIENCE:?}; is it up and reachable from the cluster?"
            );
            Failure { reason: Reason::RegistryUnreachable, message }
        };
        tokio::time::timeout(PATIENCE, self.pull(uri, keyring)).await.unwrap_or_else(|_| Err(unreachable()))
    }

    /// By a client of its own: what lets in one is not for another.
    async fn pull(&self, uri: &str, keyring: Keyring) -> Result<Artifact, Failure> {
        let reference = reference(uri)?;
        let pull = RegistryOperation::Pull;
        let registry = Registry::new(reference.clone(), pull, &self.insecure, Arc::new(keyring), configured);
        let client = registry.client().await.map_err(|error| shut(uri, error))?;
        let failure = |file: &str, error| failure(uri, file, &registry, &error);
        let pulled = client.pull_manifest_raw(&reference, &RegistryAuth::Anonymous, MANIFEST_TYPES).await;
        let (manifest, _) = pulled.map_err(|error| failure("the manifest", error))?;
        // The client has read it whole: that it is no more than that is all that can be seen to here.
        if manifest.len() as u64 > LIMIT {
            return Err(too_large(uri, "the manifest"));
        }
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
                return Err(too_large(uri, title));
            }
            let pulled = client.pull_blob_stream(&reference, layer.digest.as_str()).await;
            let body = pulled.map_err(|error| failure(title, error))?;
            let bytes = whole(body, layer.size).await.map_err(|error| failure(title, of_stream(error)))?;
            let Some(bytes) = bytes else {
                let size = layer.size;
                let message = format!(
                    "{uri}: the registry sends more of {title} than the {size} bytes that the manifest says; push the artifact again"
                );
                return Err(Failure { reason: Reason::DigestMismatch, message });
            };
            if digest_of(&bytes) != layer.digest {
                return Err(mismatch(uri, title));
            }
            files.insert(title.to_owned(), bytes);
        }
        artifact::read(place(&reference), digest, &files).map_err(|failure| failure.at(uri))
    }
}

fn configured(protocol: ClientProtocol) -> ClientConfig {
    ClientConfig {
        protocol,
        connect_timeout: Some(Duration::from_secs(5)),
        read_timeout: Some(Duration::from_secs(10)),
        user_agent: concat!("sconce-operator/", env!("CARGO_PKG_VERSION")),
        ..Default::default()
    }
}

/// All of a body; `None` if it is longer than `most` bytes: then the rest is not read.
async fn whole<C: AsRef<[u8]>, E>(body: impl Stream<Item = Result<C, E>>, most: u64) -> Result<Option<Vec<u8>>, E> {
    let (mut body, mut bytes) = (pin!(body), Vec::new());
    while let Some(chunk) = body.try_next().await? {
        let chunk = chunk.as_ref();
        if (bytes.len() + chunk.len()) as u64 > most {
            return Ok(None);
        }
        bytes.extend_from_slice(chunk);
    }
    Ok(Some(bytes))
}

/// The client checks digests at the end of a stream.
fn of_stream(error: std::io::Error) -> OciDistributionError {
    match error.downcast::<DigestError>() {
        Ok(digest) => digest.into(),
        Err(error) => error.into(),
    }
}

fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Whether both lie in one repository, or would.
pub fn in_one_place(one: &str, another: &str) -> bool {
    let place = |uri| reference(uri).map(|reference| place(&reference)).ok();
    place(one).is_some_and(|of_one| place(another) == Some(of_one))
}

/// `oci://HOST/REPOSITORY`.
fn place(reference: &Reference) -> String {
    format!("oci://{}/{}", reference.registry(), reference.repository())
}

fn reference(uri: &str) -> Result<Reference, Failure> {
    uri.strip_prefix("oci://").and_then(|text| text.parse().ok()).ok_or_else(|| Failure {
        reason: Reason::ArtifactMissing,
        message: format!("{uri} is not the address of an artifact; write oci://HOST/REPOSITORY:TAG"),
    })
}

fn too_large(uri: &str, file: &str) -> Failure {
    let message = format!("{uri}: {file} is larger than {LIMIT} bytes; is this a model of ours?");
    Failure { reason: Reason::UnknownArchitecture, message }
}

fn mismatch(uri: &str, file: &str) -> Failure {
    let message = format!("{uri}: the bytes of {file} do not match their digest; push the artifact again");
    Failure { reason: Reason::DigestMismatch, message }
}

/// Before anything was asked for.
fn shut(uri: &str, error: RegistryError) -> Failure {
    let reason = match error {
        RegistryError::Unreachable { .. } | RegistryError::Client { .. } => Reason::RegistryUnreachable,
        RegistryError::Keyring(_) | RegistryError::Refused { .. } | RegistryError::Plain { .. } => Reason::Unauthorized,
    };
    Failure { reason, message: error.to_string() }.at(uri)
}

fn failure(uri: &str, file: &str, registry: &Registry, error: &OciDistributionError) -> Failure {
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
            let closed = [OciErrorCode::Denied, OciErrorCode::Unauthorized];
            if envelope.errors.iter().any(|error| closed.contains(&error.code)) {
                return unauthorized(uri, registry);
            }
            unreachable(uri, error)
        }
        OciDistributionError::ServerError { code: 401 | 403, .. } => unauthorized(uri, registry),
        OciDistributionError::ServerError { code: 404, .. } => missing(),
        OciDistributionError::DigestError(_) => mismatch(uri, file),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            unauthorized(uri, registry)
        }
        _ => unreachable(uri, error),
    }
}

fn unauthorized(uri: &str, registry: &Registry) -> Failure {
    let to_do = match registry.is_named() {
        true => "are name and password right, and may they pull there?",
        false => "name a Secret with both in spec.model.pullSecretRef; on a machine of your own: docker login",
    };
    let message = format!("{uri}: the registry does not give it to somebody {}: {to_do}", registry.who());
    Failure { reason: Reason::Unauthorized, message }
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
    pub ask: Ask,
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use serde_json::json;
    use tokio::net::TcpListener;

    /// Why an artifact is refused whose registry has this manifest, and sends this as each blob.
    async fn refused(manifest: Vec<u8>, blob: Vec<u8>) -> Failure {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("oci://{}/m/digits:1", listener.local_addr().unwrap());
        let answer = move |asked: http::Uri| {
            let bytes = match asked.path() {
                "/v2/m/digits/manifests/1" => manifest.clone(),
                path if path.starts_with("/v2/m/digits/blobs/") => blob.clone(),
                _ => Vec::new(),
            };
            async move { bytes }
        };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        Registries::new(&[]).resolve(&uri, Keyring::none()).await.unwrap_err()
    }

    fn manifest(size: usize, digest: &str) -> Vec<u8> {
        let annotations = json!({"org.cncf.model.filepath": "config.json"});
        json!({"layers": [{"digest": digest, "size": size, "annotations": annotations}]}).to_string().into_bytes()
    }

    /// It was read to its end, whatever the manifest said.
    #[tokio::test]
    async fn of_a_file_no_more_is_taken_than_the_manifest_says() {
        let blob = vec![b' '; 5 << 20];
        let failure = refused(manifest(10, &digest_of(&blob)), blob).await;
        assert_eq!(failure.reason, Reason::DigestMismatch);
        assert!(failure.message.contains("more of config.json than the 10 bytes"), "{failure}");
    }

    #[tokio::test]
    async fn bytes_that_are_others_are_told_as_such() {
        let failure = refused(manifest(10, &digest_of(b"{}")), b"[]".to_vec()).await;
        assert_eq!(failure.reason, Reason::DigestMismatch);
        assert!(failure.message.contains("the bytes of config.json do not match"), "{failure}");
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_read() {
        let large = LIMIT as usize + 1;
        let failure = refused(manifest(large, &digest_of(b"")), Vec::new()).await;
        assert!(failure.message.contains("config.json is larger than 4194304 bytes"), "{failure}");
        let mut long = manifest(2, &digest_of(b"{}"));
        long.resize(large, b' ');
        let failure = refused(long, b"{}".to_vec()).await;
        assert!(failure.message.contains("the manifest is larger than 4194304 bytes"), "{failure}");
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_left_where_it_is_too_long() {
        const CHUNK: u64 = 1 << 16;
        for most in [10, LIMIT] {
            let mut read = 0;
            let body = std::iter::repeat_with(|| {
                read += CHUNK;
                Ok::<_, ()>([0; CHUNK as usize])
            });
            assert_eq!(whole(stream::iter(body), most).await, Ok(None));
            assert!(read <= most + CHUNK, "{read}");
        }
        let body = || stream::iter([Ok::<_, ()>("ab"), Ok("cd")]);
        assert_eq!(whole(body(), 4).await, Ok(Some(b"abcd".to_vec())));
        assert_eq!(whole(body(), 3).await, Ok(None));
    }
}
