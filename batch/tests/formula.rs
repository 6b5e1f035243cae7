//! How far the closed formulas are from the table that they explain.

use sconce_batch::formula::{cv2, waits};
use sconce_batch::{BUSY, GAINS, Load, SIZES, TAILS, UNIT, response};

fn share(part: u64) -> f64 {
    part as f64 / UNIT as f64
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
                    let formula = waits(load, cv2(share(*tail)));
                    ratios.push(((formula.queue + formula.service) / share(response(load).p99), load));
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
