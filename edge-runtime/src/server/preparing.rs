//! Decodes images beside the threads that read requests, a few at a time: large ones take as long as a thousand small tensors, and
//! memory.

use crate::decode::{Images, Input, pixels_at_once};
use crate::engine::{EngineError, Terms, until};
use crate::process;
use crate::server::Refusal;
use bytes::Bytes;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Requests that may wait for a place at work; one more is refused at once.
const WAITING: usize = 64;

pub(super) struct Preparing {
    waiting: Semaphore,
    /// As many as there are processors.
    working: Arc<Semaphore>,
    /// As many as there is memory for; they are those of the images at work.
    pixels: Arc<Semaphore>,
    /// When nobody works.
    all_pixels: u32,
}

impl Preparing {
    pub(super) fn new() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, Into::into);
        // Without a limit: more than 256 of the largest, which is no limit.
        let all_pixels = u32::try_from(pixels_at_once(process::memory_limit())).unwrap_or(u32::MAX);
        let [working, pixels] = [workers, all_pixels as usize].map(|places| Arc::new(Semaphore::new(places)));
        Self { waiting: Semaphore::new(WAITING), working, pixels, all_pixels }
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
        let (pixels, all_pixels) = (self.pixels.clone(), self.all_pixels);
        let input = tokio::task::spawn_blocking(move || {
            // Given back by who works, even if nobody waits for it any more.
            let _worker = worker;
            let need = images.pixels(&encoded)?.min(all_pixels.into()) as u32;
            let _pixels = Handle::current().block_on(pixels.acquire_many(need));
            images.tensor(&encoded)
        });
        Ok(input.await.map_err(|error| EngineError::Failed { why: error.to_string() })??)
    }
}
