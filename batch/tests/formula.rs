//! What explains the table: closed formulas for a queue that is served greedily. They are good for a first look and for a
//! check; a plan is made with the table.

use sconce_batch::{BUSY, GAINS, Load, SIZES, TAILS, UNIT, response};

/// The 99th percentile of the normal distribution.
const Z99: f64 = 2.326;

fn share(part: u64) -> f64 {
    part as f64 / UNIT as f64
}

/// S50(b) over S50(1).
fn growth(gain: f64, rows: f64) -> f64 {
    gain + (1.0 - gain) * rows
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

/// Response p99, in median service times of a single request. Two views, of which the worse counts: at a low load a
/// request waits for the rest of a batch and is then part of the next one; at a high load all batches are full, and the
/// wait is that of M/G/1, with an exponential tail.
fn response_p99(Load { max_batch_size, gain, busy, tail }: Load) -> f64 {
    let (full, gain, busy, tail) = (max_batch_size as f64, share(gain), share(busy), share(tail));
    let s50 = |rows: f64| growth(gain, rows);
    let s99 = |rows: f64| tail * s50(rows);
    let rate = busy * full / s50(full);
    let mut batch = 1.0;
    for _ in 0..100 {
        batch = (rate * s50(batch)).clamp(1.0, full);
    }
    if rate * s50(batch) / batch <= 0.01 {
        return s99(1.0);
    }
    let crowd = 1.0 + poisson99(rate * s99(batch));
    let next_batch = if full > 1.0 { s99(batch) * (crowd / full).ceil() + s99(crowd.min(full)) } else { 0.0 };
    let cv2 = ((tail.ln() / Z99).powi(2)).exp() - 1.0;
    let s = s50(full) / full;
    let kappa = if full > 1.0 { 1.5 } else { 1.0 };
    let wait = s * (1.0 + cv2) / (2.0 * (1.0 - busy)) * (busy / 0.01).ln();
    next_batch.max(kappa * wait + s99(full) / full)
}

/// Mostly above what is simulated, and within a factor of three. Too low where large batches are often full.
#[test]
fn the_formula_is_near_the_table_and_mostly_above_it() {
    let mut ratios = Vec::new();
    for max_batch_size in SIZES {
        for gain in GAINS {
            for busy in BUSY.into_iter().skip(1) {
                for tail in &TAILS[..3] {
                    let load = Load { max_batch_size, gain, busy, tail: *tail };
                    ratios.push((response_p99(load) / share(response(load).p99), load));
                }
            }
        }
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let at = |percent: usize| ratios[(ratios.len() - 1) * percent / 100];
    println!("formula over simulation: least {:?}, median {:?}, greatest {:?}", at(0), at(50), at(100));
    assert!((1.0..1.5).contains(&at(50).0), "{:?}", at(50));
    assert!(at(0).0 > 0.5 && at(10).0 > 0.9, "{:?} {:?}", at(0), at(10));
    assert!(at(95).0 < 2.5 && at(100).0 < 3.5, "{:?} {:?}", at(95), at(100));
}

/// Without batching and with constant service the queue is M/D/1: P(wait > t) → (1 − ρ) / (ρ·e^θ − 1) · e^(−θt), with θ the
/// root of ρ·(e^θ − 1) = θ.
#[test]
fn a_queue_without_batches_is_as_the_textbook_says() {
    for (busy, theta) in [(300_000, 2.0), (500_000, 1.0), (700_000, 0.5)] {
        let rho = share(busy);
        let mut theta: f64 = theta;
        for _ in 0..100 {
            let error = rho * (theta.exp() - 1.0) - theta;
            theta -= error / (rho * theta.exp() - 1.0);
        }
        let first = (1.0 - rho) / (rho * theta.exp() - 1.0);
        let expected = 1.0 + (first / 0.01).ln() / theta;
        let table = share(response(Load { max_batch_size: 1, gain: 0, busy, tail: UNIT }).p99);
        assert!((table / expected - 1.0).abs() < 0.05, "{busy}: {table} against {expected}");
    }
}
