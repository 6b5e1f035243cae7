//! How far predictions are off, learned from what routers measure. Kept in memory alone: what a restart forgets, the next
//! samples tell anew, and until then predictions stand as they are. What nobody tells of any more fades: a place that was left
//! for being slow is believed again in time.

use crate::plan::{AS_PREDICTED, RatioKey, RatioSample, Ratios};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Routers tell of five minutes: sooner the same answers would be counted twice.
const APART: SignedDuration = SignedDuration::from_mins(5);

/// What is used is rounded to this many percent, so that jitter decides nothing.
const STEP: u64 = 5;

#[derive(Debug, Default)]
pub struct Learned(BTreeMap<RatioKey, Mean>);

/// A moving average, in thousandths of a percent.
#[derive(Debug)]
struct Mean {
    millis: u64,
    at: Timestamp,
}

impl Mean {
    /// A quarter of the way to `millis`, unless the last step was just now.
    fn step(&mut self, millis: u64, now: Timestamp) {
        if now.duration_since(self.at) >= APART {
            *self = Self { millis: self.millis.saturating_mul(3).saturating_add(millis) / 4, at: now };
        }
    }
}

impl Learned {
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
            self.0.entry(key).or_insert(Mean { millis, at: now }).step(millis, now);
        }
    }

    pub fn ratios(&self) -> Ratios {
        let mut ratios = Ratios::default();
        for (key, Mean { millis, .. }) in &self.0 {
            let percent = (millis.saturating_add(STEP * 500)) / (STEP * 1_000) * STEP;
            ratios.put(key.clone(), percent);
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
    fn one_site_that_lies_moves_nothing_and_none_beyond_bounds() {
        assert_eq!(learn(&mut Learned::default(), &[110, 200, 115], 0), 115);
        assert_eq!(learn(&mut Learned::default(), &[200, 110], 0), 110, "of two the one that corrects less");
        assert_eq!(learn(&mut Learned::default(), &[0], 0), 50);
        assert_eq!(learn(&mut Learned::default(), &[10_000], 0), 200);
    }
}
