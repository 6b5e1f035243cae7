//! Which registries are spoken to without TLS.

use std::net::IpAddr;

/// Those on loopback addresses, and those that are named, as `HOST:PORT`.
pub fn is_plain(registry: &str, insecure: &[String]) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host == "localhost" || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_loopback || insecure.iter().any(|known| known == registry)
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
}
