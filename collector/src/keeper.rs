//! One dataset's store behind a queue: what comes in is written in batches, and whoever waits is told once the disk has it.

use crate::clock::Now;
use crate::counts::Drop;
use crate::sample::Sample;
use crate::store::{Outcome, Store};
use crate::upload::locked;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// So long samples are gathered before they are written: at most so many writes a second wear the disk. What was not answered for
/// is lost with the power: this, and the time of a write.
const GATHER: Duration = Duration::from_millis(200);
/// What waits to be written, at most.
const QUEUE_BYTES: usize = 16 << 20;

struct Incoming {
    sample: Sample,
    content: Bytes,
    told: oneshot::Sender<Outcome>,
    _room: OwnedSemaphorePermit,
}

#[derive(Clone)]
pub struct Keeper {
    pub store: Arc<Mutex<Store>>,
    queue: mpsc::UnboundedSender<Incoming>,
    /// The queue is bounded by bytes.
    room: Arc<Semaphore>,
}

impl Keeper {
    /// Begins to keep; ends when no more can come.
    pub fn start(store: Store) -> Self {
        let store = Arc::new(Mutex::new(store));
        let (queue, incoming) = mpsc::unbounded_channel();
        tokio::spawn(write(store.clone(), incoming));
        Self { store, queue, room: Arc::new(Semaphore::new(QUEUE_BYTES)) }
    }

    /// Keeps a sample; returns what became of it, when that is on the disk. Waits for no room: what comes too fast is dropped.
    pub async fn keep(&self, sample: Sample, content: Bytes) -> Outcome {
        let bytes = content.len() as u32 + 1024;
        let Ok(room) = self.room.clone().try_acquire_many_owned(bytes) else { return self.refuse(Drop::Busy).await };
        let (told, outcome) = oneshot::channel();
        let sent = self.queue.send(Incoming { sample, content, told, _room: room });
        match sent {
            // Nobody answers where the write panicked.
            Ok(()) => outcome.await.unwrap_or(Outcome::Dropped(Drop::Busy)),
            Err(_) => Outcome::Dropped(Drop::Busy),
        }
    }

    /// Counts a sample that is not kept.
    pub async fn refuse(&self, why: Drop) -> Outcome {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || locked(&store).refused(why, 1)).await.ok();
        Outcome::Dropped(why)
    }

    /// Does something with the store, off the reactor.
    ///
    /// # Errors
    /// If that panicked.
    pub async fn with<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || what(&mut locked(&store))).await
    }
}

async fn write(store: Arc<Mutex<Store>>, mut incoming: mpsc::UnboundedReceiver<Incoming>) {
    while let Some(first) = incoming.recv().await {
        let mut batch = vec![first];
        let until = Instant::now() + GATHER;
        while let Ok(Some(next)) = timeout_at(until, incoming.recv()).await {
            batch.push(next);
        }
        let (samples, waiting): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|incoming| ((incoming.sample, incoming.content), (incoming.told, incoming._room)))
            .unzip();
        let store = store.clone();
        let outcomes = tokio::task::spawn_blocking(move || locked(&store).add(&samples, &Now::read())).await;
        for ((told, _), outcome) in waiting.into_iter().zip(outcomes.unwrap_or_default()) {
            told.send(outcome).ok();
        }
    }
}
