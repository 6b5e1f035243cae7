//! How good answers are, and how sure that is.

/// Wilson's 95 % interval of a share: honest for few samples and near 0 and 1.
pub fn wilson95(right: u64, n: u64) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    if n == 0 {
        return (0.0, 1.0);
    }
    let (n, share) = (n as f64, right as f64 / n as f64);
    let centre = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    ((centre - spread) / scale, (centre + spread) / scale)
}

/// How far the share of right answers may have fallen, with 95 % confidence (one-sided), where both were asked the same `n`. The
/// normal bound of paired shares says 0 where no answer turned, however few were asked; it is never less than the rule of three,
/// less what was won.
pub fn drop_upper95(right_to_wrong: u64, wrong_to_right: u64, n: u64) -> f64 {
    const Z: f64 = 1.644_853_626_951_472;
    /// ln 20: what happens in so many of `n` cases is not seen once in 5 % of all tries.
    const THREE: f64 = 2.995_732_273_553_991;
    if n == 0 {
        return 1.0;
    }
    let (n, spoilt, mended) = (n as f64, right_to_wrong as f64, wrong_to_right as f64);
    let drop = spoilt - mended;
    let normal = drop + Z * (spoilt + mended - drop * drop / n).sqrt();
    (normal.max(THREE - mended) / n).min(1.0)
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
    #[test]
    fn wilson_agrees_with_the_published_example() {
        let (low, high) = super::wilson95(9_846, 10_000);
        assert!((low - 0.982_0).abs() < 1e-4 && (high - 0.986_8).abs() < 1e-4, "{low} {high}");
        assert_eq!(super::wilson95(0, 0), (0.0, 1.0));
    }

    #[test]
    fn drop_is_no_smaller_than_what_was_seen() {
        let drop = super::drop_upper95(9, 6, 10_000);
        assert!((drop - 0.000_937).abs() < 1e-6, "{drop}");
        assert_eq!(super::drop_upper95(0, 0, 0), 1.0);
    }

    /// It was 0, as if ten samples could promise that nothing is ever lost.
    #[test]
    fn where_no_answer_turned_as_many_may_have_been_lost_as_would_not_be_seen() {
        let drop = |spoilt, mended, n: u64| super::drop_upper95(spoilt, mended, n) * n as f64;
        assert!((drop(0, 0, 10_000) - 2.995_7).abs() < 1e-4, "{}", drop(0, 0, 10_000));
        assert!((drop(0, 0, 10) - 2.995_7).abs() < 1e-4 && super::drop_upper95(0, 0, 2) == 1.0);
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
}
