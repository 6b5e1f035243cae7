//! A repository in a registry, and the stores near by that may have of it what is asked for.

use super::reference::reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::{Reference, RegistryOperation};
use sconce_registry::{Keyring, Registry, RegistryError};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("FetchFailed: \"{uri}\": need oci://HOST/REPOSITORY")]
    Uri { uri: String },
    #[error("FetchFailed: \"{uri}\": a digest is sha256: and 64 hexadecimal digits, in lower case")]
    Digest { uri: String },
    #[error("FetchFailed: \"{url}\": a store near by is http://HOST:PORT, or https://HOST:PORT")]
    Mirror { url: String },
    #[error("FetchFailed: need one oci://HOST/REPOSITORY to fetch from, and there are {count}")]
    Count { count: usize },
}

pub struct Source {
    registry: Origin,
    /// Asked before it, in this order.
    mirrors: Vec<Origin>,
    most_bytes: u64,
}

/// Who gives bytes: the registry itself, or a store near by that speaks as it does.
pub(super) struct Origin {
    /// With the mirror's address, where it is one.
    registry: Registry,
}

impl Source {
    /// `insecure` names registries without TLS; those on loopback addresses need not be named.
    ///
    /// # Errors
    /// [`SourceError`] if it is no address in a registry, or names a digest that is none.
    pub fn new(uri: &str, insecure: &[String]) -> Result<Self, SourceError> {
        let bad = || SourceError::Uri { uri: uri.into() };
        let address = uri.strip_prefix("oci://").ok_or_else(bad)?;
        let repository = reference(address).ok_or_else(|| match address.split_once('@') {
            Some((_, digest)) if !is_sha256(digest) => SourceError::Digest { uri: uri.into() },
            _ => bad(),
        })?;
        let nobody = Arc::new(Keyring::none());
        let registry = Registry::new(repository, RegistryOperation::Pull, insecure, nobody, configured);
        Ok(Self { registry: Origin { registry }, mirrors: Vec::new(), most_bytes: u64::MAX })
    }

    /// Asking the registry in the name that is found here; the stores near by are asked as nobody.
    pub fn with_keyring(self, keyring: Arc<Keyring>) -> Self {
        Self { registry: Origin { registry: self.registry.registry.with_keyring(keyring) }, ..self }
    }

    /// One registry, and stores near by, in any order.
    ///
    /// # Errors
    /// [`SourceError`] if one of them is neither, or there is no registry, or more than one.
    pub fn of(places: &[String], insecure: &[String]) -> Result<Self, SourceError> {
        let (mirrors, registries): (Vec<_>, Vec<_>) =
            places.iter().cloned().partition(|place| place.starts_with("http://") || place.starts_with("https://"));
        match &registries[..] {
            [registry] => Self::new(registry, insecure)?.with_mirrors(&mirrors),
            others => Err(SourceError::Count { count: others.len() }),
        }
    }

    /// With stores near by that are asked first.
    ///
    /// # Errors
    /// [`SourceError::Mirror`] if one of them is no address.
    pub fn with_mirrors(self, urls: &[String]) -> Result<Self, SourceError> {
        let mirrors = urls.iter().map(|url| {
            let (address, plain) = mirror(url).ok_or_else(|| SourceError::Mirror { url: url.clone() })?;
            let mut repository = self.repository().clone();
            repository.set_mirror_registry(address);
            Ok(Origin { registry: Registry::at_mirror(repository, plain, configured) })
        });
        Ok(Self { mirrors: mirrors.collect::<Result<_, _>>()?, ..self })
    }

    /// Nothing larger is fetched, all files of a variant together.
    pub fn with_most_bytes(self, most_bytes: u64) -> Self {
        Self { most_bytes, ..self }
    }

    pub fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    pub(super) fn registry(&self) -> &Origin {
        &self.registry
    }

    pub(super) fn mirrors(&self) -> &[Origin] {
        &self.mirrors
    }

    pub fn repository(&self) -> &Reference {
        self.registry.repository()
    }

    /// `oci://HOST/REPOSITORY`.
    pub fn uri(&self) -> String {
        format!("oci://{}/{}", self.repository().registry(), self.repository().repository())
    }

    /// The repository's own name: what stands behind the last `/`.
    pub fn name(&self) -> &str {
        let path = self.repository().repository();
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }

    /// The digest that the address names; it goes before a tag.
    pub fn digest(&self) -> Option<&str> {
        self.repository().digest()
    }
}

impl Origin {
    pub fn repository(&self) -> &Reference {
        self.registry.reference()
    }

    pub fn by_digest(&self, digest: &str) -> Reference {
        self.repository().clone_with_digest(digest.into())
    }

    /// Opened when it is first needed: where nothing has to be fetched, nothing is opened.
    pub async fn client(&self) -> Result<Client, RegistryError> {
        self.registry.client().await
    }

    /// Who asks, as a message says it.
    pub fn who(&self) -> String {
        self.registry.who()
    }
}

fn configured(protocol: ClientProtocol) -> ClientConfig {
    ClientConfig {
        protocol,
        connect_timeout: Some(Duration::from_secs(5)),
        read_timeout: Some(Duration::from_secs(30)),
        ..ClientConfig::default()
    }
}

/// HOST:PORT, and whether it is plain. Kubernetes writes a node's address of IPv6 without brackets.
fn mirror(url: &str) -> Option<(String, bool)> {
    let (scheme, address) = url.split_once("://")?;
    let plain = match scheme {
        "http" => true,
        "https" => false,
        _ => return None,
    };
    let address = address.strip_suffix('/').unwrap_or(address);
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    let host = match bare.parse::<std::net::Ipv6Addr>() {
        Ok(_) => format!("[{bare}]"),
        Err(_) if is_name => host.to_owned(),
        Err(_) => return None,
    };
    let port: u16 = port.parse().ok()?;
    Some((format!("{host}:{port}"), plain))
}

/// `sha256:` and 64 hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_near_by_has_a_host_and_a_port() {
        let check = |url: &str, expected: Option<(&str, bool)>| {
            assert_eq!(mirror(url), expected.map(|(address, plain)| (address.to_owned(), plain)), "{url}");
        };
        check("http://10.1.2.3:8003", Some(("10.1.2.3:8003", true)));
        check("http://10.1.2.3:8003/", Some(("10.1.2.3:8003", true)));
        check("https://store.example:443", Some(("store.example:443", false)));
        check("http://fd00::7:8003", Some(("[fd00::7]:8003", true)));
        check("http://[fd00::7]:8003", Some(("[fd00::7]:8003", true)));
        for bad in
            ["http://$(HOST_IP):8003", "http://:8003", "http://a", "http://a:b", "http://a:1/x", "oci://a:1", "a:1"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn of_all_places_one_is_a_registry() {
        let of = |places: &[&str]| {
            let places: Vec<_> = places.iter().map(|place| (*place).to_owned()).collect();
            Source::of(&places, &[]).map(|source| source.mirrors.len()).map_err(|error| error.to_string())
        };
        assert_eq!(of(&["oci://r.example/m"]), Ok(0));
        assert_eq!(of(&["http://10.1.2.3:8003", "oci://r.example/m", "https://b:1"]), Ok(2));
        assert!(of(&["http://10.1.2.3:8003"]).unwrap_err().ends_with("and there are 0"));
        assert!(of(&["oci://a.example/m", "oci://b.example/m"]).unwrap_err().ends_with("and there are 2"));
        assert!(of(&["http://a", "oci://b.example/m"]).unwrap_err().contains("a store near by is http://HOST:PORT"));
        assert!(of(&["ftp://a:1"]).unwrap_err().contains("need oci://HOST/REPOSITORY"));
    }
}
