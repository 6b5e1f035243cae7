//! Whether a model is as sure as it should be. Pure.

use crate::answer::Answer;

const BINS: usize = 10;

/// Answers of about the same confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    pub count: usize,
    /// Their mean.
    pub confidence: f64,
    pub accuracy: f64,
}

/// Ten bins, each a tenth of confidence wide.
pub fn reliability(answers: &[Answer]) -> [Bin; BINS] {
    let mut bins = [Bin::default(); BINS];
    for answer in answers {
        let bin = &mut bins[((answer.confidence * BINS as f32) as usize).min(BINS - 1)];
        bin.count += 1;
        bin.confidence += f64::from(answer.confidence);
        bin.accuracy += f64::from(u8::from(answer.right()));
    }
    for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    bins
}

/// Expected calibration error: how far both are apart, in the mean over the answers.
pub fn ece(answers: &[Answer]) -> f64 {
    let apart = |bin: &Bin| bin.count as f64 * (bin.confidence - bin.accuracy).abs();
    reliability(answers).iter().map(apart).sum::<f64>() / answers.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Told;

    #[test]
    fn who_is_right_as_often_as_sure_has_no_error() {
        let answer = |right: bool, confidence| {
            let (score, told) = (f64::from(u8::from(right)), Told::Class(usize::from(right)));
            Answer { class: 1, confidence, score, loss: 0.5, told }
        };
        let honest: Vec<Answer> = (0..4).map(|index| answer(index < 3, 0.75)).collect();
        assert_eq!(ece(&honest), 0.0);
        let boasting: Vec<Answer> = (0..4).map(|index| answer(index < 2, 1.0)).collect();
        assert_eq!(ece(&boasting), 0.5);
        assert_eq!(reliability(&boasting)[9], Bin { count: 4, confidence: 1.0, accuracy: 0.5 });
        assert_eq!(ece(&[]), 0.0);
    }
}
