//! The door: a bucket or a folder. Names are below a prefix, with slashes.

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, RetryConfig};
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

/// Of one request; who reads in a Job or by hand is told then.
const RETRIES: usize = 3;

pub type Fault = Box<dyn std::error::Error + Send + Sync>;

pub enum Place {
    Bucket(Bucket),
    Folder(PathBuf),
}

pub struct Bucket {
    store: AmazonS3,
    prefix: Path,
}

impl Bucket {
    /// `place` is `BUCKET/PREFIX`.
    pub fn new(place: &str) -> Result<Self, Fault> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).build()?;
        Ok(Self { store, prefix: Path::from(prefix) })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }
}

impl Place {
    /// Names of the files of a folder, not of those below its folders; none if there is no such folder.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, Fault> {
        match self {
            Self::Bucket(bucket) => {
                let found = bucket.store.list_with_delimiter(Some(&bucket.path(folder))).await?.objects;
                Ok(found.iter().filter_map(|object| object.location.filename()).map(str::to_owned).collect())
            }
            Self::Folder(root) => match files(&root.join(folder)) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
                names => Ok(names?),
            },
        }
    }

    pub async fn get(&self, name: &str) -> Result<Bytes, Fault> {
        match self {
            Self::Bucket(bucket) => Ok(bucket.store.get(&bucket.path(name)).await?.bytes().await?),
            Self::Folder(root) => Ok(std::fs::read(root.join(name))?.into()),
        }
    }

    /// None if it is not there any more.
    pub async fn find(&self, name: &str) -> Result<Option<Bytes>, Fault> {
        match self.get(name).await {
            Err(error) if is_missing(&error) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Whole or not at all. A name says what is in it: one that is there is the same.
    pub async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        match self {
            Self::Bucket(bucket) => {
                match bucket.store.put_opts(&bucket.path(name), bytes.into(), PutMode::Create.into()).await {
                    Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Self::Folder(root) => Ok(write(&root.join(name), &bytes)?),
        }
    }

    /// Whole or not at all, in place of what is there.
    pub async fn replace(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        match self {
            Self::Bucket(bucket) => Ok(bucket.store.put(&bucket.path(name), bytes.into()).await.map(drop)?),
            Self::Folder(root) => Ok(write(&root.join(name), &bytes)?),
        }
    }

    /// What is not there is deleted already.
    pub async fn delete(&self, name: &str) -> Result<(), Fault> {
        match self {
            Self::Bucket(bucket) => match bucket.store.delete(&bucket.path(name)).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            },
            Self::Folder(root) => match std::fs::remove_file(root.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
        }
    }
}

fn is_missing(error: &Fault) -> bool {
    let of_folder = error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound);
    of_folder || error.downcast_ref::<Error>().is_some_and(|error| matches!(error, Error::NotFound { .. }))
}

fn files(folder: &std::path::Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// On the disk before it has its name: what it stands for is deleted next.
fn write(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(std::path::Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    std::fs::create_dir_all(folder)?;
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    File::open(folder)?.sync_all()
}
