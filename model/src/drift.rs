//! Drift: whether what a model says, or is asked, is spread otherwise than on held-out samples. Needs no label. Pure: the time is an
//! argument.
//!
//! Four histograms tell it: which classes are answered, how surely, and of inputs their means and their deviations. Answers are
//! gathered to windows, and each window's histograms are held against the held-out ones by the Jensen–Shannon distance. Each has its
//! own limit; that of one of them is exceeded three windows in a row by chance alone in two of a hundred times that 500 windows come.

use crate::metrics::argmax;
use crate::network::{generator, unit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Classes beyond are counted with those before them: that can hide drift, and never make it.
const CLASSES: usize = 32;
/// Upper ends of all bins of confidence but the last: finer where good models are.
const SURE: [f32; 9] = [0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999];
const BINS: usize = SURE.len() + 1;
/// A window has so many answers, and lasts so long, at least.
const ANSWERS: u64 = 500;
const SECONDS: u64 = 600;
/// So many windows beyond the same limit, one after the other, are an alarm.
pub const IN_A_ROW: u32 = 3;
/// Fewer held-out answers say too little of what is to be expected.
const LEAST_HELD_OUT: u64 = 100;

/// More are drawn anew as if they were so many.
const MOST_HELD_OUT: u64 = 20_000;
/// Of what inputs are, in the mean: what differs by less is rounding.
const FINEST: f32 = 1e-3;

/// What the limits are derived from: windows that must pass without an alarm, how often that is tried, and how often it may fail,
/// for each of the four.
const SILENT: usize = 500;
const TRIALS: usize = 400;
const FAILURES: usize = 2;
/// Windows that are drawn; each trial takes its own of them.
const DRAWN: usize = 1000;

/// What a variant said of held-out samples, and how far from it is too far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// The windows that the limits are for.
    pub answers: u64,
    pub seconds: u64,
    pub classes: Expected<CLASSES>,
    pub confidence: Expected<BINS>,
    /// What it was asked. Artifacts of before do not say it, nor do those that were judged by features alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Inputs>,
}

/// Of inputs, as the network takes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// None where all are about alike: then what differs is rounding.
    pub means: Option<Spread>,
    pub deviations: Option<Spread>,
}

/// In bins that had about equally many of the held-out ones each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Upper ends of all bins but the last.
    pub edges: [f32; BINS - 1],
    pub expected: Expected<BINS>,
}

/// What is kept of an input: the mean of its numbers, and their standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    pub mean: f32,
    pub deviation: f32,
}

impl Moments {
    /// Sums of the same numbers are the same everywhere: their order is fixed.
    pub fn of(xs: &[f32]) -> Self {
        const LANES: usize = 16;
        let (mut sums, mut squares) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (whole, rest) = xs.as_chunks::<LANES>();
        for xs in whole {
            for lane in 0..LANES {
                sums[lane] += xs[lane];
                squares[lane] += xs[lane] * xs[lane];
            }
        }
        for (lane, x) in rest.iter().enumerate() {
            sums[lane] += x;
            squares[lane] += x * x;
        }
        let total = |lanes: [f32; LANES]| lanes.into_iter().map(f64::from).sum::<f64>() / xs.len().max(1) as f64;
        let (mean, square) = (total(sums), total(squares));
        Self { mean: mean as f32, deviation: (square - mean * mean).max(0.0).sqrt() as f32 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(serialize = "[u64; N]: Serialize", deserialize = "[u64; N]: Deserialize<'de>"))]
pub struct Expected<const N: usize> {
    pub counts: [u64; N],
    /// Distance, from 0 to 1.
    pub limit: f64,
}

impl Reference {
    /// Of held-out samples' classes, confidences and weights; `None` of too few.
    pub fn of(answers: impl IntoIterator<Item = (usize, f32, f32)>) -> Option<Self> {
        let (mut classes, mut confidence) = ([0.0; CLASSES], [0.0; BINS]);
        let (mut sum, mut squares) = (0.0, 0.0);
        for (class, sure, weight) in answers {
            let weight = f64::from(weight);
            classes[class % CLASSES] += weight;
            confidence[bin(&SURE, sure)] += weight;
            (sum, squares) = (sum + weight, squares + weight * weight);
        }
        // As many as, all alike, would scatter as much.
        let worth = if squares > 0.0 { sum * sum / squares } else { 0.0 };
        let counts = |weights: f64| (weights / sum * worth).round() as u64;
        (worth >= LEAST_HELD_OUT as f64).then(|| Self {
            answers: ANSWERS,
            seconds: SECONDS,
            classes: Expected::of(classes.map(counts), "classes"),
            confidence: Expected::of(confidence.map(counts), "confidence"),
            inputs: None,
        })
    }

    /// With what the inputs of these answers were, and how much each counts.
    #[must_use]
    pub fn with_inputs(self, inputs: &[(Moments, f32)]) -> Self {
        let held_out = self.held_out();
        let size = |(moments, _): &(Moments, f32)| moments.mean.abs() + moments.deviation;
        let mean_size = inputs.iter().map(|input| f64::from(size(input))).sum::<f64>() / inputs.len().max(1) as f64;
        let spread = |of: fn(&Moments) -> f32, what: &str| {
            let values = inputs.iter().map(|(moments, weight)| (of(moments), *weight)).collect();
            Spread::of(values, held_out, mean_size as f32 * FINEST, what)
        };
        let means = spread(|moments| moments.mean, "means");
        let deviations = spread(|moments| moments.deviation, "deviations");
        Self { inputs: Some(Inputs { means, deviations }), ..self }
    }

    /// Held-out answers.
    pub fn held_out(&self) -> u64 {
        self.confidence.counts.iter().sum()
    }
}

impl<const N: usize> Expected<N> {
    fn of(counts: [u64; N], what: &str) -> Self {
        let mut generator = generator(0, what);
        Self { limit: limit(&counts, &mut generator), counts }
    }

    fn is_beyond(&self, counts: &[u64; N]) -> bool {
        // By chance alone nothing was ever elsewhere: then it is not known how much may be.
        self.limit > 0.0 && distance(&self.counts, counts) > self.limit
    }
}

impl Spread {
    /// `worth` is how many held-out ones they are, all alike. None if most lie within `finest`, or some are no numbers.
    fn of(mut values: Vec<(f32, f32)>, worth: u64, finest: f32, what: &str) -> Option<Self> {
        values.sort_by(|one, other| one.0.total_cmp(&other.0));
        let sum: f64 = values.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let mut below = 0.0;
        let reached: Vec<(f32, f64)> = values
            .iter()
            .map(|(value, weight)| {
                below += f64::from(*weight);
                (*value, below / sum)
            })
            .collect();
        let edge = |number: usize| {
            let at = reached.partition_point(|(_, share)| *share < (number + 1) as f64 / BINS as f64);
            reached.get(at).or(reached.last()).map_or(0.0, |(value, _)| *value)
        };
        let edges: [f32; BINS - 1] = std::array::from_fn(edge);
        let is_spread = edges.iter().all(|edge| edge.is_finite()) && edges[BINS - 2] - edges[0] > finest;
        if !is_spread {
            return None;
        }
        let mut weights = [0.0; BINS];
        values.iter().for_each(|(value, weight)| weights[bin(&edges, *value)] += f64::from(*weight));
        let mut counts = weights.map(|weight| (weight / sum * worth as f64).round() as u64);
        // What nobody was at either end may be somebody by chance.
        (counts[0], counts[BINS - 1]) = (counts[0].max(1), counts[BINS - 1].max(1));
        Some(Self { edges, expected: Expected::of(counts, what) })
    }
}

fn bin(edges: &[f32; BINS - 1], value: f32) -> usize {
    edges.partition_point(|end| value >= *end)
}

/// Jensen and Shannon's distance of two histograms, from 0 to 1; an empty one is like any.
fn distance(one: &[u64], other: &[u64]) -> f64 {
    let [of_one, of_other] = [one, other].map(|counts| counts.iter().map(|&count| count as f64).sum::<f64>());
    if of_one == 0.0 || of_other == 0.0 {
        return 0.0;
    }
    let apart = |share: f64, mean: f64| if share > 0.0 { share * (share / mean).log2() } else { 0.0 };
    let bins = one.iter().zip(other).map(|(&one, &other)| {
        let (one, other) = (one as f64 / of_one, other as f64 / of_other);
        let mean = f64::midpoint(one, other);
        f64::midpoint(apart(one, mean), apart(other, mean))
    });
    bins.sum::<f64>().clamp(0.0, 1.0).sqrt()
}

/// By bootstrap: held-out answers and windows are drawn anew from what was counted, and of each trial the farthest that three windows
/// in a row were is taken. A bad draw of held-out answers shifts all windows alike: it is part of a trial.
fn limit<const N: usize>(counts: &[u64; N], generator: &mut ChaCha8Rng) -> f64 {
    let windows: Vec<[u64; N]> = (0..DRAWN).map(|_| drawn(counts, ANSWERS, generator)).collect();
    // From so many on they scatter far less than windows do.
    let held_out = counts.iter().sum::<u64>().min(MOST_HELD_OUT);
    let mut farthest: Vec<f64> = (0..TRIALS)
        .map(|_| {
            let reference = drawn(counts, held_out, generator);
            let distances: Vec<f64> =
                (0..SILENT).map(|_| distance(&reference, &windows[generator.next_u32() as usize % DRAWN])).collect();
            let in_a_row = distances.windows(IN_A_ROW as usize).map(|row| row.iter().copied().fold(1.0, f64::min));
            in_a_row.fold(0.0, f64::max)
        })
        .collect();
    farthest.sort_by(f64::total_cmp);
    farthest[TRIALS - 1 - FAILURES]
}

/// As many answers as asked for, spread by chance as these were.
fn drawn<const N: usize>(counts: &[u64; N], answers: u64, generator: &mut ChaCha8Rng) -> [u64; N] {
    let mut below = [0; N];
    let mut sum = 0;
    for (below, count) in below.iter_mut().zip(counts) {
        sum += count;
        *below = sum;
    }
    let mut drawn = [0; N];
    for _ in 0..answers {
        let lot = (f64::from(unit(generator)) * sum as f64) as u64;
        drawn[below.partition_point(|below| *below <= lot).min(N - 1)] += 1;
    }
    drawn
}

/// Follows what one variant says, and is asked, while it serves.
#[derive(Debug)]
pub struct Monitor {
    reference: Reference,
    window: Window,
    /// Windows in a row beyond the limits.
    beyond: [u32; 4],
}

/// What was seen since the last window.
#[derive(Debug, Default)]
struct Window {
    classes: [u64; CLASSES],
    confidence: [u64; BINS],
    means: [u64; BINS],
    deviations: [u64; BINS],
    answers: u64,
    since: Option<Instant>,
}

impl Monitor {
    pub fn new(reference: Reference) -> Self {
        Self { reference, window: Window::default(), beyond: [0; 4] }
    }

    /// `row` is one answer: a probability for each class; `input` is what it answers.
    pub fn observe(&mut self, row: &[f32], input: Option<Moments>, now: Instant) {
        let Self { reference, window, beyond } = self;
        let since = *window.since.get_or_insert(now);
        let class = argmax(row);
        window.classes[class % CLASSES] += 1;
        window.confidence[bin(&SURE, row.get(class).copied().unwrap_or_default())] += 1;
        let (means, deviations) = match &reference.inputs {
            Some(Inputs { means, deviations }) => (means.as_ref(), deviations.as_ref()),
            None => (None, None),
        };
        if let (Some(spread), Some(input)) = (means, input) {
            window.means[bin(&spread.edges, input.mean)] += 1;
        }
        if let (Some(spread), Some(input)) = (deviations, input) {
            window.deviations[bin(&spread.edges, input.deviation)] += 1;
        }
        window.answers += 1;
        let Reference { answers, seconds, classes, confidence, .. } = reference;
        if window.answers < *answers || now.saturating_duration_since(since) < Duration::from_secs(*seconds) {
            return;
        }
        let is_beyond = [
            classes.is_beyond(&window.classes),
            confidence.is_beyond(&window.confidence),
            means.is_some_and(|means| means.expected.is_beyond(&window.means)),
            deviations.is_some_and(|deviations| deviations.expected.is_beyond(&window.deviations)),
        ];
        for (beyond, is_beyond) in beyond.iter_mut().zip(is_beyond) {
            *beyond = if is_beyond { beyond.saturating_add(1) } else { 0 };
        }
        *window = Window::default();
    }

    /// Windows in a row beyond one limit.
    pub fn in_a_row(&self) -> u32 {
        self.beyond.into_iter().max().unwrap_or_default()
    }

    pub fn has_drifted(&self) -> bool {
        self.in_a_row() >= IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of a model of ten classes: surer the smaller `doubt` is, and the class 0 so often more.
    fn answers(count: usize, doubt: f32, more: f32, generator: &mut ChaCha8Rng) -> Vec<(usize, f32, f32)> {
        let answer = |_| {
            let class = if unit(generator) < more { 0 } else { (unit(generator) * 10.0) as usize };
            (class, 1.0 - doubt * unit(generator).powi(4), 1.0)
        };
        (0..count).map(answer).collect()
    }

    fn row(class: usize, sure: f32) -> [f32; 10] {
        std::array::from_fn(|at| if at == class { sure } else { (1.0 - sure) / 9.0 })
    }

    /// Inputs of about this light.
    fn inputs(count: usize, light: f32, generator: &mut ChaCha8Rng) -> Vec<(Moments, f32)> {
        let input = |_| {
            let mean = light * (0.5 + unit(generator));
            (Moments { mean, deviation: mean * (1.0 + unit(generator)) }, 1.0)
        };
        (0..count).map(input).collect()
    }

    /// After how many windows there is an alarm.
    fn alarm(monitor: &mut Monitor, windows: usize, mut next: impl FnMut() -> (usize, f32, f32)) -> Option<usize> {
        alarm_of(monitor, windows, || (next(), None))
    }

    fn alarm_of(
        monitor: &mut Monitor,
        windows: usize,
        mut next: impl FnMut() -> ((usize, f32, f32), Option<Moments>),
    ) -> Option<usize> {
        let start = Instant::now();
        (1..=windows).find(|window| {
            for at in 0..ANSWERS {
                let ((class, sure, _), input) = next();
                let seconds = *window as u64 * 2 * SECONDS + at * 2;
                monitor.observe(&row(class, sure), input, start + Duration::from_secs(seconds));
            }
            monitor.has_drifted()
        })
    }

    #[test]
    fn five_hundred_windows_like_the_held_out_answers_are_silent() {
        let mut alarms = Vec::new();
        for (trial, held_out) in [150, 500, 2000, 10_000].into_iter().cycle().take(24).enumerate() {
            let mut generator = generator(trial as u64, "silent");
            let reference = Reference::of(answers(held_out, 0.6, 0.1, &mut generator)).unwrap();
            let reference = reference.with_inputs(&inputs(held_out, 0.3, &mut generator));
            let mut next = || {
                let answer = answers(1, 0.6, 0.1, &mut generator).remove(0);
                (answer, Some(inputs(1, 0.3, &mut generator)[0].0))
            };
            alarms.extend(alarm_of(&mut Monitor::new(reference), SILENT, &mut next).map(|_| held_out));
        }
        assert!(alarms.len() <= 1, "{alarms:?}");
    }

    #[test]
    fn the_third_window_that_is_otherwise_is_an_alarm_and_one_as_before_ends_it() {
        let mut generator = generator(1, "otherwise");
        let reference = Reference::of(answers(2000, 0.6, 0.1, &mut generator)).unwrap();
        for (doubt, more) in [(0.8, 0.1), (0.3, 0.1), (0.6, 0.3)] {
            let mut monitor = Monitor::new(reference.clone());
            let mut next = || answers(1, doubt, more, &mut generator).remove(0);
            assert_eq!(alarm(&mut monitor, 9, &mut next), Some(3), "{doubt} {more}");
            let mut next = || answers(1, 0.6, 0.1, &mut generator).remove(0);
            assert_eq!(alarm(&mut monitor, 1, &mut next), None);
        }
    }

    #[test]
    fn inputs_that_are_darker_are_an_alarm_though_all_answers_are_alike() {
        let mut generator = generator(4, "darker");
        let reference = Reference::of(answers(2000, 0.6, 0.1, &mut generator)).unwrap();
        let reference = reference.with_inputs(&inputs(2000, 0.3, &mut generator));
        let mut alarm = |monitor: &mut Monitor, light: f32, windows: usize| {
            let mut next = || {
                let answer = answers(1, 0.6, 0.1, &mut generator).remove(0);
                (answer, Some(inputs(1, light, &mut generator)[0].0))
            };
            alarm_of(monitor, windows, &mut next)
        };
        let mut monitor = Monitor::new(reference.clone());
        assert_eq!(alarm(&mut monitor, 0.25, 9), Some(3));
        assert_eq!(alarm(&mut monitor, 0.3, 1), None, "one as before ends it");
        // An artifact of before looks at no input.
        let before = Reference { inputs: None, ..reference };
        assert_eq!(alarm(&mut Monitor::new(before), 0.25, 9), None);
    }

    #[test]
    fn moments_are_those_of_the_numbers() {
        let xs: Vec<f32> = (0..37).map(|x| x as f32).collect();
        let Moments { mean, deviation } = Moments::of(&xs);
        assert!((mean - 18.0).abs() < 1e-5 && (deviation - 114.0_f32.sqrt()).abs() < 1e-4, "{mean} {deviation}");
        assert_eq!(Moments::of(&[0.25; 50]), Moments { mean: 0.25, deviation: 0.0 });
        assert_eq!(Moments::of(&[]), Moments { mean: 0.0, deviation: 0.0 });
    }

    /// Those that are rare among the held-out ones count little, and inputs that are all alike are one bin.
    #[test]
    fn bins_hold_a_tenth_each_of_what_counts() {
        let values: Vec<(f32, f32)> = (0..1000).map(|at| (at as f32, if at < 500 { 3.0 } else { 1.0 })).collect();
        let Spread { edges, expected } = Spread::of(values, 800, 0.1, "test").unwrap();
        assert!(expected.counts.iter().all(|count| (79..=81).contains(count)), "{:?}", expected.counts);
        assert!(edges[4] < 350.0 && edges[8] > 790.0, "{edges:?}");
        let about = |at: usize| (0.5 + at as f32 * 1e-6, 1.0);
        assert_eq!(Spread::of((0..300).map(about).collect(), 300, 5e-4, "test"), None, "what differs is rounding");
        assert_eq!(Spread::of(vec![(f32::INFINITY, 1.0); 300], 300, 5e-4, "test"), None);
    }

    /// Half of the inputs are black: of the others there may be more or fewer, brighter or darker.
    #[test]
    fn inputs_that_tie_drift_to_both_sides() {
        let mut generator = generator(6, "tie");
        let mut input = |black: f32, light: f32| {
            let mean = if unit(&mut generator) < black { 0.0 } else { light * (0.5 + unit(&mut generator)) };
            Moments { mean, deviation: mean }
        };
        let held_out: Vec<_> = (0..2000).map(|_| (input(0.5, 0.3), 1.0)).collect();
        let answers = (0..2000).map(|at| (at % 10, 0.9, 1.0));
        let reference = Reference::of(answers).unwrap().with_inputs(&held_out);
        for (black, light, expected) in
            [(0.5, 0.3, None), (0.3, 0.3, Some(3)), (0.7, 0.3, Some(3)), (0.5, 0.5, Some(3)), (1.0, 0.3, Some(3))]
        {
            let mut at = 0;
            let mut next = || {
                at += 1;
                ((at % 10, 0.9, 1.0), Some(input(black, light)))
            };
            assert_eq!(alarm_of(&mut Monitor::new(reference.clone()), 9, &mut next), expected, "{black} {light}");
        }
    }

    #[test]
    fn a_window_has_its_answers_and_its_time() {
        let reference = Reference::of(answers(2000, 0.1, 0.1, &mut generator(2, "window"))).unwrap();
        let (mut monitor, start) = (Monitor::new(reference), Instant::now());
        (0..5000).for_each(|_| monitor.observe(&row(0, 0.4), None, start));
        assert_eq!(monitor.in_a_row(), 0, "no time has passed");
        monitor.observe(&row(0, 0.4), None, start + Duration::from_secs(SECONDS));
        assert_eq!(monitor.in_a_row(), 1);
        monitor.observe(&row(0, 0.4), None, start + Duration::from_secs(4 * SECONDS));
        monitor.observe(&row(0, 0.4), None, start + Duration::from_secs(9 * SECONDS));
        assert_eq!(monitor.in_a_row(), 1, "two answers are no window");
    }

    #[test]
    fn few_held_out_answers_or_few_that_count_are_no_reference() {
        let of = |count: usize, weight: f32| {
            let all = (0..count).map(|at| (at % 10, 0.9, if at == 0 { weight } else { 1.0 }));
            Reference::of(all).map(|reference| reference.held_out())
        };
        assert_eq!((of(99, 1.0), of(400, 400.0), of(400, 1.0), of(0, 1.0)), (None, None, Some(400), None));
    }

    #[test]
    fn a_distance_is_between_that_of_the_same_and_that_of_strangers() {
        assert_eq!(
            (distance(&[1, 3], &[2, 6]), distance(&[1, 0], &[0, 7]), distance(&[0, 0], &[1, 1])),
            (0.0, 1.0, 0.0)
        );
        // Of (1/2, 1/2) and (1, 0), by hand.
        assert!((distance(&[1, 1], &[1, 0]).powi(2) - 0.311_278).abs() < 1e-6);
    }

    #[test]
    fn a_reference_is_read_as_it_is_written() {
        let reference = Reference::of(answers(200, 0.6, 0.1, &mut generator(3, "json"))).unwrap();
        let text = serde_json::to_string(&reference).unwrap();
        assert!(!text.contains("inputs"), "as before there were any: {text}");
        assert_eq!(serde_json::from_str::<Reference>(&text).unwrap(), reference);
        let reference = reference.with_inputs(&inputs(200, 0.3, &mut generator(3, "json")));
        let text = serde_json::to_string(&reference).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&text).unwrap(), reference);
        assert!(serde_json::from_str::<Reference>(&text.replacen("[", "[1,", 1)).is_err(), "33 classes");
    }
}
