//! Which variants are good enough to be published. Pure.

use sconce_model::artifact::{Measured, Paired};

/// What became of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub passed: bool,
    /// A line for people.
    pub line: String,
}

/// A variant passes if, with 95 % confidence, the share of right answers fell by no more than `most`.
pub fn verdict(name: &str, measured: &Measured, most: f64) -> Verdict {
    let (low, high) = measured.wilson95;
    let mut line = format!("{name:>5}  accuracy {:.4}  (95 % interval {low:.4} to {high:.4})", measured.value);
    let Some(Paired { right_to_wrong, wrong_to_right, drop_upper95, .. }) = &measured.paired else {
        return Verdict { passed: true, line };
    };
    let passed = *drop_upper95 <= most;
    let points = |share: f64| share.max(0.0) * 100.0;
    line +=
        &format!("  lost {right_to_wrong}, won {wrong_to_right}: at most {:.2} points worse", points(*drop_upper95));
    if !passed {
        line += &format!(", more than {:.2}: left out", points(most));
    }
    Verdict { passed, line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_lost_too_much_is_left_out() {
        let mut measured = Measured {
            path: "i8-exact".into(),
            metric: "accuracy".into(),
            value: 0.985,
            wilson95: (0.98, 0.989),
            confusion: Vec::new(),
            paired: None,
        };
        let first = "  f32  accuracy 0.9850  (95 % interval 0.9800 to 0.9890)";
        assert_eq!(verdict("f32", &measured, 0.0), Verdict { passed: true, line: first.into() });
        let (right_to_wrong, wrong_to_right, drop_upper95) = (9, 6, 0.000_937);
        measured.paired = Some(Paired { against: "f32".into(), right_to_wrong, wrong_to_right, drop_upper95 });
        let line = " int8  accuracy 0.9850  (95 % interval 0.9800 to 0.9890)  lost 9, won 6: at most 0.09 points worse";
        assert_eq!(verdict("int8", &measured, 0.001), Verdict { passed: true, line: line.into() });
        let line = format!("{line}, more than 0.05: left out");
        assert_eq!(verdict("int8", &measured, 0.000_5), Verdict { passed: false, line });
    }
}
