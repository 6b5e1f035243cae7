//! An artifact of an earlier run: in its folder, or brought from a registry, by digest.

use crate::publish::{self, MANIFEST_TYPE, PATH};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation, errors::OciDistributionError};
use sconce_model::digest::sha256;
use sconce_registry::{Keyring, RegistryError};
use serde_json::Value;
use std::path::{Component, Path, PathBuf};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum PullError {
    #[error("cannot fetch {what} of {uri}; does the registry run, and is the digest right?")]
    Registry { what: String, uri: String, source: Box<OciDistributionError> },
    #[error("{uri}: {source}")]
    Login { uri: String, source: Box<RegistryError> },
    #[error("{what} of {uri} is {got}: the registry or the way to it spoils bytes; push it again")]
    Digest { what: String, uri: String, got: String },
    #[error("{uri} is no model of ours: {why}")]
    Manifest { uri: String, why: String },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

impl PullError {
    /// Whether what is asked for can never be: it is as wrong at the next try.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Self::Manifest { .. })
    }
}

/// How a registry is asked.
#[derive(Clone, Copy)]
pub struct Registries<'a> {
    /// Registries without TLS.
    pub insecure: &'a [String],
    /// Folder with the `config.json` or `.dockerconfigjson` that opens it; `None` for that of whoever runs this.
    pub config: Option<&'a Path>,
}

/// What is read of the artifact of `uri`, a folder or `oci://HOST/REPOSITORY@sha256:HEX`. `aside` is where one from a registry lies
/// meanwhile.
///
/// # Errors
/// [`PullError`], or what `read` has to say.
pub fn pulled<T, E: From<PullError>>(
    uri: &str,
    aside: &Path,
    registries: Registries<'_>,
    read: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    let reference = match uri.strip_prefix("oci://").map(str::parse::<Reference>) {
        None => return read(Path::new(uri)),
        Some(Err(error)) => return Err(PullError::Manifest { uri: uri.into(), why: error.to_string() }.into()),
        Some(Ok(reference)) => reference,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| PullError::Write { path: aside.into(), source })?;
    remove(aside)?;
    runtime.block_on(fetch(uri, &reference, aside, registries))?;
    let told = read(aside);
    remove(aside)?;
    told
}

/// All files of the model, each as its digest says.
async fn fetch(uri: &str, reference: &Reference, to: &Path, registries: Registries<'_>) -> Result<(), PullError> {
    let failed =
        |what: &str, source| PullError::Registry { what: what.into(), uri: uri.into(), source: Box::new(source) };
    let strange = |why: &str| PullError::Manifest { uri: uri.into(), why: why.into() };
    let is = |what: &str, bytes: &[u8], need: &str| match sha256(bytes) {
        got if got == need => Ok(()),
        got => Err(PullError::Digest { what: what.into(), uri: uri.into(), got }),
    };
    let shut = |source: RegistryError| PullError::Login { uri: uri.into(), source: Box::new(source) };
    let keyring = registries.config.map_or_else(Keyring::of_user, Keyring::in_folder);
    let keyring = keyring.map_err(|error| shut(error.into()))?;
    let registry = publish::opened(reference, registries.insecure, keyring, RegistryOperation::Pull);
    let pulled = registry.client().await.map_err(shut)?;
    let pulled = pulled.pull_manifest_raw(reference, &RegistryAuth::Anonymous, &[MANIFEST_TYPE]).await;
    let (bytes, _) = pulled.map_err(|error| failed("the manifest", error))?;
    is("the manifest", &bytes, reference.digest().unwrap_or_default())?;
    let manifest: Value = serde_json::from_slice(&bytes).map_err(|error| strange(&error.to_string()))?;
    for layer in manifest["layers"].as_array().ok_or_else(|| strange("it has no layers"))? {
        let (Some(digest), Some(path)) = (layer["digest"].as_str(), layer["annotations"][PATH].as_str()) else {
            return Err(strange("a layer names no file"));
        };
        if path.is_empty() || !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(strange(&format!("it names the file \"{path}\"")));
        }
        let mut bytes = Vec::new();
        let descriptor = OciDescriptor { digest: digest.into(), ..OciDescriptor::default() };
        let client = registry.client().await.map_err(shut)?;
        client.pull_blob(reference, &descriptor, &mut bytes).await.map_err(|error| failed(path, error))?;
        is(path, &bytes, digest)?;
        write(&to.join(path), &bytes)?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PullError> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, bytes));
    made.map_err(|source| PullError::Write { path: path.into(), source })
}

fn remove(folder: &Path) -> Result<(), PullError> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(PullError::Write { path: folder.into(), source })
        }
        _ => Ok(()),
    }
}
