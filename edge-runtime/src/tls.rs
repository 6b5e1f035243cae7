//! TLS by files, read again when they change: open connections keep what they began with.

use crate::watch::Changes;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where they are, in PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// The server's certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// Authorities: clients need a certificate by one of them.
    pub client_ca: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: no {what}; PEM is needed", path.display())]
    Pem { path: PathBuf, what: &'static str },
    #[error("{} and {} cannot be used: {source}; are they of one pair?", cert.display(), key.display())]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("{} cannot be used: {why}; certificates of authorities are needed", path.display())]
    Authorities { path: PathBuf, why: String },
}

/// What new connections are accepted by.
#[derive(Clone)]
pub struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
    /// Ends when nobody accepts any more.
    _reader: Arc<JoinSet<()>>,
}

impl Tls {
    /// Reads the files now and whenever they change; those that cannot be used then change nothing.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used now; or if they cannot be watched.
    pub fn watch(files: Files) -> anyhow::Result<Self> {
        let all = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
        let mut changes = Changes::near(all.into_iter().flatten().map(PathBuf::as_path))?;
        let mut last = Contents::read(&files)?;
        let (sender, current) = watch::channel(Arc::new(last.config(&files)?));
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            loop {
                changes.next().await;
                let read = match Contents::read(&files) {
                    Ok(read) if read == last => continue,
                    read => read,
                };
                let config = read.and_then(|read| {
                    last = read;
                    last.config(&files)
                });
                match config {
                    Ok(config) => {
                        tracing::info!(cert = %files.cert.display(), "new certificates");
                        sender.send_replace(Arc::new(config));
                    }
                    Err(error) => tracing::warn!(%error, "bad certificates: keeping those that were"),
                }
            }
        });
        Ok(Self { current, _reader: Arc::new(reader) })
    }

    /// For a connection that begins now, and speaks `protocol`, as ALPN calls it.
    pub fn config(&self, protocol: &str) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.current.borrow());
        config.alpn_protocols = vec![protocol.into()];
        Arc::new(config)
    }
}

/// What the files held when they were read.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &Files) -> Result<Self, TlsError> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source });
        let client_ca = files.client_ca.as_ref().map(read).transpose()?;
        Ok(Self { cert: read(&files.cert)?, key: read(&files.key)?, client_ca })
    }

    fn config(&self, files: &Files) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&files.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::Pem { path: files.key.clone(), what: "private key" })?;
        let pair = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone());
        let config = config.with_safe_default_protocol_versions().map_err(pair)?;
        let config = match (&files.client_ca, &self.client_ca) {
            (Some(path), Some(client_ca)) => {
                let bad = |why: String| TlsError::Authorities { path: path.clone(), why };
                let mut authorities = RootCertStore::empty();
                for authority in certificates(path, client_ca)? {
                    authorities.add(authority).map_err(|error| bad(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
                config.with_client_cert_verifier(verifier.build().map_err(|error| bad(error.to_string()))?)
            }
            _ => config.with_no_client_auth(),
        };
        config.with_single_cert(chain, key).map_err(pair)
    }
}

/// At least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::Pem { path: path.into(), what: "certificate" }),
    }
}
