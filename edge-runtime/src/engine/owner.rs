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
        // What it reads once the queue is full is refused: the model has most of the time then.
        let (back, is_full) = (Instant::now(), queue.is_full());
        let own = if is_full { (SHARE * (back - left)).min(LONGEST) } else { Duration::ZERO };
        until = loop {
            match queue.step(&policy) {
                Step::Run(batch) => {
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
const LONGEST: Duration = Duration::from_millis(10);

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
    let rows: usize = batch.iter().map(|job| job.rows).sum();
    queue.metrics.batch(rows);
    let answer = || -> candle_core::Result<Vec<Output>> {
        let xs: Vec<&Tensor> = batch.iter().map(|job| &job.xs).collect();
        Ok(runner.infer(&xs, scratch)?.into_iter().map(|ys| Output { ys }).collect())
    };
    // Whatever happens everybody gets an answer, and the thread lives on: a run writes its buffers before it reads them.
    let answers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(answer));
    queue.metrics.stage(Stage::Infer, began.elapsed());
    match answers {
        Ok(Ok(outputs)) => {
            queue.metrics.statistics.executed(rows, &waited, began.elapsed());
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
