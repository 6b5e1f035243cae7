//! How far predictions are off, learned from what routers measure. What is used of it stands in the fleets' status, so that a
//! restart goes on from there and `sconce simulate` plans with the same. What nobody tells of any more fades: a place that was
//! left for being slow is believed again in time.

use crate::plan::{AS_PREDICTED, RatioKey, RatioSample, Ratios};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Routers tell of five minutes: sooner the same answers would be counted twice.
const APART: SignedDuration = SignedDuration::from_mins(5);

/// What is used is rounded to this many percent, so that jitter decides nothing.
const STEP: u64 = 5;

/// And what is used stays until the average is so many thousandths of a percent off: at rest nothing is written.
const OFF: u64 = 4_000;

#[derive(Debug, Default)]
pub struct Learned(BTreeMap<RatioKey, Mean>);

/// A moving average, in thousandths of a percent.
#[derive(Debug)]
struct Mean {
    millis: u64,
    /// What predictions are multiplied with, in percent.
    used: u64,
    at: Timestamp,
}

impl Mean {
    fn new(millis: u64, at: Timestamp) -> Self {
        Self { millis, used: rounded(millis), at }
    }

    /// A quarter of the way to `millis`, unless the last step was just now.
    fn step(&mut self, millis: u64, now: Timestamp) {
        if now.duration_since(self.at) < APART {
            return;
        }
        let millis = self.millis.saturating_mul(3).saturating_add(millis) / 4;
        let is_off = millis.abs_diff(self.used * 1_000) >= OFF;
        *self = Self { millis, used: if is_off { rounded(millis) } else { self.used }, at: now };
    }
}

fn rounded(millis: u64) -> u64 {
    (millis.saturating_add(STEP * 500)) / (STEP * 1_000) * STEP
}

impl Learned {
    /// Goes on from what was used when somebody wrote it down.
    pub fn remembered(ratios: &Ratios, now: Timestamp) -> Self {
        Self(ratios.all().map(|(key, percent)| (key, Mean::new(percent * 1_000, now))).collect())
    }

    /// Every five minutes a quarter of the way to the median of the sites: one that errs, or lies, moves nothing. Of what no site
    /// tells, a quarter of the way back to what was predicted.
    pub fn learn(&mut self, samples: Vec<RatioSample>, now: Timestamp) {
        let mut sites: BTreeMap<RatioKey, Vec<u64>> = BTreeMap::new();
        for RatioSample { key, percent } in samples {
            sites.entry(key).or_default().push(percent);
        }
        let untold = self.0.iter_mut().filter(|(key, _)| !sites.contains_key(*key));
        untold.for_each(|(_, mean)| mean.step(AS_PREDICTED * 1_000, now));
        for (key, percents) in sites {
            let millis = median(percents).saturating_mul(1_000);
            self.0.entry(key).or_insert_with(|| Mean::new(millis, now)).step(millis, now);
        }
    }

    pub fn ratios(&self) -> Ratios {
        let mut ratios = Ratios::default();
        for (key, Mean { used, .. }) in &self.0 {
            ratios.put(key.clone(), *used);
        }
        ratios
    }

    /// Each with its percent.
    pub fn all(&self) -> impl Iterator<Item = (&RatioKey, f64)> {
        self.0.iter().map(|(key, mean)| (key, mean.millis as f64 / 1_000.0))
    }
}

/// Of an even number of them the one that corrects less.
fn median(mut percents: Vec<u64>) -> u64 {
    percents.sort_unstable();
    let middle = percents.len() / 2;
    let [low, high] = [middle.saturating_sub(1 - percents.len() % 2), middle].map(|at| percents[at]);
    if low.abs_diff(AS_PREDICTED) < high.abs_diff(AS_PREDICTED) { low } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_api::Tier;

    fn key() -> RatioKey {
        RatioKey { class: "arm64".into(), variant: "int8".into(), tier: Tier::Edge }
    }

    fn learn(learned: &mut Learned, percents: &[u64], second: i64) -> u64 {
        let samples = percents.iter().map(|percent| RatioSample { key: key(), percent: *percent }).collect();
        learned.learn(samples, Timestamp::from_second(second).unwrap());
        learned.ratios().percent(Tier::Edge, "arm64", "int8")
    }

    #[test]
    fn a_prediction_is_corrected_step_by_step() {
        let mut learned = Learned::default();
        assert_eq!(learn(&mut learned, &[140], 0), 140);
        assert_eq!(learn(&mut learned, &[60], 299), 140, "the same five minutes");
        assert_eq!(learn(&mut learned, &[60], 300), 120);
        assert_eq!(learn(&mut learned, &[60], 600), 105);
        assert_eq!(learn(&mut learned, &[200], 900), 130);
        assert_eq!(learn(&mut learned, &[], 1_199), 130);
        assert_eq!(learn(&mut learned, &[], 1_200), 120, "what nobody tells of fades");
        for step in 5..50 {
            learn(&mut learned, &[], step * 300);
        }
        assert_eq!(learn(&mut learned, &[], 15_000), AS_PREDICTED);
        assert_eq!(learned.ratios().percent(Tier::Cloud, "arm64", "int8"), AS_PREDICTED);
    }

    #[test]
    fn jitter_changes_nothing_that_is_used() {
        let mut learned = Learned::default();
        let told = |step: i64| [if step % 2 == 0 { 122 } else { 133 }];
        let used: Vec<u64> = (0..40).map(|step| learn(&mut learned, &told(step), step * 300)).collect();
        assert!(used[8..].iter().all(|one| *one == used[8]), "{used:?}");
    }

    /// What is expected then lies within the bar of 0.7 to 1.5 of what clients wait, wherever predictions are off by no more than
    /// is believed.
    #[test]
    fn what_was_learned_brings_predictions_near_what_clients_wait() {
        for percent in 50..=200 {
            let mut learned = Learned::default();
            learn(&mut learned, &[100], 0);
            let used = (1..20).map(|step| learn(&mut learned, &[percent], step * 300)).last().unwrap();
            let share = used * 100 / percent;
            assert!((90..=110).contains(&share), "{used} for {percent}");
        }
    }

    #[test]
    fn a_new_leader_goes_on_from_what_was_used() {
        let mut learned = Learned::default();
        learn(&mut learned, &[140], 0);
        let at = Timestamp::from_second(100).unwrap();
        let mut next = Learned::remembered(&learned.ratios(), at);
        assert_eq!(next.ratios(), learned.ratios());
        assert_eq!(learn(&mut next, &[60], 399), 140, "routers still tell of what was learned before");
        assert_eq!(learn(&mut next, &[60], 400), 120);
        assert_eq!(Learned::remembered(&Ratios::default(), at).ratios(), Ratios::default());
    }

    #[test]
    fn one_site_that_lies_moves_nothing_and_none_beyond_bounds() {
        assert_eq!(learn(&mut Learned::default(), &[110, 200, 115], 0), 115);
        assert_eq!(learn(&mut Learned::default(), &[200, 110], 0), 110, "of two the one that corrects less");
        assert_eq!(learn(&mut Learned::default(), &[0], 0), 50);
        assert_eq!(learn(&mut Learned::default(), &[10_000], 0), 200);
    }
}
