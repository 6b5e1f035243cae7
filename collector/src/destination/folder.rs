//! A folder, such as where a volume is mounted.

use super::{Destination, DestinationError, Pace, Put};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

pub struct Folder {
    folder: PathBuf,
    pace: Pace,
}

impl Folder {
    pub fn new(folder: PathBuf, pace: Pace) -> Self {
        Self { folder, pace }
    }
}

#[async_trait]
impl Destination for Folder {
    async fn put(&self, name: &str, content: Bytes) -> Result<Put, DestinationError> {
        // A volume may be at the other end of the link.
        self.pace.stream(content.clone()).for_each(|_| async {}).await;
        let path = self.folder.join(name);
        let failed = |source| DestinationError::Folder { path: path.clone(), source };
        let target = path.clone();
        let put = tokio::task::spawn_blocking(move || put(&target, &content)).await;
        put.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)
    }
}

/// Whole and on the disk, or not at all; the first of two that write one name wins.
fn put(path: &Path, content: &[u8]) -> std::io::Result<Put> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    // A part of it would only fill a volume that is full.
    written.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    match std::fs::hard_link(&temporary, path) {
        // Not every volume has them. A name says whose it is and what is in it.
        Err(error)
            if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) && !path.exists() =>
        {
            std::fs::rename(&temporary, path)?;
        }
        linked => {
            std::fs::remove_file(&temporary)?;
            match linked {
                Err(_) if path.exists() => return Ok(Put::Exists),
                linked => linked?,
            }
        }
    }
    File::open(folder)?.sync_all()?;
    Ok(Put::Done)
}
