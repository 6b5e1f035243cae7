//! A repository in a registry.

use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use std::sync::OnceLock;
use std::time::Duration;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("FetchFailed: \"{uri}\": need oci://HOST/REPOSITORY")]
    Uri { uri: String },
    #[error("FetchFailed: \"{uri}\": a digest is sha256: and 64 hexadecimal digits, in lower case")]
    Digest { uri: String },
    #[error("RegistryUnreachable: cannot open a client: {why}")]
    Client { why: String },
}

pub struct Source {
    repository: Reference,
    plain: bool,
    most_bytes: u64,
    client: OnceLock<Client>,
}

impl Source {
    /// `insecure` names registries without TLS; those on loopback addresses need not be named.
    ///
    /// # Errors
    /// [`SourceError`] if it is no address in a registry, or names a digest that is none.
    pub fn new(uri: &str, insecure: &[String]) -> Result<Self, SourceError> {
        let bad = || SourceError::Uri { uri: uri.into() };
        let repository: Reference = uri.strip_prefix("oci://").ok_or_else(bad)?.parse().map_err(|_| bad())?;
        if repository.digest().is_some_and(|digest| !is_sha256(digest)) {
            return Err(SourceError::Digest { uri: uri.into() });
        }
        let registry = repository.registry();
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        let loopback = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        let plain = loopback || insecure.iter().any(|known| known == registry);
        Ok(Self { repository, plain, most_bytes: u64::MAX, client: OnceLock::new() })
    }

    /// Nothing larger is fetched, all files of a variant together.
    pub fn with_most_bytes(self, most_bytes: u64) -> Self {
        Self { most_bytes, ..self }
    }

    pub fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    pub fn repository(&self) -> &Reference {
        &self.repository
    }

    /// `oci://HOST/REPOSITORY`.
    pub fn uri(&self) -> String {
        format!("oci://{}/{}", self.repository.registry(), self.repository.repository())
    }

    /// The repository's own name: what stands behind the last `/`.
    pub fn name(&self) -> &str {
        let path = self.repository.repository();
        path.rsplit_once('/').map_or(path, |(_, name)| name)
    }

    /// The digest that the address names; it goes before a tag.
    pub fn digest(&self) -> Option<&str> {
        self.repository.digest()
    }

    pub fn by_digest(&self, digest: &str) -> Reference {
        Reference::with_digest(self.repository.registry().into(), self.repository.repository().into(), digest.into())
    }

    /// Opened when it is first needed: where nothing has to be fetched, nothing is opened.
    pub fn client(&self) -> Result<&Client, SourceError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let protocol = if self.plain { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(Duration::from_secs(5)),
            read_timeout: Some(Duration::from_secs(30)),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| SourceError::Client { why: error.to_string() })?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
