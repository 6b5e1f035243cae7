//! Brings one variant of a version from a registry into a folder: by digest, verified, resumed, all or nothing.
//!
//! Files that are there already with the right bytes cost no network: after a reboot an offline node fetches nothing.

mod attempts;
mod others;
mod place;
mod reference;
mod store;

pub use place::{Source, SourceError, is_sha256};
pub use store::{Kept, Store};

use crate::load::{FILE_PATH, Layer, MANIFEST, Manifest, digest_of};
use attempts::Attempts;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use oci_client::Reference;
use oci_client::client::BlobResponse;
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use others::Others;
use place::Origin;
use sconce_model::artifact::media_type;
use sconce_model::artifact::signature::{SIGNATURE, SignatureError, Trust};
use sconce_model::digest::{named, sha256};
use sconce_registry::RegistryError;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

/// The first word is the reason, as conditions name it.
#[derive(Debug, Error)]
pub enum FetchError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("ArtifactMissing: {what} is not in the registry: was it pushed, and is the digest, or the tag, right?")]
    Missing { what: String },
    #[error(
        "DigestMismatch: {what} is {got}, should be {need}: the registry or the way to it spoils bytes; push it again"
    )]
    Digest { what: String, got: String, need: String },
    #[error("RegistryUnreachable: cannot fetch {what}: {why}")]
    Registry { what: String, why: String },
    /// It is there, and cannot now.
    #[error("RegistryUnreachable: cannot fetch {what}: {why}")]
    Busy { what: String, why: String },
    #[error(
        "{why}; only the registry knows what its tag stands for. What {} has from before is served without it by {uri}@sha256:HEX",
        store.display()
    )]
    Tag { why: Box<FetchError>, uri: String, store: PathBuf },
    #[error("Unauthorized: the registry does not give {what} to somebody {who}: {why}")]
    Unauthorized { what: String, who: String, why: String },
    #[error("Unauthorized: {0}")]
    Login(RegistryError),
    #[error("UnknownArchitecture: {why}: is it a model of ours?")]
    Artifact { why: String },
    #[error("FetchFailed: {what} has {bytes} bytes, and {most} may be fetched here")]
    TooLarge { what: String, bytes: u64, most: u64 },
    #[error("FetchFailed: cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

impl From<RegistryError> for FetchError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unreachable { who, why } => Self::Registry { what: format!("a token of {who}"), why },
            RegistryError::Client { .. } => Self::Registry { what: "anything".into(), why: error.to_string() },
            RegistryError::Keyring(_) | RegistryError::Refused { .. } | RegistryError::Plain { .. } => {
                Self::Login(error)
            }
        }
    }
}

impl FetchError {
    /// Whether trying again may help.
    fn passes(&self) -> bool {
        // Bytes may have been spoilt on the way; what is missing may be about to be pushed, but nobody knows.
        matches!(self, FetchError::Registry { .. } | FetchError::Busy { .. } | FetchError::Digest { .. })
    }
}

/// Fetches the JSON files and the files of one variant into `folder`, if it is signed as `trust` asks. Those of others stay, where
/// they are what they should be. Nothing is taken from the folders beside it: a [`Store`] does that.
///
/// # Errors
/// [`FetchError`], once `patience` has passed without a byte from the registry; what was fetched well is kept for the next.
pub async fn fetch(
    source: &Source,
    digest: &str,
    variant: &str,
    folder: &Path,
    trust: &Trust,
    patience: Duration,
) -> Result<(), FetchError> {
    fetch_beside(source, digest, variant, folder, trust, patience, &Others::default()).await
}

fn fetch_beside<'a>(
    source: &'a Source,
    digest: &'a str,
    variant: &'a str,
    folder: &'a Path,
    trust: &'a Trust,
    patience: Duration,
    others: &'a Others,
) -> BoxFuture<'a, Result<(), FetchError>> {
    async move {
        let source = &Attempts::new(source, patience);
        std::fs::create_dir_all(folder).map_err(|source| FetchError::Write { path: folder.into(), source })?;
        let manifest = source.nearest("the manifest", |from| fetch_manifest(source, from, digest, folder)).await?;
        let layers = layers(&manifest)?;
        let wanted = |path: &str| !path.contains('/');
        small_enough(source.source, "what describes it", layers.iter().filter(|(path, _)| wanted(path)))?;
        for (path, layer) in layers.iter().filter(|(path, _)| wanted(path)) {
            fetch_file(source, layer, path, folder, others).await?;
        }
        if trust.asks() {
            let listed = layers.iter().map(|(path, layer)| (path.clone(), layer.digest.clone())).collect();
            trust.verify(&listed, std::fs::read(folder.join(SIGNATURE)).ok().as_deref())?;
        }
        let files = files_of(variant, folder)?;
        let of_variant = |path: &str| wanted(path) || files.iter().any(|file| file == path);
        small_enough(source.source, variant, layers.iter().filter(|(path, _)| of_variant(path)))?;
        for path in &files {
            let Some((_, layer)) = layers.iter().find(|(known, _)| known == path) else {
                return Err(FetchError::Artifact { why: format!("variants.json names {path}, the manifest does not") });
            };
            fetch_file(source, layer, path, folder, others).await?;
        }
        for (path, layer) in layers.iter().filter(|(path, _)| !wanted(path) && !files.contains(path)) {
            remove_rotten(layer, &folder.join(path))?;
        }
        tracing::info!(digest, variant, folder = %folder.display(), "fetched and verified");
        Ok(())
    }
    .boxed()
}

/// Before any of them is fetched.
fn small_enough<'a>(
    source: &Source,
    what: &str,
    layers: impl Iterator<Item = &'a (String, Layer)>,
) -> Result<(), FetchError> {
    let (bytes, most) = (layers.map(|(_, layer)| layer.size).fold(0, u64::saturating_add), source.most_bytes());
    if bytes > most { Err(FetchError::TooLarge { what: what.into(), bytes, most }) } else { Ok(()) }
}

/// The digest that the source's tag stands for at this moment.
///
/// # Errors
/// [`FetchError`], once `patience` has passed without a word from the registry.
pub fn resolve(source: &Source, patience: Duration) -> BoxFuture<'_, Result<String, FetchError>> {
    async move {
        let source = &Attempts::new(source, patience);
        let tag = source.source.repository();
        // What a tag stands for only the registry knows.
        let bytes = source.retried(&tag.whole(), |registry| pull_manifest(source, registry, tag)).await?;
        Ok(sha256(&bytes))
    }
    .boxed()
}

async fn fetch_manifest(
    source: &Attempts<'_>,
    from: &Origin,
    digest: &str,
    folder: &Path,
) -> Result<Manifest, FetchError> {
    let path = folder.join(MANIFEST);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) if sha256(&bytes) == digest => bytes,
        _ => {
            let bytes = pull_manifest(source, from, &from.by_digest(digest)).await?;
            let got = sha256(&bytes);
            if got != digest {
                return Err(FetchError::Digest { what: "the manifest".into(), got, need: digest.into() });
            }
            write(&path, &bytes)?;
            bytes.to_vec()
        }
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| FetchError::Artifact { why: format!("the manifest is none: {error}") })
}

/// A manifest as the registry has it, unverified.
async fn pull_manifest(source: &Attempts<'_>, from: &Origin, reference: &Reference) -> Result<Bytes, FetchError> {
    let accepted = ["application/vnd.oci.image.manifest.v1+json"];
    let client = source.heard("the manifest", from.client()).await??;
    let pulled = client.pull_manifest_raw(reference, &RegistryAuth::Anonymous, &accepted);
    let pulled = source.heard("the manifest", pulled).await?;
    let (bytes, _) = pulled.map_err(|error| told(error, &reference.whole(), from))?;
    Ok(bytes)
}

/// The manifest's files. A path that leads out of the folder is an attack.
fn layers(manifest: &Manifest) -> Result<Vec<(String, Layer)>, FetchError> {
    let named =
        manifest.layers.iter().filter_map(|layer| Some((layer.annotations.get(FILE_PATH)?.clone(), layer.clone())));
    named
        .map(|(path, layer)| {
            let inside = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
            if inside && !path.is_empty() {
                Ok((path, layer))
            } else {
                Err(FetchError::Artifact { why: format!("the manifest names the file \"{path}\"") })
            }
        })
        .collect()
}

fn files_of(variant: &str, folder: &Path) -> Result<Vec<String>, FetchError> {
    #[derive(Deserialize)]
    struct Variants {
        variants: Vec<Variant>,
    }
    #[derive(Deserialize)]
    struct Variant {
        name: String,
        files: Vec<String>,
    }
    let bytes = std::fs::read(folder.join("variants.json"))
        .map_err(|_| FetchError::Artifact { why: "it has no variants.json".into() })?;
    let variants: Variants = serde_json::from_slice(&bytes)
        .map_err(|error| FetchError::Artifact { why: format!("variants.json: {error}") })?;
    let known: Vec<&str> = variants.variants.iter().map(|variant| variant.name.as_str()).collect();
    match variants.variants.iter().find(|known| known.name == variant) {
        Some(variant) => Ok(variant.files.clone()),
        None => Err(FetchError::Artifact { why: format!("no variant \"{variant}\", it has {}", known.join(", ")) }),
    }
}

async fn fetch_file(
    source: &Attempts<'_>,
    layer: &Layer,
    path: &str,
    folder: &Path,
    others: &Others,
) -> Result<(), FetchError> {
    let target = folder.join(path);
    if digest_of(&target).is_ok_and(|got| got == layer.digest) {
        return Ok(());
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(|source| FetchError::Write { path: parent.into(), source })?;
    }
    if others.give(&layer.digest, &target) {
        return Ok(());
    }
    source.nearest(path, |from| download(source, from, layer, path, &target)).await
}

/// A file of another variant, that is there and not what it should be, would hold up all: whoever needs it fetches it again.
fn remove_rotten(layer: &Layer, path: &Path) -> Result<(), FetchError> {
    if !digest_of(path).is_ok_and(|got| got != layer.digest) {
        return Ok(());
    }
    tracing::warn!(path = %path.display(), "it was changed or has rotted, and is of another variant: removed");
    std::fs::remove_file(path).map_err(|source| FetchError::Write { path: path.into(), source })
}

/// Goes on where an earlier attempt ended; the file appears only when its digest is right.
async fn download(
    source: &Attempts<'_>,
    from: &Origin,
    layer: &Layer,
    path: &str,
    target: &Path,
) -> Result<(), FetchError> {
    let partial = partial_of(target);
    let failed = |source| FetchError::Write { path: partial.clone(), source };
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&partial).await.map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut have = file.metadata().await.map_err(failed)?.len();
    if have >= layer.size {
        have = 0;
    }
    if have > 0 {
        let kept = tokio::fs::read(&partial).await.map_err(failed)?;
        hasher.update(&kept);
        tracing::info!(path, have, size = layer.size, "going on");
    }
    let descriptor = OciDescriptor {
        media_type: media_type(path).into(),
        digest: layer.digest.clone(),
        size: layer.size as i64,
        ..OciDescriptor::default()
    };
    let (client, reference) = (source.heard(path, from.client()).await??, from.repository());
    let response = client.pull_blob_stream_partial(reference, &descriptor, have, None);
    let refused = |error| match error {
        OciDistributionError::ServerError { code: 416, .. } => {
            let why = format!("the registry holds no more than {have} of its {} bytes: push it again", layer.size);
            FetchError::Registry { what: path.into(), why }
        }
        error => told(error, path, from),
    };
    let mut stream = match source.heard(path, response).await?.map_err(refused)? {
        BlobResponse::Partial(stream) => stream,
        BlobResponse::Full(stream) => {
            (have, hasher) = (0, Sha256::new());
            stream
        }
    };
    file.set_len(have).await.map_err(failed)?;
    file.seek(std::io::SeekFrom::Start(have)).await.map_err(failed)?;
    let mut cut = None;
    while have < layer.size {
        match source.heard(path, stream.next()).await? {
            Some(Ok(chunk)) => {
                let chunk = &chunk[..chunk.len().min((layer.size - have) as usize)];
                hasher.update(chunk);
                file.write_all(chunk).await.map_err(failed)?;
                have += chunk.len() as u64;
                source.has(have);
            }
            Some(Err(error)) => cut = Some(causes(&error)),
            None => cut = Some("it ended".to_owned()),
        }
        if cut.is_some() {
            break;
        }
    }
    // Also what a connection that was cut has brought: the next attempt goes on from there.
    synced(&mut file).await.map_err(failed)?;
    if let (Some(why), true) = (cut, have < layer.size) {
        return Err(FetchError::Registry {
            what: path.into(),
            why: format!("{why} after {have} of {} bytes", layer.size),
        });
    }
    let got = named(hasher);
    if got != layer.digest {
        drop(std::fs::remove_file(&partial));
        return Err(FetchError::Digest { what: path.into(), got, need: layer.digest.clone() });
    }
    drop(file);
    appear(&partial, target)
}

/// All that was written is on the disk. Of the last write `sync_all` alone waits for the end, and never tells that it failed.
async fn synced(file: &mut File) -> std::io::Result<()> {
    file.flush().await?;
    file.sync_all().await
}

/// Gives a file that has been synced its name, for good: also if the power fails now.
fn appear(partial: &Path, target: &Path) -> Result<(), FetchError> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let renamed = std::fs::rename(partial, target).and_then(|()| std::fs::File::open(folder)?.sync_all());
    renamed.map_err(|source| FetchError::Write { path: target.into(), source })
}

/// Beside its target, so that it can be renamed.
fn partial_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// The error with its causes: clients say little at the top.
fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), FetchError> {
    let partial = partial_of(path);
    let written =
        std::fs::File::create(&partial).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|source| FetchError::Write { path: path.into(), source })?;
    appear(&partial, path)
}

/// Which of our reasons a registry's error is.
fn told(error: OciDistributionError, what: &str, from: &Origin) -> FetchError {
    use OciDistributionError as E;
    use OciErrorCode::{BlobUnknown, Denied, ManifestUnknown, NameUnknown, NotFound, Unauthorized};
    let says = |codes: fn(&OciErrorCode) -> bool| match &error {
        E::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| codes(&error.code)),
        _ => false,
    };
    let missing = matches!(error, E::ImageManifestNotFoundError(_) | E::ServerError { code: 404, .. })
        || says(|code| matches!(code, BlobUnknown | ManifestUnknown | NameUnknown | NotFound));
    let forbidden = matches!(
        error,
        E::AuthenticationFailure(_) | E::UnauthorizedError { .. } | E::ServerError { code: 401 | 403, .. }
    ) || says(|code| matches!(code, Denied | Unauthorized));
    match error {
        _ if missing => FetchError::Missing { what: what.into() },
        error if forbidden => FetchError::Unauthorized { what: what.into(), who: from.who(), why: causes(&error) },
        E::DigestError(DigestError::VerificationError { expected, actual }) => {
            FetchError::Digest { what: what.into(), got: actual, need: expected }
        }
        E::ServerError { code: 500.., .. } => FetchError::Busy { what: what.into(), why: causes(&error) },
        error => {
            let mut why = causes(&error);
            // As rustls says it.
            if why.contains("InvalidContentType") {
                why += ": it does not speak TLS; name it with --insecure-registry, if that is meant";
            }
            FetchError::Registry { what: what.into(), why }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    /// The last piece of a file did not fit on the disk, and the file got its name without it.
    #[tokio::test]
    async fn a_disk_that_was_full_for_the_last_piece_is_told() {
        let mut file = OpenOptions::new().write(true).open("/dev/full").await.unwrap();
        file.write_all(b"the last piece").await.unwrap();
        assert_eq!(synced(&mut file).await.unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
