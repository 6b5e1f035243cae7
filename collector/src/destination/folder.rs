//! A folder, such as where a volume is mounted.

use super::{Destination, DestinationError, Listed, Pace, Put};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use std::fs::{File, Metadata};
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

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, DestinationError> {
        let path = self.folder.join(folder);
        let files = async || {
            let (mut entries, mut files) = (tokio::fs::read_dir(&path).await?, Vec::new());
            while let Some(entry) = entries.next_entry().await? {
                // Whoever reads what is gone again is told so.
                let found = tokio::fs::metadata(entry.path()).await.ok();
                if !found.as_ref().is_some_and(Metadata::is_dir) {
                    let version = found.map(|found| format!("{} {:?}", found.len(), found.modified().ok()));
                    let name = entry.file_name().to_string_lossy().into_owned();
                    files.push(Listed { name, version: version.unwrap_or_default() });
                }
            }
            Ok::<_, std::io::Error>(files)
        };
        match files().await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            files => files.map_err(|source| DestinationError::Folder { path, source }),
        }
    }

    async fn get(&self, name: &str) -> Result<Bytes, DestinationError> {
        let path = self.folder.join(name);
        let read = tokio::fs::read(&path).await;
        read.map(Bytes::from).map_err(|source| DestinationError::Folder { path, source })
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
    let put = named(std::fs::hard_link(&temporary, path), &temporary, path);
    if temporary.try_exists()? {
        std::fs::remove_file(&temporary)?;
    }
    let put = put?;
    File::open(folder)?.sync_all()?;
    Ok(put)
}

/// By the link that gives what was written its name, or without one: not every volume has hard links.
fn named(linked: std::io::Result<()>, temporary: &Path, path: &Path) -> std::io::Result<Put> {
    linked.map(|()| Put::Done).or_else(|error| match error.kind() {
        ErrorKind::AlreadyExists => Ok(Put::Exists),
        // A name says whose it is and what is in it: no other writes it meanwhile.
        ErrorKind::Unsupported | ErrorKind::PermissionDenied | ErrorKind::TooManyLinks => {
            if path.try_exists()? {
                return Ok(Put::Exists);
            }
            std::fs::rename(temporary, path).map(|()| Put::Done)
        }
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_needs_no_hard_links_and_another_error_is_one_though_the_name_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, path) = (folder.path().join(".a"), folder.path().join("a"));
        let named = |kind: ErrorKind| {
            std::fs::write(&temporary, kind.to_string()).unwrap();
            named(Err(kind.into()), &temporary, &path).map_err(|error| error.kind())
        };
        assert_eq!(named(ErrorKind::StorageFull), Err(ErrorKind::StorageFull));
        assert_eq!(named(ErrorKind::Unsupported), Ok(Put::Done));
        let taken = [ErrorKind::AlreadyExists, ErrorKind::PermissionDenied, ErrorKind::TooManyLinks];
        assert_eq!(taken.map(named), [Ok(Put::Exists); 3]);
        assert_eq!(named(ErrorKind::StorageFull), Err(ErrorKind::StorageFull));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), ErrorKind::Unsupported.to_string(), "the first wins");
    }
}
