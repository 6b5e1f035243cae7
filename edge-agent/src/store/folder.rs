//! The files: what is kept, each under its digest, and what is on its way, under another name until it is whole.

use super::asked::{Asked, Digest};
use super::index::{Id, Index, most};
use super::metrics::Metrics;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use sha2::Digest as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

const PARTIAL: &str = ".partial";

/// A folder that no other process has.
pub struct Folder {
    path: PathBuf,
    most_bytes: u64,
    index: Mutex<Index>,
    metrics: Metrics,
    _lock: File,
}

/// A file that does not go while this lives.
pub struct Held {
    folder: Arc<Folder>,
    /// Empty once it is removed.
    name: Mutex<String>,
    id: Id,
    pub file: File,
}

impl Folder {
    /// What is neither kept nor on its way is not touched.
    ///
    /// # Errors
    /// If it cannot be made or read, or another process has it.
    pub fn open(path: &Path, most_bytes: u64, metrics: Metrics) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        lock.try_lock().map_err(|_| io::Error::other("another store has this folder"))?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if let Some(name) = entry.file_name().to_str().filter(|name| about.is_file() && is_ours(name)) {
                files.push((name.to_owned(), about.len(), about.modified().unwrap_or(SystemTime::UNIX_EPOCH)));
            }
        }
        let index = Index::new(files);
        metrics.kept(index.bytes());
        Ok(Self { path: path.to_owned(), most_bytes, index: index.into(), metrics, _lock: lock })
    }

    /// What is kept of this digest, whoever brought it; its bytes are as the disk has them.
    pub fn kept(self: &Arc<Self>, digest: &Digest) -> Option<Held> {
        let name = kept_name(digest);
        let mut index = self.index();
        let id = index.begin(&name)?;
        match File::open(self.path.join(&name)) {
            Ok(file) => {
                // So the order of use outlives this process; where that cannot be written, it does not.
                file.set_modified(SystemTime::now()).ok();
                drop(index);
                Some(self.held(name, id, file))
            }
            Err(error) => {
                tracing::warn!(name, %error, "a kept file cannot be read");
                index.forget(&name);
                self.metrics.kept(index.bytes());
                None
            }
        }
    }

    /// Bytes that are there of what is on its way; none if nothing is.
    pub fn begun(&self, asked: &Asked) -> u64 {
        std::fs::metadata(self.path.join(partial_name(asked))).map_or(0, |about| about.len())
    }

    /// A file to write to, with room for so many bytes in all, which others may have to go for; what is there of it stays. `None` if
    /// there is no such room.
    ///
    /// # Errors
    /// If the disk gives no file.
    pub fn begin(self: &Arc<Self>, asked: &Asked, bytes: u64) -> io::Result<Option<Held>> {
        let name = partial_name(asked);
        let disk = statvfs(&self.path)?;
        let mut index = self.index();
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let most = most(self.most_bytes, index.bytes(), free, disk.f_blocks.saturating_mul(disk.f_frsize));
        let Some((id, victims)) = index.reserve(&name, bytes, most) else { return Ok(None) };
        for victim in victims {
            tracing::info!(victim, "goes, to make room: it was used longest ago");
            self.remove_file(&victim);
            self.metrics.evicted();
        }
        self.metrics.kept(index.bytes());
        drop(index);
        let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(self.path.join(&name));
        let file = opened.inspect_err(|_| self.forget(&name))?;
        let held = self.held(name, id, file);
        // A full disk is met here and not half way. Not all file systems can.
        match fallocate(&held.file, FallocateFlags::KEEP_SIZE, 0, bytes.max(1)) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(Some(held)),
            Err(error) => {
                held.remove();
                Err(error.into())
            }
        }
    }

    fn held(self: &Arc<Self>, name: String, id: Id, file: File) -> Held {
        Held { folder: self.clone(), name: name.into(), id, file }
    }

    fn forget(&self, name: &str) {
        let mut index = self.index();
        index.forget(name);
        self.metrics.kept(index.bytes());
    }

    fn remove_file(&self, name: &str) {
        if let Err(error) = std::fs::remove_file(self.path.join(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(name, %error, "cannot be removed");
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Gives what is whole and right its name, for good: also if the power fails now.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn keep(&self, digest: &Digest) -> io::Result<()> {
        self.file.sync_all()?;
        let (kept, mut name) = (kept_name(digest), self.name());
        let mut index = self.folder.index();
        std::fs::rename(self.folder.path.join(&*name), self.folder.path.join(&kept))?;
        index.rename(&name, &kept);
        *name = kept;
        drop(index);
        File::open(&self.folder.path)?.sync_all()
    }

    /// It is worth nothing: it has rotted, or never was what it should be.
    pub fn remove(&self) {
        let name = std::mem::take(&mut *self.name());
        self.folder.remove_file(&name);
        self.folder.forget(&name);
    }

    fn name(&self) -> MutexGuard<'_, String> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut index = self.folder.index();
        // What was not brought to its end, and by nobody else, takes what is there of it.
        if let Some(name) = index.end(self.id).map(str::to_owned)
            && name.ends_with(PARTIAL)
            && let Ok(about) = self.file.metadata()
        {
            self.file.set_len(about.len()).ok();
            index.shrink(&name, about.len());
        }
        self.folder.metrics.kept(index.bytes());
    }
}

fn kept_name(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// Of each repository another: whoever names one that gives wrong bytes spoils nobody else's.
fn partial_name(asked: &Asked) -> String {
    let place = sha2::Sha256::digest(format!("{}/{}/{}", asked.registry, asked.repository, asked.kind.path()));
    let place: String = place.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{place}{PARTIAL}", kept_name(&asked.digest))
}

fn is_ours(name: &str) -> bool {
    let stem = name.strip_suffix(PARTIAL).and_then(|stem| stem.rsplit_once('-')).map_or(name, |(stem, _)| stem);
    stem.strip_prefix("sha256-").is_some_and(|hex| Digest::parse(&format!("sha256:{hex}")).is_some())
}
