//! A private registry, by a program that others wrote (distribution's, which Debian has): who has the password publishes, fetches
//! and serves, and nobody else. Behind a feature, since the program has to be there.

#![cfg(feature = "strangers")]
#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;
#[path = "../../e2e/src/untried.rs"]
mod untried;

use common::process::{Process, output, tiny};
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use untried::untried;

const PROGRAM: &str = "docker-registry";
/// Of `me` and `hunter2`, by `htpasswd -B`.
const HTPASSWD: &str = "me:$2y$04$LXn6gJgRR/ep25.P29vYru5jzz4ctB4prfNYy3N.AwJxEy2.4X6cq";

/// Ended with its test.
struct Registry {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Registry {
    /// `None` where the program is not there, and that may be so.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("htpasswd"), HTPASSWD).unwrap();
        let config = json!({"version": 0.1, "http": {"addr": address},
            "storage": {"filesystem": {"rootdirectory": path("blobs")}},
            "auth": {"htpasswd": {"realm": "here", "path": path("htpasswd")}}});
        std::fs::write(path("config.yml"), config.to_string()).unwrap();
        let mut serving = Command::new(PROGRAM);
        serving.arg("serve").arg(path("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let child = match serving.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let missing = format!("{PROGRAM} is missing; Debian: apt-get install {PROGRAM}");
                untried(&format!("private registries were NOT tried: {missing}")).unwrap();
                return None;
            }
            Err(error) => panic!("{PROGRAM}: {error}"),
        };
        let mut registry = Self { child, address, folder };
        while TcpStream::connect(&registry.address).is_err() {
            assert_eq!(registry.child.try_wait().unwrap(), None, "the registry has ended");
            std::thread::yield_now();
        }
        Some(registry)
    }

    /// A folder as `docker login` leaves it.
    fn login(&self, name: &str, password: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let entry = json!({"username": "me", "password": password});
        std::fs::write(folder.join("config.json"), json!({"auths": {&self.address: entry}}).to_string()).unwrap();
        folder
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Exit code and all that was said.
fn run(program: &Path, args: &[&str], login: &Path) -> (Option<i32>, String) {
    let ended = output(Command::new(program).args(args).env("DOCKER_CONFIG", login).env("RUST_LOG", "debug"));
    let told = [ended.stdout, ended.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat();
    assert!(!told.contains("hunter"), "{told}");
    (ended.status.code(), told)
}

#[test]
fn who_has_the_password_publishes_fetches_and_serves_and_nobody_else() {
    let Some(registry) = Registry::start() else { return };
    let (model, scratch) = (tiny(), tempfile::tempdir().unwrap());
    let runtime = Path::new(env!("CARGO_BIN_EXE_edge-runtime"));
    let trainer = runtime.with_file_name("sconce-trainer");
    assert!(trainer.exists(), "{} is not built: cargo build --release --workspace --bins", trainer.display());
    let (me, wrong) = (registry.login("me", "hunter2"), registry.login("wrong", "hunter3"));
    let nobody = scratch.path().join("nobody");
    let uri = format!("oci://{}/models/tiny:1.0.0", registry.address);
    let publish = ["publish", model.path().to_str().unwrap(), &uri];
    for other in [&wrong, &nobody] {
        let (code, told) = run(&trainer, &publish, other);
        assert!(code == Some(1) && told.contains("cannot push "), "{told}");
    }
    let (code, told) = run(&trainer, &publish, &me);
    assert_eq!(code, Some(0), "{told}");
    let digest = told.trim().rsplit('@').next().unwrap();

    let to = scratch.path().join("models");
    let repository = uri.strip_suffix(":1.0.0").unwrap();
    let fetch = ["fetch", "--from", repository, "--digest", digest, "--to", to.to_str().unwrap()];
    for (other, who) in [(&wrong, "whom "), (&nobody, "who has no name and password")] {
        let (code, told) = run(runtime, &fetch, other);
        // Connections are told of behind it, too.
        let last = told.lines().rfind(|line| line.starts_with("Unauthorized: the registry does not give "));
        let last = last.unwrap_or_else(|| panic!("{told}"));
        assert_eq!(code, Some(1), "{told}");
        assert!(last.contains(&format!("to somebody {who}")), "{last}");
    }
    let (code, told) = run(runtime, &fetch, &me);
    assert_eq!(code, Some(0), "{told}");

    let store = scratch.path().join("store");
    let serve = ["serve", "--model", &uri, "--model-store", store.to_str().unwrap(), "--rest", common::LOOPBACK];
    let mut server = Process::start_with(&serve, &[("DOCKER_CONFIG", me.to_str().unwrap())]);
    assert_eq!(server.terminate(), Some(0));
    let kept = store.join(digest.replace(':', "-")).join("config.json");
    assert_eq!(std::fs::read(kept).unwrap(), std::fs::read(model.path().join("config.json")).unwrap());
}
