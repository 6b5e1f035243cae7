//! `grpc-timeout`, as gRPC writes it: at most 8 digits and a unit.

use std::time::{Duration, Instant};

/// We answer so much before the time is over: the transport's own timer would say CANCELLED.
const MARGIN: Duration = Duration::from_millis(2);

/// When to answer at the latest. What cannot be read is no deadline, as gRPC says.
pub fn deadline(header: Option<&str>, arrived: Instant) -> Option<Instant> {
    let text = header?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    arrived.checked_add(timeout.saturating_sub(MARGIN.min(timeout / 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nonsense_is_no_deadline() {
        let now = Instant::now();
        let check = |text: &str, expected: Option<Duration>| {
            assert_eq!(deadline(Some(text), now), expected.map(|left| now + left))
        };
        check("250m", Some(Duration::from_millis(248)));
        check("5S", Some(Duration::from_millis(4998)));
        check("100u", Some(Duration::from_micros(50)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600) - MARGIN));
        for nonsense in ["", "m", "5", "-5S", "999999999S", "5é"] {
            check(nonsense, None);
        }
    }
}
