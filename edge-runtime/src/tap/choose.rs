//! Which answers are samples: some by lot, which alone tell what the world is like, and the hard ones. Pure: the lot and the day
//! are arguments.

use super::content::Scores;
use super::file::Wish;
use serde::Serialize;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Uniform,
    Hard,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub why: Why,
    /// That an answer like this one is chosen, for whatever reason.
    pub probability: f64,
}

/// Drawn before anything is looked at.
#[derive(Default)]
pub struct Lots {
    seed: RandomState,
    drawn: AtomicU64,
}

impl Lots {
    /// A lot, from 0 to 1.
    pub fn draw(&self) -> f64 {
        self.seed.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed)) as f64 / u64::MAX as f64
    }
}

/// Whether an answer must be looked into: without that a lot chooses it, or nothing does.
pub fn is_looked_into(wish: &Wish, lot: f64) -> bool {
    lot < wish.share || wish.margin_below.is_some() || wish.per_class_per_day.is_some()
}

/// Of one model.
#[derive(Default)]
pub struct Chooser {
    day: u64,
    /// How many of each class were kept today for being few, by lot or not.
    classes: BTreeMap<u64, u32>,
}

impl Chooser {
    pub fn choose(&mut self, wish: &Wish, scores: Option<&Scores>, lot: f64, now: SystemTime) -> Option<Choice> {
        let is_unsure = |scores: &Scores| wish.margin_below.is_some_and(|bound| scores.margin < bound);
        let is_hard = scores.is_some_and(|scores| is_unsure(scores) || self.is_among_few(wish, scores.class, now));
        let probability = if is_hard { 1.0 } else { wish.share };
        // The lot first: what it chooses must not depend on the answer.
        let why = if lot < wish.share { Some(Why::Uniform) } else { is_hard.then_some(Why::Hard) };
        why.map(|why| Choice { why, probability })
    }

    fn is_among_few(&mut self, wish: &Wish, class: u64, now: SystemTime) -> bool {
        let Some(most) = wish.per_class_per_day else { return false };
        let day = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY.as_secs());
        if day != self.day {
            self.day = day;
            self.classes.clear();
        }
        let kept = self.classes.entry(class).or_default();
        let is_few = *kept < most;
        *kept += u32::from(is_few);
        is_few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(class: u64, margin: f64) -> Scores {
        Scores { version: "1".into(), class, best: 0.5, margin }
    }

    fn wish() -> Wish {
        Wish {
            dataset: "vision/digits".into(),
            share: 0.1,
            margin_below: Some(0.3),
            per_class_per_day: None,
            features: false,
        }
    }

    #[test]
    fn a_share_is_chosen_by_lot_and_the_unsure_always() {
        let mut chooser = Chooser::default();
        let mut choose = |lot, margin| {
            let choice = chooser.choose(&wish(), Some(&scores(7, margin)), lot, SystemTime::UNIX_EPOCH)?;
            Some((choice.why, choice.probability))
        };
        assert_eq!(choose(0.05, 0.9), Some((Why::Uniform, 0.1)));
        assert_eq!(choose(0.05, 0.1), Some((Why::Uniform, 1.0)), "without the lot it were kept all the same");
        assert_eq!(choose(0.5, 0.29), Some((Why::Hard, 1.0)));
        assert_eq!(choose(0.5, 0.31), None);
        let drawn = Lots::default();
        let lots: Vec<f64> = (0..10_000).map(|_| drawn.draw()).collect();
        let below = lots.iter().filter(|lot| **lot < 0.1).count();
        assert!((850..1150).contains(&below), "{below} of 10,000 lots are below a tenth");
    }

    #[test]
    fn what_only_a_lot_can_choose_is_not_looked_into_without_it() {
        let by_lot = Wish { margin_below: None, ..wish() };
        assert!(is_looked_into(&by_lot, 0.05) && !is_looked_into(&by_lot, 0.5) && is_looked_into(&wish(), 0.5));
        assert!(is_looked_into(&Wish { per_class_per_day: Some(2), ..by_lot }, 0.5));
    }

    #[test]
    fn a_few_of_each_class_are_kept_each_day() {
        let wish = Wish { share: 0.0, margin_below: None, per_class_per_day: Some(2), ..wish() };
        let mut chooser = Chooser::default();
        let mut kept = |class, hours: u64| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(hours * 3600);
            chooser.choose(&wish, Some(&scores(class, 0.9)), 0.5, now).is_some()
        };
        assert_eq!([kept(1, 1), kept(1, 2), kept(1, 3), kept(2, 3), kept(1, 25)], [true, true, false, true, true]);
    }
}
