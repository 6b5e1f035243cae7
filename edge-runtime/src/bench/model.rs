//! What a model takes here, by variant and batch size: loaded, and run, as `serve` does.

use super::{cpu, percentiles};
use crate::args::{BenchModel, threads};
use crate::engine::{Executor, Runner};
use crate::load::{Opened, load, open};
use crate::process::thread_cpu;
use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use sconce_model::artifact::signature::Trust;
use sconce_model::plan::Scratch;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const BATCH_SIZES: [usize; 5] = [1, 2, 4, 8, 16];
const LARGEST: usize = 16;
/// A turn of one batch size: long enough that caches are its own, short enough that noise meets all.
const TURN: Duration = Duration::from_millis(20);

/// The report.
///
/// # Errors
/// As `serve` has them.
pub(super) fn run(args: &BenchModel, folder: &Path, length: Duration) -> Result<Value> {
    let opened = open(folder, None, &Trust::default())?;
    let here = opened.artifact.variants().iter().filter(|variant| opened.has(variant));
    let here: Vec<&str> = here.map(|variant| variant.name.as_str()).collect();
    let asked: Vec<&str> = args.variant.iter().map(String::as_str).collect();
    let names = if asked.is_empty() { here } else { asked };
    if names.is_empty() {
        bail!("{} has the files of no variant; fetch one", folder.display());
    }
    let threads = threads(args.threads);
    let variants = names.iter().map(|name| Variant::load(&opened, name, threads)).collect::<Result<Vec<_>>>();
    let mut variants = variants?;
    let began = Instant::now();
    loop {
        for variant in &mut variants {
            variant.turn()?;
        }
        if began.elapsed() >= length {
            break;
        }
    }
    let isa = variants.first().map(|variant| variant.runner.isa.name());
    let variants: Vec<Value> = variants.into_iter().map(Variant::told).collect();
    Ok(json!({"cpu": cpu().0, "isa": isa, "variants": variants}))
}

struct Variant {
    name: String,
    executor: Executor,
    runner: Runner,
    scratch: Scratch,
    batches: Vec<Batch>,
}

struct Batch {
    xs: Tensor,
    /// Of each run that nothing else on this machine interrupted, in milliseconds.
    took: Vec<f64>,
    /// Of the others.
    disturbed: Vec<f64>,
}

/// A thread that computes has the CPU all the time: where it had it for a tenth less, others had it. One with helpers also waits
/// for these. So short a wait is none.
const WAIT: Duration = Duration::from_micros(10);
/// Where fewer were not interrupted, all count.
const LEAST_UNDISTURBED: usize = 3;

impl Variant {
    fn load(opened: &Opened, name: &str, threads: usize) -> Result<Self> {
        let loaded = load(opened, name, LARGEST, threads)?;
        let executor = Executor::suited(loaded.one_row);
        let runner = executor.fit(loaded.runner);
        let batch = |rows: usize| -> Result<Batch> {
            let shape: Vec<usize> = std::iter::once(rows).chain(runner.plan.input().iter().copied()).collect();
            // Neither zeros nor ones, which kernels and CPUs may find easier.
            let values = (0..shape.iter().product()).map(|index: usize| (index % 251) as f32 / 251.0).collect();
            let xs = Tensor::from_vec(values, shape, &Device::Cpu)?;
            Ok(Batch { xs, took: Vec::new(), disturbed: Vec::new() })
        };
        let batches = BATCH_SIZES.into_iter().map(batch).collect::<Result<_>>()?;
        Ok(Self { name: name.into(), executor, scratch: runner.plan.scratch(LARGEST), batches, runner })
    }

    /// Each batch size for the length of a turn, or once.
    fn turn(&mut self) -> Result<()> {
        for batch in &mut self.batches {
            let turn = Instant::now();
            while turn.elapsed() < TURN {
                let cpu = thread_cpu();
                let began = Instant::now();
                self.runner.infer(&[&batch.xs], &mut self.scratch)?;
                let took = began.elapsed();
                let waited = took.saturating_sub(thread_cpu().saturating_sub(cpu));
                let usual = if self.runner.threads.count() > 1 { took / 2 } else { took / 10 };
                let times = if waited > WAIT.max(usual) { &mut batch.disturbed } else { &mut batch.took };
                times.push(took.as_secs_f64() * 1e3);
            }
        }
        Ok(())
    }

    fn told(self) -> Value {
        let batches = self.batches.into_iter().map(|Batch { xs, mut took, disturbed }| {
            let undisturbed = took.len();
            if undisturbed < LEAST_UNDISTURBED {
                took.extend(disturbed);
            }
            let mut told = percentiles(&mut took);
            told["batchSize"] = json!(xs.dims()[0]);
            told["samples"] = json!(took.len());
            told["undisturbed"] = json!(undisturbed);
            told
        });
        let batches: Vec<Value> = batches.collect();
        let threads = self.runner.threads.count();
        json!({"variant": self.name, "executor": self.executor.name(), "threads": threads, "batches": batches})
    }
}
