//! The doors with TLS: who gets in, and what new connections see when the files change.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::{LIMITS, LOOPBACK, Server, policy, request};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sconce_edge_runtime::engine::Executor;
use sconce_edge_runtime::server::Limits;
use sconce_edge_runtime::tls::{Files, Tls};
use sconce_edge_runtime::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Endpoint;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this address, in PEM, with its key.
fn issue(authority: &Authority) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key)
}

/// As Kubernetes mounts a secret: the files are links through a link, which is swapped.
fn mount(folder: &Path, generation: &str, authority: &Authority) {
    let (cert, key) = issue(authority);
    let of_generation = folder.join(generation);
    std::fs::create_dir(&of_generation).unwrap();
    std::fs::write(of_generation.join("tls.crt"), cert).unwrap();
    std::fs::write(of_generation.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(of_generation.join("ca.crt"), authority.pem()).unwrap();
    std::os::unix::fs::symlink(generation, folder.join("..new")).unwrap();
    std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), folder.join(file)).ok();
    }
}

fn files(folder: &Path, mutual: bool) -> Files {
    let client_ca = mutual.then(|| folder.join("ca.crt"));
    Files { cert: folder.join("tls.crt"), key: folder.join("tls.key"), client_ca }
}

async fn serve(files: Files, limits: Limits) -> Server {
    Server::start_by(
        Some(Tls::watch(files).unwrap()),
        Executor::Inline,
        LOOPBACK.parse().unwrap(),
        policy(4),
        16,
        limits,
    )
    .await
}

/// Connects as one who trusts `authority`, and has a certificate by `own`, if there is one.
async fn connect(
    address: SocketAddr,
    protocol: &str,
    authority: &Authority,
    own: Option<&Authority>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match own.map(issue) {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            config.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.into()];
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

/// Whether the server answers over the connection.
async fn live(stream: io::Result<TlsStream<TcpStream>>) -> io::Result<bool> {
    let mut stream = stream?;
    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.starts_with("HTTP/1.1 200 OK"))
}

#[tokio::test]
async fn both_doors_answer_over_tls_and_only_over_tls() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Arc::new(authority()));
    mount(folder.path(), "1", &authority);
    let server = serve(files(folder.path(), false), LIMITS).await;
    assert!(live(connect(server.rest, "http/1.1", &authority, None).await).await.unwrap());
    let (address, trusted) = (server.address, authority.clone());
    let connector = tower::service_fn(move |_| {
        let trusted = trusted.clone();
        async move { connect(address, "h2", &trusted, None).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://test").connect_with_connector(connector).await.unwrap();
    let answer = GrpcInferenceServiceClient::new(channel).model_infer(request(2)).await.unwrap().into_inner();
    assert_eq!(answer.outputs[0].shape, [2, 3]);

    let mut plain = TcpStream::connect(server.rest).await.unwrap();
    plain.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.ok();
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn clients_need_a_certificate_by_the_authority_that_is_named() {
    let (folder, authority, another) = (tempfile::tempdir().unwrap(), authority(), authority());
    mount(folder.path(), "1", &authority);
    let server = serve(files(folder.path(), true), LIMITS).await;
    // Before the server has judged the client, the client may think that it is connected. Over gRPC the server speaks first.
    let greeted = async |own| connect(server.address, "h2", &authority, own).await?.read_u8().await;
    for own in [None, Some(&another)] {
        assert!(live(connect(server.rest, "http/1.1", &authority, own).await).await.is_err());
        greeted(own).await.unwrap_err();
    }
    assert!(live(connect(server.rest, "http/1.1", &authority, Some(&authority)).await).await.unwrap());
    greeted(Some(&authority)).await.unwrap();
}

#[tokio::test]
async fn who_says_nothing_is_left() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority());
    mount(folder.path(), "1", &authority);
    let limits = Limits { head_timeout: Duration::from_millis(50), ..LIMITS };
    let server = serve(files(folder.path(), false), limits).await;
    for address in [server.address, server.rest] {
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn new_connections_see_new_files_and_bad_files_change_nothing() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), authority(), authority());
    mount(folder.path(), "1", &old);
    let server = serve(files(folder.path(), true), LIMITS).await;
    let mut open = connect(server.rest, "http/1.1", &old, Some(&old)).await.unwrap();
    std::fs::remove_file(folder.path().join("..data")).unwrap();
    assert!(live(connect(server.rest, "http/1.1", &old, Some(&old)).await).await.unwrap());
    mount(folder.path(), "2", &new);
    let seen = async {
        while !live(connect(server.rest, "http/1.1", &new, Some(&new)).await).await.unwrap_or(false) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
    assert!(live(connect(server.rest, "http/1.1", &old, Some(&old)).await).await.is_err());
    // Who was there stays.
    open.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
}

#[tokio::test]
async fn files_that_cannot_be_used_say_why() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), authority());
    mount(folder.path(), "1", &authority);
    let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let told = |files: Files| Tls::watch(files).err().unwrap().to_string();
    let missing = folder.path().join("missing");
    let error = told(Files { cert: missing.clone(), ..files(folder.path(), true) });
    assert_eq!(error, format!("cannot read {}", missing.display()));
    let error = told(Files { cert: key.clone(), ..files(folder.path(), true) });
    assert_eq!(error, format!("{}: no certificate; PEM is needed", key.display()));
    let error = told(Files { key: cert.clone(), ..files(folder.path(), true) });
    assert_eq!(error, format!("{}: no private key; PEM is needed", cert.display()));
    std::fs::write(&missing, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = told(Files { key: missing.clone(), ..files(folder.path(), true) });
    let expected = format!("{} and {} cannot be used: ", cert.display(), missing.display());
    assert!(error.starts_with(&expected) && error.ends_with("; are they of one pair?"), "{error}");
}
