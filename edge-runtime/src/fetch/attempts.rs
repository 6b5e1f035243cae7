//! How often a registry is asked, and for how long.

use super::place::Origin;
use super::{FetchError, Source};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A source, and how long it may bring nothing.
pub(super) struct Attempts<'a> {
    pub source: &'a Source,
    patience: Duration,
    /// How many bytes of a file there were at best, over its attempts.
    furthest: AtomicU64,
    /// Of its mirrors, those that were not there when they were asked.
    absent: Vec<AtomicBool>,
}

impl<'a> Attempts<'a> {
    pub fn new(source: &'a Source, patience: Duration) -> Self {
        let absent = source.mirrors().iter().map(|_| AtomicBool::new(false)).collect();
        Self { source, patience, furthest: AtomicU64::new(0), absent }
    }

    /// Each mirror is asked once, and then the registry: what one has begun, the next goes on with.
    pub async fn nearest<T, F>(&self, what: &str, mut attempt: impl FnMut(&'a Origin) -> F) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, FetchError>>,
    {
        let mirrors = self.source.mirrors().iter().zip(&self.absent);
        for (mirror, absent) in mirrors.filter(|(_, absent)| !absent.load(Ordering::Relaxed)) {
            let before = self.furthest.load(Ordering::Relaxed);
            match attempt(mirror).await {
                Ok(fetched) => return Ok(fetched),
                // Here it is another's fault than a mirror's.
                Err(error @ FetchError::Write { .. }) => return Err(error),
                Err(error) => {
                    // Waiting for it once is enough; one that has brought something is there. What is closed to it is all closed.
                    let is_silent = self.furthest.load(Ordering::Relaxed) <= before;
                    let has_none = matches!(error, FetchError::Registry { .. } | FetchError::Unauthorized { .. });
                    absent.store(is_silent && has_none, Ordering::Relaxed);
                    let mirror = mirror.repository().resolve_registry();
                    tracing::warn!(what, mirror, %error, "not from the store near by; asking the registry itself");
                }
            }
        }
        self.retried(what, attempt).await
    }

    /// The registry is asked again while it gets further now and then; one that gives wrong bytes, three times.
    pub async fn retried<T, F>(&self, what: &str, mut attempt: impl FnMut(&'a Origin) -> F) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, FetchError>>,
    {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(10))
            .without_max_times()
            .with_jitter();
        let (mut waits, mut since, mut wrong) = (backoff.build(), Instant::now(), 0);
        self.furthest.store(0, Ordering::Relaxed);
        loop {
            let before = self.furthest.load(Ordering::Relaxed);
            let error = match attempt(self.source.registry()).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => error,
            };
            wrong += u32::from(matches!(error, FetchError::Digest { .. }));
            if self.furthest.load(Ordering::Relaxed) > before {
                (waits, since) = (backoff.build(), Instant::now());
            }
            let wait = waits.next().unwrap_or(self.patience);
            if !error.passes() || wrong == 3 || since.elapsed() + wait > self.patience {
                return Err(error);
            }
            tracing::warn!(what, %error, after = ?wait, "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// So many bytes of the file are there.
    pub fn has(&self, bytes: u64) {
        self.furthest.fetch_max(bytes, Ordering::Relaxed);
    }

    /// The registry's next word.
    pub async fn heard<T>(&self, what: &str, word: impl Future<Output = T>) -> Result<T, FetchError> {
        let silent = |_| FetchError::Registry { what: what.into(), why: format!("silent for {:?}", self.patience) };
        tokio::time::timeout(self.patience, word).await.map_err(silent)
    }
}
