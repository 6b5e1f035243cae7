//! The model's one owner: a thread that takes batches from a bounded queue.

use crate::batch::{Decision, Fate, Policy, Waiting, next};
use crate::decode::Input;
use crate::encode::Output;
use crate::metrics::Metrics;
use candle_core::Tensor;
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::plan::{Plan, Scratch};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use thiserror::Error;
use tokio::sync::oneshot;

#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum EngineError {
    #[error("the queue is full ({limit} requests wait); try again later or elsewhere")]
    QueueFull { limit: usize },
    #[error("the deadline passed before the model could run")]
    Late,
    #[error("the server is shutting down")]
    Closed,
    #[error("the model failed: {why}")]
    Failed { why: String },
}

struct Job {
    xs: Tensor,
    rows: usize,
    deadline: Option<Instant>,
    arrived: Instant,
    reply: oneshot::Sender<Result<Output, EngineError>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
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
        Ok(Self { shared })
    }

    /// Waits for the answer to one request.
    ///
    /// # Errors
    /// [`EngineError`]: at once if the queue is full, at the deadline if it passes.
    pub async fn submit(&self, input: &Input, deadline: Option<Instant>) -> Result<Output, EngineError> {
        let (reply, answer) = oneshot::channel();
        let job = Job { xs: input.xs.clone(), rows: input.rows, deadline, arrived: Instant::now(), reply };
        {
            let mut queue = self.shared.lock();
            if queue.closed {
                return Err(EngineError::Closed);
            }
            if queue.jobs.len() >= self.shared.limit {
                return Err(EngineError::QueueFull { limit: self.shared.limit });
            }
            queue.jobs.push_back(job);
        }
        self.shared.arrived.notify_one();
        let answer = async { answer.await.unwrap_or(Err(EngineError::Closed)) };
        match deadline {
            None => answer.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), answer).await.unwrap_or(Err(EngineError::Late)),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_one();
    }
}

impl Shared {
    /// A queue is whole between any two of its lines: a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, runner: &Runner, policy: &Policy) {
        let mut scratch = runner.plan.scratch(policy.max_batch_size);
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
                deadline: job.deadline,
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
        for job in &batch {
            self.metrics.stage("queue", began - job.arrived);
        }
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
