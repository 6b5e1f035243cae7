//! By which names the page may be asked. It has no login, so who looks is guarded by where it listens; a web page of anybody's whose
//! name is made to lead here (DNS rebinding) would look with its visitor's eyes. Such a name is a public one, and never one of these.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Ends of names that only the cluster, or this very machine, gives.
const OURS: [&str; 3] = [".localhost", ".svc", ".svc.cluster.local"];

/// Whether a request for this host is for us: an address, `localhost`, a name without a dot, a Service, or one of `others`.
pub fn is_ours(host: &str, others: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.parse::<Ipv4Addr>().is_ok()
        || host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|v6| v6.parse::<Ipv6Addr>().is_ok());
    let is_short = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_address
        || is_short
        || OURS.iter().any(|end| host.ends_with(end))
        || others.iter().any(|other| host.eq_ignore_ascii_case(other))
}

/// The host of a `Host` header or an authority, without its port.
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_answers_by_names_that_nobody_elsewhere_can_give_it() {
        let others = ["sconce.example.com".to_owned()];
        let check = |authority: &str, expected: bool| {
            assert_eq!(is_ours(without_port(authority), &others), expected, "{authority}");
        };
        for ours in [
            "127.0.0.1:8082",
            "10.1.0.5",
            "[::1]:8082",
            "localhost:8082",
            "LOCALHOST",
            "page.localhost",
            "sconce-page",
            "sconce-page.sconce-system.svc",
            "sconce-page.sconce-system.svc.cluster.local.:80",
            "Sconce.example.com:443",
        ] {
            check(ours, true);
        }
        for others in [
            "",
            ":8082",
            "evil.example.com:8082",
            "127.0.0.1.nip.io",
            "localhost.example.com",
            "page.svc.example.com",
            "evil.sconce.example.com",
            "[::1",
            "a b",
        ] {
            check(others, false);
        }
    }
}
