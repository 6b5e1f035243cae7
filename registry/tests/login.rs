//! Logging in at a registry of a few lines: who is asked what, and who gets to see the password.

#![allow(clippy::unwrap_used, reason = "in tests")]

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use oci_client::client::ClientConfig;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use sconce_registry::{Keyring, Registry, RegistryError};
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// `me:hunter2`.
const BASIC: &str = "Basic bWU6aHVudGVyMg==";

/// What the registry wants to see.
#[derive(Clone, Debug)]
enum Door {
    Open,
    Basic,
    /// A token of who answers at `REALM/token`.
    Bearer(String),
    /// In one header: a password, or such a token.
    Either(String),
    /// Nobody is asked for anything.
    Answers(u16),
}

#[derive(Default)]
struct Seen {
    /// What was asked with which authorization, in order.
    asked: Vec<(String, String)>,
    /// Of the last request for a token.
    form: String,
    tokens: u32,
    /// Only what is closed says so.
    is_quiet: bool,
    /// The blob is given by another server.
    elsewhere: Option<String>,
}

struct Server {
    door: Mutex<Door>,
    seen: Mutex<Seen>,
    address: String,
}

impl Server {
    async fn start(door: Door) -> Arc<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Arc::new(Self { door: door.into(), seen: Mutex::default(), address });
        let router = axum::Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn asked(&self, end: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.asked.iter().filter(|(path, _)| path.ends_with(end)).map(|(_, with)| with.clone()).collect()
    }

    fn registry(&self, keyring: Keyring, operation: RegistryOperation) -> Registry {
        let reference: Reference = format!("{}/models/tiny:1.0", self.address).parse().unwrap();
        let configure = |protocol| ClientConfig { protocol, ..ClientConfig::default() };
        Registry::new(reference, operation, &[], Arc::new(keyring), configure)
    }
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let with = authorization(&parts.headers);
    let path = parts.uri.path().to_owned();
    let mut seen = server.seen.lock().unwrap();
    seen.asked.push((format!("{} {path}", parts.method), with.clone()));
    if path == "/token" {
        seen.form = parts.uri.query().map_or_else(|| String::from_utf8(body.to_vec()).unwrap(), str::to_owned);
        if with != BASIC && !seen.form.contains("refresh_token=identity") {
            return (StatusCode::UNAUTHORIZED, "hunter2 is wrong").into_response();
        }
        seen.tokens += 1;
        return json!({"access_token": format!("t{}", seen.tokens), "expires_in": 300}).to_string().into_response();
    }
    let (is_let_in, challenge) = match &*server.door.lock().unwrap() {
        Door::Open => (true, String::new()),
        Door::Basic => (with == BASIC, "Basic realm=\"here\"".into()),
        Door::Either(realm) => (false, format!("Basic realm=\"here\", Bearer realm=\"{realm}/token\"")),
        Door::Answers(status) => return StatusCode::from_u16(*status).unwrap().into_response(),
        Door::Bearer(realm) => {
            (with.starts_with("Bearer t"), format!("Bearer realm=\"{realm}/token\",service=\"here\""))
        }
    };
    if path == "/v2/" && seen.is_quiet {
        return StatusCode::OK.into_response();
    }
    if !is_let_in {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    match &seen.elsewhere {
        Some(place) if path.contains("/blobs/") => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, format!("http://{place}/blob"))]).into_response()
        }
        _ => ([(header::CONTENT_TYPE, MANIFEST)], "{}").into_response(),
    }
}

fn authorization(headers: &HeaderMap) -> String {
    headers.get(header::AUTHORIZATION).map_or("", |value| value.to_str().unwrap()).to_owned()
}

fn keyring(server: &Server, entry: &serde_json::Value) -> Keyring {
    let config = json!({"auths": {&server.address: entry}}).to_string();
    Keyring::of_secret("Secret s in n".into(), config.as_bytes()).unwrap()
}

fn mine() -> serde_json::Value {
    json!({"username": "me", "password": "hunter2"})
}

async fn pull(registry: &Registry) -> Result<(), String> {
    let client = registry.client().await.map_err(|error| error.to_string())?;
    let pulled = client.pull_manifest_raw(registry.reference(), &RegistryAuth::Anonymous, &[MANIFEST]).await;
    pulled.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_password_is_shown_to_who_asks_for_it() {
    let server = Server::start(Door::Basic).await;
    let registry = server.registry(keyring(&server, &mine()), RegistryOperation::Pull);
    pull(&registry).await.unwrap();
    assert_eq!(server.asked("GET /v2/models/tiny/manifests/1.0"), [BASIC]);
    assert!(server.asked("/v2/").iter().all(String::is_empty), "a ping asks whether it is needed");
    assert_eq!(registry.who(), "whom Secret s in n names");

    let nobody = server.registry(Keyring::none(), RegistryOperation::Pull);
    assert!(pull(&nobody).await.unwrap_err().contains("Not authorized"));
    assert_eq!(nobody.who(), "who has no name and password");
    // Nor is it shown where nobody has asked for it.
    let open = Server::start(Door::Open).await;
    pull(&open.registry(keyring(&open, &mine()), RegistryOperation::Pull)).await.unwrap();
    assert!(open.seen.lock().unwrap().asked.iter().all(|(_, with)| with.is_empty()));
}

#[tokio::test]
async fn a_password_is_exchanged_for_a_token_that_opens_the_repository_alone() {
    let server = Server::start(Door::Open).await;
    *server.door.lock().unwrap() = Door::Bearer(format!("http://{}", server.address));
    let registry = server.registry(keyring(&server, &mine()), RegistryOperation::Push);
    pull(&registry).await.unwrap();
    pull(&registry).await.unwrap();
    assert_eq!(server.asked("/manifests/1.0"), ["Bearer t1", "Bearer t1"]);
    assert_eq!(server.asked("/token"), [BASIC]);
    assert_eq!(server.seen.lock().unwrap().form, "service=here&scope=repository%3Amodels%2Ftiny%3Apull%2Cpush");

    let identity = json!({"auth": "bWU6", "identitytoken": "identity&"});
    pull(&server.registry(keyring(&server, &identity), RegistryOperation::Pull)).await.unwrap();
    let seen = server.seen.lock().unwrap();
    assert_eq!(
        seen.form,
        "service=here&scope=repository%3Amodels%2Ftiny%3Apull&grant_type=refresh_token&client_id=sconce&refresh_token=identity%26"
    );
    assert!(seen.asked.iter().any(|(what, with)| what == "POST /token" && with.is_empty()));
}

/// As those do that have repositories for everybody beside closed ones.
#[tokio::test]
async fn a_registry_that_asks_only_at_what_is_closed_is_asked_there() {
    for operation in [RegistryOperation::Pull, RegistryOperation::Push] {
        let server = Server::start(Door::Open).await;
        *server.door.lock().unwrap() = Door::Bearer(format!("http://{}", server.address));
        server.seen.lock().unwrap().is_quiet = true;
        pull(&server.registry(keyring(&server, &mine()), operation)).await.unwrap();
        assert_eq!(server.asked("GET /v2/models/tiny/manifests/1.0"), ["Bearer t1"]);
        *server.door.lock().unwrap() = Door::Basic;
        pull(&server.registry(keyring(&server, &mine()), operation)).await.unwrap();
        assert_eq!(server.asked("GET /v2/models/tiny/manifests/1.0"), ["Bearer t1", BASIC]);
        let asked =
            if operation == RegistryOperation::Pull { "HEAD /v2/models/tiny/manifests/1.0" } else { "/blobs/uploads/" };
        assert_eq!(server.asked(asked), ["", ""]);
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_without_it() {
    let server = Server::start(Door::Open).await;
    *server.door.lock().unwrap() = Door::Bearer(format!("http://{}", server.address));
    let wrong = keyring(&server, &json!({"username": "me", "password": "hunter3"}));
    let error = server.registry(wrong, RegistryOperation::Pull).client().await.err().unwrap();
    let address = &server.address;
    assert_eq!(
        error.to_string(),
        format!(
            "{address} does not let in whom Secret s in n names: {address} gives no token: 401 Unauthorized; are name and password right?"
        )
    );
    assert!(!format!("{error:?}").contains("hunter"));
    let identity = server.registry(keyring(&server, &json!({"identitytoken": "x"})), RegistryOperation::Pull);
    *server.door.lock().unwrap() = Door::Basic;
    assert!(matches!(identity.client().await.err().unwrap(), RegistryError::Refused { .. }));
}

#[tokio::test]
async fn no_password_goes_to_who_gives_tokens_without_tls_and_is_not_named() {
    // All of 0.0.0.0 is this machine, and nobody knows that it is.
    let (server, other) = (Server::start(Door::Open).await, Server::start(Door::Open).await);
    let realm = other.address.replace("127.0.0.1", "0.0.0.0");
    for door in [Door::Bearer, Door::Either] {
        *server.door.lock().unwrap() = door(format!("http://{realm}"));
        let registry = server.registry(keyring(&server, &mine()), RegistryOperation::Pull);
        let error = registry.client().await.err().unwrap();
        assert_eq!(error, RegistryError::Plain { registry: server.address.clone(), host: realm.clone() });
        assert!(other.seen.lock().unwrap().asked.is_empty());
    }
    assert!(server.seen.lock().unwrap().asked.iter().all(|(_, with)| with.is_empty()));
}

/// As a proxy before it does, while it starts.
#[tokio::test]
async fn a_registry_that_is_not_well_is_not_open_to_all() {
    let server = Server::start(Door::Open).await;
    let registry = server.registry(keyring(&server, &mine()), RegistryOperation::Pull);
    for status in [500, 503, 429, 307, 401, 403] {
        *server.door.lock().unwrap() = Door::Answers(status);
        let error = registry.client().await.err().unwrap();
        let is_refused = matches!(error, RegistryError::Refused { .. });
        let is_unreachable = matches!(error, RegistryError::Unreachable { .. });
        assert_eq!((is_refused, is_unreachable), (status / 100 == 4 && status != 429, !is_refused), "{error}");
    }
    *server.door.lock().unwrap() = Door::Basic;
    pull(&registry).await.unwrap();
    let absent = Server::start(Door::Answers(404)).await;
    absent.registry(keyring(&absent, &mine()), RegistryOperation::Pull).client().await.unwrap();
}

#[tokio::test]
async fn another_server_that_gives_the_bytes_sees_neither_password_nor_token() {
    for door in ["basic", "bearer"] {
        let (server, other) = (Server::start(Door::Basic).await, Server::start(Door::Open).await);
        if door == "bearer" {
            *server.door.lock().unwrap() = Door::Bearer(format!("http://{}", server.address));
        }
        server.seen.lock().unwrap().elsewhere = Some(other.address.clone());
        let registry = server.registry(keyring(&server, &mine()), RegistryOperation::Pull);
        let client = registry.client().await.unwrap();
        let mut bytes = Vec::new();
        let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        client.pull_blob(registry.reference(), digest, &mut bytes).await.unwrap();
        assert_eq!(bytes, b"{}");
        assert_eq!(other.asked("/blob"), [""]);
        assert!(!server.asked(digest)[0].is_empty());
    }
}
