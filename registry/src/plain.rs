//! Which registries are spoken to without TLS.

use reqwest::Url;
use std::net::IpAddr;

/// Those on loopback addresses, and those that are named, as `HOST:PORT`.
pub fn is_plain(registry: &str, insecure: &[String]) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host == "localhost" || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_loopback || insecure.iter().any(|known| known == registry)
}

/// As [`is_plain`], of an address.
pub(crate) fn may_be_plain(url: &Url, insecure: &[String]) -> bool {
    let is_loopback = url.host_str().is_some_and(|host| is_plain(&format!("{host}:0"), &[]));
    is_loopback || insecure.iter().any(|known| is_at(url, known))
}

/// Whether an address without TLS is of this `HOST[:PORT]`: with no port it has that of HTTP.
pub(crate) fn is_at(url: &Url, registry: &str) -> bool {
    let known = Url::parse(&format!("http://{registry}"));
    known.is_ok_and(|known| (known.host(), known.port_or_known_default()) == (url.host(), url.port_or_known_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_those_that_are_named_are_asked_without_tls() {
        let insecure = ["r:5000".to_owned()];
        let plain = ["localhost:5000", "127.0.0.1:5000", "127.8.0.1", "[::1]:5000", "r:5000"];
        assert!(plain.iter().all(|registry| is_plain(registry, &insecure)));
        let others = ["r", "r:5001", "localhost.example:5000", "10.0.0.1:5000", "docker.io"];
        assert!(!others.iter().any(|registry| is_plain(registry, &insecure)));
    }
    #[test]
    fn a_port_that_is_not_said_is_that_of_http() {
        let check = |url: &str, known: &str, expected: bool| {
            let url: Url = url.parse().expect("an address");
            assert_eq!(may_be_plain(&url, &[known.to_owned()]), expected, "{url} where {known} is named");
        };
        for known in ["auth", "auth:80"] {
            check("http://auth/token", known, true);
            check("http://auth:80/token", known, true);
            check("http://auth:81/token", known, false);
            check("http://other/token", known, false);
        }
        check("http://auth:5000/token", "auth:5000", true);
        check("http://auth:5000/token", "auth", false);
        check("http://[::1]/token", "auth", true);
        check("http://127.0.0.1/token", "auth", true);
    }
}
