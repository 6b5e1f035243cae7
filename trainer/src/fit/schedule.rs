//! How the learning rate changes, and when training ends. Pure.

use crate::manifest::{EarlyStopping, Metric, Schedule};
use serde::{Deserialize, Serialize};

/// A step, counted from 0, among all.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub step: u64,
    pub of_epoch: u64,
    pub epochs: u64,
}

/// What the learning rate is multiplied with.
pub fn factor(schedule: Option<Schedule>, Place { step, of_epoch, epochs }: Place) -> f32 {
    match schedule {
        None => 1.0,
        Some(Schedule::Step { every_epochs, factor }) => {
            factor.powi((step / of_epoch.max(1) / every_epochs.max(1) as u64) as i32)
        }
        Some(Schedule::Cosine { warmup_epochs }) => {
            let (warm, all) = (warmup_epochs as u64 * of_epoch, epochs * of_epoch);
            if step < warm {
                return (step + 1) as f32 / warm as f32;
            }
            let along = (step - warm) as f64 / (all - warm).max(1) as f64;
            (0.5 + 0.5 * (std::f64::consts::PI * along).cos()) as f32
        }
    }
}

/// The best epoch so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Best {
    pub epoch: usize,
    /// The bits of the metric: a number in JSON may lose its last one.
    bits: u64,
}

impl Best {
    pub fn new(epoch: usize, value: f64) -> Self {
        Self { epoch, bits: value.to_bits() }
    }

    /// Whether this epoch is the best, and so becomes it. The first among equals stays.
    pub fn improved(best: &mut Option<Self>, metric: Metric, epoch: usize, value: f64) -> bool {
        let better = best.is_none_or(|Self { bits, .. }| match metric {
            Metric::Accuracy => value > f64::from_bits(bits),
            Metric::Loss => value < f64::from_bits(bits),
        });
        if better {
            *best = Some(Self::new(epoch, value));
        }
        better
    }
}

/// Whether nothing has become better for too long.
pub fn ends(stopping: Option<EarlyStopping>, best: Option<Best>, epoch: usize) -> bool {
    stopping.zip(best).is_some_and(|(EarlyStopping { patience, .. }, best)| epoch - best.epoch >= patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: Schedule, expected: [f32; 6]) {
        for (step, expected) in (0..).zip(expected) {
            let got = factor(Some(schedule), Place { step, of_epoch: 2, epochs: 3 });
            assert!((got - expected).abs() < 1e-6, "step {step}: {got}, not {expected}");
        }
    }

    #[test]
    fn rates_follow_their_curves() {
        check(Schedule::Step { every_epochs: 1, factor: 0.1 }, [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]);
        check(Schedule::Cosine { warmup_epochs: 0 }, [1.0, 0.933_013, 0.75, 0.5, 0.25, 0.066_987_3]);
        check(Schedule::Cosine { warmup_epochs: 1 }, [0.5, 1.0, 1.0, 0.853_553, 0.5, 0.146_447]);
        assert_eq!(factor(None, Place { step: 9, of_epoch: 2, epochs: 3 }), 1.0);
    }

    #[test]
    fn training_ends_once_the_best_epoch_is_long_ago() {
        let stopping = Some(EarlyStopping { metric: Metric::Accuracy, patience: 2 });
        let mut best = None;
        let seen = [0.5, 0.7, 0.7, 0.6].iter().zip(1..).map(|(&value, epoch)| {
            let improved = Best::improved(&mut best, Metric::Accuracy, epoch, value);
            (improved, ends(stopping, best, epoch))
        });
        assert_eq!(seen.collect::<Vec<_>>(), [(true, false), (true, false), (false, false), (false, true)]);
        assert_eq!(best, Some(Best::new(2, 0.7)));
        let mut lowest = Some(Best::new(1, 0.5));
        assert!(Best::improved(&mut lowest, Metric::Loss, 2, 0.4));
        assert!(!ends(None, best, 100));
    }
}
