//! What a request asks for: a manifest or a blob of a repository, by digest, as OCI's distribution API names them. Pure; what is not
//! exactly that is refused.

use super::Refusal;

/// As the API has it.
const LONGEST_NAME: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// `HOST` or `HOST:PORT`.
    pub registry: String,
    pub repository: String,
    pub kind: Kind,
    pub digest: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Manifest,
    Blob,
}

impl Kind {
    pub fn path(self) -> &'static str {
        match self {
            Self::Manifest => "manifests",
            Self::Blob => "blobs",
        }
    }
}

/// 64 hexadecimal digits, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// From `sha256:HEX`.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (hex.len() == 64 && hex.bytes().all(is_hex)).then(|| Self(hex.into()))
    }

    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Reads `/v2/REPOSITORY/manifests/DIGEST`, or `blobs`, and `ns=REGISTRY`, as mirrors of registries are asked. Nothing is decoded:
/// of what is allowed nothing has to be encoded, but for the colons.
///
/// # Errors
/// [`Refusal`] if a part is missing, or is anything else; a tag too, since only the registry knows what that stands for.
pub fn asked(path: &str, query: Option<&str>) -> Result<Asked, Refusal> {
    let parts = path.strip_prefix("/v2/").and_then(|path| {
        let (path, digest) = path.rsplit_once('/')?;
        let (repository, kind) = path.rsplit_once('/')?;
        Some((repository, kind, digest))
    });
    let (repository, kind, digest) = parts.ok_or(Refusal::Path)?;
    let kind = match kind {
        "manifests" => Kind::Manifest,
        "blobs" => Kind::Blob,
        _ => return Err(Refusal::Path),
    };
    if !is_repository(repository) {
        return Err(Refusal::Name);
    }
    let digest = Digest::parse(&colons(digest)).ok_or(Refusal::Tag)?;
    let mut namespaces =
        query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.strip_prefix("ns="));
    let registry = match (namespaces.next(), namespaces.next()) {
        (Some(registry), None) => colons(registry),
        _ => return Err(Refusal::Registry),
    };
    if !is_registry(&registry) {
        return Err(Refusal::Registry);
    }
    Ok(Asked { registry, repository: repository.to_owned(), kind, digest })
}

fn colons(text: &str) -> String {
    text.replace("%3A", ":").replace("%3a", ":")
}

/// Components of letters in lower case and digits, parted by `.`, `_`, `__` or `-`s within.
fn is_repository(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_component = |component: &str| {
        let ends = component.bytes().next().zip(component.bytes().next_back());
        ends.is_some_and(|(first, last)| is_inner(first) && is_inner(last))
            && component.bytes().all(|byte| is_inner(byte) || b"._-".contains(&byte))
            && !component.contains("..")
    };
    name.len() <= LONGEST_NAME && name.split('/').all(is_component)
}

/// A host's name or its address, of IPv6 in brackets, and a port.
fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = inner.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_name = host.len() <= 253 && host.split('.').all(is_label);
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
    (is_address || is_name) && port.is_none_or(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_manifest_and_a_blob_are_asked_for_by_digest() {
        let check = |path: &str, query: &str, kind, repository: &str, registry: &str| {
            let expected =
                Asked { registry: registry.into(), repository: repository.into(), kind, digest: Digest(HEX.into()) };
            assert_eq!(asked(path, Some(query)), Ok(expected));
        };
        let path = |repository: &str, kind: &str| format!("/v2/{repository}/{kind}/sha256:{HEX}");
        check(&path("models/digits", "blobs"), "ns=r.example:5000", Kind::Blob, "models/digits", "r.example:5000");
        check(&path("digits", "manifests"), "ns=docker.io", Kind::Manifest, "digits", "docker.io");
        check(&path("a/blobs/b", "blobs"), "ns=10.0.0.1%3A5000", Kind::Blob, "a/blobs/b", "10.0.0.1:5000");
        check(&path("a", "blobs").replace("sha256:", "sha256%3a"), "ns=r", Kind::Blob, "a", "r");
        check(&path("a", "blobs"), "a=b&ns=[fd00::1]:5000", Kind::Blob, "a", "[fd00::1]:5000");
    }

    #[test]
    fn all_else_is_refused() {
        let check = |path: &str, query: Option<&str>, refusal: Refusal| {
            assert_eq!(asked(path, query), Err(refusal), "{path} {query:?}");
        };
        let blob = |repository: &str| format!("/v2/{repository}/blobs/sha256:{HEX}");
        let ns = Some("ns=r.example");
        for path in ["", "/", "/v2/", "/v2/a", "/v2/a/tags/list", "/v1/a/blobs/x", "/v2/a/blobs/uploads/x", "/v2/a/b/c"]
        {
            check(path, ns, Refusal::Path);
        }
        let long = "a".repeat(256);
        for name in [
            "", "..", "../a", "a/..", "a//b", "/a", "a/", "A", "a%2f..", "a\\b", ".a", "a.", "-a", "a b", "é", "a..b",
            &long,
        ] {
            check(&blob(name), ns, Refusal::Name);
        }
        for digest in ["latest", "sha256:", "sha512:00", "..", "sha256:..%2f..", "sha256-00"] {
            check(&format!("/v2/a/blobs/{digest}"), ns, Refusal::Tag);
        }
        check(&format!("/v2/a/blobs/sha256:{}", HEX.to_uppercase()), ns, Refusal::Tag);
        check(&format!("/v2/a/blobs/sha256:{HEX}0"), ns, Refusal::Tag);
        for query in [None, Some(""), Some("x=r"), Some("ns="), Some("ns=a&ns=b"), Some("ns=a/b"), Some("ns=u@a")] {
            check(&blob("a"), query, Refusal::Registry);
        }
        for query in [
            "ns=a:0",
            "ns=a:99999",
            "ns=a:+80",
            "ns=[fd00",
            "ns=[a]",
            "ns=a:1:2",
            "ns=-a",
            "ns=a..b",
            "ns=a?b",
            "ns=a#b",
        ] {
            check(&blob("a"), Some(query), Refusal::Registry);
        }
    }
}
