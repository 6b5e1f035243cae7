//! Public clients, which others have written, against a really running server. They come from PyPI, so this is behind a feature.
//! Where they cannot be had it fails, and says what is missing; or, where nothing at all can be had and that may be so, it passes,
//! and says that they were not tried ([`untried`]).

#![cfg(feature = "strangers")]
#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;
#[path = "../../model/examples/against_onnx_runtime/python.rs"]
mod python;
#[path = "../../e2e/src/untried.rs"]
mod untried;

use common::MODEL;
use common::process::{Process, output, tiny};
use python::{Nothing, python};
use sconce_edge_runtime::load;
use sconce_model::artifact::files;
use sconce_model::artifact::signature::{PrivateKey, SIGNATURE, Trust, sign};
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use untried::untried;

const REQUIREMENTS: &str = include_str!("strangers/requirements.txt");

/// Of an environment with all of them, made once; `None` if nothing is to be tried.
fn interpreter() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("strangers");
        match python(&folder, REQUIREMENTS) {
            Ok(interpreter) => Some(interpreter),
            Err(why) if why.is::<Nothing>() => {
                untried(&format!("clients that others wrote were NOT tried: {Nothing}: {why}")).unwrap();
                None
            }
            Err(error) => panic!("{error:#}"),
        }
    });
    made.as_deref()
}

fn file(name: &str) -> String {
    file_of("strangers", name)
}

fn file_of(tests: &str, name: &str) -> String {
    format!("{}/tests/{tests}/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// One that lets clients load and unload, and has what Triton's examples ask.
fn open(model: &Path) -> Process {
    let folder = format!("{MODEL}={}", model.display());
    let model = ["--model", &folder, "--model-control-mode", "explicit"];
    Process::start(&[&["serve", "--rest", "127.0.0.1:0", "--test-models", "--id", "triton"][..], &model].concat())
}

/// One that routes to `server`, as a file in `scratch` says.
fn router(server: &Process, scratch: &Path) -> Process {
    let routes = scratch.join("routes.json");
    let backend = json!({"tier": "Edge", "address": server.grpc});
    std::fs::write(&routes, json!({"schema": 1, "models": {MODEL: {"backends": [backend]}}}).to_string()).unwrap();
    Process::start(&["route", "--routes", routes.to_str().unwrap()])
}

/// Runs a program of theirs against servers of its own.
fn ask(args: impl FnOnce(&Process) -> Vec<String>) {
    let Some(interpreter) = interpreter() else { return };
    let (model, scratch) = (tiny(), tempfile::tempdir().unwrap());
    let (mut server, mut open) = (Process::serve(model.path()), open(model.path()));
    let mut router = router(&server, scratch.path());
    let mut asking = Command::new(interpreter);
    asking
        .args(args(&server))
        .env("SCONCE_GRPC", server.grpc.to_string())
        .env("SCONCE_REST", server.rest.unwrap().to_string())
        .env("SCONCE_OPEN_GRPC", open.grpc.to_string())
        .env("SCONCE_OPEN_REST", open.rest.unwrap().to_string())
        .env("SCONCE_ROUTED", router.grpc.to_string())
        .env("SCONCE_MODEL", MODEL)
        .current_dir(scratch.path());
    let ended = output(&mut asking);
    let told = [ended.stdout, ended.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat();
    println!("{told}");
    assert!(ended.status.success(), "{told}");
    assert_eq!([&mut router, &mut server, &mut open].map(Process::terminate), [Some(0); 3]);
}

#[test]
fn tritons_clients_find_the_server_that_they_expect() {
    ask(|_| vec![file("tritons.py"), "--verbose".into()]);
}

#[test]
fn tritons_examples_find_the_models_that_they_ask() {
    ask(|_| vec![file("examples.py"), "--verbose".into()]);
}

#[test]
fn kserves_clients_find_the_server_that_they_expect() {
    ask(|_| vec![file("kserves.py"), "--verbose".into()]);
}

#[test]
fn who_knows_no_messages_learns_them_by_reflection() {
    ask(|_| vec![file("reflection.py"), "--verbose".into()]);
}

/// Theirs verifies what we sign, and we what theirs signs; both see that a file was changed.
#[test]
fn signatures_are_those_of_model_signing() {
    let Some(interpreter) = interpreter() else { return };
    let (folder, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = folder.path();
    sconce_model::artifact::testing::write_tiny(model, 7).unwrap();
    let [private, public] = ["key.pem", "key.pub"].map(|name| file_of("fetching", name));
    let key = PrivateKey::from_pem(&std::fs::read_to_string(&private).unwrap()).unwrap();
    let trust = Trust::from_pem(&std::fs::read_to_string(&public).unwrap()).unwrap();
    let (ours, theirs) = (model.join(SIGNATURE), scratch.path().join("theirs.sig"));
    let digests = files(model).unwrap().into_iter().map(|file| (file.path, file.digest)).collect();
    std::fs::write(&ours, sign("tiny", &digests, &key)).unwrap();
    let run = |verb: &str, signature: &Path, key: &str| {
        let mut command = Command::new(interpreter);
        command.args(["-m", "model_signing", verb, "key"]).arg(model).arg("--signature").arg(signature);
        let ended = output(
            command.arg("--ignore-paths").arg(&ours).args([key, if verb == "sign" { &private } else { &public }]),
        );
        (
            ended.status.success(),
            [ended.stdout, ended.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat(),
        )
    };
    let (verified, told) = run("verify", &ours, "--public_key");
    assert!(verified, "{told}");
    let (signed, told) = run("sign", &theirs, "--private_key");
    assert!(signed, "{told}");
    std::fs::copy(&theirs, &ours).unwrap();
    load::open(model, None, &trust).unwrap();
    std::fs::write(model.join("config.json"), "{}").unwrap();
    let (verified, told) = run("verify", &theirs, "--public_key");
    assert!(!verified && told.contains("config.json"), "{told}");
    assert!(load::open(model, None, &trust).is_err());
}

/// A registry that others wrote (go-containerregistry's), ended with its test.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    /// The one that kubebox holds for its clusters; blobs lie in a folder.
    fn start(folder: &Path) -> Self {
        let programs = std::env::var_os("KUBEBOX_BIN").expect("KUBEBOX_BIN is not set: run by make");
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut serving = Command::new(Path::new(&programs).join("kubebox"));
        let child = serving.args(["registry", &address]).arg(folder).stderr(Stdio::null()).spawn();
        let mut registry = Self { child: child.expect("kubebox is built by make"), address };
        while TcpStream::connect(&registry.address).is_err() {
            assert_eq!(registry.child.try_wait().unwrap(), None, "the registry has ended");
            std::thread::yield_now();
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// All files under a folder, with their digests.
fn held(folder: &Path) -> Vec<(String, String)> {
    files(folder).unwrap().into_iter().map(|file| (file.path, file.digest)).collect()
}

/// Theirs pulls what we publish, file by file the same, and we serve what theirs has pulled.
#[test]
fn what_is_published_is_a_modelpack_to_the_client_of_modelpack() {
    let Some(interpreter) = interpreter() else { return };
    let (model, scratch) = (tiny(), tempfile::tempdir().unwrap());
    let registry = Registry::start(scratch.path());
    let trainer = Path::new(env!("CARGO_BIN_EXE_edge-runtime")).with_file_name("sconce-trainer");
    assert!(trainer.exists(), "{} is not built: cargo build --release --workspace --bins", trainer.display());
    let reference = format!("{}/models/tiny:1.0.0", registry.address);
    let run = |command: &mut Command| {
        let ended = output(command);
        let told = [ended.stdout, ended.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat();
        assert!(ended.status.success(), "{told}");
        told
    };
    let key = file_of("fetching", "key.pem");
    let publish = ["--signing-key", &key, &format!("oci://{reference}")];
    let told = run(Command::new(trainer).arg("publish").arg(model.path()).args(publish));
    let digest = told.trim().rsplit('@').next().unwrap();
    let (by_tag, by_digest) = (scratch.path().join("by-tag"), scratch.path().join("by-digest"));
    let pull = |reference: &str, to: &Path| {
        run(Command::new(interpreter).args(["-m", "modelpack_client", "--insecure", "pull", reference]).arg(to));
    };
    pull(&reference, &by_tag);
    pull(&format!("{}/models/tiny@{digest}", registry.address), &by_digest);
    // With the signature.
    let published = held(model.path());
    assert_eq!((held(&by_tag), held(&by_digest)), (published.clone(), published));
    assert_eq!(std::fs::read(by_tag.join(SIGNATURE)).unwrap(), std::fs::read(model.path().join(SIGNATURE)).unwrap());
    let trust = Trust::from_pem(&std::fs::read_to_string(file_of("fetching", "key.pub")).unwrap()).unwrap();
    load::open(&by_digest, None, &trust).unwrap().plan("int8").unwrap();
}

/// schemathesis draws requests, good and bad ones, and holds each answer against the description.
#[test]
fn rest_does_what_its_description_says() {
    ask(|server| {
        let args = format!(
            "-m schemathesis.cli run {} --url http://{} --checks all --phases examples,coverage,fuzzing --max-examples 50 \
             --generation-deterministic --no-color",
            file("openapi.yaml"),
            server.rest.unwrap()
        );
        args.split_whitespace().map(str::to_owned).collect()
    });
}
