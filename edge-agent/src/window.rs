//! The last round trips, and their quantiles. Pure; holds at most [`CAPACITY`] samples.

use std::collections::VecDeque;
use std::time::Duration;

/// Samples kept: 32 KiB. A burst of 20 every 15 s fills them in 51 minutes, so that a changed link is wholly told within
/// the hour, and one hundredth of them is still 40 samples, enough for a p99.
pub const CAPACITY: usize = 4096;

/// Below this many samples the 99th percentile is a maximum by another name, and is not told.
pub const P99_FROM: usize = 500;

/// So many of the last samples tell how the link is now: three bursts.
const RECENT: usize = 60;

/// So many samples are taken at once, and judged together.
pub const BURST: usize = 20;

/// Medians that are less apart are of one link: a busy node, or the next cell of a radio.
const ANOTHER_BY: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
pub struct Window {
    samples: VecDeque<Duration>,
    /// The first [`P99_FROM`] were taken at once: they tell of one moment, often one in which the node or a model was starting.
    of_one_moment: bool,
    anew: Option<Anew>,
}

/// How far the measuring of a link that has become another is.
#[derive(Clone, Copy, Debug, Default)]
struct Anew {
    /// Samples that are of the new link.
    samples: usize,
    /// All that were taken since.
    taken: usize,
}

/// What a window says. Not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub p50: Duration,
    pub p99: Option<Duration>,
    pub samples: usize,
}

impl Summary {
    /// The tail is more than twice the median, and 2 ms: the node was busy, or the link is. Less is what it takes to wake who slept.
    pub fn is_uneven(&self) -> bool {
        self.p99.is_some_and(|p99| p99 > self.p50 * 2 + ANOTHER_BY)
    }
}

impl Window {
    pub fn push(&mut self, round_trip: Duration) {
        if self.samples.len() == CAPACITY {
            self.samples.pop_front();
        }
        self.samples.push_back(round_trip);
        let Some(anew) = &mut self.anew else { return self.forget_one_moment() };
        anew.samples += 1;
        anew.taken += 1;
        let Anew { samples, taken } = *anew;
        if samples >= P99_FROM {
            self.samples.drain(..self.samples.len() - samples);
            let samples = self.without_another(taken);
            self.anew = (samples < P99_FROM).then_some(Anew { samples, taken });
            self.of_one_moment = true;
        }
    }

    /// What was taken at once counts until as much is there that was taken little by little.
    fn forget_one_moment(&mut self) {
        if self.samples.len() == P99_FROM {
            self.of_one_moment = true;
        } else if self.samples.len() == 2 * P99_FROM && std::mem::take(&mut self.of_one_moment) {
            self.samples.drain(..P99_FROM);
        }
    }

    /// It may have changed again meanwhile: leaves out what comes first and is of another link than the last; how many are left. Of a
    /// link that never rests, what there is counts.
    fn without_another(&mut self, taken: usize) -> usize {
        let now = median(&sorted(self.samples.range(self.samples.len() - RECENT..)));
        // So that fewer than a hundredth are left of it.
        let is_another = |window: &Self| {
            let first = sorted(window.samples.range(..BURST));
            [20, 80].into_iter().filter_map(|percent| quantile(&first, percent)).any(|then| are_apart(then, now))
        };
        while taken < 2 * P99_FROM && self.samples.len() > RECENT + BURST && is_another(self) {
            self.samples.drain(..BURST);
        }
        self.samples.len()
    }

    /// Samples that are wanted before the next pause: at least a burst, and as many as tell the tail of a link that is new.
    pub fn wanted(&self) -> usize {
        P99_FROM.saturating_sub(self.anew.map_or(self.samples.len(), |anew| anew.samples)).max(BURST)
    }

    /// The link has become another: until [`P99_FROM`] samples of the new one are there, the tail is that of both, and then the old
    /// one's are forgotten.
    pub fn begin_anew(&mut self) {
        self.anew = Some(Anew::default());
    }

    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// `None` if nothing was measured yet.
    pub fn summary(&self) -> Option<Summary> {
        let sorted = sorted(self.samples.iter());
        Some(Summary {
            p50: quantile(&sorted, 50)?,
            p99: quantile(&sorted, 99).filter(|_| sorted.len() >= P99_FROM),
            samples: sorted.len(),
        })
    }

    /// True if by the median of the last three bursts the link has become another, twice as slow or as fast: the old one's tail
    /// says nothing of it. Spikes, however many in a burst, are the link's own.
    pub fn tells_of_another_link(&self) -> bool {
        if self.anew.is_some() {
            return false;
        }
        let Some(before) = self.samples.len().checked_sub(RECENT).filter(|before| *before >= RECENT) else {
            return false;
        };
        let then = median(&sorted(self.samples.range(..before)));
        let now = median(&sorted(self.samples.range(before..)));
        are_apart(then, now)
    }
}

/// Whether two medians are of two links.
fn are_apart(then: Duration, now: Duration) -> bool {
    (now >= then * 2 || now * 2 <= then) && now.abs_diff(then) >= ANOTHER_BY
}

fn median(sorted: &[Duration]) -> Duration {
    quantile(sorted, 50).unwrap_or_default()
}

fn sorted<'a>(samples: impl Iterator<Item = &'a Duration>) -> Vec<Duration> {
    let mut sorted: Vec<Duration> = samples.copied().collect();
    sorted.sort_unstable();
    sorted
}

/// Nearest rank: the smallest sample that at least this share of all samples does not exceed.
fn quantile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(micros: impl IntoIterator<Item = u64>) -> Window {
        let mut window = Window::default();
        micros.into_iter().for_each(|us| window.push(Duration::from_micros(us)));
        window
    }

    #[test]
    fn nothing_measured_says_nothing() {
        assert_eq!(window([]).summary(), None);
    }

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        let expected = Summary { p50: Duration::from_micros(450), p99: Some(Duration::from_micros(891)), samples: 900 };
        assert_eq!(window(1..=900).summary(), Some(expected));
        assert_eq!(window((1..=900).rev()).summary(), Some(expected));
    }

    #[test]
    fn a_node_that_is_starting_is_uneven_and_one_that_slept_is_not() {
        let uneven = |p50, p99| {
            let [p50, p99] = [p50, p99].map(Duration::from_micros);
            Summary { p50, p99: Some(p99), samples: P99_FROM }.is_uneven()
        };
        assert!(uneven(300, 20_000) && uneven(200_000, 420_000));
        assert!(!uneven(300, 2_500) && !uneven(200_000, 390_000));
    }

    #[test]
    fn p99_waits_for_five_hundred_samples() {
        assert_eq!(window(1..=499).summary().unwrap().p99, None);
        assert_eq!(window(1..=500).summary().unwrap().p99, Some(Duration::from_micros(495)));
    }

    #[test]
    fn a_link_that_has_become_another_is_measured_anew() {
        let after = |level: u64, last: &[u64]| {
            window((0..600).map(|_| level).chain(last.iter().copied())).tells_of_another_link()
        };
        assert!(after(6_000, &[60_000; 60]));
        assert!(after(60_000, &[6_000; 60]));
        assert!(!after(6_000, &[60_000; 29]), "spikes are the link's own");
        assert!(!after(6_000, &[11_000; 60]));
        assert!(!after(300, &[2_200; 60]), "a busy node");
        assert!(!window((0..119).map(|_| 6_000)).tells_of_another_link());
    }

    #[test]
    fn nothing_of_the_old_link_is_left_once_the_new_one_is_measured() {
        let mut window = window((0..600).map(|_| 120_000).chain((0..31).map(|_| 6_000)));
        assert!(window.tells_of_another_link());
        window.begin_anew();
        assert_eq!(window.wanted(), P99_FROM);
        (0..P99_FROM - 1).for_each(|_| window.push(Duration::from_millis(6)));
        assert!(!window.tells_of_another_link(), "it is being measured");
        assert_eq!((window.wanted(), window.summary().unwrap().p99), (20, Some(Duration::from_millis(120))));
        window.push(Duration::from_millis(6));
        assert_eq!((window.len(), window.summary().unwrap().p99), (P99_FROM, Some(Duration::from_millis(6))));
    }

    #[test]
    fn a_link_that_changes_again_while_it_is_measured_leaves_nothing_either() {
        for slow in [1, 4, 7, 20, 25, 27, 33, 60, 200] {
            let mut window = window((0..600).map(|_| 6_000).chain((0..60).map(|_| 200_000)));
            window.begin_anew();
            (0..slow).for_each(|_| window.push(Duration::from_millis(200)));
            let mut taken = slow;
            while window.anew.is_some() {
                window.push(Duration::from_millis(6));
                taken += 1;
            }
            assert!(taken <= P99_FROM + slow + 2 * BURST, "{taken} for {slow}");
            let told = window.summary().unwrap();
            assert_eq!(told.p99, Some(Duration::from_millis(6)), "{slow}");
        }
    }

    #[test]
    fn a_link_that_never_rests_is_told_all_the_same() {
        let mut window = window((0..600).map(|_| 6_000));
        window.begin_anew();
        for taken in 0..3 * P99_FROM {
            window.push(Duration::from_millis(if taken / 40 % 2 == 0 { 200 } else { 6 }));
        }
        assert!(window.anew.is_none());
        assert_eq!(window.summary().unwrap().p99, Some(Duration::from_millis(200)));
    }

    #[test]
    fn what_was_taken_at_once_is_forgotten_once_as_much_came_little_by_little() {
        let told = |window: &Window| window.summary().map(|told| (told.samples, told.p99.unwrap().as_millis()));
        let mut window = window((0..P99_FROM as u64).map(|_| 9_000));
        (1..P99_FROM).for_each(|_| window.push(Duration::from_millis(1)));
        assert_eq!(told(&window), Some((2 * P99_FROM - 1, 9)));
        window.push(Duration::from_millis(1));
        assert_eq!(told(&window), Some((P99_FROM, 1)));
        (0..P99_FROM).for_each(|_| window.push(Duration::from_millis(1)));
        assert_eq!(told(&window), Some((2 * P99_FROM, 1)), "once");

        window.begin_anew();
        (0..P99_FROM).for_each(|_| window.push(Duration::from_millis(7)));
        assert_eq!(told(&window), Some((P99_FROM, 7)));
        (0..P99_FROM).for_each(|_| window.push(Duration::from_millis(6)));
        assert_eq!(told(&window), Some((P99_FROM, 6)), "a link that has become another, too");
    }

    #[test]
    fn the_oldest_samples_leave_first() {
        let slow_then_fast = (0..CAPACITY).map(|_| 90_000).chain((0..CAPACITY).map(|_| 1_000));
        let summary = window(slow_then_fast).summary().unwrap();
        assert_eq!(
            summary,
            Summary { p50: Duration::from_millis(1), p99: Some(Duration::from_millis(1)), samples: CAPACITY }
        );
    }
}
