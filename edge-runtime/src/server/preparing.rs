//! Decodes images beside the threads that read requests, a few at a time: large ones take as long as a thousand small tensors.

use crate::decode::{Images, Input};
use crate::engine::{EngineError, Terms, until};
use crate::server::Refusal;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Requests that may wait for a place at work; one more is refused at once.
const WAITING: usize = 64;

pub(super) struct Preparing {
    waiting: Semaphore,
    /// As many as there are processors.
    working: Arc<Semaphore>,
}

impl Preparing {
    pub(super) fn new() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, Into::into);
        Self { waiting: Semaphore::new(WAITING), working: Arc::new(Semaphore::new(workers)) }
    }

    /// # Errors
    /// [`Refusal`]: no image of this model, too many wait, or it took too long.
    pub(super) async fn input(&self, images: Arc<Images>, encoded: Vec<Bytes>, terms: Terms) -> Result<Input, Refusal> {
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(EngineError::QueueFull { limit: WAITING }.into());
        };
        tokio::select! {
            biased;
            () = until(terms.deadline) => Err(EngineError::Late.into()),
            () = until(terms.expires) => Err(EngineError::Expired.into()),
            input = self.prepared(images, encoded) => input,
        }
    }

    async fn prepared(&self, images: Arc<Images>, encoded: Vec<Bytes>) -> Result<Input, Refusal> {
        let worker = self.working.clone().acquire_owned().await.map_err(|_| EngineError::Closed)?;
        let input = tokio::task::spawn_blocking(move || {
            // Given back by who works, even if nobody waits for it any more.
            let _worker = worker;
            images.tensor(&encoded)
        });
        Ok(input.await.map_err(|error| EngineError::Failed { why: error.to_string() })??)
    }
}
