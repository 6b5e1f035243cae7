//! What explains the table: closed formulas for a queue that is served greedily. Good for a first look and for a check; a plan
//! is made with the table ([`response`](crate::response)).

use crate::{Load, UNIT};

/// The 99th percentile of the normal distribution.
const Z99: f64 = 2.326;

/// p99 of the wait until a request's batch begins, and of that batch, in median service times of a single request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waits {
    pub queue: f64,
    pub service: f64,
}

/// Two views, of which the worse counts. At a low load a request waits for the rest of a batch and is then part of the next one,
/// with all who came meanwhile. At a high load all batches are full, and the wait is that of M/G/1, with an exponential tail.
/// `cv2` is the squared coefficient of variation of service times.
pub fn waits(load: Load, cv2: f64) -> Waits {
    let share = |part: u64| part as f64 / UNIT as f64;
    let (full, gain, busy, tail) = (load.max_batch_size as f64, share(load.gain), share(load.busy), share(load.tail));
    let s50 = |rows: f64| gain + (1.0 - gain) * rows;
    let s99 = |rows: f64| tail * s50(rows);
    let rate = busy * full / s50(full);
    let mut batch = 1.0;
    for _ in 0..100 {
        batch = (rate * s50(batch)).clamp(1.0, full);
    }
    if rate * s50(batch) / batch <= 0.01 {
        return Waits { queue: 0.0, service: s99(1.0) };
    }
    let crowd = 1.0 + poisson99(rate * s99(batch));
    let (s, kappa) = (s50(full) / full, if full > 1.0 { 1.5 } else { 1.0 });
    let wait = s * (1.0 + cv2) / (2.0 * (1.0 - busy)) * (busy / 0.01).ln();
    let high = Waits { queue: kappa * wait, service: s99(full) / full };
    let low = Waits { queue: s99(batch) * (crowd / full).ceil(), service: s99(crowd.min(full)) };
    if full > 1.0 && low.queue + low.service > high.queue + high.service { low } else { high }
}

/// Squared coefficient of variation of a log-normal time whose p99 is `tail` medians.
pub fn cv2(tail: f64) -> f64 {
    (tail.ln() / Z99).powi(2).exp_m1()
}

/// The smallest k of which a Poisson variable of this mean is no more in 99 of 100 cases.
fn poisson99(mean: f64) -> f64 {
    let (mut k, mut term) = (0.0, (-mean).exp());
    let mut sum = term;
    while sum < 0.99 {
        k += 1.0;
        term *= mean / k;
        sum += term;
    }
    k
}
