//! A repository, and a client that is let in there.

use crate::keyring::{Keyring, KeyringError};
use crate::login::{Pass, Wish, login};
use crate::plain::is_plain;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::RegistryTokenType;
use oci_client::{Reference, RegistryOperation};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use thiserror::Error;
use tokio::sync::Mutex;

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RegistryError {
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error("{registry} does not let in whom {origin} names: {why}; are name and password right?")]
    Refused { registry: String, origin: String, why: String },
    #[error(
        "{registry} sends who logs in to {host}, without TLS: no password goes there; name {host} with --insecure-registry, if that is meant"
    )]
    Plain { registry: String, host: String },
    #[error("{who} cannot be asked for a token: {why}")]
    Unreachable { who: String, why: String },
    #[error("cannot open a client: {why}")]
    Client { why: String },
}

/// Where a repository is, who asks it, and what for.
pub struct Registry {
    reference: Reference,
    operation: RegistryOperation,
    plain: bool,
    insecure: Vec<String>,
    keyring: Arc<Keyring>,
    configure: fn(ClientProtocol) -> ClientConfig,
    open: Mutex<Option<Open>>,
    /// Whether there is a name and a password, once that is known.
    is_named: OnceLock<bool>,
}

struct Open {
    client: Client,
    /// When its token has to be replaced.
    until: Option<Instant>,
}

impl Registry {
    /// `insecure` names registries without TLS; those on loopback addresses need not be named.
    pub fn new(
        reference: Reference,
        operation: RegistryOperation,
        insecure: &[String],
        keyring: Arc<Keyring>,
        configure: fn(ClientProtocol) -> ClientConfig,
    ) -> Self {
        let plain = is_plain(reference.registry(), insecure);
        let (open, is_named) = (Mutex::default(), OnceLock::new());
        Self { reference, operation, plain, insecure: insecure.to_vec(), keyring, configure, open, is_named }
    }

    /// The same, speaking to a mirror of it, as nobody.
    #[must_use]
    pub fn at_mirror(reference: Reference, plain: bool, configure: fn(ClientProtocol) -> ClientConfig) -> Self {
        let nobody = Arc::new(Keyring::none());
        Self { plain, ..Self::new(reference, RegistryOperation::Pull, &[], nobody, configure) }
    }

    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    pub fn with_keyring(self, keyring: Arc<Keyring>) -> Self {
        Self { keyring, open: Mutex::default(), is_named: OnceLock::new(), ..self }
    }

    /// Who asks, as a message says it.
    pub fn who(&self) -> String {
        match self.is_named() {
            true => format!("whom {} names", self.keyring.origin()),
            false => "who has no name and password".into(),
        }
    }

    /// Whether a name and a password were found, when it was opened.
    pub fn is_named(&self) -> bool {
        self.is_named.get().is_some_and(|is_named| *is_named)
    }

    /// A client that is let in, whatever its requests are given as credentials. Opened when it is first needed, and anew before its
    /// token has ended: ask for it before each request.
    ///
    /// # Errors
    /// [`RegistryError`] if who asks is not let in, or that cannot be asked.
    pub async fn client(&self) -> Result<Client, RegistryError> {
        let mut open = self.open.lock().await;
        if let Some(Open { client, until }) = open.as_ref()
            && until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(client.clone());
        }
        let Pass { auth, life } = self.pass().await?;
        let protocol = if self.plain { ClientProtocol::Http } else { ClientProtocol::Https };
        let client = Client::try_from((self.configure)(protocol));
        let client = client.map_err(|error| RegistryError::Client { why: error.to_string() })?;
        self.let_in(&client, auth).await;
        let until = life.map(|life| Instant::now() + life * 3 / 4);
        *open = Some(Open { client: client.clone(), until });
        Ok(client)
    }

    /// With a password given as such, it would ask the registry once more what that wants to see, and do it, whatever it is.
    async fn let_in(&self, client: &Client, auth: RegistryAuth) {
        let auth = match auth {
            RegistryAuth::Basic(username, password) => {
                for operation in [RegistryOperation::Pull, RegistryOperation::Push] {
                    let token = RegistryTokenType::Basic(username.clone(), password.clone());
                    client.tokens.insert(&self.reference, operation, token).await;
                }
                RegistryAuth::Anonymous
            }
            other => other,
        };
        client.store_auth_if_needed(self.reference.resolve_registry(), &auth).await;
    }

    async fn pass(&self) -> Result<Pass, RegistryError> {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let credential = self.keyring.credential(registry, repository).await?;
        self.is_named.get_or_init(|| credential.is_some());
        let Some(credential) = credential else { return Ok(Pass { auth: RegistryAuth::Anonymous, life: None }) };
        let wish = Wish {
            registry: self.reference.resolve_registry(),
            repository,
            version: self.reference.digest().or(self.reference.tag()).unwrap_or("latest"),
            plain: self.plain,
            may_push: self.operation == RegistryOperation::Push,
            insecure: &self.insecure,
            origin: self.keyring.origin(),
        };
        login(&wish, credential).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_is_kept_until_its_token_ends() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let secret = br#"{"auths": {"r.example": {"registrytoken": "t"}}}"#;
        let keyring = Arc::new(Keyring::of_secret("it".into(), secret).expect("it is one"));
        let configure = |protocol| ClientConfig { protocol, ..ClientConfig::default() };
        let reference = "r.example/m:1".parse().expect("an address");
        let registry = Registry::new(reference, RegistryOperation::Pull, &[], keyring, configure);
        let kept_until = async |until| {
            registry.open.lock().await.as_mut().expect("it is open").until = until;
            registry.client().await.expect("nobody is asked");
            registry.open.lock().await.as_ref().expect("it is open").until
        };
        registry.client().await.expect("nobody is asked");
        let later = Some(Instant::now() + std::time::Duration::from_secs(3600));
        assert_eq!(kept_until(later).await, later);
        assert_eq!(kept_until(Some(Instant::now())).await, None, "it is opened anew");
    }
}
