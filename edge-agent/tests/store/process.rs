//! The store as a process, and who asks it.

use crate::registry::Registry;
use reqwest::{Response, StatusCode};
use sconce_edge_runtime::fetch::{FetchError, Source, fetch};
use sconce_model::artifact::signature::Trust;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub struct Process {
    child: Child,
    pub address: String,
    health: String,
}

impl Process {
    /// Started, and listening: its log says where.
    ///
    /// # Panics
    /// On a disk that is nearly full: the store would keep nothing there.
    pub fn start(folder: &Path, most_bytes: u64) -> Self {
        if let Ok(disk) = rustix::fs::statvfs(folder) {
            let is_free = disk.f_bavail > disk.f_blocks / 10;
            assert!(is_free, "a tenth of the disk must be free: make room under {}", folder.display());
        }
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut child = Command::new(env!("CARGO_BIN_EXE_edge-agent"))
            .args(["store", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0", "--log-format", "json", "--folder"])
            .arg(folder)
            .args(["--most-bytes", &most_bytes.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let ready = log.by_ref().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            Some((line["listen"].as_str()?.to_owned(), line["health"].as_str()?.to_owned()))
        });
        let (address, health) = ready.unwrap();
        std::thread::spawn(move || log.for_each(drop));
        Self { child, address, health }
    }

    /// As the power does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An answer that has begun.
    pub async fn ask(&self, registry: &Registry, digest: &str) -> Response {
        let url = format!("{}/v2/vision/tiny/blobs/{digest}?ns={}", self.url(), registry.address);
        reqwest::get(url).await.unwrap()
    }

    pub async fn blob(&self, registry: &Registry, digest: &str) -> Vec<u8> {
        let answer = self.ask(registry, digest).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.bytes().await.unwrap().to_vec()
    }

    /// What a pod does: this store first, and then the registry.
    pub async fn pod(&self, registry: &Registry, digest: &str, variant: &str, to: &Path) -> Result<(), FetchError> {
        pod(&self.url(), registry, digest, variant, to).await
    }

    /// Of the metrics one value.
    pub async fn counted(&self, name: &str) -> u64 {
        let text = reqwest::get(format!("http://{}/metrics", self.health)).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("sconce_store_{name} ")));
        line.unwrap_or("0").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub async fn pod(store: &str, registry: &Registry, digest: &str, variant: &str, to: &Path) -> Result<(), FetchError> {
    let source = Source::of(&[store.to_owned(), registry.uri()], &[])?;
    // Longer than a registry of these tests may need, and short enough to wait for once.
    fetch(&source, digest, variant, to, &Trust::default(), Duration::from_secs(5)).await
}

/// Files of a folder that are kept whole, or not.
pub fn files(folder: &Path, is_partial: bool) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("sha256-") && name.ends_with(".partial") == is_partial).collect()
}
