//! How a registry says what it wants to see of who asks: `WWW-Authenticate`. Pure.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A name and a password, with each request.
    Basic,
    /// A token.
    Bearer {
        /// The address of who gives it.
        realm: String,
        service: Option<String>,
    },
}

impl Challenge {
    /// Of the header's values: a token goes before a password.
    pub fn of<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut challenges: Vec<Self> = values.filter_map(Self::parse).collect();
        challenges.sort_by_key(|challenge| *challenge == Self::Basic);
        challenges.into_iter().next()
    }

    /// `Bearer realm="…",service="…",scope="…"`, or `Basic realm="…"`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut fields = BTreeMap::new();
        while let Some((name, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            fields.insert(name.trim().to_ascii_lowercase(), value.to_owned());
            rest = after.trim_start_matches([',', ' ']);
        }
        Some(Self::Bearer { realm: fields.remove("realm")?, service: fields.remove("service") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_names_who_gives_tokens() {
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            let expected = expected
                .map(|(realm, service)| Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) });
            assert_eq!(Challenge::parse(text), expected, "{text}");
        };
        let full = r#"Bearer realm="https://auth.example/token", service="r.example",scope="a:b,c:d""#;
        check(full, Some(("https://auth.example/token", Some("r.example"))));
        check(r#"bearer realm="https://a""#, Some(("https://a", None)));
        for bad in ["Bearer", "Bearer realm=\"x", "Bearer service=\"x\"", "Negotiate", ""] {
            check(bad, None);
        }
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("basic"), Some(Challenge::Basic));
    }

    #[test]
    fn a_token_goes_before_a_password() {
        let both = ["Basic realm=\"x\"", "Bearer realm=\"https://a\""];
        let bearer = Some(Challenge::Bearer { realm: "https://a".into(), service: None });
        assert_eq!(Challenge::of(both.into_iter()), bearer);
        assert_eq!(Challenge::of(["Basic"].into_iter()), Some(Challenge::Basic));
        assert_eq!(Challenge::of([].into_iter()), None);
    }
}
