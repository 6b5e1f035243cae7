//! The model: its owners take batches from one bounded queue, on the threads that read the sockets or on one of their own.

mod executor;
mod owner;
mod queue;

pub use executor::Executor;

use crate::batch::{DEFAULT_LEVEL, Policy};
use crate::decode::Input;
use crate::encode::Output;
use crate::metrics::OfModel;
use candle_core::Tensor;
use queue::Queue;
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::plan::{Plan, Scratch};
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error;
use tokio::sync::oneshot;

/// Why a request that was well formed got no answer.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EngineError {
    #[error("the queue is full ({limit} requests wait); try again later or elsewhere")]
    QueueFull { limit: usize },
    #[error("the deadline passed before the model could run")]
    Late,
    #[error("the request waited in the queue for longer than its timeout")]
    Expired,
    #[error("the server is shutting down")]
    Closed,
    #[error("the model failed: {why}")]
    Failed { why: String },
}

/// Until when, and before whom, a request is answered.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// After it nobody waits for the answer.
    pub deadline: Option<Instant>,
    /// After it the request may not begin.
    pub expires: Option<Instant>,
    /// As [`batch::level`](crate::batch::level) gives it.
    pub level: u8,
}

impl Default for Terms {
    fn default() -> Self {
        Self { deadline: None, expires: None, level: DEFAULT_LEVEL }
    }
}

/// A model, and what it runs on.
pub struct Runner {
    pub plan: Plan,
    pub isa: IsaToken,
    pub threads: Threads,
}

impl Runner {
    /// Answers several requests as one batch, as [`Plan::infer`].
    ///
    /// # Errors
    /// If one of them does not fit the model.
    pub fn infer(&self, xs: &[&Tensor], scratch: &mut Scratch) -> candle_core::Result<Vec<Tensor>> {
        self.plan.infer(Cpu { isa: self.isa, threads: &self.threads }, xs, scratch)
    }
}

/// Dropped, it ends the model's owners once the queue is empty.
pub struct Engine {
    queue: Arc<Queue>,
    policy: Policy,
}

impl Engine {
    /// Starts the model's owners: one on each thread of this runtime, or one on a thread of its own.
    ///
    /// # Errors
    /// If the system gives no thread, or there is no runtime for owners that run inline.
    pub fn start(
        runner: Runner,
        policy: Policy,
        queue_size: usize,
        metrics: Arc<OfModel>,
        executor: Executor,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(queue_size, metrics));
        executor.start(&queue, runner, policy)?;
        Ok(Self { queue, policy })
    }

    /// What batches are made by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether one more request may wait at this moment.
    ///
    /// # Errors
    /// [`EngineError`] that [`submit`](Self::submit) would return at once.
    pub fn admit(&self) -> Result<(), EngineError> {
        self.queue.admit()
    }

    /// Waits for the answer to one request. Dropped before that, it leaves the queue at once.
    ///
    /// # Errors
    /// [`EngineError`]: at once if the queue is full, at the deadline if it passes, at the timeout if it still waits then.
    pub async fn submit(&self, input: Input, terms: Terms) -> Result<Output, EngineError> {
        let (reply, answer) = oneshot::channel();
        let ticket = self.queue.enqueue(input, terms, reply)?;
        let mut place = Place { queue: &self.queue, ticket, over: false };
        let expired = async {
            until(terms.expires).await;
            // What has begun is finished.
            if !place.leave() {
                std::future::pending().await
            }
        };
        let outcome = tokio::select! {
            biased;
            answer = answer => Ok(answer.unwrap_or(Err(EngineError::Closed))),
            () = until(terms.deadline) => Err(EngineError::Late),
            () = expired => Err(EngineError::Expired),
        };
        if outcome.is_err() {
            place.leave();
        }
        place.over = true;
        outcome.flatten()
    }
}

/// Never, without a moment.
pub(crate) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// A request's place in the queue. Dropped before it is over, the request's client is gone, and it leaves the queue.
struct Place<'a> {
    queue: &'a Queue,
    ticket: u64,
    over: bool,
}

impl Place<'_> {
    /// Whether it still was in the queue.
    fn leave(&self) -> bool {
        self.queue.leave(self.ticket)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.over && self.leave() {
            self.queue.metrics.dropped();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.close();
    }
}
