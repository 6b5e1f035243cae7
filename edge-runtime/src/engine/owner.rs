//! An owner of the model: takes batches from the queue, and answers them.

use super::Runner;
use super::queue::{Job, Queue, Step};
use crate::batch::Policy;
use crate::encode::Output;
use crate::engine::EngineError;
use crate::metrics::Stage;
use candle_core::Tensor;
use sconce_model::plan::Scratch;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Runs until the engine is dropped and the queue is empty.
pub(super) async fn own(queue: Arc<Queue>, runner: Arc<Runner>, policy: Policy) {
    let mut scratch = runner.plan.scratch(policy.max_batch_size);
    let _end = End(&queue);
    let mut until = None;
    loop {
        queue.called(until).await;
        let left = Instant::now();
        // What this thread can read from its sockets joins the batch.
        tokio::task::yield_now().await;
        let back = Instant::now();
        let mut own = None;
        until = loop {
            match queue.step(&policy) {
                Step::Run { batch, was_full } => {
                    let own = *own.get_or_insert_with(|| share(back - left, was_full));
                    if !batch.is_empty() {
                        infer(&queue, &runner, &mut scratch, batch);
                    }
                    if back.elapsed() >= own {
                        break None;
                    }
                }
                Step::Wait(until) => break Some(until),
                Step::Idle => break None,
                Step::End => return,
            }
        };
    }
}

/// So many times as long as it took to read runs a model whose queue is full before its thread reads again.
const SHARE: u32 = 9;
/// Then at the latest its answers are sent, and clients are heard: others' models are counted as reading, too.
const LONGEST: Duration = Duration::from_millis(50);

/// How long a model begins batches before its thread reads again: one alone, unless what is read would be refused.
fn share(reading: Duration, was_full: bool) -> Duration {
    if was_full { (SHARE * reading).min(LONGEST) } else { Duration::ZERO }
}

/// The owner ends, perhaps with its thread.
struct End<'a>(&'a Queue);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn infer(queue: &Queue, runner: &Runner, scratch: &mut Scratch, batch: Vec<Job>) {
    let began = Instant::now();
    let waited: Vec<Duration> = batch.iter().map(|job| began - job.arrived).collect();
    waited.iter().for_each(|waited| queue.metrics.stage(Stage::Queue, *waited));
    run(queue, runner, scratch, batch, &waited);
}

fn run(queue: &Queue, runner: &Runner, scratch: &mut Scratch, batch: Vec<Job>, waited: &[Duration]) {
    let began = Instant::now();
    let rows: usize = batch.iter().map(|job| job.rows).sum();
    let answer = || -> candle_core::Result<Vec<Output>> {
        let xs: Vec<&Tensor> = batch.iter().map(|job| &job.xs).collect();
        Ok(runner.infer(&xs, scratch)?.into_iter().map(|ys| Output { ys }).collect())
    };
    // Whatever happens everybody gets an answer, and the thread lives on: a run writes its buffers before it reads them.
    let answers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(answer));
    queue.metrics.stage(Stage::Infer, began.elapsed());
    match answers {
        Ok(Ok(outputs)) => {
            queue.metrics.batch(rows);
            queue.metrics.statistics.executed(rows, waited, began.elapsed());
            for (job, output) in batch.into_iter().zip(outputs) {
                drop(job.reply.send(Ok(output)));
            }
        }
        // Whose fault it is shows when each is asked alone.
        Ok(Err(_)) | Err(_) if batch.len() > 1 => {
            for (job, waited) in batch.into_iter().zip(waited) {
                // Who has gone, or for whom it has become too late meanwhile, is asked no more.
                if let Some(job) = job.in_time(Instant::now()) {
                    run(queue, runner, scratch, vec![job], &[*waited]);
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_whose_queue_is_full_has_most_of_the_time_but_not_for_long() {
        let (short, long) = (Duration::from_micros(50), Duration::from_secs(1));
        assert_eq!(share(short, false), Duration::ZERO);
        assert_eq!(share(short, true), Duration::from_micros(450));
        assert_eq!(share(long, true), LONGEST);
    }
}
