//! Which variants are good enough to be published. Pure.

use sconce_model::artifact::{Measured, Paired};

/// What became of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub variant: String,
    pub passed: bool,
    /// What was measured, in words.
    pub reason: String,
}

impl Verdict {
    /// A line for people.
    pub fn line(&self) -> String {
        format!("{:>5}  {}", self.variant, self.reason)
    }
}

/// A variant passes if, with 95 % confidence, the share of right answers fell by no more than `most`.
pub fn verdict(name: &str, measured: &Measured, most: f64) -> Verdict {
    let (low, high) = measured.wilson95;
    let mut reason = format!("accuracy {:.4}  (95 % interval {low:.4} to {high:.4})", measured.value);
    let Some(Paired { right_to_wrong, wrong_to_right, drop_upper95, .. }) = &measured.paired else {
        return Verdict { variant: name.into(), passed: true, reason };
    };
    let passed = *drop_upper95 <= most;
    let points = |share: f64| share.max(0.0) * 100.0;
    reason +=
        &format!("  lost {right_to_wrong}, won {wrong_to_right}: at most {:.2} points worse", points(*drop_upper95));
    if !passed {
        reason += &format!(", more than {:.2}: left out", points(most));
    }
    Verdict { variant: name.into(), passed, reason }
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
        let check = |name: &str, measured: &Measured, most, passed, line: &str| {
            let verdict = verdict(name, measured, most);
            assert_eq!((verdict.passed, verdict.line().as_str()), (passed, line));
        };
        check("f32", &measured, 0.0, true, "  f32  accuracy 0.9850  (95 % interval 0.9800 to 0.9890)");
        let (right_to_wrong, wrong_to_right, drop_upper95) = (9, 6, 0.000_937);
        measured.paired = Some(Paired { against: "f32".into(), right_to_wrong, wrong_to_right, drop_upper95 });
        let line = " int8  accuracy 0.9850  (95 % interval 0.9800 to 0.9890)  lost 9, won 6: at most 0.09 points worse";
        check("int8", &measured, 0.001, true, line);
        check("int8", &measured, 0.000_5, false, &format!("{line}, more than 0.05: left out"));
    }
}
