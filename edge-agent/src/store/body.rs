//! Bodies of answers: of a file that may still be on its way, and of one that is passed on without being kept.

use super::Refusal;
use super::asked::Digest;
use super::metrics::Metrics;
use super::transfer::{Begun, HOLD_BACK, Progress, hex};
use super::upstream::Opened;
use axum::body::{Body, Bytes};
use futures::stream::try_unfold;
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt as _;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::spawn_blocking;

/// Given at once.
const BLOCK: u64 = 256 << 10;

/// Of a file's bytes those from `at` to `end`.
pub struct Reading {
    pub begun: Begun,
    pub progress: watch::Receiver<Progress>,
    pub at: u64,
    pub end: u64,
    pub metrics: Metrics,
    /// One of so many who may read at once.
    pub _permit: OwnedSemaphorePermit,
}

impl Reading {
    pub fn body(self) -> Body {
        Body::from_stream(try_unfold(self, Self::next))
    }

    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.at == self.end {
            return Ok(None);
        }
        let at = self.at;
        let until = {
            let far = self.progress.wait_for(|progress| progress.ended.is_some() || progress.shown() > at).await;
            let far = far.map_err(io::Error::other)?;
            if let Some(Err(refusal)) = &far.ended {
                return Err(io::Error::other(refusal.clone()));
            }
            far.shown()
        };
        let bytes = (until.min(self.end) - at).min(BLOCK);
        let held = self.begun.held.clone();
        let read = spawn_blocking(move || {
            let mut block = vec![0; bytes as usize];
            held.file.read_exact_at(&mut block, at).map(|()| Bytes::from(block))
        });
        let block = read.await.map_err(io::Error::other)??;
        self.at += bytes;
        self.metrics.served(block.len());
        Ok(Some((block, self)))
    }
}

/// What a registry gives, a little later.
pub struct Relay {
    opened: Opened,
    digest: Digest,
    metrics: Metrics,
    _permit: OwnedSemaphorePermit,
    is_whole: bool,
    hasher: Sha256,
    waiting: VecDeque<Bytes>,
    waiting_bytes: u64,
}

impl Relay {
    pub fn new(opened: Opened, digest: Digest, metrics: Metrics, permit: OwnedSemaphorePermit) -> Self {
        let (hasher, waiting) = (Sha256::new(), VecDeque::new());
        Self { opened, digest, metrics, _permit: permit, is_whole: false, hasher, waiting, waiting_bytes: 0 }
    }

    fn behind_the_first(&self) -> u64 {
        self.waiting_bytes - self.waiting.front().map_or(0, |chunk| chunk.len() as u64)
    }

    /// Reads on until there is more than is held back, or all: then the first of it may be shown.
    ///
    /// # Errors
    /// [`Refusal`] if the registry breaks off, or all of it is not what it should be.
    pub async fn fill(&mut self) -> Result<(), Refusal> {
        while !self.is_whole && self.behind_the_first() < HOLD_BACK {
            if let Some(chunk) = self.opened.chunk().await? {
                self.hasher.update(&chunk);
                self.waiting_bytes += chunk.len() as u64;
                self.waiting.push_back(chunk);
                continue;
            }
            let got = hex(std::mem::take(&mut self.hasher));
            if got != self.digest.hex() {
                tracing::warn!(digest = %self.digest, got, "a registry gave other bytes");
                return Err(Refusal::Digest { got: format!("sha256:{got}") });
            }
            self.is_whole = true;
        }
        Ok(())
    }

    pub fn body(self) -> Body {
        Body::from_stream(try_unfold(self, Self::next))
    }

    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Refusal> {
        self.fill().await?;
        let Some(chunk) = self.waiting.pop_front() else { return Ok(None) };
        self.waiting_bytes -= chunk.len() as u64;
        self.metrics.served(chunk.len());
        Ok(Some((chunk, self)))
    }
}
