//! The speed of one core: a product of two 512×512 `f32` matrices, timed. The basis of every estimated service time.
//!
//! The only file of this room that may say `Tensor`: candle's product is the one that serves.

use candle_core::{Device, Tensor};
use std::time::{Duration, Instant};

const SIDE: usize = 512;
/// Long enough that a core has left its idle clock, short enough that nobody waits for the agent.
const AT_LEAST: Duration = Duration::from_millis(300);
const REPEATS: u32 = 5;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("no thread for the timed product")]
    Thread(#[from] rayon::ThreadPoolBuildError),
    #[error("the timed product failed")]
    Product(#[from] candle_core::Error),
}

/// Billions of `f32` operations per second of one core, the best of several runs: others' work only makes a run slower.
///
/// # Errors
/// If there is no memory or no thread for the product.
pub fn of_one_core() -> Result<f64, Error> {
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let best = single.install(best_time)?;
    Ok(2.0 * (SIDE * SIDE * SIDE) as f64 / best.as_secs_f64() / 1e9)
}

fn best_time() -> Result<Duration, candle_core::Error> {
    let matrix = |step: usize| {
        let values: Vec<f32> = (0..SIDE * SIDE).map(|i| (i * step % 17) as f32 / 17.0 - 0.5).collect();
        Tensor::from_vec(values, (SIDE, SIDE), &Device::Cpu)
    };
    let (a, b) = (matrix(7)?, matrix(11)?);
    let begin = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < REPEATS || begin.elapsed() < AT_LEAST {
        let start = Instant::now();
        std::hint::black_box(a.matmul(&b)?);
        best = best.min(start.elapsed());
        runs += 1;
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_core_has_a_speed() {
        let gflops = super::of_one_core().unwrap();
        assert!(gflops > 0.01 && gflops < 10_000.0, "{gflops}");
    }
}
