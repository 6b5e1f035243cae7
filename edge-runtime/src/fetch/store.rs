//! Artifacts that are kept on this machine, each in the folder of its digest: what is there is not fetched again.

use super::others::Others;
use super::{FetchError, Source, fetch_beside, resolve};
use sconce_model::artifact::signature::Trust;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder of folders, `sha256-HEX`. Servers may share it; whoever needs room may delete any of them that none has.
pub struct Store {
    folder: PathBuf,
}

/// What was brought: verified, with the files of one variant at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of its manifest.
    pub digest: String,
    pub folder: PathBuf,
}

impl Store {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Brings one variant of what the source names, as far as it is not here, nor in another version that is. Without a digest the registry is asked, once, which
    /// one its tag stands for.
    ///
    /// # Errors
    /// [`FetchError`], once `patience` has passed without a byte from the registry.
    pub async fn bring(
        &self,
        source: &Source,
        digest: Option<&str>,
        variant: &str,
        trust: &Trust,
        patience: Duration,
    ) -> Result<Kept, FetchError> {
        let digest = match digest {
            Some(digest) => digest.to_owned(),
            None => self.resolved(source, patience).await?,
        };
        let folder = self.folder.join(digest.replace(':', "-"));
        let _one = locked(&folder).await?;
        let others = Others::beside(&folder);
        fetch_beside(source, &digest, variant, &folder, trust, patience, &others).await?;
        Ok(Kept { digest, folder })
    }

    async fn resolved(&self, source: &Source, patience: Duration) -> Result<String, FetchError> {
        let digest = resolve(source, patience).await.map_err(|error| match error {
            FetchError::Registry { .. } | FetchError::Busy { .. } => {
                FetchError::Tag { why: error.into(), uri: source.uri(), store: self.folder.clone() }
            }
            error => error,
        })?;
        tracing::info!(from = %source.repository(), digest, "the registry's tag stands for this digest");
        Ok(digest)
    }
}

/// A folder that nobody else fetches into until this is dropped: two would write over each other.
async fn locked(folder: &Path) -> Result<File, FetchError> {
    let failed = |source| FetchError::Write { path: folder.into(), source };
    let file = std::fs::create_dir_all(folder).and_then(|()| File::open(folder)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
        Err(TryLockError::WouldBlock) => {
            tracing::info!(folder = %folder.display(), "another process fetches it; waiting for that");
        }
    }
    let waited = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    waited.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped))).map_err(failed)
}
