//! The loss of a network by its recipe, and how much a sample of each class counts in it.

use crate::manifest::{ClassWeights, Fit};
use crate::prepared::Prepared;
use sconce_model::graph::Graph;
use sconce_model::ops::Loss;

pub fn loss(recipe: &Fit, train: &Prepared, graph: &Graph) -> Loss {
    let balanced = |ClassWeights::Balanced| balanced(train.labels().classes(), graph.units());
    match graph.loss() {
        Loss::CrossEntropy { .. } => Loss::CrossEntropy {
            smoothing: recipe.loss.label_smoothing,
            class_weights: recipe.class_weights.map(balanced),
        },
        other => other,
    }
}

/// The rarer a class, the more its samples count: one in the mean. A class without samples counts nothing.
fn balanced(labels: &[u8], classes: usize) -> Vec<f32> {
    let mut counts = vec![0_usize; classes];
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    let present = counts.iter().filter(|count| **count > 0).count();
    let weight = |&count: &usize| if count == 0 { 0.0 } else { labels.len() as f32 / (present * count) as f32 };
    counts.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_rare_class_counts_as_much_as_a_frequent_one() {
        assert_eq!(super::balanced(&[0, 0, 0, 1], 3), [4.0 / 6.0, 2.0, 0.0]);
    }
}
