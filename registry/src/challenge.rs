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
    /// Of the header's values, each of one challenge or more: a token goes before a password.
    pub fn of<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut challenges: Vec<Self> = values.flat_map(Self::parse).collect();
        challenges.sort_by_key(|challenge| *challenge == Self::Basic);
        challenges.into_iter().next()
    }

    /// `Bearer realm="…",service="…",scope="…"`, `Basic realm="…"`, or several, between commas: those that are understood.
    pub fn parse(text: &str) -> Vec<Self> {
        let mut challenges: Vec<(&str, BTreeMap<String, String>)> = Vec::new();
        for part in parts(text) {
            let field = match field(part) {
                Some(field) => Some(field),
                None => {
                    let (scheme, first) = part.split_once(' ').unwrap_or((part, ""));
                    challenges.push((scheme, BTreeMap::new()));
                    field(first)
                }
            };
            if let (Some((name, value)), Some((_, fields))) = (field, challenges.last_mut()) {
                fields.insert(name, value);
            }
        }
        let understood = challenges.into_iter().filter_map(|(scheme, mut fields)| {
            if scheme.eq_ignore_ascii_case("basic") {
                return Some(Self::Basic);
            }
            let service = fields.remove("service");
            scheme.eq_ignore_ascii_case("bearer").then_some(Self::Bearer { realm: fields.remove("realm")?, service })
        });
        understood.collect()
    }
}

/// What is between the commas that are in no quotes.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(move |character| {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' => return !is_quoted,
            _ => {}
        }
        false
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

/// `NAME=VALUE`, or `NAME="VALUE"`.
fn field(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_name = !name.is_empty() && !name.contains([' ', '"']);
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?.replace('\\', ""),
        None => value.to_owned(),
    };
    is_name.then(|| (name.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_names_who_gives_tokens() {
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            let expected = expected
                .map(|(realm, service)| Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) });
            assert_eq!(Challenge::parse(text), Vec::from_iter(expected), "{text}");
        };
        let full = r#"Bearer realm="https://auth.example/token", service="r.example",scope="a:b,c:d""#;
        check(full, Some(("https://auth.example/token", Some("r.example"))));
        check(r#"bearer realm="https://a""#, Some(("https://a", None)));
        for bad in ["Bearer", "Bearer realm=\"x", "Bearer service=\"x\"", "Negotiate", ""] {
            check(bad, None);
        }
        assert_eq!(Challenge::parse("Basic realm=\"x\""), [Challenge::Basic]);
        assert_eq!(Challenge::parse("basic"), [Challenge::Basic]);
    }

    #[test]
    fn a_token_goes_before_a_password() {
        let both = ["Basic realm=\"x\"", "Bearer realm=\"https://a\""];
        let bearer = Some(Challenge::Bearer { realm: "https://a".into(), service: None });
        assert_eq!(Challenge::of(both.into_iter()), bearer);
        for merged in [
            r#"Basic realm="x, y", Bearer realm="https://a""#,
            r#"Bearer realm="https://a", Basic realm="x=\"y\", Bearer realm=b""#,
            r#"Negotiate, NTLM abc==, Basic,bearer realm = "https://a""#,
        ] {
            assert_eq!(Challenge::of([merged].into_iter()), bearer, "{merged}");
        }
        assert_eq!(Challenge::of(["Basic"].into_iter()), Some(Challenge::Basic));
        assert_eq!(Challenge::of([].into_iter()), None);
    }
}
