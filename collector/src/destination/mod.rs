//! Where shards go: an S3 bucket, or a folder. Whatever it is, a name is written once, whole or not at all.

mod folder;
mod pace;
mod s3;

pub use folder::Folder;
pub use pace::Pace;
pub use s3::S3;

use async_trait::async_trait;
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Done,
    /// The name was there before.
    Exists,
}

#[derive(thiserror::Error, Debug)]
pub enum DestinationError {
    #[error("{0}")]
    Uri(String),
    #[error("the object store refuses or does not answer")]
    Store(#[from] object_store::Error),
    #[error("cannot write to {path}")]
    Folder { path: std::path::PathBuf, source: std::io::Error },
}

#[async_trait]
pub trait Destination: Send + Sync {
    /// Writes a name that is not there yet.
    ///
    /// # Errors
    /// If it may not have been written; to try again does no harm.
    async fn put(&self, name: &str, content: Bytes) -> Result<Put, DestinationError>;
}

/// By its address: `s3://BUCKET/PREFIX` or `file:///FOLDER`.
///
/// # Errors
/// In words, if there is no such kind of address, or the client of S3 cannot be made.
pub fn destination(uri: &str, pace: Pace) -> Result<Box<dyn Destination>, DestinationError> {
    match uri.split_once("://") {
        Some(("s3", place)) => Ok(Box::new(S3::new(place, pace)?)),
        Some(("file", folder)) if folder.starts_with('/') => Ok(Box::new(Folder::new(folder.into(), pace))),
        _ => Err(DestinationError::Uri(format!("\"{uri}\" is neither s3://BUCKET/PREFIX nor file:///FOLDER"))),
    }
}
