//! Our plans of a network, and the time of a call.

use anyhow::Result;
use candle_core::{Error, Tensor};
use sconce_kernels::Cpu;
use sconce_kernels::quantise::Scaling;
use sconce_model::network::{Network, Read};
use sconce_model::ops::values;
use sconce_model::plan::{Plan, Scratch};
use sconce_model::variant::{Arithmetic, Variant, VariantError};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

pub struct Plans {
    pub f32: Plan,
    pub f16: Plan,
    /// None if only the last layer computes products: that one stays f32.
    pub int8: Option<Plan>,
}

impl Plans {
    /// Ranges of int8 are those that `xs` takes.
    pub fn compile(network: &Network, xs: &Tensor) -> Result<Self> {
        let int8 = match Variant::int8(network, &ranges(network, xs)?) {
            Ok(variant) => Some(variant.plan()?),
            Err(VariantError::NothingToQuantise) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { f32: Plan::compile(network, &Arithmetic::F32)?, f16: Variant::f16(network)?.plan()?, int8 })
    }
}

/// From the least to the greatest value that each node reads, as the peer's tool takes them.
fn ranges(network: &Network, xs: &Tensor) -> Result<BTreeMap<String, Scaling>> {
    let mut ranges = BTreeMap::new();
    network.infer_through(xs, |node, read, xs| {
        if read == Read::State {
            return Ok(xs);
        }
        let (min, max) = values(&xs)?.iter().fold((0.0_f32, 0.0_f32), |(min, max), x| (min.min(*x), max.max(*x)));
        let scaling = Scaling::of_range(min, max);
        let scaling = scaling.ok_or_else(|| Error::msg(format!("\"{}\" reads {min} to {max}", node.name)))?;
        ranges.insert(node.name.clone(), scaling);
        Ok(xs)
    })?;
    Ok(ranges)
}

/// A plan with its buffers.
pub struct Ours<'a> {
    plan: &'a Plan,
    scratch: Scratch,
}

impl<'a> Ours<'a> {
    /// For batches of so many rows.
    pub fn of(plan: &'a Plan, rows: usize) -> Self {
        Self { plan, scratch: plan.scratch(rows) }
    }

    pub fn infer(&mut self, cpu: Cpu<'_>, xs: &Tensor) -> Result<Tensor> {
        Ok(self.plan.infer(cpu, &[xs], &mut self.scratch)?.remove(0))
    }

    /// Microseconds: the median of the calls that begin within this time, at least three, after one that is not counted.
    pub fn slice(&mut self, cpu: Cpu<'_>, xs: &Tensor, lasts: Duration) -> Result<f64> {
        self.infer(cpu, xs)?;
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.len() < 3 || start.elapsed() < lasts {
            let began = Instant::now();
            black_box(self.infer(cpu, xs)?);
            times.push(began.elapsed());
        }
        times.sort();
        Ok(times[times.len() / 2].as_secs_f64() * 1e6)
    }
}
