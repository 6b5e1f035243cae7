//! Where shards go: an S3 bucket, a claim that is mounted, or a folder. Whatever it is, a name is written once, whole or not at all.

mod folder;
mod pace;
mod s3;

pub use folder::Folder;
pub use pace::Pace;
pub use s3::S3;

use async_trait::async_trait;
use bytes::Bytes;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Done,
    /// The name was there before.
    Exists,
}

/// A file, and what is another when its content is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub name: String,
    pub version: String,
}

#[derive(thiserror::Error, Debug)]
pub enum DestinationError {
    #[error("{0}")]
    Uri(String),
    #[error("the object store refuses or does not answer")]
    Store(#[from] object_store::Error),
    #[error("cannot write to, or read, {path}")]
    Folder { path: std::path::PathBuf, source: std::io::Error },
}

#[async_trait]
pub trait Destination: Send + Sync {
    /// Writes a name that is not there yet.
    ///
    /// # Errors
    /// If it may not have been written; to try again does no harm.
    async fn put(&self, name: &str, content: Bytes) -> Result<Put, DestinationError>;

    /// The files of a folder, not those below its folders; none if there is no such folder.
    ///
    /// # Errors
    /// If that cannot be told.
    async fn list(&self, folder: &str) -> Result<Vec<Listed>, DestinationError>;

    /// What lies under a name, if it is small.
    ///
    /// # Errors
    /// If it cannot be read.
    async fn get(&self, name: &str) -> Result<Bytes, DestinationError>;
}

/// By its address: `s3://BUCKET/PREFIX`, `pvc://CLAIM/FOLDER` of a claim that is mounted in `claims`, or `file:///FOLDER`.
///
/// # Errors
/// In words, if there is no such kind of address, the claim is not mounted, or the client of S3 cannot be made.
pub async fn destination(uri: &str, claims: &Path, pace: Pace) -> Result<Box<dyn Destination>, DestinationError> {
    match uri.split_once("://") {
        Some(("s3", place)) => Ok(Box::new(S3::new(place, pace)?)),
        Some(("pvc", place)) => {
            let claim = place.split('/').next().unwrap_or_default();
            // Without the volume it would be a folder of this container, and gone with it.
            let is_mounted = tokio::fs::metadata(claims.join(claim)).await.is_ok_and(|found| found.is_dir());
            if claim.is_empty() || !is_mounted {
                let name = "name it in the chart's node.collector.claims";
                return Err(DestinationError::Uri(format!("\"{uri}\": no claim \"{claim}\" is mounted here; {name}")));
            }
            Ok(Box::new(Folder::new(claims.join(place), pace)))
        }
        Some(("file", folder)) if folder.starts_with('/') => Ok(Box::new(Folder::new(folder.into(), pace))),
        _ => Err(DestinationError::Uri(format!(
            "\"{uri}\" is none of s3://BUCKET/PREFIX, pvc://CLAIM/FOLDER and file:///FOLDER"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_to_a_claim_lies_on_its_volume_or_nowhere() {
        let claims = tempfile::tempdir().unwrap();
        std::fs::create_dir(claims.path().join("lake")).unwrap();
        let of = |uri| destination(uri, claims.path(), Pace::new(None));
        let put = of("pvc://lake/digits").await.unwrap().put("shards/a.tar", "abc".into()).await;
        assert_eq!(put.unwrap(), Put::Done);
        assert_eq!(std::fs::read(claims.path().join("lake/digits/shards/a.tar")).unwrap(), b"abc");
        let refused = async |uri| of(uri).await.err().unwrap().to_string();
        assert_eq!(
            refused("pvc://sea/digits").await,
            "\"pvc://sea/digits\": no claim \"sea\" is mounted here; name it in the chart's node.collector.claims"
        );
        assert!(refused("pvc:///digits").await.contains("no claim \"\""));
        assert!(refused("ftp://lake").await.contains("is none of s3://"));
    }
}
