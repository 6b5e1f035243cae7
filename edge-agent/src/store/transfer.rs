//! One file on its way, from a registry or from the disk, to all who asked for it meanwhile. Nobody sees the last of it before its
//! digest is right.

use super::asked::Asked;
use super::folder::{Folder, Held};
use super::upstream::Opened;
use super::{Refusal, Store};
use axum::body::Bytes;
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// So many bytes are shown only when all are there and right: what is shorter is never shown to be something else, such as a page
/// that some other server has at the place that a registry's redirection names.
pub const HOLD_BACK: u64 = 256 << 10;
/// Read at once.
const BLOCK: usize = 256 << 10;
/// Before a registry that broke off is asked to go on; longer each time that it brings nothing.
const AGAIN: Duration = Duration::from_millis(200);
/// For so long it may bring nothing; those who wait here do so for a little longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far it is.
#[derive(Clone, Default)]
pub struct Progress {
    /// `None` until it is known that it comes.
    pub begun: Option<Begun>,
    /// Bytes of it that are in the file.
    pub written: u64,
    pub ended: Option<Result<(), Refusal>>,
}

#[derive(Clone)]
pub struct Begun {
    pub held: Arc<Held>,
    /// Of the whole.
    pub size: u64,
}

impl Progress {
    /// Bytes that may be shown.
    pub fn shown(&self) -> u64 {
        match self.ended {
            Some(Ok(())) => self.written,
            _ => self.written.saturating_sub(HOLD_BACK),
        }
    }
}

/// As long as this lives, others join it.
pub struct Transfer {
    pub store: Arc<Store>,
    pub asked: Asked,
    pub progress: Arc<watch::Sender<Progress>>,
}

impl Transfer {
    /// Until it has come, or cannot; then nobody joins it any more.
    pub async fn run(self, folder: Arc<Folder>, kept: Option<Held>) {
        let ended = match kept {
            Some(held) => self.verify(held).await,
            None => self.download(&folder).await,
        };
        if let Err(refusal) = &ended {
            let Asked { registry, repository, digest, .. } = &self.asked;
            tracing::warn!(registry, repository, %digest, %refusal, "not given");
        }
        self.end(ended);
    }

    fn end(&self, ended: Result<(), Refusal>) {
        // Whoever comes from now on finds the file, or asks anew.
        self.store.forget(&self.asked, &self.progress);
        self.progress.send_modify(|progress| {
            progress.ended.get_or_insert(ended);
        });
    }

    /// Reads what is kept, and holds it against its digest: what has rotted goes.
    async fn verify(&self, held: Held) -> Result<(), Refusal> {
        let (digest, progress, metrics) =
            (self.asked.digest.clone(), self.progress.clone(), self.store.metrics.clone());
        let verified = spawn_blocking(move || {
            let held = Arc::new(held);
            let size = held.file.metadata().map_err(disk)?.len();
            let (mut hasher, mut block) = (Sha256::new(), vec![0; BLOCK]);
            let mut at = 0;
            progress.send_modify(|progress| progress.begun = Some(Begun { held: held.clone(), size }));
            while at < size && progress.receiver_count() > 0 {
                let block = &mut block[..BLOCK.min((size - at) as usize)];
                if let Err(error) = held.file.read_exact_at(block, at) {
                    // It is worth as little as one that has other bytes.
                    tracing::warn!(%digest, %error, "a kept file cannot be read");
                    break;
                }
                hasher.update(&*block);
                at += block.len() as u64;
                progress.send_modify(|progress| progress.written = at);
            }
            if at < size && progress.receiver_count() == 0 {
                return Err(Refusal::Abandoned);
            }
            if at < size || hex(hasher) != digest.hex() {
                held.remove();
                metrics.rotten();
                return Err(Refusal::Rotten);
            }
            Ok(())
        });
        verified.await.map_err(disk)?
    }

    /// Goes on where an earlier one ended; it is kept only when its digest is right.
    async fn download(&self, folder: &Arc<Folder>) -> Result<(), Refusal> {
        let begun = folder.begun(&self.asked);
        let opened = self.store.upstream.open(&self.asked, begun).await?;
        let size = opened.size;
        let mut file = {
            let (folder, asked) = (folder.clone(), self.asked.clone());
            let opened = spawn_blocking(move || Coming::open(&folder, &asked, size));
            opened.await.map_err(disk)??
        };
        let begun = Begun { held: file.held.clone(), size };
        self.progress.send_modify(|progress| (progress.begun, progress.written) = (Some(begun), file.have));
        let (mut next, mut in_vain, mut heard) = (Ok(opened), 0, Instant::now());
        loop {
            let before = file.have;
            let poured = match next {
                Ok(opened) => self.pour(opened, &mut file).await,
                Err(refusal) => Err(refusal),
            };
            if file.have > before {
                (in_vain, heard) = (0, Instant::now());
            }
            in_vain += 1;
            match poured {
                Ok(()) => break,
                Err(Refusal::Unreachable { why }) if heard.elapsed() < PATIENCE => {
                    tracing::info!(digest = %self.asked.digest, have = file.have, size, why, "going on");
                    tokio::time::sleep(AGAIN * in_vain.min(5)).await;
                    next = self.store.upstream.open(&self.asked, file.have).await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
        let got = hex(file.hasher);
        if got != self.asked.digest.hex() {
            file.held.remove();
            return Err(Refusal::Digest { got: format!("sha256:{got}") });
        }
        let (held, digest) = (file.held, self.asked.digest.clone());
        let kept = spawn_blocking(move || held.keep(&digest)).await.map_err(std::io::Error::other).flatten();
        if let Err(error) = kept {
            // Who waits for it has it all the same.
            tracing::warn!(digest = %self.asked.digest, %error, "not kept");
        }
        Ok(())
    }

    /// What the registry gives, from where it begins to the end.
    async fn pour(&self, mut opened: Opened, file: &mut Coming) -> Result<(), Refusal> {
        if opened.size != file.size {
            return Err(Refusal::Unreachable { why: "it is another than it was".into() });
        }
        let mut at = opened.first;
        while file.have < file.size {
            let chunk = tokio::select! {
                chunk = opened.chunk() => chunk?,
                () = self.progress.closed() => return Err(Refusal::Abandoned),
            };
            let Some(chunk) = chunk else {
                return Err(Refusal::Unreachable { why: format!("it ended after {at} of {} bytes", file.size) });
            };
            let (first, last) = (at, at.saturating_add(chunk.len() as u64));
            at = last;
            if last > file.have {
                let known = file.have.saturating_sub(first) as usize;
                let rest = (file.size - file.have).min((chunk.len() - known) as u64) as usize;
                file.write(chunk.slice(known..known + rest)).await?;
                self.progress.send_modify(|progress| progress.written = file.have);
            }
        }
        Ok(())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.end(Err(Refusal::Disk { why: "it broke off".into() }));
    }
}

/// A file that grows.
struct Coming {
    held: Arc<Held>,
    hasher: Sha256,
    have: u64,
    size: u64,
}

impl Coming {
    /// With what is there of it.
    fn open(folder: &Arc<Folder>, asked: &Asked, size: u64) -> Result<Self, Refusal> {
        let held = Arc::new(folder.begin(asked, size).map_err(disk)?.ok_or(Refusal::NoRoom)?);
        let mut have = held.file.metadata().map_err(disk)?.len();
        if have >= size {
            have = 0;
        }
        held.file.set_len(have).map_err(disk)?;
        let (mut hasher, mut block, mut at) = (Sha256::new(), vec![0; BLOCK], 0);
        while at < have {
            let block = &mut block[..BLOCK.min((have - at) as usize)];
            held.file.read_exact_at(block, at).map_err(disk)?;
            hasher.update(&*block);
            at += block.len() as u64;
        }
        Ok(Self { held, hasher, have, size })
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), Refusal> {
        self.hasher.update(&chunk);
        let (held, at, bytes) = (self.held.clone(), self.have, chunk.len() as u64);
        let written = spawn_blocking(move || held.file.write_all_at(&chunk, at)).await.map_err(std::io::Error::other);
        if let Err(error) = written.flatten() {
            // What a disk has not taken is nothing to go on with.
            self.held.remove();
            return Err(disk(error));
        }
        self.have += bytes;
        Ok(())
    }
}

fn disk(error: impl std::fmt::Display) -> Refusal {
    Refusal::Disk { why: error.to_string() }
}

pub fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
