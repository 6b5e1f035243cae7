//! A registry that counts what it gives, and to whom, and misbehaves when it is told to.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use futures::stream::{iter, once};
use sconce_edge_runtime::load::FILE_PATH;
use sconce_model::digest::sha256;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const TOKEN: &str = "for-everybody";

/// What the next answer for a digest is like.
#[derive(Clone)]
pub enum Mood {
    /// So many bytes, then the connection ends.
    Cut(usize),
    /// So many bytes, and the rest when that is released.
    Held(usize, watch::Receiver<bool>),
    Wrong,
    /// Leads to another place of this server.
    Leads(&'static str),
    Status(StatusCode),
}

/// Who may read.
#[derive(Clone, Copy, PartialEq)]
pub enum Door {
    Open,
    /// Whoever asks for a token first.
    Token,
    /// Whoever has a name and a password.
    Closed,
}

pub struct Registry {
    blobs: Mutex<BTreeMap<String, Bytes>>,
    moods: Mutex<BTreeMap<String, Vec<Mood>>>,
    door: Door,
    /// Paths by which others than the store asked.
    direct: Mutex<Vec<String>>,
    /// Digest, and where the answer had to begin, of what the store asked for.
    asked: Mutex<Vec<(String, u64)>>,
    /// Bytes that were given to the store.
    pulled: Mutex<u64>,
    pub address: String,
    end: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Registry {
    pub async fn start() -> Arc<Self> {
        Self::with(Door::Open).await
    }

    pub async fn with(door: Door) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Arc::new(Self {
            blobs: Mutex::default(),
            moods: Mutex::default(),
            door,
            direct: Mutex::default(),
            asked: Mutex::default(),
            pulled: Mutex::default(),
            address: listener.local_addr().unwrap().to_string(),
            end: Mutex::default(),
        });
        let router = axum::Router::new().fallback(answer).with_state(registry.clone());
        let (end, ended) = oneshot::channel::<()>();
        let serving = axum::serve(listener, router).with_graceful_shutdown(async { drop(ended.await) });
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        *registry.end.lock().unwrap() = Some((end, serving));
        registry
    }

    /// From now on nobody answers there.
    pub async fn stop(&self) {
        let (end, serving) = self.end.lock().unwrap().take().unwrap();
        drop(end);
        serving.await.unwrap();
    }

    pub fn add(&self, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        self.blobs.lock().unwrap().insert(digest.clone(), bytes);
        digest
    }

    /// A version, as it is published; its manifest's digest.
    pub fn publish(&self, folder: &Path) -> String {
        let layer = |file: sconce_model::artifact::File| {
            let size = file.bytes.len();
            let digest = self.add(file.bytes);
            serde_json::json!({"mediaType": "application/octet-stream", "digest": digest, "size": size, "annotations": {FILE_PATH: file.path}})
        };
        let layers: Vec<_> = sconce_model::artifact::files(folder).unwrap().into_iter().map(layer).collect();
        let config =
            serde_json::json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2});
        let manifest =
            serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.add(serde_json::to_vec(&manifest).unwrap())
    }

    /// What the next answers for this digest are like, in this order; then all is well.
    pub fn mood(&self, digest: &str, moods: &[Mood]) {
        self.moods.lock().unwrap().insert(digest.into(), moods.iter().rev().cloned().collect());
    }

    pub fn uri(&self) -> String {
        format!("oci://{}/vision/tiny", self.address)
    }

    pub fn pulled(&self) -> u64 {
        *self.pulled.lock().unwrap()
    }

    pub fn direct(&self) -> Vec<String> {
        self.direct.lock().unwrap().clone()
    }

    /// Where the answers for this digest had to begin.
    pub fn asked(&self, digest: &str) -> Vec<u64> {
        self.asked.lock().unwrap().iter().filter(|(asked, _)| asked == digest).map(|(_, from)| *from).collect()
    }

    fn give(&self, is_store: bool, bytes: Bytes) -> Result<Bytes, io::Error> {
        *self.pulled.lock().unwrap() += if is_store { bytes.len() as u64 } else { 0 };
        Ok(bytes)
    }
}

async fn answer(State(registry): State<Arc<Registry>>, uri: Uri, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let is_store = text(header::USER_AGENT).starts_with("sconce-agent/");
    let path = uri.path().to_owned();
    if !is_store && path != "/v2/" {
        registry.direct.lock().unwrap().push(path.clone());
    }
    if path == "/token" {
        assert_eq!(uri.query(), Some("service=here&scope=repository%3Avision%2Ftiny%3Apull"));
        return format!("{{\"token\": \"{TOKEN}\"}}").into_response();
    }
    if path == "/secret" {
        return "a secret of another server".into_response();
    }
    let is_let_in = registry.door == Door::Open
        || registry.door == Door::Token && text(header::AUTHORIZATION) == format!("Bearer {TOKEN}");
    if !is_let_in {
        let challenge = match registry.door {
            Door::Token => format!("Bearer realm=\"http://{}/token\",service=\"here\"", registry.address),
            _ => "Basic realm=\"here\"".into(),
        };
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    if path == "/v2/" {
        return StatusCode::OK.into_response();
    }
    let digest = path.rsplit('/').next().unwrap().to_owned();
    let Some(blob) = registry.blobs.lock().unwrap().get(&digest).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = text(header::RANGE);
    let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
    if is_store {
        registry.asked.lock().unwrap().push((digest.clone(), from as u64));
    }
    let rest = blob.slice(from..);
    let mood = registry.moods.lock().unwrap().get_mut(&digest).and_then(Vec::pop);
    let given = registry.clone();
    let give = move |bytes| given.give(is_store, bytes);
    let body = match mood {
        None => Body::from_stream(iter([give(rest.clone())])),
        Some(Mood::Wrong) => {
            let wrong: Vec<u8> = rest.iter().map(|byte| byte ^ 1).collect();
            Body::from_stream(iter([give(wrong.into())]))
        }
        Some(Mood::Cut(after)) => {
            let after = after.min(rest.len());
            Body::from_stream(iter([give(rest.slice(..after)), Err(io::Error::other("cut"))]))
        }
        Some(Mood::Held(after, mut released)) => {
            let (first, second) = (rest.slice(..after), rest.slice(after..));
            let later = async move {
                released.wait_for(|released| *released).await.unwrap();
                give(second)
            };
            Body::from_stream(iter([registry.give(is_store, first)]).chain(once(later)))
        }
        Some(Mood::Leads(place)) => {
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place)]).into_response();
        }
        Some(Mood::Status(status)) => return status.into_response(),
    };
    let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = (status, [(header::CONTENT_LENGTH, rest.len().to_string())], body).into_response();
    if from > 0 {
        let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
        response.headers_mut().insert(header::CONTENT_RANGE, range.parse().unwrap());
    }
    response
}
