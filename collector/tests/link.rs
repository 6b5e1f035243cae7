//! The link: closed for a part of the day, slow, and away for three days.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;
#[path = "common/samples.rs"]
mod samples;

use common::bucket::Bucket;
use common::{Collector, access, arrived, configure, free_port, until};
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use samples::sample;
use sconce_collector::clock::Now;
use sconce_collector::destination::{Pace, S3};
use sconce_collector::forgotten::Forgotten;
use sconce_collector::sample::Why;
use sconce_collector::store::{Limits, Outcome, Store, allocate};
use sconce_collector::upload::{UploadError, send};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LATER: &str = "/v1/samples/vision/later";
const CLOSED: &str = "/v1/samples/vision/closed";

/// A dataset that is sent for an hour, from a moment on.
fn from(lake: &Path, start: Timestamp) -> Value {
    let time = |at: Timestamp| at.strftime("%H:%M:%S").to_string();
    json!({
        "uri": format!("file://{}", lake.display()),
        "privacy": {"policy": "Raw"},
        "sources": [{"http": {}}],
        "upload": {"delaySeconds": 0, "window": {"start": time(start), "end": time(start + 1.hour())}},
    })
}

#[test]
fn while_its_window_is_closed_nothing_is_sent_and_then_all_is() {
    let folder = tempfile::tempdir().unwrap();
    let (later, closed) = (folder.path().join("later"), folder.path().join("closed"));
    let now = Timestamp::now();
    // To the second before: a window has no parts of one.
    let opens = Timestamp::from_second(now.as_second()).unwrap() + 4.seconds();
    let in_hours = json!({"vision/later": from(&later, opens), "vision/closed": from(&closed, now + 6.hours())});
    let collector = Collector::start(folder.path(), &in_hours, &[]);
    let told = |name: &str| collector.status()["datasets"][name].clone();
    for path in [CLOSED, LATER] {
        assert_eq!(collector.post(path, &[], b"{\"open\": 1}".to_vec()).0, 201);
    }
    until("it is sent", || {
        let is_sent = told("vision/later")["sent"] == 1;
        assert!(!is_sent || Timestamp::now() >= opens, "before its window opens");
        is_sent
    });
    // It was due for as long, and its window is not open yet.
    let waits = told("vision/closed");
    assert_eq!((&waits["sent"], &waits["held"], arrived(&closed)), (&json!(0), &json!(1), Vec::new()));
    let open = json!({"vision/later": from(&later, opens), "vision/closed": from(&closed, now - 30.minutes())});
    configure(folder.path(), &open);
    collector.sent("vision/closed", 1);
    assert_eq!((arrived(&closed).len(), arrived(&later).len()), (1, 1));
}

/// On the wire. Who is slow to read has seen less by then, and never more: the machine's speed fails nothing here.
#[test]
fn no_more_leaves_than_the_rate_allows() {
    const RATE: u64 = 64 << 10;
    const CONTENT: usize = 192 << 10;
    /// Sent at once.
    const SLICE: u64 = 16 << 10;
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let bucket = Bucket::at(listener);
    let datasets = json!({"vision/later": {
        "uri": "s3://lake/digits",
        "privacy": {"policy": "Raw"},
        "sources": [{"http": {}}],
        "upload": {"delaySeconds": 0, "bytesPerSecond": RATE},
    }});
    let collector = Collector::start(folder.path(), &datasets, &access(&endpoint));
    let began = Instant::now();
    let mut content = vec![7; CONTENT];
    content[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    assert_eq!(collector.post(LATER, &[], content).0, 201);
    collector.sent("vision/later", 1);
    let mut bytes = 0;
    for (at, more) in bucket.came() {
        bytes += more;
        let since = at - began;
        let allowed = since.as_secs_f64() * RATE as f64 + SLICE as f64;
        assert!(bytes as f64 <= allowed, "{bytes} bytes within {since:?}");
    }
    assert!(bytes > CONTENT as u64, "{bytes} bytes have come");
    bucket.leave(folder.path());
    assert_eq!(arrived(&folder.path().join("lake/digits")).len(), 1);
}

const PORT: &str = "SCONCE_COLLECTOR_PORT";

/// By an injected clock; the port is closed till then. A client of S3 is configured by the environment of its process alone, so
/// the test runs in one of its own.
#[test]
fn three_days_without_a_destination_lose_nothing_and_then_each_sample_arrives_once() {
    let Some(port) = std::env::var_os(PORT) else {
        let port = free_port();
        let this = "three_days_without_a_destination_lose_nothing_and_then_each_sample_arrives_once";
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args([this, "--exact", "--nocapture"]).env(PORT, port.to_string());
        test.envs(access(&format!("http://127.0.0.1:{port}")));
        return assert!(test.status().unwrap().success());
    };
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let began = Now::read();
    let at = |hour: i64| Now {
        wall: began.wall + SignedDuration::from_hours(hour),
        since_boot: began.since_boot + hour.unsigned_abs() * 3_600_000,
        ..began.clone()
    };
    // An hour more than they are held.
    let limits = Limits { max_bytes: 16 << 20, max_age: Duration::from_secs(73 * 3600) };
    let open = |hour| Store::open(&folder.path().join("store"), limits.clone(), &at(hour), allocate).unwrap();
    let s3 = S3::new("lake/digits", Pace::default()).unwrap();
    let sent = |store: &Arc<Mutex<Store>>| runtime.block_on(send(store, &s3, &mut Forgotten::default(), "node", 4096));
    let mut ids = Vec::new();
    let mut store = Arc::new(Mutex::new(open(0)));
    for hour in 0..=72 {
        let one = sample(format!("{{\"hour\": {hour}}}").as_bytes(), Why::Uniform);
        ids.push(one.0.id.to_string());
        assert_eq!(store.lock().unwrap().add(&[one], &at(hour)), [Outcome::Kept]);
        store.lock().unwrap().expire(&at(hour)).unwrap();
        if hour % 12 == 0 {
            assert!(matches!(sent(&store), Err(UploadError::Forgotten(_))), "nobody is there");
            // And the node starts anew.
            drop(store);
            store = Arc::new(Mutex::new(open(hour)));
        }
    }
    {
        let store = store.lock().unwrap();
        assert_eq!((store.holds().0, store.counts().sent, store.counts().dropped.len()), (73, 0, 0));
    }
    let port: u16 = port.to_str().unwrap().parse().unwrap();
    let bucket = Bucket::at(TcpListener::bind(("127.0.0.1", port)).unwrap());
    while sent(&store).unwrap() {}
    bucket.leave(folder.path());
    let mut came: Vec<_> = arrived(&folder.path().join("lake/digits")).into_iter().map(|(row, _)| row.id).collect();
    came.sort();
    ids.sort();
    assert_eq!(came, ids, "each once");
    let store = store.lock().unwrap();
    assert_eq!((store.holds().0, store.counts().sent), (0, 73));
}
