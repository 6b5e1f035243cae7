//! The queue before the model: bounded, the more urgent first, and whoever is gone out of it.

use super::{EngineError, Terms};
use crate::batch::{Decision, Fate, Policy, Waiting, next, place};
use crate::decode::Input;
use crate::encode::Output;
use crate::metrics::OfModel;
use candle_core::Tensor;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

pub(super) type Reply = oneshot::Sender<Result<Output, EngineError>>;

/// A request that waits.
pub(super) struct Job {
    ticket: u64,
    pub xs: Tensor,
    pub rows: usize,
    terms: Terms,
    pub arrived: Instant,
    pub reply: Reply,
}

impl Job {
    /// Itself while somebody waits for its answer; whose deadline has passed is told so.
    pub fn in_time(self, now: Instant) -> Option<Self> {
        if self.terms.deadline.is_some_and(|deadline| deadline <= now) {
            drop(self.reply.send(Err(EngineError::Late)));
            return None;
        }
        (!self.reply.is_closed()).then_some(self)
    }
}

#[derive(Default)]
struct Jobs {
    /// The more urgent first.
    jobs: VecDeque<Job>,
    tickets: u64,
    /// An owner of the model is on its way to look at the jobs.
    called: bool,
    closed: bool,
}

impl Jobs {
    /// Whether one more may wait.
    fn admit(&self, limit: usize) -> Result<(), EngineError> {
        match self {
            Self { closed: true, .. } => Err(EngineError::Closed),
            Self { jobs, .. } if jobs.len() >= limit => Err(EngineError::QueueFull { limit }),
            _ => Ok(()),
        }
    }

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

pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    bell: Notify,
    limit: usize,
    pub metrics: Arc<OfModel>,
}

/// What an owner of the model does now.
pub(super) enum Step {
    /// The batch, empty where nobody waits for any of it, and whether it made room in a full queue.
    Run { batch: Vec<Job>, was_full: bool },
    /// Look again when somebody arrives, and then at the latest.
    Wait(Instant),
    /// Look again when somebody arrives.
    Idle,
    /// The engine is dropped, and the queue empty.
    End,
}

impl Queue {
    pub fn new(limit: usize, metrics: Arc<OfModel>) -> Self {
        Self { jobs: Mutex::default(), bell: Notify::new(), limit, metrics }
    }

    /// A queue is whole between any two of its lines: a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what [`enqueue`](Self::enqueue) would refuse at this moment.
    pub fn admit(&self) -> Result<(), EngineError> {
        self.lock().admit(self.limit)
    }

    /// Puts a request into the queue; its ticket names it there.
    pub fn enqueue(&self, input: Input, terms: Terms, reply: Reply) -> Result<u64, EngineError> {
        let Input { xs, rows } = input;
        let mut queue = self.lock();
        queue.admit(self.limit)?;
        queue.tickets += 1;
        let ticket = queue.tickets;
        let place = place(queue.jobs.iter().map(|job| job.terms.level), terms.level);
        queue.jobs.insert(place, Job { ticket, xs, rows, terms, arrived: Instant::now(), reply });
        self.call(queue);
        Ok(ticket)
    }

    /// Takes a request out; whether it still was there.
    pub fn leave(&self, ticket: u64) -> bool {
        let jobs = &mut self.lock().jobs;
        let place = jobs.iter().position(|job| job.ticket == ticket);
        place.and_then(|place| jobs.remove(place)).is_some()
    }

    /// Owners end once the queue is empty.
    pub fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_one();
    }

    /// Nobody owns the model any more, whatever the reason: nobody waits for it any longer.
    pub fn abandon(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.jobs.clear();
    }

    /// Calls an owner, unless one is on its way.
    fn call(&self, mut queue: MutexGuard<'_, Jobs>) {
        let called = std::mem::replace(&mut queue.called, true);
        drop(queue);
        if !called {
            self.bell.notify_one();
        }
    }

    /// Completes when an owner is called, and at that moment at the latest.
    pub async fn called(&self, until: Option<Instant>) {
        match until {
            Some(until) => drop(tokio::time::timeout_at(until.into(), self.bell.notified()).await),
            None => self.bell.notified().await,
        }
    }

    /// What an owner of the model, who is free, does now.
    pub fn step(&self, policy: &Policy) -> Step {
        let mut queue = self.lock();
        queue.called = false;
        let waiting = queue.jobs.iter().map(|job| Waiting {
            rows: job.rows,
            arrived: job.arrived,
            deadline: job.terms.deadline,
            expires: job.terms.expires,
            abandoned: job.reply.is_closed(),
        });
        match next(waiting, false, policy, Instant::now()) {
            Decision::Take(fates) => {
                let was_full = queue.jobs.len() >= self.limit;
                let batch = queue.split(&fates);
                if !queue.jobs.is_empty() {
                    self.call(queue);
                }
                Step::Run { batch, was_full }
            }
            Decision::Wait(until) => Step::Wait(until),
            Decision::Idle if queue.closed => {
                // One owner tells the next.
                self.bell.notify_one();
                Step::End
            }
            Decision::Idle => Step::Idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use std::time::Duration;

    #[test]
    fn a_job_is_in_time_until_its_deadline_and_while_somebody_waits() {
        let now = Instant::now();
        let job = |deadline: Option<Instant>| {
            let (xs, (reply, answer)) = (Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap(), oneshot::channel());
            let terms = Terms { deadline, expires: Some(now), ..Terms::default() };
            (Job { ticket: 1, xs, rows: 1, terms, arrived: now, reply }, answer)
        };
        let check = |deadline: Option<Instant>, expected: bool, told: Option<EngineError>| {
            let (job, mut answer) = job(deadline);
            let kept = job.in_time(now);
            assert_eq!((kept.is_some(), answer.try_recv().ok().and_then(Result::err)), (expected, told));
        };
        check(None, true, None);
        check(Some(now + Duration::from_millis(1)), true, None);
        check(Some(now), false, Some(EngineError::Late));
        let (gone, answer) = job(None);
        drop(answer);
        assert!(gone.in_time(now).is_none());
    }
}
