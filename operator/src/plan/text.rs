//! Numbers as people read them: two digits, so that jitter does not change a sentence. They are written into the sentence that
//! tells them: a fleet's plan has millions.

use super::{AS_PREDICTED, ModelName, Node};
use sconce_api::{Operator, Requirement, Tier};
use std::fmt::{Display, Write as _, from_fn};

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
pub fn time(us: u64) -> impl Display {
    let us = two_digits(us);
    let (unit, name) = if us < 1_000_000 { (1_000, "ms") } else { (1_000_000, "s") };
    from_fn(move |f| write!(f, "{} {name}", decimal(us, unit)))
}

/// `90 s`, `5 min`, `4 h`: exact, as people set it.
pub(super) fn seconds(seconds: u64) -> impl Display {
    from_fn(move |f| match seconds {
        hours if hours >= 7_200 && hours.is_multiple_of(3_600) => write!(f, "{} h", hours / 3_600),
        minutes if minutes >= 120 && minutes.is_multiple_of(60) => write!(f, "{} min", minutes / 60),
        seconds => write!(f, "{seconds} s"),
    })
}

/// `0.36`, `4.2`, `41`: `number / unit`, a power of ten, without trailing zeros.
pub fn decimal(number: u64, unit: u64) -> impl Display {
    from_fn(move |f| {
        let (mut rest, mut places) = (number % unit, unit.ilog10() as usize);
        while places > 0 && rest.is_multiple_of(10) {
            (rest, places) = (rest / 10, places - 1);
        }
        match places {
            0 => write!(f, "{}", number / unit),
            places => write!(f, "{}.{rest:0places$}", number / unit),
        }
    })
}

/// `3.3 KB`, `150 KB`, `2.8 MB`.
pub(super) fn bytes(bytes: u64) -> impl Display {
    scaled(bytes, ["B", "KB", "MB", "GB"])
}

/// `10 Mbit/s`.
pub fn rate(bits_per_second: u64) -> impl Display {
    scaled(bits_per_second, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
}

fn scaled(number: u64, names: [&'static str; 4]) -> impl Display {
    let number = two_digits(number);
    let step = (number.checked_ilog10().unwrap_or(0) as usize / 3).min(names.len() - 1);
    from_fn(move |f| write!(f, "{} {}", decimal(number, 1_000_u64.pow(step as u32)), names[step]))
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
pub(super) fn mebibytes_up(bytes: u64) -> impl Display {
    from_fn(move |f| write!(f, "{} Mi", bytes.div_ceil(1 << 20)))
}

/// `27 Mi`, rounded down: what is there.
pub(super) fn mebibytes_down(bytes: u64) -> impl Display {
    from_fn(move |f| write!(f, "{} Mi", bytes >> 20))
}

/// `97.5%`.
pub(super) fn percent(millis: u64) -> impl Display {
    from_fn(move |f| write!(f, "{}%", decimal(millis, 1_000)))
}

/// `23 points/h`, from thousandths.
pub fn cost(millis: u64) -> impl Display {
    from_fn(move |f| write!(f, "{} points/h", decimal(two_digits(millis), 1_000)))
}

/// ` ×1.4 as measured`; nothing where predictions are right.
pub(super) fn corrected(percent: u64) -> impl Display {
    from_fn(move |f| match percent {
        AS_PREDICTED => Ok(()),
        percent => write!(f, " ×{} as measured", decimal(percent, 100)),
    })
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

/// What most sentences take.
const USUAL: usize = 160;

/// A sentence, cut where it is longer than `limit` characters.
pub(super) fn short(sentence: impl Display, limit: usize) -> String {
    let mut text = String::with_capacity(USUAL);
    // Strings take all that is written; and so does whoever writes no error of its own.
    let _ = write!(text, "{sentence}");
    if text.len() > limit && text.chars().count() > limit {
        text = text.chars().take(limit - 1).chain(['…']).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<T: Display, const N: usize>(numbers: [T; N]) -> [String; N] {
        numbers.map(|number| number.to_string())
    }

    #[test]
    fn numbers_have_two_digits_and_a_unit() {
        assert_eq!(texts([0, 7, 357, 1_000].map(time)), ["0 ms", "0.007 ms", "0.36 ms", "1 ms"]);
        assert_eq!(texts([4_249, 40_600, 119_900, 1_240_000].map(time)), ["4.2 ms", "41 ms", "120 ms", "1.2 s"]);
        assert_eq!(texts([96, 3_300, 150_000, 2_770_000].map(bytes)), ["96 B", "3.3 KB", "150 KB", "2.8 MB"]);
        assert_eq!(texts([10_000_000, 512_000].map(rate)), ["10 Mbit/s", "510 kbit/s"]);
        assert_eq!(texts([97_000, 97_500].map(percent)), ["97%", "97.5%"]);
        assert_eq!(texts([22_637, 350].map(cost)), ["23 points/h", "0.35 points/h"]);
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
        assert_eq!(time(u64::MAX).to_string(), "18000000000000 s");
    }

    #[test]
    fn a_sentence_is_cut_between_characters() {
        assert_eq!(short("×××", 3), "×××");
        assert_eq!(short("××××", 3), "××…");
    }
}
