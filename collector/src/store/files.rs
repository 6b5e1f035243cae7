//! The store's files: segments that are allocated whole before the first sample goes in, so that a full disk is met at one place.

use rustix::fs::{FallocateFlags, fallocate};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Takes room on the disk for a file.
pub type Allocate = fn(&File, u64) -> io::Result<()>;

/// # Errors
/// If the disk has no such room.
pub fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = [0; 65_536];
            for at in (0..bytes).step_by(zeros.len()) {
                file.write_all_at(&zeros[..zeros.len().min((bytes - at) as usize)], at)?;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

struct Current {
    number: u64,
    file: File,
    end: u64,
}

pub struct Files {
    folder: PathBuf,
    /// Of one segment.
    pub size: u64,
    allocate: Allocate,
    /// Bytes of each.
    segments: BTreeMap<u64, u64>,
    current: Option<Current>,
    next: u64,
    _lock: File,
}

impl Files {
    /// # Errors
    /// If the folder cannot be made, or another process has it.
    pub fn open(folder: &Path, size: u64, allocate: Allocate) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        lock.try_lock().map_err(|_| io::Error::other("another collector has this folder"))?;
        let mut segments = BTreeMap::new();
        for file in std::fs::read_dir(folder)? {
            let file = file?;
            let name = file.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".segment")?.parse::<u64>().ok());
            if let Some(number) = number {
                segments.insert(number, file.metadata()?.len());
            }
        }
        let next = segments.last_key_value().map_or(1, |(last, _)| last + 1);
        Ok(Self { folder: folder.to_owned(), size, allocate, segments, current: None, next, _lock: lock })
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{segment:012}.segment"))
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.segments.keys().copied().collect()
    }

    /// The oldest, if it is not the only one: the last holds the counts.
    pub fn oldest(&self) -> Option<u64> {
        self.segments.first_key_value().filter(|_| self.segments.len() > 1).map(|(number, _)| *number)
    }

    /// The number of the current one, or of the next if none is begun.
    pub fn newest(&self) -> u64 {
        self.current.as_ref().map_or(self.next, |current| current.number)
    }

    /// On the disk.
    pub fn bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, segment: u64) -> io::Result<Vec<u8>> {
        std::fs::read(self.path(segment))
    }

    /// # Errors
    /// If it cannot be read.
    pub fn read_at(&self, segment: u64, offset: usize, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        File::open(self.path(segment))?.read_exact_at(&mut bytes, offset as u64)?;
        Ok(bytes)
    }

    /// Cuts off what was never committed; one that holds nothing goes.
    ///
    /// # Errors
    /// If the file cannot be changed.
    pub fn seal(&mut self, segment: u64, end: u64) -> io::Result<()> {
        if end == 0 {
            return self.remove(segment);
        }
        if self.segments.get(&segment) != Some(&end) {
            OpenOptions::new().write(true).open(self.path(segment))?.set_len(end)?;
            self.segments.insert(segment, end);
        }
        Ok(())
    }

    /// # Errors
    /// If the file cannot be removed.
    pub fn remove(&mut self, segment: u64) -> io::Result<()> {
        std::fs::remove_file(self.path(segment))?;
        self.segments.remove(&segment);
        Ok(())
    }

    /// Whether a batch fits in the current segment, with so much left of it.
    pub fn fits(&self, bytes: usize, left: u64) -> bool {
        self.current.as_ref().is_some_and(|current| current.end + bytes as u64 + left <= self.size)
    }

    /// Where the next batch goes.
    pub fn end(&self) -> Option<(u64, usize)> {
        self.current.as_ref().map(|current| (current.number, current.end as usize))
    }

    /// Begins another segment.
    ///
    /// # Errors
    /// Above all if the disk is full; what is there stays as it is.
    pub fn rotate(&mut self) -> io::Result<()> {
        let number = self.next;
        let path = self.path(number);
        let file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
        let allocated = (self.allocate)(&file, self.size).and_then(|()| file.sync_all());
        if let Err(error) = allocated.and_then(|()| File::open(&self.folder)?.sync_all()) {
            std::fs::remove_file(&path).ok();
            return Err(error);
        }
        self.close()?;
        self.next += 1;
        self.segments.insert(number, self.size);
        self.current = Some(Current { number, file, end: 0 });
        Ok(())
    }

    /// Writes a batch and waits until the disk has it.
    ///
    /// # Errors
    /// If it has not; the batch is then as if it had never been, and the next goes to another segment.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(current) = self.current.as_mut() else { return Err(io::Error::other("no segment is begun")) };
        match current.file.write_all_at(bytes, current.end).and_then(|()| current.file.sync_data()) {
            Ok(()) => {
                current.end += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.close()?;
                Err(error)
            }
        }
    }

    fn close(&mut self) -> io::Result<()> {
        match self.current.take() {
            Some(current) => self.seal(current.number, current.end),
            None => Ok(()),
        }
    }
}
