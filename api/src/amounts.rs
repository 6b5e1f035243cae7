//! Amounts with their units, as text: as Kubernetes has them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A length of time with its unit, such as `20ms`, `1m30s` or `24h`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct DurationText(pub String);

/// A percentage, such as `97%` or `0.5%`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Percent(pub String);

/// An amount, such as `10M` (bit/s), `64Mi` (bytes) or `500m` (cores). A plain number may come without quotes.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(transparent)]
pub struct Amount(pub String);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum IntOrString {
            Int(u64),
            String(String),
        }
        Ok(Self(match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => text,
        }))
    }
}

macro_rules! text {
    ($type:ident, $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(DurationText, json_schema!({"type": "string", "maxLength": 32, "pattern": r"^([0-9]{1,7}(us|ms|s|m|h)){1,3}$"}));
text!(Percent, json_schema!({"type": "string", "maxLength": 10, "pattern": r"^[0-9]{1,4}(\.[0-9]{1,3})?%$"}));
text!(
    Amount,
    json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 32, "pattern": r"^[0-9]{1,15}(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"})
);

/// Pattern of a percentage of a whole: 0% to 100%.
pub(crate) const SHARE: &str = r"^(100(\.0{1,3})?|[0-9]{1,2}(\.[0-9]{1,3})?)%$";

impl DurationText {
    /// `None` if the text is not a duration; the API server admits none such.
    pub fn parse(&self) -> Option<Duration> {
        let mut rest = self.0.as_str();
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let count: u64 = rest[..digits].parse().ok()?;
            let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
            let part = match &rest[digits..unit_end] {
                "us" => Duration::from_micros(count),
                "ms" => Duration::from_millis(count),
                "s" => Duration::from_secs(count),
                "m" => Duration::from_secs(count.checked_mul(60)?),
                "h" => Duration::from_secs(count.checked_mul(3600)?),
                _ => return None,
            };
            total = total.checked_add(part)?;
            rest = &rest[unit_end..];
        }
        (!self.0.is_empty()).then_some(total)
    }
}

impl Percent {
    /// The percentage in thousandths of a percent: `97.5%` is 97,500. Integers, so that comparisons have no ties by rounding.
    pub fn millis(&self) -> Option<u64> {
        let number = self.0.strip_suffix('%')?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let part: u64 = format!("{part:0<3}").parse().ok()?;
        Some(whole.parse::<u64>().ok()?.checked_mul(1000)? + part)
    }
}

impl Amount {
    /// The amount in thousandths of its unit: `500m` is 500, `1` is 1,000, `1Ki` is 1,024,000.
    pub fn millis(&self) -> Option<u64> {
        let unit_at = self.0.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at(unit_at);
        let scale: u64 = match unit {
            "m" => 1,
            "" => 1_000,
            "k" => 1_000_000,
            "M" => 1_000_000_000,
            "G" => 1_000_000_000_000,
            "T" => 1_000_000_000_000_000,
            "Ki" => 1_000 << 10,
            "Mi" => 1_000 << 20,
            "Gi" => 1_000 << 30,
            "Ti" => 1_000 << 40,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let part: u64 = format!("{part:0<3}").parse().ok()?;
        whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(part * scale / 1000)
    }

    /// Up to three decimals: 12,500 is `12.5`.
    pub fn of_millis(millis: u64) -> Self {
        let text = format!("{}.{:03}", millis / 1000, millis % 1000);
        Self(text.trim_end_matches('0').trim_end_matches('.').to_owned())
    }

    /// The amount in whole units, rounded up.
    pub fn units(&self) -> Option<u64> {
        self.millis().map(|millis| millis.div_ceil(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(DurationText::from(text).parse(), expected.map(Duration::from_micros), "{text}");
        };
        check("1us", Some(1));
        check("20ms", Some(20_000));
        check("1m30s", Some(90_000_000));
        check("24h", Some(86_400_000_000));
        check("1s500ms250us", Some(1_500_250));
        check("0ms", Some(0));
        for malformed in ["", "20", "ms", "1.5s", "-1s", "20 ms", "1d", "20MS", "ms20"] {
            check(malformed, None);
        }
        check("18446744073709551615h", None);
    }

    #[test]
    fn percentages_are_read_in_thousandths() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(Percent::from(text).millis(), expected, "{text}");
        check("97%", Some(97_000));
        check("97.5%", Some(97_500));
        check("0.125%", Some(125));
        check("150%", Some(150_000));
        check("0%", Some(0));
        for malformed in ["", "%", "0.97", "97", "97.1234%", "-1%", "97 %", ".5%", "a%", "9.x%"] {
            check(malformed, None);
        }
    }

    #[test]
    fn amounts_are_read_with_their_suffixes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(Amount::from(text).millis(), expected, "{text}");
        check("500m", Some(500));
        check("1", Some(1_000));
        check("1.5", Some(1_500));
        check("10M", Some(10_000_000_000));
        check("1Ki", Some(1_024_000));
        check("64Mi", Some(67_108_864_000));
        check("1.5Gi", Some(1_610_612_736_000));
        for malformed in ["", "M", "1X", "1.2.3", "-1", "1 M", "1e3", "1.1234"] {
            check(malformed, None);
        }
        check("999999999999999Ti", None);
        check("1.999Ti", Some(1_999 << 40));
        assert_eq!(Amount::from("1500m").units(), Some(2));
    }

    #[test]
    fn an_amount_may_be_a_plain_number() {
        assert_eq!(serde_json::from_str::<Amount>("10000000").unwrap(), Amount::from("10000000"));
        assert_eq!(serde_json::from_str::<Amount>(r#""10M""#).unwrap(), Amount::from("10M"));
        assert!(serde_json::from_str::<Amount>("-1").is_err());
        assert!(serde_json::from_str::<Amount>("1.5").is_err());
    }

    #[test]
    fn amounts_have_no_idle_zeros() {
        assert_eq!([12_500, 3_000, 7].map(|millis| Amount::of_millis(millis).0), ["12.5", "3", "0.007"]);
    }
}
