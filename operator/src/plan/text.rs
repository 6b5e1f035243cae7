//! Numbers as people read them: two digits, so that jitter does not change a sentence.

use super::{AS_PREDICTED, ModelName, Node};
use sconce_api::{Operator, Requirement, Tier};

/// Rounds to two digits, half up.
pub fn two_digits(number: u64) -> u64 {
    let unit = unit_of_second_digit(number);
    (number.saturating_add(unit / 2)) / unit * unit
}

/// Rounds up to two digits: for advice that is to hold.
pub(super) fn two_digits_up(number: u64) -> u64 {
    let unit = unit_of_second_digit(number);
    number.div_ceil(unit).saturating_mul(unit)
}

fn unit_of_second_digit(number: u64) -> u64 {
    10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1))
}

/// `0.36 ms`, `4.2 ms`, `41 ms`, `1.2 s`.
pub fn time(us: u64) -> String {
    let us = two_digits(us);
    if us < 1_000_000 { format!("{} ms", decimal(us, 1_000)) } else { format!("{} s", decimal(us, 1_000_000)) }
}

/// `90 s`, `5 min`, `4 h`: exact, as people set it.
pub(super) fn seconds(seconds: u64) -> String {
    match seconds {
        hours if hours >= 7_200 && hours.is_multiple_of(3_600) => format!("{} h", hours / 3_600),
        minutes if minutes >= 120 && minutes.is_multiple_of(60) => format!("{} min", minutes / 60),
        seconds => format!("{seconds} s"),
    }
}

/// `0.36`, `4.2`, `41`: `number / unit` without trailing zeros.
pub fn decimal(number: u64, unit: u64) -> String {
    let places = unit.ilog10() as usize;
    let text = format!("{}.{:0places$}", number / unit, number % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `3.3 KB`, `150 KB`, `2.8 MB`.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes, &["B", "KB", "MB", "GB"])
}

/// `10 Mbit/s`.
pub fn rate(bits_per_second: u64) -> String {
    scaled(bits_per_second, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
}

fn scaled(number: u64, names: &[&str]) -> String {
    let number = two_digits(number);
    let step = (number.checked_ilog10().unwrap_or(0) as usize / 3).min(names.len() - 1);
    format!("{} {}", decimal(number, 1_000_u64.pow(step as u32)), names[step])
}

/// `edge/int8 on gw-a`, `cloud/int8`.
pub fn place(tier: Tier, node: Option<&str>, variant: &str) -> String {
    match (tier, node) {
        (Tier::Edge, Some(node)) => format!("edge/{variant} on {node}"),
        (Tier::Edge, None) => format!("edge/{variant}"),
        (Tier::Cloud, _) => format!("cloud/{variant}"),
    }
}

/// `27 Mi`, rounded up: what is needed.
pub(super) fn mebibytes_up(bytes: u64) -> String {
    format!("{} Mi", bytes.div_ceil(1 << 20))
}

/// `27 Mi`, rounded down: what is there.
pub(super) fn mebibytes_down(bytes: u64) -> String {
    format!("{} Mi", bytes >> 20)
}

/// `97.5%`.
pub(super) fn percent(millis: u64) -> String {
    format!("{}%", decimal(millis, 1_000))
}

/// `23 points/h`, from thousandths.
pub fn cost(millis: u64) -> String {
    format!("{} points/h", decimal(two_digits(millis), 1_000))
}

/// ` ×1.4 as measured`; nothing where predictions are right.
pub(super) fn corrected(percent: u64) -> String {
    if percent == AS_PREDICTED { String::new() } else { format!(" ×{} as measured", decimal(percent, 100)) }
}

/// `1,280`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `sconce.dev/camera In [v2]`.
pub(super) fn requirement(requirement: &Requirement) -> String {
    let Requirement { key, operator, values } = requirement;
    match operator {
        Operator::Exists | Operator::DoesNotExist => format!("{key} {operator:?}"),
        _ => format!("{key} {operator:?} [{}]", values.join(", ")),
    }
}

/// The first requirement that the node does not meet.
pub(super) fn lacking<'a>(require: &'a [Requirement], node: &Node) -> Option<&'a Requirement> {
    require.iter().find(|requirement| !requirement.matches(&node.labels))
}

impl std::fmt::Display for ModelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The longest sentence of a rejection and of a condition, as the API takes them.
pub(super) const REJECTION: usize = 256;
pub(super) const CONDITION: usize = 512;

/// Cuts a sentence that is longer than `limit` characters.
pub(super) fn short(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_digits_and_a_unit() {
        assert_eq!([time(0), time(7), time(357), time(1_000)], ["0 ms", "0.007 ms", "0.36 ms", "1 ms"]);
        assert_eq!([time(4_249), time(40_600), time(119_900), time(1_240_000)], ["4.2 ms", "41 ms", "120 ms", "1.2 s"]);
        assert_eq!([bytes(96), bytes(3_300), bytes(150_000), bytes(2_770_000)], ["96 B", "3.3 KB", "150 KB", "2.8 MB"]);
        assert_eq!([rate(10_000_000), rate(512_000)], ["10 Mbit/s", "510 kbit/s"]);
        assert_eq!([percent(97_000), percent(97_500)], ["97%", "97.5%"]);
        assert_eq!([cost(22_637), cost(350)], ["23 points/h", "0.35 points/h"]);
        assert_eq!([count(0), count(999), count(5_760), count(1_234_567)], ["0", "999", "5,760", "1,234,567"]);
    }

    #[test]
    fn advice_is_rounded_up() {
        assert_eq!([two_digits_up(63_001), two_digits_up(64_000), two_digits_up(7)], [64_000, 64_000, 7]);
    }

    #[test]
    fn rounding_never_overflows() {
        two_digits(u64::MAX);
        two_digits_up(u64::MAX);
        time(u64::MAX);
    }
}
