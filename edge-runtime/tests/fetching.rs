//! Fetching from a registry that misbehaves: cut short, wrong bytes, not there for a moment; and serving what it has.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use common::process::{self, Process};
use common::{client, request};
use sconce_edge_runtime::fetch::{FetchError, Source, Store, fetch};
use sconce_edge_runtime::load::{FILE_PATH, LoadError, Loaded, load, open};
use sconce_edge_runtime::wire::ModelInferRequest;
use sconce_model::artifact::signature::{PrivateKey, SIGNATURE, Trust, sign};
use sconce_model::digest::sha256;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// What the next answers are like; then all is well.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Busy,
    /// Half of the bytes, then the connection ends.
    Cut,
    Wrong,
}

/// What the registry calls the version.
const TAG: &str = "1.0";

struct Registry {
    manifest: Vec<u8>,
    blobs: BTreeMap<String, Vec<u8>>,
    weights: String,
    /// For the weights, one an answer.
    moods: Mutex<Vec<Mood>>,
    /// Ranges that were asked of the weights, and paths of everything.
    asked: Mutex<Vec<String>>,
    /// Bytes that were given.
    pulled: AtomicU64,
}

/// Starts a registry with the tiny model; `rename` may spoil the files' names.
async fn registry(moods: &[Mood], rename: fn(&str) -> String) -> (Arc<Registry>, String) {
    let folder = tempfile::tempdir().unwrap();
    sconce_model::artifact::testing::write_tiny(folder.path(), 7).unwrap();
    registry_of(folder.path(), moods, rename).await
}

async fn registry_of(folder: &Path, moods: &[Mood], rename: fn(&str) -> String) -> (Arc<Registry>, String) {
    let files = sconce_model::artifact::files(folder).unwrap();
    let layers: Vec<_> = files
        .iter()
        .map(|file| serde_json::json!({"mediaType": "application/octet-stream", "digest": file.digest, "size": file.bytes.len(), "annotations": {FILE_PATH: rename(&file.path)}}))
        .collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2}, "layers": layers});
    let weights = files.iter().find(|file| file.path == "weights/f32/head.safetensors").unwrap().digest.clone();
    let blobs = files.into_iter().map(|file| (file.digest, file.bytes)).collect();
    let moods = moods.iter().rev().copied().collect::<Vec<_>>();
    let registry = Arc::new(Registry {
        manifest: serde_json::to_vec(&manifest).unwrap(),
        blobs,
        weights,
        moods: moods.into(),
        asked: Mutex::default(),
        pulled: AtomicU64::new(0),
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
    let named = path.strip_prefix("/v2/vision/tiny/manifests/");
    if named.is_some_and(|name| name == TAG || name == registry.digest()) {
        registry.pulled.fetch_add(registry.manifest.len() as u64, Relaxed);
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
    registry.pulled.fetch_add(bytes.len() as u64, Relaxed);
    let range = format!("bytes {first}-{}/{}", blob.len() - 1, blob.len());
    (StatusCode::PARTIAL_CONTENT, [("content-range", range)], bytes).into_response()
}

impl Registry {
    fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// Bytes of blobs and manifests that it has given.
    fn pulled(&self) -> u64 {
        self.pulled.load(Relaxed)
    }

    /// So often a path was asked that ends so.
    fn asked(&self, end: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.ends_with(end)).count()
    }

    fn from(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.starts_with("from ")).cloned().collect()
    }
}

fn same(path: &str) -> String {
    path.to_owned()
}

async fn fetched(from: &str, digest: &str, to: &Path, patience: Duration) -> Result<(), FetchError> {
    fetch(&Source::new(from, &[])?, digest, "f32", to, &Trust::default(), patience).await
}

fn loaded(folder: &Path, digest: &str, variant: &str) -> Result<Loaded, LoadError> {
    load(&open(folder, Some(digest), &Trust::default())?, variant, 4, 1)
}

fn folder() -> TempDir {
    rustls::crypto::ring::default_provider().install_default().ok();
    tempfile::tempdir().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);
/// For a registry that answers, and says each time what does not pass.
const SECONDS: Duration = Duration::from_secs(5);
/// For a registry that cannot be reached.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn what_is_fetched_can_be_served_and_is_not_fetched_twice() {
    let (to, (registry, from)) = (folder(), registry(&[], same).await);
    fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap();
    assert_eq!(loaded(to.path(), &registry.digest(), "f32").unwrap().digest, registry.digest());
    registry.asked.lock().unwrap().clear();
    // Nobody answers there: bytes that are there need no network.
    fetched("oci://127.0.0.1:1/vision/tiny", &registry.digest(), to.path(), MINUTE).await.unwrap();
    // A rotten file is fetched again, and only that one.
    let weights = to.path().join("weights/f32/head.safetensors");
    std::fs::write(&weights, b"rotten").unwrap();
    fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap();
    assert_eq!(registry.asked.lock().unwrap().len(), 2);
    loaded(to.path(), &registry.digest(), "f32").unwrap();
}

#[tokio::test]
async fn one_variant_is_fetched_without_the_others() {
    let (registry, from) = registry(&[], same).await;
    for (variant, passes) in [("f16", "convolution of f16"), ("int8", "convolution of int8")] {
        let to = folder();
        fetch(&Source::new(&from, &[]).unwrap(), &registry.digest(), variant, to.path(), &Trust::default(), MINUTE)
            .await
            .unwrap();
        let weights: Vec<_> =
            std::fs::read_dir(to.path().join("weights")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(weights, [variant]);
        let plan = loaded(to.path(), &registry.digest(), variant).unwrap().runner.plan;
        let steps: Vec<_> = plan.steps().iter().map(ToString::to_string).collect();
        assert!(steps.iter().any(|step| step.contains(passes)), "{steps:#?}");
    }
}

#[tokio::test]
async fn a_rotten_file_of_another_variant_holds_up_none() {
    let (to, (registry, from)) = (folder(), registry(&[], same).await);
    let (source, digest) = (Source::new(&from, &[]).unwrap(), registry.digest());
    let fetch = async |variant| fetch(&source, &digest, variant, to.path(), &Trust::default(), MINUTE).await.unwrap();
    let load = |variant| loaded(to.path(), &digest, variant);
    fetch("f32").await;
    fetch("int8").await;
    // What is well stays.
    fetch("f32").await;
    load("int8").unwrap();
    std::fs::write(to.path().join("weights/int8/head.safetensors"), b"rotten").unwrap();
    assert!(load("f32").err().unwrap().to_string().ends_with("fetch it again"));
    fetch("f32").await;
    load("f32").unwrap();
    fetch("int8").await;
    load("int8").unwrap();
}

#[tokio::test]
async fn a_busy_registry_and_a_connection_that_is_cut_only_cost_time() {
    let (to, (registry, from)) = (folder(), registry(&[Mood::Busy, Mood::Cut, Mood::Busy], same).await);
    fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap();
    assert_eq!(registry.from(), ["from the start", "from the start", "from the middle", "from the middle"]);
    loaded(to.path(), &registry.digest(), "f32").unwrap();
}

#[tokio::test]
async fn wrong_bytes_never_get_their_name() {
    let (to, (registry, from)) = (folder(), registry(&[Mood::Wrong, Mood::Wrong, Mood::Wrong], same).await);
    let error = fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap_err().to_string();
    assert!(error.starts_with("DigestMismatch: weights/f32/head.safetensors is sha256:"), "{error}");
    assert!(!to.path().join("weights/f32/head.safetensors").exists());
    // The registry has been mended.
    fetched(&from, &registry.digest(), to.path(), MINUTE).await.unwrap();
}

#[tokio::test]
async fn reasons_come_first() {
    let (to, (registry, from)) = (folder(), registry(&[], same).await);
    let check = async |from: &str, digest: &str, patience: Duration, expected: &str| {
        let error = fetched(from, digest, to.path(), patience).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    };
    check(&from, &sha256(b"another"), MINUTE, "ArtifactMissing: ").await;
    // Hexadecimal digits of a digest are no HTTP status.
    let digest = format!("sha256:{}", "404".repeat(21) + "0");
    check("oci://127.0.0.1:1/vision/tiny", &digest, SHORT, "RegistryUnreachable: ").await;
    check("https://127.0.0.1/vision", &registry.digest(), MINUTE, "FetchFailed: ").await;
    let error =
        fetch(&Source::new(&from, &[]).unwrap(), &registry.digest(), "int3", to.path(), &Trust::default(), MINUTE)
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
        assert!(error.starts_with("Unauthorized: the registry does not give 127.0.0.1:"), "{error}");
        assert!(error.contains(" to somebody who has no name and password: "), "{error}");
    }
}

#[tokio::test]
async fn what_nobody_trusted_has_signed_is_neither_fetched_nor_served() {
    let folder = folder();
    let key = PrivateKey::from_pem(include_str!("fetching/key.pem")).unwrap();
    let trust = Trust::from_pem(include_str!("fetching/key.pub")).unwrap();
    let other = Trust::from_pem(include_str!("fetching/other.pub")).unwrap();
    sconce_model::artifact::testing::write_tiny(folder.path(), 7).unwrap();
    let (unsigned, from) = registry_of(folder.path(), &[], same).await;
    let to = self::folder();
    let fetch = async |registry: &Registry, from: &str, trust: &Trust, to: &TempDir| {
        fetch(&Source::new(from, &[]).unwrap(), &registry.digest(), "f32", to.path(), trust, MINUTE).await
    };
    let error = fetch(&unsigned, &from, &trust, &to).await.unwrap_err().to_string();
    assert!(error.starts_with("SignatureInvalid: the version has no model.sig"), "{error}");
    assert!(unsigned.from().is_empty(), "no weights were asked for");

    let files = sconce_model::artifact::files(folder.path()).unwrap();
    let files = files.into_iter().map(|file| (file.path, file.digest)).collect();
    std::fs::write(folder.path().join(SIGNATURE), sign("tiny", &files, &key)).unwrap();
    let (signed, from) = registry_of(folder.path(), &[], same).await;
    let to = self::folder();
    let error = fetch(&signed, &from, &other, &to).await.unwrap_err().to_string();
    assert!(error.starts_with("SignatureInvalid: it is signed by the key "), "{error}");
    fetch(&signed, &from, &trust, &to).await.unwrap();
    open(to.path(), Some(&signed.digest()), &trust).unwrap();
    let error = open(to.path(), Some(&signed.digest()), &other).err().unwrap().to_string();
    assert!(error.starts_with("SignatureInvalid: it is signed by the key "), "{error}");
    // A folder without a manifest is held against its signature as well.
    open(folder.path(), None, &trust).unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    assert!(open(folder.path(), None, &trust).is_err());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_served_out_of_a_registry_and_again_without_it() {
    let (store, (registry, from)) = (folder(), registry(&[], same).await);
    let serve = |model: &str| {
        let store = ["--model-store", store.path().to_str().unwrap(), "--rest", common::LOOPBACK];
        Process::start(&[&["serve", "--model", model, "--max-batch-size", "4"][..], &store].concat())
    };
    let version = async |server: &Process, name: &str| {
        let asked = ModelInferRequest { model_name: name.into(), ..request(1) };
        client(server.grpc).await.model_infer(asked).await.unwrap().into_inner().model_version
    };
    let expected = format!("sha256-{}", &registry.digest()["sha256:".len()..][..12]);
    let mut first = serve(&format!("{from}:{TAG}"));
    assert_eq!(version(&first, "tiny").await, expected);
    assert_eq!((registry.asked(TAG), registry.asked(&registry.digest())), (1, 1));
    assert_eq!(first.terminate(), Some(0));
    // By its tag only that is asked again; by its digest nobody is, and nobody answers there.
    let mut second = serve(&format!("other={from}:{TAG}"));
    assert_eq!(version(&second, "other").await, expected);
    assert_eq!((registry.asked(TAG), registry.asked(&registry.digest()), registry.from().len()), (2, 1, 1));
    assert_eq!(second.terminate(), Some(0));
    let mut third = serve(&format!("oci://127.0.0.1:1/vision/tiny@{}", registry.digest()));
    assert_eq!(version(&third, "tiny").await, expected);
    assert_eq!(third.terminate(), Some(0));
}

#[tokio::test]
async fn a_registry_without_tls_has_to_be_named() {
    let (to, (registry, from)) = (folder(), registry(&[], same).await);
    // Not known to be this machine's own.
    let from = from.replace("127.0.0.1", "0.0.0.0");
    let error = fetched(&from, &registry.digest(), to.path(), SECONDS).await.unwrap_err().to_string();
    assert!(error.ends_with("it does not speak TLS; name it with --insecure-registry, if that is meant"), "{error}");
    let host = from["oci://".len()..].split('/').next().unwrap().to_owned();
    let source = Source::new(&from, &[host]).unwrap();
    fetch(&source, &registry.digest(), "f32", to.path(), &Trust::default(), MINUTE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_out_of_a_registry_is_said_with_what_to_do() {
    let (folder, (registry, from)) = (folder(), registry(&[], same).await);
    let store = folder.path().join("models");
    let check = |args: &[&str], expected: &[&str]| {
        let mut serve = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
        let ended = process::output(serve.args(["serve", "--model-store", store.to_str().unwrap()]).args(args));
        let told = String::from_utf8(ended.stderr).unwrap();
        let last = told.lines().last().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(last.starts_with(expected[0]) && expected.iter().all(|part| last.contains(part)), "{last}");
    };
    check(
        &["--patience", "300ms", "--model", "oci://127.0.0.1:1/vision/tiny:1.0"],
        &["RegistryUnreachable: cannot fetch ", "oci://127.0.0.1:1/vision/tiny@sha256:HEX", store.to_str().unwrap()],
    );
    let address = |end: &str| format!("{from}{end}");
    check(&["--model", &address(":2.0")], &["ArtifactMissing: ", "/vision/tiny:2.0 is not in the registry"]);
    let other = sha256(b"another");
    check(&["--model", &address(&format!("@{other}"))], &["ArtifactMissing: ", &other]);
    check(
        &["--model", &address(":1.0"), "--variant", "int3"],
        &["UnknownArchitecture: no variant \"int3\", it has f32"],
    );
    check(&["--model", "oci://r.example.com/tiny@sha256:00"], &["FetchFailed: "]);
    let digest = format!("@{}", registry.digest());
    let taken = ["--model", &address(&digest), "--name", "a", "--digest", &other];
    check(&taken, &["--model ", "names another digest than --digest sha256:"]);
}

/// As the first process of a container, which no signal stops that it does not listen to.
#[tokio::test]
async fn a_signal_ends_what_is_still_being_fetched() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, store) = (silent.local_addr().unwrap(), folder());
    let (from, digest) = (format!("oci://{address}/models/digits"), format!("sha256:{}", "a".repeat(64)));
    let plain = ["--insecure-registry".to_owned(), address.to_string()];
    let stored = store.path().to_str().unwrap().to_owned();
    let serve = ["serve", "--model", &format!("{from}@{digest}"), "--model-store", &stored].map(str::to_owned);
    let fetch = ["fetch", "--from", &from, "--digest", &digest, "--variant", "f32", "--to", &stored].map(str::to_owned);
    for (args, code, told) in [
        (serve.to_vec(), 0, "told to stop before it was ready"),
        (fetch.to_vec(), 1, "FetchFailed: told to stop before all was there; the next attempt goes on from here"),
    ] {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
        let command = command.args(args).args(&plain).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().unwrap();
        let asked = timeout(5 * MINUTE, silent.accept()).await.unwrap().unwrap();
        terminate(&child);
        let ended = timeout(5 * MINUTE, child.wait_with_output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), said.contains(told)), (Some(code), true), "{said}");
        drop(asked);
    }
}

#[tokio::test]
async fn a_signal_ends_a_server_that_waits_for_anothers_fetch() {
    let (store, digest) = (folder(), format!("sha256:{}", "a".repeat(64)));
    let kept = store.path().join(digest.replace(':', "-"));
    std::fs::create_dir(&kept).unwrap();
    let another = std::fs::File::open(&kept).unwrap();
    another.lock().unwrap();
    let model = format!("oci://127.0.0.1:1/vision/tiny@{digest}");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
    let command = command.args(["serve", "--model", &model, "--model-store", store.path().to_str().unwrap()]);
    let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let waits = async { while !log.next_line().await.unwrap().unwrap().contains("another process fetches it") {} };
    timeout(5 * MINUTE, waits).await.unwrap();
    terminate(&child);
    assert_eq!(timeout(5 * MINUTE, child.wait()).await.unwrap().unwrap().code(), Some(0));
}

fn terminate(child: &tokio::process::Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}

#[tokio::test]
async fn two_who_bring_the_same_fetch_it_once() {
    let (store, (registry, from)) = (folder(), registry(&[Mood::Busy], same).await);
    let bring = async || {
        let source = Source::new(&format!("{from}:{TAG}"), &[]).unwrap();
        Store::new(store.path().join("models")).bring(&source, None, "f32", &Trust::default(), MINUTE).await.unwrap()
    };
    let (one, other) = tokio::join!(bring(), bring());
    assert_eq!((&one, &one.digest), (&other, &registry.digest()));
    // The busy answer, and the file.
    assert_eq!(registry.from().len(), 2);
    loaded(&one.folder, &one.digest, "f32").unwrap();
}

/// A head-only update costs the node the head, and what describes the version.
#[tokio::test]
async fn of_an_update_of_the_head_a_store_fetches_the_head_alone() {
    let (store, [base, update]) = (folder(), [folder(), folder()]);
    let typed = serde_json::json!({"input": {"shape": [1, 28, 28]}, "layers": [{"flatten": {}},
        {"dense": {"units": 256, "activation": "relu"}}, {"dense": {"units": 10, "activation": "softmax"}}]});
    sconce_model::artifact::testing::write_drawn(base.path(), typed, 7).unwrap();
    sconce_model::artifact::testing::write_update(update.path(), base.path(), 8).unwrap();
    let store = Store::new(store.path().join("models"));
    for variant in ["f32", "f16", "int8"] {
        let mut pulled = Vec::new();
        for version in [&base, &update] {
            let (registry, from) = registry_of(version.path(), &[], same).await;
            let source = Source::new(&format!("{from}:{TAG}"), &[]).unwrap();
            let kept = store.bring(&source, None, variant, &Trust::default(), MINUTE).await.unwrap();
            loaded(&kept.folder, &kept.digest, variant).unwrap();
            pulled.push((registry.pulled(), kept));
        }
        let [(all, base), (after, kept)] = &pulled[..] else { panic!("two versions") };
        let size = |part: &str| {
            std::fs::metadata(update.path().join(format!("weights/{variant}/{part}.safetensors"))).unwrap().len()
        };
        println!(
            "{variant}: {all} bytes pulled for the version, {after} for the update; its head has {}",
            size("head")
        );
        assert!(*after <= size("head") + (64 << 10) && *after >= size("head"), "{after} of {}", size("head"));
        assert!(size("backbone") > 3 * (64 << 10), "the backbone is no small part: {}", size("backbone"));
        // What has rotted there is no use here: the registry is asked.
        if variant == "f32" {
            let [backbone, other] =
                [&kept.folder, &base.folder].map(|version| version.join("weights/f32/backbone.safetensors"));
            std::fs::remove_file(&backbone).unwrap();
            std::fs::write(other, b"rotten").unwrap();
            let (registry, from) = registry_of(update.path(), &[], same).await;
            let source = Source::new(&format!("{from}:{TAG}"), &[]).unwrap();
            store.bring(&source, None, variant, &Trust::default(), MINUTE).await.unwrap();
            assert!(registry.pulled() >= size("backbone") && backbone.exists());
        }
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_said() {
    let (folder, (_, from)) = (folder(), registry(&[], same).await);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let source = Source::new(&format!("{from}:{TAG}"), &[]).unwrap();
    let error =
        Store::new(file.clone()).bring(&source, None, "f32", &Trust::default(), MINUTE).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("FetchFailed: cannot write {}/sha256-", file.display())), "{error}");
}
