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
    #[error("RegistryUnreachable: cannot open a client: {why}")]
    Client { why: String },
}

pub struct Source {
    repository: Reference,
    plain: bool,
    client: OnceLock<Client>,
}

impl Source {
    /// `insecure` names registries without TLS; those on loopback addresses need not be named.
    ///
    /// # Errors
    /// [`SourceError::Uri`] if it is no address in a registry.
    pub fn new(uri: &str, insecure: &[String]) -> Result<Self, SourceError> {
        let bad = || SourceError::Uri { uri: uri.into() };
        let repository: Reference = uri.strip_prefix("oci://").ok_or_else(bad)?.parse().map_err(|_| bad())?;
        let registry = repository.registry();
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        let loopback = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        let plain = loopback || insecure.iter().any(|known| known == registry);
        Ok(Self { repository, plain, client: OnceLock::new() })
    }

    pub fn repository(&self) -> &Reference {
        &self.repository
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
