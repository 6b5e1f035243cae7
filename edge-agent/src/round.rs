//! Two significant digits, and what counts as a change: jitter must not become writes.

use sconce_api::{Amount, DurationText};
use std::time::Duration;

/// Rounded to two significant digits, halves up: 41,499 becomes 41,000.
pub fn two_digits(number: u64) -> u64 {
    let mut scale = 1;
    while number / scale >= 100 {
        scale *= 10;
    }
    (number + scale / 2) / scale * scale
}

/// The duration with two significant digits and one unit, such as `320us`, `41ms` or `1200us`.
pub fn duration_text(duration: Duration) -> DurationText {
    let micros = two_digits(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2).max(1));
    DurationText(match micros {
        us if us % 1_000_000 == 0 => format!("{}s", us / 1_000_000),
        us if us % 1_000 == 0 => format!("{}ms", us / 1_000),
        us => format!("{us}us"),
    })
}

/// Bits per second with two significant digits and one unit, such as `9400k` or `12M`.
pub fn rate_text(bits_per_second: u64) -> Amount {
    Amount(match two_digits(bits_per_second.max(1)) {
        rate if rate % 1_000_000 == 0 => format!("{}M", rate / 1_000_000),
        rate if rate % 1_000 == 0 => format!("{}k", rate / 1_000),
        rate => rate.to_string(),
    })
}

/// True if `new` is a quarter or more away from `old`.
pub fn moved(old: u64, new: u64) -> bool {
    old.abs_diff(new).saturating_mul(4) >= old && old != new
}

/// True if a time that is told from few samples is another: half as much again, or as much less.
pub fn time_moved(old: u64, new: u64) -> bool {
    let (less, more) = (old.min(new), old.max(new));
    more.saturating_mul(2) >= less.saturating_mul(3) && old != new
}

/// True if a count of random events is another: by a quarter, and by more than such counts scatter, three times their root.
pub fn count_moved(old: u64, new: u64) -> bool {
    let apart = old.abs_diff(new);
    moved(old, new) && apart.saturating_mul(apart) >= old.saturating_mul(9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scatters_is_no_move() {
        assert!(!count_moved(4, 9) && count_moved(4, 10));
        assert!(!count_moved(100, 129) && count_moved(100, 130) && count_moved(100, 70));
        assert!(!count_moved(1500, 1200) && count_moved(1500, 1100));
        assert!(count_moved(0, 1) && !count_moved(1, 3) && count_moved(9, 0));
        assert!(!time_moved(40, 59) && time_moved(40, 60) && !time_moved(60, 41) && time_moved(60, 40));
        assert!(time_moved(0, 1) && time_moved(1, 0) && !time_moved(0, 0));
    }

    #[test]
    fn numbers_keep_two_digits() {
        let rounded = [0, 7, 99, 100, 104, 105, 994, 995, 41_499, 41_500].map(two_digits);
        assert_eq!(rounded, [0, 7, 99, 100, 100, 110, 990, 1000, 41_000, 42_000]);
    }

    #[test]
    fn durations_name_the_largest_unit_that_loses_nothing() {
        let check = |micros, expected: &str| {
            let text = duration_text(Duration::from_micros(micros));
            assert_eq!(text, DurationText::from(expected));
            assert_eq!(text.parse(), Some(Duration::from_micros(two_digits(micros.max(1)))));
        };
        check(0, "1us");
        check(320, "320us");
        check(999, "1ms");
        check(1_234, "1200us");
        check(41_230, "41ms");
        check(1_234_000, "1200ms");
        check(12_340_000, "12s");
    }

    #[test]
    fn less_than_a_quarter_is_no_move() {
        assert!(!moved(40, 49));
        assert!(moved(40, 50));
        assert!(!moved(40, 31));
        assert!(moved(40, 30));
        assert!(!moved(0, 0));
        assert!(moved(0, 1));
    }
}
