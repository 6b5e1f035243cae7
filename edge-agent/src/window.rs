//! The last round trips, and their quantiles. Pure; holds at most [`CAPACITY`] samples.

use std::collections::VecDeque;
use std::time::Duration;

/// Samples kept: 32 KiB. A burst of 20 every 15 s fills them in 51 minutes, so that a changed link is wholly told within
/// the hour, and one hundredth of them is still 40 samples, enough for a p99.
pub const CAPACITY: usize = 4096;

/// Below this many samples the 99th percentile is a maximum by another name, and is not told.
pub const P99_FROM: usize = 500;

#[derive(Debug, Default)]
pub struct Window {
    samples: VecDeque<Duration>,
}

/// What a window says. Not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub p50: Duration,
    pub p99: Option<Duration>,
    pub samples: usize,
}

impl Summary {
    /// The tail is more than twice the median: the node was busy, or the link is.
    pub fn is_uneven(&self) -> bool {
        self.p99.is_some_and(|p99| p99 > self.p50 * 2)
    }
}

impl Window {
    pub fn push(&mut self, round_trip: Duration) {
        if self.samples.len() == CAPACITY {
            self.samples.pop_front();
        }
        self.samples.push_back(round_trip);
    }

    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// `None` if nothing was measured yet.
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted: Vec<Duration> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        // Nearest rank: the smallest sample that at least this share of all samples does not exceed.
        let quantile = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Summary {
            p50: quantile(50)?,
            p99: quantile(99).filter(|_| sorted.len() >= P99_FROM),
            samples: sorted.len(),
        })
    }
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
        let expected =
            Summary { p50: Duration::from_micros(500), p99: Some(Duration::from_micros(990)), samples: 1000 };
        assert_eq!(window(1..=1000).summary(), Some(expected));
        assert_eq!(window((1..=1000).rev()).summary(), Some(expected));
    }

    #[test]
    fn p99_waits_for_five_hundred_samples() {
        assert_eq!(window(1..=499).summary().unwrap().p99, None);
        assert_eq!(window(1..=500).summary().unwrap().p99, Some(Duration::from_micros(495)));
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
