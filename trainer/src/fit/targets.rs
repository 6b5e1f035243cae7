//! What is learned towards: shares of classes for each sample.

use crate::manifest::{ClassWeights, Fit};
use crate::prepared::Prepared;

/// How labels become shares of classes.
pub struct Targets {
    classes: usize,
    smoothing: f32,
    /// How much a sample of each class counts.
    weights: Vec<f32>,
}

impl Targets {
    pub fn new(recipe: &Fit, train: &Prepared, classes: usize) -> Self {
        let weights = match recipe.class_weights {
            None => vec![1.0; classes],
            Some(ClassWeights::Balanced) => balanced(train.labels(), classes),
        };
        Self { classes, smoothing: recipe.loss.label_smoothing, weights }
    }

    /// `(batch, classes)`, flat; all together sum up to 1, so that the loss is a mean.
    pub fn of(&self, labels: &[u32]) -> Vec<f32> {
        let weight = |label: u32| self.weights[label as usize];
        let sum: f32 = labels.iter().map(|&label| weight(label)).sum();
        let common = self.smoothing / self.classes as f32;
        let row = |&label: &u32| {
            let share = weight(label) / sum;
            let own = 1.0 - self.smoothing;
            (0..self.classes as u32).map(move |class| share * (common + if class == label { own } else { 0.0 }))
        };
        labels.iter().flat_map(row).collect()
    }
}

/// The rarer a class, the more its samples count: one in the mean. A class without samples counts nothing.
fn balanced(labels: &[u32], classes: usize) -> Vec<f32> {
    let mut counts = vec![0_usize; classes];
    labels.iter().for_each(|&label| counts[label as usize] += 1);
    let present = counts.iter().filter(|count| **count > 0).count();
    let weight = |&count: &usize| if count == 0 { 0.0 } else { labels.len() as f32 / (present * count) as f32 };
    counts.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_up_to_one_whatever_counts() {
        let targets = Targets { classes: 2, smoothing: 0.2, weights: vec![1.0, 3.0] };
        let shares = targets.of(&[0, 1]);
        for (got, expected) in shares.iter().zip([0.225, 0.025, 0.075, 0.675]) {
            assert!((got - expected).abs() < 1e-6, "{shares:?}");
        }
        let plain = Targets { classes: 2, smoothing: 0.0, weights: vec![1.0, 1.0] };
        assert_eq!(plain.of(&[1]), [0.0, 1.0]);
    }

    #[test]
    fn a_rare_class_counts_as_much_as_a_frequent_one() {
        assert_eq!(balanced(&[0, 0, 0, 1], 3), [4.0 / 6.0, 2.0, 0.0]);
    }
}
