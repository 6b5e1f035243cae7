//! A server that takes its batches by the policy, on a clock of its own.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sconce_batch::{Decision, Fate, Policy, Waiting, next};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A model under a load, as the table's axes say it.
pub struct Served {
    pub max_batch_size: usize,
    pub gain: f64,
    pub busy: f64,
    pub tail: f64,
}

/// The same draws for every load: neighbours in the table differ by their loads alone.
const SEED: u64 = 7;
/// Requests of the beginning, when the queue is still empty, do not count.
const WARM_UP: usize = 1_000;
/// The 99th percentile of the normal distribution.
const Z99: f64 = 2.326;
/// A single request's median service time.
const ONE: Duration = Duration::from_millis(1);

impl Served {
    /// S(b) over S(1).
    fn growth(&self, rows: usize) -> f64 {
        self.gain + (1.0 - self.gain) * rows as f64
    }

    /// The busier, the more: long queues are rare and last.
    fn requests(&self) -> usize {
        20_000 + (200_000.0 * self.busy * self.busy) as usize
    }

    /// Between two requests, of [`ONE`]. Nobody meets anybody at a load of nothing.
    fn gap(&self) -> f64 {
        let full = self.max_batch_size;
        self.growth(full) / full as f64 / self.busy.max(1e-6)
    }
}

/// Response p50 and p99, in thousandths of [`ONE`].
pub fn simulate(served: &Served) -> (u32, u32) {
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(SEED));
    let policy = Policy { max_batch_size: served.max_batch_size, max_queue_delay: Duration::ZERO };
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let mut responses = Vec::with_capacity(served.requests());
    let mut now = Instant::now();
    let mut arrival = now;
    while responses.len() < served.requests() {
        // All that came while the last batch ran, or else the next one.
        while arrival <= now || waiting.is_empty() {
            now = now.max(arrival);
            waiting.push_back(Waiting { rows: 1, arrived: arrival, deadline: None, expires: None, abandoned: false });
            arrival += ONE.mul_f64(served.gap() * draw.exponential());
        }
        let Decision::Take(fates) = next(waiting.iter().copied(), false, &policy, now) else {
            panic!("an idle engine runs what is there");
        };
        assert!(fates.iter().all(|fate| *fate == Fate::Run));
        now += ONE.mul_f64(served.growth(fates.len()) * draw.log_normal(served.tail));
        responses.extend(waiting.drain(..fates.len()).map(|request| now - request.arrived));
    }
    let mut responses = responses.split_off(WARM_UP);
    responses.sort_unstable();
    let percentile = |percent: usize| {
        let response = responses[responses.len() * percent / 100];
        (response.as_secs_f64() / ONE.as_secs_f64() * 1_000.0).round() as u32
    };
    (percentile(50), percentile(99))
}

struct Draw(ChaCha8Rng);

impl Draw {
    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    /// Median 1, p99 `tail`.
    fn log_normal(&mut self, tail: f64) -> f64 {
        let normal = (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos();
        (tail.ln() / Z99 * normal).exp()
    }
}
