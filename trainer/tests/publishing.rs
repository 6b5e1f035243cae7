//! Publishing against a registry of a few lines, which remembers the order of what it was sent.

#![allow(clippy::unwrap_used, reason = "in tests")]

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sconce_model::digest::sha256;
use sconce_registry::Keyring;
use sconce_trainer::publish::{may_publish, publish, reference};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::process::Command;
use tokio::sync::Notify;

#[derive(Default)]
struct Registry {
    blobs: BTreeMap<String, Bytes>,
    upload: Vec<u8>,
    /// Bytes and media type.
    manifest: Option<(Bytes, String)>,
    /// What was stored, in order: a digest, or `manifest`.
    stored: Vec<String>,
    /// Digest of a blob that is refused.
    refused: Option<String>,
    /// Of one whose bytes are not taken: who sends it waits.
    held: Option<String>,
    /// Told when somebody waits.
    waits: Arc<Notify>,
    /// What a request has to have as its authorization.
    key: Option<&'static str>,
    /// Who has it may read alone.
    is_read_only: bool,
}

impl Registry {
    /// Whom to tell, if these are bytes that are not taken.
    fn holds(&self, request: &Parts) -> Option<Arc<Notify>> {
        let held = self.held.as_ref()?.trim_start_matches("sha256:");
        let is_it = request.method == Method::PUT && request.uri.query()?.contains(held);
        is_it.then(|| self.waits.clone())
    }
}

type Shared = Arc<Mutex<Registry>>;

async fn answer(State(registry): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let waits = registry.lock().unwrap().holds(&parts);
    if let Some(waits) = waits {
        waits.notify_one();
        return std::future::pending().await;
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path().to_owned();
    let last = path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut registry = registry.lock().unwrap();
    let with = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    if registry.key.is_some() && registry.key != with {
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"here\"")]).into_response();
    }
    if registry.is_read_only && parts.method == Method::POST {
        return StatusCode::FORBIDDEN.into_response();
    }
    let location = |path: &str| [("location", path.to_owned())];
    match parts.method {
        Method::GET => StatusCode::OK.into_response(),
        Method::HEAD if registry.blobs.contains_key(&last) => StatusCode::OK.into_response(),
        Method::HEAD => StatusCode::NOT_FOUND.into_response(),
        Method::POST => {
            registry.upload.clear();
            (StatusCode::ACCEPTED, location("/v2/models/tiny/blobs/uploads/1")).into_response()
        }
        Method::PATCH => {
            registry.upload.extend_from_slice(&body);
            let range = [("range", format!("0-{}", registry.upload.len() - 1))];
            (StatusCode::ACCEPTED, location(&path), range).into_response()
        }
        Method::PUT if path.contains("/manifests/") => {
            registry.manifest = Some((body, media_type(&parts.headers)));
            registry.stored.push("manifest".into());
            (StatusCode::CREATED, location(&path)).into_response()
        }
        Method::PUT => {
            registry.upload.extend_from_slice(&body);
            let blob = Bytes::from(std::mem::take(&mut registry.upload));
            let digest = sha256(&blob);
            if registry.refused.as_ref() == Some(&digest) {
                return StatusCode::INSUFFICIENT_STORAGE.into_response();
            }
            registry.blobs.insert(digest.clone(), blob);
            registry.stored.push(digest.clone());
            (StatusCode::CREATED, location(&format!("/v2/models/tiny/blobs/{digest}"))).into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn media_type(headers: &HeaderMap) -> String {
    headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

async fn serve() -> (Shared, String) {
    let registry = Shared::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("oci://{}/models/tiny:1.0.0", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(answer).with_state(registry.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (registry, uri)
}

fn tiny() -> tempfile::TempDir {
    rustls::crypto::ring::default_provider().install_default().ok();
    let folder = tempfile::tempdir().unwrap();
    sconce_model::artifact::testing::write_tiny(folder.path(), 7).unwrap();
    folder
}

#[tokio::test]
async fn blobs_come_first_the_manifest_last_and_nothing_twice() {
    let ((registry, uri), folder) = (serve().await, tiny());
    let address = publish(folder.path(), &reference(&uri).unwrap(), &[], Keyring::none()).await.unwrap();
    {
        let registry = registry.lock().unwrap();
        let (manifest, media_type) = registry.manifest.as_ref().unwrap();
        assert_eq!(address, format!("{}@{}", uri.trim_end_matches(":1.0.0"), sha256(manifest)));
        assert_eq!(media_type, "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(registry.stored.len(), 11, "a config, ten files of which two are the same, a manifest");
        assert_eq!(registry.stored.last().unwrap(), "manifest");
        let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        for layer in manifest["layers"].as_array().unwrap() {
            let file = folder.path().join(layer["annotations"]["org.cncf.model.filepath"].as_str().unwrap());
            assert_eq!(registry.blobs[layer["digest"].as_str().unwrap()], std::fs::read(file).unwrap());
        }
    }
    let again = publish(folder.path(), &reference(&uri).unwrap(), &[], Keyring::none()).await.unwrap();
    assert_eq!(again, address);
    assert_eq!(registry.lock().unwrap().stored.len(), 12, "only the manifest is sent again");
}

#[tokio::test]
async fn what_fails_on_the_way_leaves_no_manifest() {
    let ((registry, uri), folder) = (serve().await, tiny());
    let weights = std::fs::read(folder.path().join("weights/f32/head.safetensors")).unwrap();
    registry.lock().unwrap().refused = Some(sha256(&weights));
    let error = publish(folder.path(), &reference(&uri).unwrap(), &[], Keyring::none()).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot push {} at 127.0.0.1:", sha256(&weights))), "{error}");
    assert!(registry.lock().unwrap().manifest.is_none());
}

#[tokio::test]
async fn the_next_try_sends_what_is_missing_alone() {
    let ((registry, uri), folder) = (serve().await, tiny());
    let target = reference(&uri).unwrap();
    let weights = sha256(&std::fs::read(folder.path().join("weights/f32/head.safetensors")).unwrap());
    registry.lock().unwrap().refused = Some(weights.clone());
    publish(folder.path(), &target, &[], Keyring::none()).await.unwrap_err();
    let sent = {
        let mut registry = registry.lock().unwrap();
        registry.refused = None;
        std::mem::take(&mut registry.stored)
    };
    publish(folder.path(), &target, &[], Keyring::none()).await.unwrap();
    let registry = registry.lock().unwrap();
    let again = &registry.stored;
    assert!(!sent.is_empty() && again.contains(&weights) && again.last().unwrap() == "manifest", "{sent:?} {again:?}");
    assert!(!again.iter().any(|digest| sent.contains(digest)), "{sent:?} {again:?}");
    assert_eq!(sent.len() + again.len(), 11, "a config, ten files of which two are the same, a manifest");
}

#[tokio::test]
async fn one_that_is_killed_amid_a_blob_leaves_no_manifest_and_the_next_goes_on() {
    let ((registry, uri), folder) = (serve().await, tiny());
    let weights = sha256(&std::fs::read(folder.path().join("weights/f32/head.safetensors")).unwrap());
    let waits = {
        let mut registry = registry.lock().unwrap();
        registry.held = Some(weights.clone());
        registry.waits.clone()
    };
    let publish = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
        command.args(["publish".as_ref(), folder.path(), uri.as_ref()]).env("DOCKER_CONFIG", folder.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    };
    let mut first = publish();
    tokio::select! {
        () = waits.notified() => {}
        ended = first.wait() => panic!("it ended before it was killed: {ended:?}"),
    }
    first.kill().await.unwrap();
    let sent = {
        let mut registry = registry.lock().unwrap();
        assert!(registry.manifest.is_none());
        registry.held = None;
        std::mem::take(&mut registry.stored)
    };
    assert!(!sent.is_empty() && !sent.contains(&weights), "{sent:?}");
    let second = publish().wait_with_output().await.unwrap();
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    let registry = registry.lock().unwrap();
    let again = &registry.stored;
    assert!(again.contains(&weights) && again.last().unwrap() == "manifest", "{sent:?} {again:?}");
    assert!(!again.iter().any(|digest| sent.contains(digest)), "{sent:?} {again:?}");
}

#[tokio::test]
async fn who_may_not_push_hears_it_before_the_work() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (registry, uri) = serve().await;
    let target = reference(&uri).unwrap();
    let may = async |password: Option<&str>| {
        let keyring = match password {
            Some(password) => {
                let entry = serde_json::json!({"username": "me", "password": password});
                let config = serde_json::json!({"auths": {target.registry(): entry}}).to_string();
                Keyring::of_secret("the Secret".into(), config.as_bytes()).unwrap()
            }
            None => Keyring::none(),
        };
        may_publish(&target, &[], keyring).await.map_err(|error| error.to_string())
    };
    assert_eq!(may(None).await, Ok(()));
    // `me:hunter2`.
    registry.lock().unwrap().key = Some("Basic bWU6aHVudGVyMg==");
    assert_eq!(may(Some("hunter2")).await, Ok(()));
    let told = |who: &str| format!("{} takes no model in models/tiny from somebody {who}", target.registry());
    let named = told("whom the Secret names: are name and password right, and may they push there?");
    assert_eq!(may(Some("hunter3")).await, Err(named.clone()));
    let nobody = told("who has no name and password: docker login; in a cluster, name a Secret in output.secretRef");
    assert_eq!(may(None).await, Err(nobody));
    registry.lock().unwrap().is_read_only = true;
    assert_eq!(may(Some("hunter2")).await, Err(named));
    // One that is away may be back by then.
    let away = reference("oci://127.0.0.1:1/models/tiny:1.0.0").unwrap();
    may_publish(&away, &[], Keyring::none()).await.unwrap();
}
