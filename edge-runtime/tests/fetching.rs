//! Fetching from a registry that misbehaves: cut short, wrong bytes, not there for a moment.

#![allow(clippy::unwrap_used, reason = "in tests")]

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use sconce_edge_runtime::fetch::{FetchError, Source, fetch};
use sconce_edge_runtime::load::{FILE_PATH, load};
use sconce_model::digest::sha256;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// What the next answers are like; then all is well.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Busy,
    /// Half of the bytes, then the connection ends.
    Cut,
    Wrong,
}

struct Registry {
    manifest: Vec<u8>,
    blobs: BTreeMap<String, Vec<u8>>,
    weights: String,
    /// For the weights, one an answer.
    moods: Mutex<Vec<Mood>>,
    /// Ranges that were asked of the weights, and paths of everything.
    asked: Mutex<Vec<String>>,
}

/// Starts a registry with the tiny model; `rename` may spoil the files' names.
async fn registry(moods: &[Mood], rename: fn(&str) -> String) -> (Arc<Registry>, String) {
    let folder = tempfile::tempdir().unwrap();
    sconce_model::artifact::testing::write_tiny(folder.path(), 7).unwrap();
    let files = sconce_model::artifact::files(folder.path()).unwrap();
    let layers: Vec<_> = files
        .iter()
        .map(|file| serde_json::json!({"mediaType": "application/octet-stream", "digest": file.digest, "size": file.bytes.len(), "annotations": {FILE_PATH: rename(&file.path)}}))
        .collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2}, "layers": layers});
    let weights = files.iter().find(|file| file.path == "weights/f32/model.safetensors").unwrap().digest.clone();
    let blobs = files.into_iter().map(|file| (file.digest, file.bytes)).collect();
    let moods = moods.iter().rev().copied().collect::<Vec<_>>();
    let registry = Arc::new(Registry {
        manifest: serde_json::to_vec(&manifest).unwrap(),
        blobs,
        weights,
        moods: moods.into(),
        asked: Mutex::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let from = format!("oci://{}/vision/tiny", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(answer).with_state(registry.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (registry, from)
}

async fn answer(State(registry): State<Arc<Registry>>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().to_owned();
    if path == "/v2/" {
        return StatusCode::OK.into_response();
    }
    registry.asked.lock().unwrap().push(path.clone());
    let digest = path.rsplit('/').next().unwrap();
    if path == format!("/v2/vision/tiny/manifests/{}", sha256(&registry.manifest)) {
        return ([("content-type", "application/vnd.oci.image.manifest.v1+json")], registry.manifest.clone())
            .into_response();
    }
    let Some(blob) = registry.blobs.get(digest) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = headers.get("range").map(|range| range.to_str().unwrap().to_owned());
    let first: usize =
        range.as_deref().map_or(0, |range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let mut mood = None;
    if digest == registry.weights {
        registry.asked.lock().unwrap().push(format!("from {}", if first == 0 { "the start" } else { "the middle" }));
        mood = registry.moods.lock().unwrap().pop();
    }
    let bytes = match mood {
        Some(Mood::Busy) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(Mood::Cut) => blob[first..first + (blob.len() - first) / 2].to_vec(),
        Some(Mood::Wrong) => blob[first..].iter().map(|byte| byte ^ 1).collect(),
        None => blob[first..].to_vec(),
    };
    let range = format!("bytes {first}-{}/{}", blob.len() - 1, blob.len());
    (StatusCode::PARTIAL_CONTENT, [("content-range", range)], bytes).into_response()
}

impl Registry {
    fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    fn from(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.starts_with("from ")).cloned().collect()
    }
}

fn same(path: &str) -> String {
    path.to_owned()
}

async fn fetched(from: &str, digest: &str, to: &Path, patience: Duration) -> Result<(), FetchError> {
    fetch(&Source::new(from, &[])?, digest, "f32", to, patience).await
}

fn folder() -> TempDir {
    rustls::crypto::ring::default_provider().install_default().ok();
    tempfile::tempdir().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_is_fetched_can_be_served_and_is_not_fetched_twice() {
    let (to, (registry, from)) = (folder(), registry(&[], same).await);
    fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap();
    assert_eq!(load(to.path(), Some(&registry.digest()), "f32", 4, 1).unwrap().digest, registry.digest());
    registry.asked.lock().unwrap().clear();
    // Nobody answers there: bytes that are there need no network.
    fetched("oci://127.0.0.1:1/vision/tiny", &registry.digest(), to.path(), MINUTE).await.unwrap();
    // A rotten file is fetched again, and only that one.
    let weights = to.path().join("weights/f32/model.safetensors");
    std::fs::write(&weights, b"rotten").unwrap();
    fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap();
    assert_eq!(registry.asked.lock().unwrap().len(), 2);
    load(to.path(), Some(&registry.digest()), "f32", 4, 1).unwrap();
}

#[tokio::test]
async fn one_variant_is_fetched_without_the_others() {
    let (registry, from) = registry(&[], same).await;
    for (variant, passes) in [("f16", "convolution of f16"), ("int8", "convolution of int8")] {
        let to = folder();
        fetch(&Source::new(&from, &[]).unwrap(), &registry.digest(), variant, to.path(), MINUTE).await.unwrap();
        let weights: Vec<_> =
            std::fs::read_dir(to.path().join("weights")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(weights, [variant]);
        let plan = load(to.path(), Some(&registry.digest()), variant, 4, 1).unwrap().runner.plan;
        let steps: Vec<_> = plan.steps().iter().map(ToString::to_string).collect();
        assert!(steps.iter().any(|step| step.contains(passes)), "{steps:#?}");
    }
}

#[tokio::test]
async fn a_busy_registry_and_a_connection_that_is_cut_only_cost_time() {
    let (to, (registry, from)) = (folder(), registry(&[Mood::Busy, Mood::Cut, Mood::Busy], same).await);
    fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap();
    assert_eq!(registry.from(), ["from the start", "from the start", "from the middle", "from the middle"]);
    load(to.path(), Some(&registry.digest()), "f32", 4, 1).unwrap();
}

#[tokio::test]
async fn wrong_bytes_never_get_their_name() {
    let (to, (registry, from)) = (folder(), registry(&[Mood::Wrong, Mood::Wrong, Mood::Wrong], same).await);
    let error = fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap_err().to_string();
    assert!(error.starts_with("DigestMismatch: weights/f32/model.safetensors is sha256:"), "{error}");
    assert!(!to.path().join("weights/f32/model.safetensors").exists());
    // The registry has been mended.
    fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap();
}

#[tokio::test]
async fn reasons_come_first() {
    let (to, (registry, from)) = (folder(), registry(&[], same).await);
    let check = async |from: &str, digest: &str, expected: &str| {
        let error = fetched(from, digest, to.path(), Duration::from_millis(300)).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    };
    check(&from, &sha256(b"another"), "ArtifactMissing: ").await;
    // Hexadecimal digits of a digest are no HTTP status.
    check("oci://127.0.0.1:1/vision/tiny", &format!("sha256:{}", "404".repeat(21) + "0"), "RegistryUnreachable: ")
        .await;
    check("https://127.0.0.1/vision", &registry.digest(), "FetchFailed: ").await;
    let error = fetch(&Source::new(&from, &[]).unwrap(), &registry.digest(), "int3", to.path(), MINUTE)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no variant \"int3\", it has f32"), "{error}");
}

#[tokio::test]
async fn a_registry_that_forbids_is_not_asked_again() {
    let (to, digest) = (folder(), sha256(b"{}"));
    for code in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let from = format!("oci://{}/vision/tiny", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(async move || code);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let fetched = tokio::time::timeout(Duration::from_secs(5), fetched(&from, &digest, to.path(), MINUTE));
        let error = fetched.await.unwrap().unwrap_err().to_string();
        assert!(error.starts_with("RegistryUnreachable: the registry lets nobody read "), "{error}");
    }
}

#[tokio::test]
async fn a_path_that_leads_out_of_the_folder_is_refused() {
    for rename in
        [|path: &str| format!("../{path}"), |path: &str| format!("/tmp/{path}"), |path: &str| format!("a/../../{path}")]
    {
        let (to, (registry, from)) = (folder(), registry(&[], rename).await);
        let error = fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap_err().to_string();
        assert!(error.contains("the manifest names the file"), "{error}");
    }
}
