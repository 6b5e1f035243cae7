//! What the protocol's statistics extension tells: sums since the server started.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Counts from several threads.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<Totals>);

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// When the last batch was answered.
    pub last_inference: Option<SystemTime>,
    /// Rows that the model has answered.
    pub rows: u64,
    /// Batches that it took for them.
    pub executions: u64,
    /// Requests by outcome, from their arrival to their answer.
    pub success: Spent,
    /// Refused, or failed.
    pub fail: Spent,
    /// Requests, waiting for their batch.
    pub queue: Spent,
    /// Requests, being read and checked.
    pub compute_input: Spent,
    /// Requests, for the time that their batch ran.
    pub compute_infer: Spent,
    /// Requests, their answers being made.
    pub compute_output: Spent,
    /// Batches by their rows.
    pub batches: BTreeMap<usize, Spent>,
}

/// What something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// How often.
    pub count: u64,
    /// In all.
    pub time: Duration,
}

impl Spent {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

impl Statistics {
    /// A batch of so many rows ran in `took`; its requests had waited so long.
    pub fn executed(&self, rows: usize, waited: &[Duration], took: Duration) {
        self.with(|totals| {
            totals.last_inference = Some(SystemTime::now());
            totals.rows += rows as u64;
            totals.executions += 1;
            totals.batches.entry(rows).or_default().add(took);
            for waited in waited {
                totals.queue.add(*waited);
                totals.compute_infer.add(took);
            }
        });
    }

    /// A request was answered in `took`, of which reading it and writing its answer took so long.
    pub fn succeeded(&self, took: Duration, input: Duration, output: Duration) {
        self.with(|totals| {
            totals.success.add(took);
            totals.compute_input.add(input);
            totals.compute_output.add(output);
        });
    }

    /// A request was refused after `took`.
    pub fn failed(&self, took: Duration) {
        self.with(|totals| totals.fail.add(took));
    }

    /// Everything until now.
    pub fn totals(&self) -> Totals {
        self.with(|totals| totals.clone())
    }

    fn with<T>(&self, then: impl FnOnce(&mut Totals) -> T) -> T {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
