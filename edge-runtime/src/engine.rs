//! The model's one owner: a thread that takes batches from a bounded queue.

use crate::batch::{DEFAULT_LEVEL, Decision, Fate, Policy, Waiting, next, place};
use crate::decode::Input;
use crate::encode::Output;
use crate::metrics::Metrics;
use candle_core::Tensor;
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::plan::{Plan, Scratch};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
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

struct Job {
    ticket: u64,
    xs: Tensor,
    rows: usize,
    terms: Terms,
    arrived: Instant,
    reply: oneshot::Sender<Result<Output, EngineError>>,
}

#[derive(Default)]
struct Queue {
    /// The more urgent first.
    jobs: VecDeque<Job>,
    tickets: u64,
    closed: bool,
}

impl Queue {
    /// Takes as many jobs as there are fates; those that run are returned.
    fn split(&mut self, fates: &[Fate]) -> Vec<Job> {
        let mut batch = Vec::with_capacity(fates.len());
        for (job, fate) in self.jobs.drain(..fates.len()).zip(fates) {
            match fate {
                Fate::Run => batch.push(job),
                Fate::Late => drop(job.reply.send(Err(EngineError::Late))),
                Fate::Expired => drop(job.reply.send(Err(EngineError::Expired))),
                Fate::Abandoned => {}
            }
        }
        batch
    }
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    limit: usize,
    metrics: Arc<Metrics>,
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

/// Dropped, it ends its thread once the queue is empty.
pub struct Engine {
    shared: Arc<Shared>,
    policy: Policy,
}

impl Engine {
    /// Starts the model's thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(runner: Runner, policy: Policy, queue_size: usize, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), arrived: Condvar::new(), limit: queue_size, metrics });
        let of_thread = shared.clone();
        std::thread::Builder::new().name("model".into()).spawn(move || of_thread.run(&runner, &policy))?;
        Ok(Self { shared, policy })
    }

    /// What batches are made by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Waits for the answer to one request. Dropped before that, it leaves the queue at once.
    ///
    /// # Errors
    /// [`EngineError`]: at once if the queue is full, at the deadline if it passes, at the timeout if it still waits then.
    pub async fn submit(&self, input: Input, terms: Terms) -> Result<Output, EngineError> {
        let (reply, answer) = oneshot::channel();
        let ticket = self.shared.enqueue(input, terms, reply)?;
        let mut place = Place { shared: &self.shared, ticket, over: false };
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

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// A request's place in the queue. Dropped before it is over, the request's client is gone, and it leaves the queue.
struct Place<'a> {
    shared: &'a Shared,
    ticket: u64,
    over: bool,
}

impl Place<'_> {
    /// Whether it still was in the queue.
    fn leave(&self) -> bool {
        let jobs = &mut self.shared.lock().jobs;
        let place = jobs.iter().position(|job| job.ticket == self.ticket);
        place.and_then(|place| jobs.remove(place)).is_some()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.over && self.leave() {
            self.shared.metrics.dropped();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_one();
    }
}

/// The model's thread ends, whatever the reason: nobody waits for it any longer.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.jobs.clear();
    }
}

impl Shared {
    /// A queue is whole between any two of its lines: a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request into the queue; its ticket names it there.
    fn enqueue(
        &self,
        input: Input,
        terms: Terms,
        reply: oneshot::Sender<Result<Output, EngineError>>,
    ) -> Result<u64, EngineError> {
        let Input { xs, rows } = input;
        let mut queue = self.lock();
        if queue.closed {
            return Err(EngineError::Closed);
        }
        if queue.jobs.len() >= self.limit {
            return Err(EngineError::QueueFull { limit: self.limit });
        }
        queue.tickets += 1;
        let ticket = queue.tickets;
        let place = place(queue.jobs.iter().map(|job| job.terms.level), terms.level);
        queue.jobs.insert(place, Job { ticket, xs, rows, terms, arrived: Instant::now(), reply });
        drop(queue);
        self.arrived.notify_one();
        Ok(ticket)
    }

    fn run(&self, runner: &Runner, policy: &Policy) {
        let mut scratch = runner.plan.scratch(policy.max_batch_size);
        let _end = End(self);
        while let Some(batch) = self.take(policy) {
            if !batch.is_empty() {
                self.infer(runner, &mut scratch, batch);
            }
        }
    }

    /// The next batch; `None` once the engine is dropped and the queue is empty.
    fn take(&self, policy: &Policy) -> Option<Vec<Job>> {
        let mut queue = self.lock();
        loop {
            let waiting = queue.jobs.iter().map(|job| Waiting {
                rows: job.rows,
                arrived: job.arrived,
                deadline: job.terms.deadline,
                expires: job.terms.expires,
                abandoned: job.reply.is_closed(),
            });
            let now = Instant::now();
            // The thread that asks is the one that computes: it is free.
            match next(waiting, false, policy, now) {
                Decision::Take(fates) => return Some(queue.split(&fates)),
                Decision::Wait(until) => {
                    let waited = self.arrived.wait_timeout(queue, until - now);
                    queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Decision::Idle if queue.closed => return None,
                Decision::Idle => queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn infer(&self, runner: &Runner, scratch: &mut Scratch, batch: Vec<Job>) {
        let began = Instant::now();
        let waited: Vec<Duration> = batch.iter().map(|job| began - job.arrived).collect();
        waited.iter().for_each(|waited| self.metrics.stage("queue", *waited));
        let rows: usize = batch.iter().map(|job| job.rows).sum();
        self.metrics.batch(rows);
        let answer = || -> candle_core::Result<Vec<Output>> {
            let xs: Vec<&Tensor> = batch.iter().map(|job| &job.xs).collect();
            Ok(runner.infer(&xs, scratch)?.into_iter().map(|ys| Output { ys }).collect())
        };
        // Whatever happens everybody gets an answer, and the thread lives on: a run writes its buffers before it reads them.
        let answers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(answer));
        self.metrics.stage("infer", began.elapsed());
        match answers {
            Ok(Ok(outputs)) => {
                self.metrics.statistics.executed(rows, &waited, began.elapsed());
                for (job, output) in batch.into_iter().zip(outputs) {
                    drop(job.reply.send(Ok(output)));
                }
            }
            failed => {
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "it panicked".into(),
                };
                for job in batch {
                    drop(job.reply.send(Err(EngineError::Failed { why: why.clone() })));
                }
            }
        }
    }
}
