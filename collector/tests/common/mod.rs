//! The program, really running.

#![allow(dead_code, reason = "each test uses what it needs")]

pub mod bucket;
#[cfg(feature = "strangers")]
pub mod strangers;

use bytes::Bytes;
use sconce_lake::{Lake, Row};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Nothing that a test waits for takes near so long.
const LIMIT: Duration = Duration::from_mins(2);

pub struct Collector {
    child: Child,
    /// `http://HOST:PORT`.
    pub http: String,
    pub local: String,
    pub log: Arc<Mutex<String>>,
}

impl Collector {
    /// With its configuration and its data in a folder.
    pub fn start(folder: &Path, datasets: &Value, variables: &[(&str, &str)]) -> Self {
        configure(folder, datasets);
        let mut child = Command::new(env!("CARGO_BIN_EXE_sconce-collector"))
            .args(["run", "--node-name", "node-a", "--log-format", "json"])
            .args(["--http", "127.0.0.1:0", "--local", "127.0.0.1:0"])
            .arg("--config")
            .arg(folder.join("collect.json"))
            .arg("--data")
            .arg(folder.join("data"))
            .env("RUST_LOG", "trace,hyper=info,h2=info,rustls=info")
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let began = lines.by_ref().find_map(|line| {
            let line: Value = serde_json::from_str(&line).ok()?;
            line["http"].is_string().then_some(line)
        });
        let began = began.expect("the collector says where it listens");
        let address = |name: &str| format!("http://{}", began[name].as_str().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let written = log.clone();
        std::thread::spawn(move || lines.for_each(|line| *written.lock().unwrap() += &(line + "\n")));
        let collector = Self { child, http: address("http"), local: address("local"), log };
        for name in datasets.as_object().unwrap().keys() {
            until("the dataset is collected", || collector.status()["datasets"].get(name).is_some());
        }
        collector
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], content: Vec<u8>) -> (u16, Value) {
        let base = if path.starts_with("/v1/answers") { &self.local } else { &self.http };
        answer(
            headers
                .iter()
                .fold(client().post(format!("{base}{path}")), |request, (name, value)| request.header(*name, *value))
                .body(content),
        )
    }

    pub fn status(&self) -> Value {
        answer(client().get(format!("{}/v1/status", self.local))).1
    }

    pub fn metrics(&self) -> String {
        block(async { client().get(format!("{}/metrics", self.http)).send().await.unwrap().text().await.unwrap() })
    }

    /// Waits until so many samples of a dataset have arrived.
    pub fn sent(&self, dataset: &str, samples: u64) {
        until(&format!("{samples} samples are sent"), || {
            self.status()["datasets"][dataset]["sent"].as_u64() >= Some(samples)
        });
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub fn configure(folder: &Path, datasets: &Value) {
    let config = json!({"schema": 1, "datasets": datasets}).to_string();
    let new = folder.join("collect.json.new");
    std::fs::write(&new, config).unwrap();
    std::fs::rename(new, folder.join("collect.json")).unwrap();
}

fn client() -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::new()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    block(async {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
    })
}

/// Asks again until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn png(picture: &image::RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

/// What has arrived in a folder, as who learns from it reads it: each sample with its bytes, which its name is the digest of.
pub fn arrived(lake: &Path) -> Vec<(Row, Bytes)> {
    let mut arrived = Vec::new();
    // Nothing yet.
    let Ok(lake) = Lake::open(&format!("file://{}", lake.display())) else { return arrived };
    block(async {
        for shard in lake.shards().await.unwrap() {
            let rows = lake.rows(&shard).await.unwrap();
            let contents = lake.contents(&shard, &rows).await.unwrap();
            arrived.extend(rows.into_iter().zip(contents));
        }
    });
    arrived
}

/// The statistics that have arrived in a folder.
pub fn statistics(lake: &Path) -> Vec<Value> {
    let of = |(row, content): (Row, Bytes)| {
        assert_eq!(row.source, "statistics", "nothing else may have arrived");
        serde_json::from_slice(&content).unwrap()
    };
    arrived(lake).into_iter().map(of).collect()
}

/// What opens a bucket of an S3 server.
pub fn access(endpoint: &str) -> [(&'static str, &str); 5] {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ]
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// All files under a folder, with their content.
pub fn files(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(content) = std::fs::read(&path) {
            found.push((path, content));
        }
    }
    found
}

/// Sound that is heard at an address without end: words, over and over, as PCM of 8 bits and 8,000 hertz; and how many seconds of it
/// have been.
pub fn microphone(words: &'static str) -> (String, Arc<AtomicU64>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/sound", listener.local_addr().unwrap());
    let format: Vec<u8> = [1_u16, 1, 8000, 0, 8000, 0, 1, 8].iter().flat_map(|word| word.to_le_bytes()).collect();
    let head = [b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0".as_slice(), &format, b"data\xff\xff\xff\xff"].concat();
    let heard = Arc::new(AtomicU64::new(0));
    let seconds = heard.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 1024]);
            let answered = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n\r\n";
            let mut sent = stream.write_all(answered).and_then(|()| stream.write_all(&head));
            for number in 0_u64.. {
                if sent.is_err() {
                    break;
                }
                // No second is like another.
                let mut second = [&number.to_le_bytes(), words.repeat(7000 / words.len()).as_bytes()].concat();
                second.resize(8000, 128);
                sent = stream.write_all(&second);
                seconds.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (url, heard)
}
