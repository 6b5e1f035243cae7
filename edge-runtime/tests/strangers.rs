//! Public clients, which others have written, against a really running server. They come from PyPI, so this is behind a feature;
//! where they cannot be had it fails, and says what is missing.

#![cfg(feature = "strangers")]
#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::MODEL;
use common::process::{Process, tiny};
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = include_str!("strangers/requirements.txt");
const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/strangers/clients.py");

/// A Python with the clients, made once for each list of requirements, below the folder of builds.
fn python() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("strangers");
    let (python, made) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if std::fs::read_to_string(&made).is_ok_and(|installed| installed == REQUIREMENTS) {
        return python;
    }
    run(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
        "install python3 with venv (Debian: apt-get install python3-venv)",
    );
    let asked = folder.join("asked.txt");
    std::fs::write(&asked, REQUIREMENTS).unwrap();
    run(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&asked),
        "PyPI, or a mirror of it that pip is configured for, must be reachable",
    );
    std::fs::rename(asked, made).unwrap();
    python
}

fn run(command: &mut Command, remedy: &str) {
    let ended = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {remedy}"));
    assert!(ended.status.success(), "{command:?}: {}; {remedy}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn public_clients_find_the_server_that_they_expect() {
    let python = python();
    let model = tiny();
    let mut server = Process::serve(model.path());
    // Another one, which lets clients load and unload.
    let (folder, control) = (format!("{MODEL}={}", model.path().display()), "--model-control-mode");
    let mut open =
        Process::start(&["serve", "--model", &folder, control, "explicit", "--test-models", "--rest", "127.0.0.1:0"]);
    let ended = Command::new(python)
        .args([CLIENTS, "--verbose"])
        .env("SCONCE_GRPC", server.grpc.to_string())
        .env("SCONCE_REST", server.rest.unwrap().to_string())
        .env("SCONCE_OPEN_GRPC", open.grpc.to_string())
        .env("SCONCE_OPEN_REST", open.rest.unwrap().to_string())
        .env("SCONCE_MODEL", MODEL)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    println!("{told}");
    assert!(ended.status.success(), "{told}");
    assert_eq!((server.terminate(), open.terminate()), (Some(0), Some(0)));
}
