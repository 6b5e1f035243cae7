//! Which variants are good enough to be published. Pure.

use crate::answer::Answer;
use crate::evaluate::drops;
use sconce_model::artifact::{Measured, Paired};
use sconce_model::metrics::drop_lower95;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// What a network reaches on one of the data sets that are mixed.
#[derive(Clone, Debug, PartialEq)]
pub struct PartAccuracy {
    pub name: String,
    /// Or what else the metric is.
    pub accuracy: f64,
    /// With 95 % confidence it is no more.
    pub most: f64,
    pub count: usize,
}

/// A class, or a group, may have lost so many times as much as all of them.
const WORST: f64 = 3.0;
/// Of fewer, one answer that turned says nothing of the camera.
const FEWEST_OF_GROUP: usize = 30;

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

/// Why a network is not to be published that must reach `floor`: on all test samples; and on those of each data set of a mix alone it must not
/// be below with 95 % confidence, for what is mixed in is often the most, and would hide that nothing was learned of the rest.
pub fn below(measured: &Measured, parts: &[PartAccuracy], floor: f64) -> Option<String> {
    let Measured { metric, value, .. } = measured;
    if *value < floor {
        return Some(format!("test {metric} {value:.4} is below"));
    }
    // Of few samples chance has much to say: a part is below it where it is so for sure.
    let poor = parts.iter().find(|part| part.count > 0 && part.most < floor)?;
    let PartAccuracy { name, accuracy, most, count } = poor;
    let on = format!("{accuracy:.4}, and at most {most:.4}, on the {count} samples of {name}");
    Some(format!("test {metric} is {value:.4}, but {on}, below"))
}

/// Why a network is not to be published that must be better by `by` than a model that tells `before` of the same test samples.
pub fn no_better(measured: &Measured, before: f64, by: f64) -> Option<String> {
    /// Sums of as many shares may differ so.
    const ROUNDING: f64 = 1e-9;
    let Measured { metric, value, .. } = measured;
    let won = value - before;
    (won < by - ROUNDING).then(|| {
        let points = format!("{:+.2} points", won * 100.0);
        format!("test {metric} {value:.4} beside {before:.4} of what was accepted before is {points}, less than")
    })
}

/// Samples that have something in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subset {
    Class(usize),
    /// Such as one camera's.
    Group {
        samples: usize,
    },
}

impl Display for Subset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "class {class}"),
            Self::Group { samples } => write!(f, "a group of {samples} samples"),
        }
    }
}

/// The subset that lost most for sure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    pub subset: Subset,
    /// With 95 % confidence its share of right answers, or what else the metric is, fell by at least this.
    pub drop_lower95: f64,
}

/// Of each class or label, and of each of the rows' groups that has [`FEWEST_OF_GROUP`] samples. None if nobody answered.
pub fn worst(before: &[Answer], after: &[Answer], groups: &[u64]) -> Option<Worst> {
    let (mut classes, mut cameras) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
    for pair in before.iter().zip(after) {
        pair.0.classes().into_iter().for_each(|class| classes.entry(class).or_default().push(pair));
    }
    for (group, pair) in groups.iter().zip(before.iter().zip(after)) {
        cameras.entry(group).or_default().push(pair);
    }
    let classes = classes.into_iter().map(|(class, pairs)| (Subset::Class(class), pairs));
    let cameras = cameras.into_values().filter(|pairs| pairs.len() >= FEWEST_OF_GROUP);
    let cameras = cameras.map(|pairs| (Subset::Group { samples: pairs.len() }, pairs));
    let of = |(subset, pairs): (Subset, Vec<_>)| Worst { subset, drop_lower95: drop_lower95(drops(pairs.into_iter())) };
    classes.chain(cameras).map(of).max_by(|one, other| one.drop_lower95.total_cmp(&other.drop_lower95))
}

/// A variant passes if, with 95 % confidence, the share of right answers, or what else the metric is, fell by no more than `most`, and that of no class
/// or group by more than three times as much. One that spoilt no answer passes, however few samples promise no more than that: it does all that they can tell.
pub fn verdict(name: &str, measured: &Measured, worst: Option<Worst>, most: f64) -> Verdict {
    let (low, high) = measured.wilson95;
    let mut reason = format!("{} {:.4}  (95 % interval {low:.4} to {high:.4})", measured.metric, measured.value);
    let Some(Paired { right_to_wrong, wrong_to_right, drop_upper95, .. }) = &measured.paired else {
        return Verdict { variant: name.into(), passed: true, reason };
    };
    let points = |share: f64| share.max(0.0) * 100.0;
    reason +=
        &format!("  lost {right_to_wrong}, won {wrong_to_right}: at most {:.2} points worse", points(*drop_upper95));
    if *drop_upper95 > most && *right_to_wrong > 0 {
        reason += &format!(", more than {:.2}: left out", points(most));
        return Verdict { variant: name.into(), passed: false, reason };
    }
    if *drop_upper95 > most {
        reason += ", as far as so few test samples tell";
    }
    let spoilt = worst.filter(|worst| worst.drop_lower95 > WORST * most);
    if let Some(Worst { subset, drop_lower95 }) = spoilt {
        reason += &format!(", but {subset} lost {:.2} or more: left out", points(drop_lower95));
    }
    Verdict { variant: name.into(), passed: spoilt.is_none(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Told, interval95};
    use crate::evaluate::paired;
    use rand_chacha::ChaCha8Rng;
    use sconce_model::metrics::wilson95;
    use sconce_model::network::{generator, unit};

    fn measured(paired: Option<Paired>) -> Measured {
        Measured {
            path: "i8-exact".into(),
            metric: "accuracy".into(),
            value: 0.985,
            wilson95: (0.98, 0.989),
            ece: None,
            confusion: Vec::new(),
            f1: Vec::new(),
            mean_absolute_error: Vec::new(),
            paired,
        }
    }

    #[test]
    fn what_may_have_lost_too_much_is_left_out() {
        let check = |name: &str, measured: &Measured, worst, most, passed, line: &str| {
            let verdict = verdict(name, measured, worst, most);
            assert_eq!((verdict.passed, verdict.line().as_str()), (passed, line));
        };
        check("f32", &measured(None), None, 0.0, true, "  f32  accuracy 0.9850  (95 % interval 0.9800 to 0.9890)");
        let (right_to_wrong, wrong_to_right, drop_upper95) = (9, 6, 0.000_937);
        let int8 = measured(Some(Paired { against: "f32".into(), right_to_wrong, wrong_to_right, drop_upper95 }));
        let line = " int8  accuracy 0.9850  (95 % interval 0.9800 to 0.9890)  lost 9, won 6: at most 0.09 points worse";
        check("int8", &int8, None, 0.001, true, line);
        check("int8", &int8, None, 0.000_5, false, &format!("{line}, more than 0.05: left out"));
        let few = measured(Some(Paired { right_to_wrong: 0, wrong_to_right: 0, ..int8.paired.clone().unwrap() }));
        let line = " int8  accuracy 0.9850  (95 % interval 0.9800 to 0.9890)  lost 0, won 0: at most 0.09 points worse, \
            as far as so few test samples tell";
        check("int8", &few, None, 0.000_5, true, line);
        let line = " int8  accuracy 0.9850  (95 % interval 0.9800 to 0.9890)  lost 9, won 6: at most 0.09 points worse";
        let worst = |drop_lower95| Some(Worst { subset: Subset::Class(4), drop_lower95 });
        check("int8", &int8, worst(0.002_9), 0.001, true, line);
        check("int8", &int8, worst(0.004), 0.001, false, &format!("{line}, but class 4 lost 0.40 or more: left out"));
    }

    #[test]
    fn what_is_mixed_in_hides_nothing() {
        let part = |name: &str, right: u64, count: usize| {
            let (accuracy, most) = (right as f64 / count.max(1) as f64, wilson95(right, count as u64).1);
            PartAccuracy { name: name.into(), accuracy, most, count }
        };
        let below =
            |value: f64, parts: &[PartAccuracy], floor| below(&Measured { value, ..measured(None) }, parts, floor);
        let [known, site, none] = [part("known", 1990, 2000), part("site", 12, 60), part("none", 0, 0)];
        assert_eq!(below(0.95, &[], 0.95), None);
        assert_eq!(below(0.9499, &[], 0.95).unwrap(), "test accuracy 0.9499 is below");
        assert_eq!(below(0.97, &[known.clone(), none.clone()], 0.95), None);
        let told = "test accuracy is 0.9718, but 0.2000, and at most 0.3178, on the 60 samples of site, below";
        assert_eq!(below(0.9718, &[site, known, none], 0.95).unwrap(), told);
        assert_eq!(below(0.97, &[part("few", 4, 5)], 0.95), None, "one of five is chance");
    }

    #[test]
    fn what_is_no_better_than_before_says_by_how_much() {
        let no_better = |value: f64, before, by| no_better(&Measured { value, ..measured(None) }, before, by);
        assert_eq!(
            [no_better(0.95, 0.95, 0.0), no_better(0.955, 0.95, 0.005), no_better(0.97, 0.95, 0.01)],
            [const { None }; 3]
        );
        let told = "test accuracy 0.9500 beside 0.9600 of what was accepted before is -1.00 points, less than";
        assert_eq!(no_better(0.95, 0.96, 0.0).as_deref(), Some(told));
        let told = "test accuracy 0.9620 beside 0.9600 of what was accepted before is +0.20 points, less than";
        assert_eq!(no_better(0.962, 0.96, 0.005).as_deref(), Some(told));
    }

    const N: usize = 10_000;

    fn answer(class: usize, right: bool) -> Answer {
        let (said, score) = if right { (class, 1.0) } else { (class + 1, 0.0) };
        Answer { class: said, confidence: 0.9, score, loss: 0.5, told: Told::Class(class) }
    }

    /// Whether a variant passes on samples drawn with replacement.
    fn passes(pairs: &[(Answer, Answer)], generator: &mut ChaCha8Rng) -> bool {
        let drawn = (0..N).map(|_| pairs[((unit(generator) * N as f32) as usize).min(N - 1)].clone());
        let (before, after): (Vec<_>, Vec<_>) = drawn.unzip();
        let measured = Measured { wilson95: interval95(&after), ..measured(Some(paired("f32", &before, &after))) };
        verdict("int8", &measured, worst(&before, &after, &[]), 0.005).passed
    }

    fn passed_of_200(after: impl Fn(usize, bool) -> bool) -> usize {
        let of = |index: usize| {
            let right = !index.is_multiple_of(64);
            (answer(index % 10, right), answer(index % 10, after(index, right)))
        };
        let pairs: Vec<_> = (0..N).map(of).collect();
        let mut generator = generator(7, "bootstrap");
        (0..200).filter(|_| passes(&pairs, &mut generator)).count()
    }

    #[test]
    fn a_network_against_itself_always_passes() {
        assert_eq!(passed_of_200(|_, right| right), 200);
    }

    /// Some turn by chance, either way, and one in a hundred is spoilt.
    #[test]
    fn a_point_that_was_lost_is_seen() {
        let turned = |index: usize, right: bool| if index % 500 < 2 { !right } else { right && index % 100 != 50 };
        let passed = passed_of_200(turned);
        assert!(passed <= 10, "{passed} of 200 passed");
    }

    /// One class of ten loses a twentieth: half a point of all, which passes, and five points of its own, which does not.
    #[test]
    fn a_class_that_was_given_up_is_seen() {
        let spoilt = |index: usize, right: bool| right && !(index % 10 == 3 && index % 230 < 10);
        let pairs = (0..N).map(|index| (answer(index % 10, true), answer(index % 10, spoilt(index, true))));
        let (before, after): (Vec<_>, Vec<_>) = pairs.unzip();
        let worst = worst(&before, &after, &[]).unwrap();
        assert_eq!(worst.subset, Subset::Class(3));
        assert!(!verdict("int8", &measured(Some(paired("f32", &before, &after))), Some(worst), 0.006).passed);
    }

    /// One camera of fifty loses a tenth, a fifth of a point of all; of ten others, with ten samples each, one answer turned.
    #[test]
    fn a_camera_that_was_given_up_is_seen() {
        let group = |index: usize| if index < 1_000 { 1_000 + index as u64 / 10 } else { index as u64 % 50 };
        let spoilt = |index: usize| if index < 1_000 { index.is_multiple_of(100) } else { index % 500 == 7 };
        let groups: Vec<u64> = (0..N).map(group).collect();
        let pairs = (0..N).map(|index| (answer(index % 7, true), answer(index % 7, !spoilt(index))));
        let (before, after): (Vec<_>, Vec<_>) = pairs.unzip();
        let worst = worst(&before, &after, &groups).unwrap();
        assert_eq!(worst.subset, Subset::Group { samples: 180 });
        let verdict = verdict("int8", &measured(Some(paired("f32", &before, &after))), Some(worst), 0.005);
        assert!(!verdict.passed && verdict.reason.contains("but a group of 180 samples lost "), "{}", verdict.reason);
    }
}
