//! How good answers are, and how sure that is.

/// Standard deviations between which 95 % of a normal distribution lie, and below which 95 % of it do.
const Z: f64 = 1.959_963_984_540_054;
const Z_ONE_SIDED: f64 = 1.644_853_626_951_472;
/// Student's, in place of [`Z`], where a deviation is estimated from 2 to 11 values.
const T: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/// Wilson's 95 % interval of a share: honest for few samples and near 0 and 1.
pub fn wilson95(right: u64, n: u64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, share) = (n as f64, right as f64 / n as f64);
    let centre = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    ((centre - spread) / scale, (centre + spread) / scale)
}

/// How far the mean of what answers score may have fallen, with 95 % confidence (one-sided), where both were asked the same samples:
/// `drops` is by how much each scores less; of right and wrong answers 1, 0 or −1. The normal bound says 0 where no answer turned,
/// however few were asked; it is never less than the rule of three, less what was won.
pub fn drop_upper95(drops: impl IntoIterator<Item = f64>) -> f64 {
    /// ln 20: what happens in so many of `n` cases is not seen once in 5 % of all tries.
    const THREE: f64 = 2.995_732_273_553_991;
    let Drops { n, sum, squares, won } = drops.into_iter().collect();
    if n == 0.0 {
        return 1.0;
    }
    let normal = sum + Z_ONE_SIDED * (squares - sum * sum / n).max(0.0).sqrt();
    (normal.max(THREE - won) / n).min(1.0)
}

/// As [`drop_upper95`] of scores of which every sample's may differ a little, as those of amounts do: the normal bound alone.
pub fn mean_drop_upper95(drops: impl IntoIterator<Item = f64>) -> f64 {
    let Drops { n, sum, squares, .. } = drops.into_iter().collect();
    if n == 0.0 { 1.0 } else { (sum + Z_ONE_SIDED * (squares - sum * sum / n).max(0.0).sqrt()) / n }
}

/// By how much the mean of what answers score fell at least, with 95 % confidence (one-sided); `drops` as in [`drop_upper95`].
pub fn drop_lower95(drops: impl IntoIterator<Item = f64>) -> f64 {
    let Drops { n, sum, squares, .. } = drops.into_iter().collect();
    (sum - Z_ONE_SIDED * (squares - sum * sum / n.max(1.0)).max(0.0).sqrt()) / n.max(1.0)
}

#[derive(Default)]
struct Drops {
    n: f64,
    sum: f64,
    squares: f64,
    /// What scores more than before, in all.
    won: f64,
}

impl FromIterator<f64> for Drops {
    fn from_iter<I: IntoIterator<Item = f64>>(drops: I) -> Self {
        drops.into_iter().fold(Self::default(), |Self { n, sum, squares, won }, drop| Self {
            n: n + 1.0,
            sum: sum + drop,
            squares: squares + drop * drop,
            won: won + (-drop).max(0.0),
        })
    }
}

/// The 95 % interval of a mean of scores that are at most 1, and may be far below 0: so many standard errors to either side. One score
/// alone promises nothing.
pub fn mean95(scores: &[f64]) -> (f64, f64) {
    let n = scores.len().max(1) as f64;
    let mean = scores.iter().sum::<f64>() / n;
    if scores.len() < 2 {
        return (mean.min(0.0), 1.0);
    }
    let squares = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>();
    let far = T.get(scores.len() - 2).unwrap_or(&Z) * (squares / (n - 1.0) / n).sqrt();
    (mean - far, (mean + far).min(1.0))
}

/// Of one label that is said and is there, or not: the harmonic mean of precision and recall; 1 where it is neither.
pub fn f1(told: impl IntoIterator<Item = (bool, bool)>) -> f64 {
    let (mut found, mut either) = (0_u64, 0_u64);
    for (said, is) in told {
        found += u64::from(said && is);
        either += u64::from(said) + u64::from(is);
    }
    if either == 0 { 1.0 } else { 2.0 * found as f64 / either as f64 }
}

/// `confusion[label][answer]` counts samples.
pub fn confusion(classes: usize, answers: impl IntoIterator<Item = (usize, usize)>) -> Vec<Vec<u64>> {
    let mut counts = vec![vec![0; classes]; classes];
    for (label, answer) in answers {
        if let Some(count) = counts.get_mut(label).and_then(|row| row.get_mut(answer)) {
            *count += 1;
        }
    }
    counts
}

/// Index of the largest value; the first among equals.
pub fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (index, value)| if *value > values[best] { index } else { best })
}

#[cfg(test)]
mod tests {
    fn drop_upper95(spoilt: usize, mended: usize, n: usize) -> f64 {
        let drops = [vec![1.0; spoilt], vec![-1.0; mended], vec![0.0; n - spoilt - mended]];
        super::drop_upper95(drops.concat())
    }

    #[test]
    fn wilson_agrees_with_the_published_example() {
        let (low, high) = super::wilson95(9_846, 10_000);
        assert!((low - 0.982_0).abs() < 1e-4 && (high - 0.986_8).abs() < 1e-4, "{low} {high}");
        assert_eq!(super::wilson95(0, 0), (0.0, 1.0));
    }

    #[test]
    fn drop_is_no_smaller_than_what_was_seen() {
        let drop = drop_upper95(9, 6, 10_000);
        assert!((drop - 0.000_937).abs() < 1e-6, "{drop}");
        assert_eq!(drop_upper95(0, 0, 0), 1.0);
    }

    /// It was 0, as if ten samples could promise that nothing is ever lost.
    #[test]
    fn where_no_answer_turned_as_many_may_have_been_lost_as_would_not_be_seen() {
        let drop = |spoilt, mended, n: usize| drop_upper95(spoilt, mended, n) * n as f64;
        assert!((drop(0, 0, 10_000) - 2.995_7).abs() < 1e-4, "{}", drop(0, 0, 10_000));
        assert!((drop(0, 0, 10) - 2.995_7).abs() < 1e-4 && drop_upper95(0, 0, 2) == 1.0);
        // What is more is no better.
        let bounds: Vec<f64> = (0..5).map(|spoilt| drop(spoilt, 0, 1_000)).collect();
        assert!(bounds.is_sorted(), "{bounds:?}");
        assert!(drop(0, 8, 1_000) < 0.0, "what was won counts");
    }

    #[test]
    fn confusion_counts_answers_by_label() {
        assert_eq!(super::confusion(2, [(0, 0), (0, 1), (1, 1), (1, 1), (7, 0)]), [[1, 1], [0, 2]]);
        assert_eq!(super::argmax(&[0.1, 0.7, 0.7]), 1);
    }

    #[test]
    fn amounts_that_got_worse_are_bounded_on_both_sides() {
        let drops: Vec<f64> = (0..1_000).map(|at| if at % 2 == 0 { 0.03 } else { -0.01 }).collect();
        let (low, high) = (super::drop_lower95(drops.clone()), super::drop_upper95(drops));
        // The mean is 0.01, the standard deviation 0.02.
        let far = 1.645 * 0.02 / 1_000_f64.sqrt();
        assert!((low - (0.01 - far)).abs() < 1e-6 && (high - (0.01 + far)).abs() < 1e-6, "{low} {high}");
        let nothing = super::mean_drop_upper95([1e-6; 50].into_iter().chain([-1e-6; 50]));
        assert!(nothing < 1e-6, "rounding of a hundred samples is no loss of three: {nothing}");
    }

    #[test]
    fn the_mean_of_few_scores_may_be_far_off() {
        let check = |scores: &[f64], expected: (f64, f64)| {
            let (low, high) = super::mean95(scores);
            assert!((low - expected.0).abs() < 1e-3 && (high - expected.1).abs() < 1e-3, "{low} {high}");
        };
        check(&[0.8], (0.0, 1.0));
        check(&[-3.0], (-3.0, 1.0));
        // The deviation of the mean is half of what is between the two.
        check(&[0.1, 0.3], (0.2 - 12.706 * 0.1, 1.0));
        check(&[[0.2; 200], [0.4; 200]].concat(), (0.3 - 1.96 * 0.005_006, 0.3 + 1.96 * 0.005_006));
    }

    #[test]
    fn a_label_that_is_found_half_the_time_has_two_thirds() {
        assert!((super::f1([(true, true), (false, true), (false, false)]) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!((super::f1([(true, false)]), super::f1([(false, false)])), (0.0, 1.0));
    }
}
