//! Decodes images beside the threads that read requests, a few at a time: large ones take as long as a thousand small tensors, and
//! memory.

use crate::decode::{DecodeError, Images, Input, memory_at_once};
use crate::engine::{EngineError, Terms, until};
use crate::process;
use crate::server::Refusal;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What memory is counted in.
const KIBIBYTE: u64 = 1024;
/// Requests that may wait for a place at work; one more is refused at once.
const WAITING: usize = 64;

pub(super) struct Preparing {
    waiting: Semaphore,
    /// As many as there are processors.
    working: Arc<Semaphore>,
    /// KiB that the images at work may take.
    memory: Arc<Semaphore>,
    /// When nobody works.
    all_memory: u32,
}

impl Preparing {
    pub(super) fn new() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, Into::into);
        // Without a limit: 4 TiB, which is none.
        let all_memory = u32::try_from(memory_at_once(process::memory_limit()) / KIBIBYTE).unwrap_or(u32::MAX);
        let [working, memory] = [workers, all_memory as usize].map(|places| Arc::new(Semaphore::new(places)));
        Self { waiting: Semaphore::new(WAITING), working, memory, all_memory }
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
        let read = (images.clone(), encoded.clone());
        let need = self.at_work(move || read.0.memory(&read.1)).await?.div_ceil(KIBIBYTE).min(self.all_memory.into());
        // Who waits for it holds up nobody, and leaves when its time is over.
        let memory = self.memory.clone().acquire_many_owned(need as u32).await.map_err(|_| EngineError::Closed)?;
        self.at_work(move || {
            let _memory = memory;
            images.tensor(&encoded)
        })
        .await
    }

    async fn at_work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, DecodeError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let worker = self.working.clone().acquire_owned().await.map_err(|_| EngineError::Closed)?;
        let done = tokio::task::spawn_blocking(move || {
            // Given back by who works, even if nobody waits for it any more.
            let _worker = worker;
            work()
        });
        Ok(done.await.map_err(|error| EngineError::Failed { why: error.to_string() })??)
    }
}
