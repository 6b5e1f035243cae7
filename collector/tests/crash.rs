//! A process that collects and sends, killed at any moment: no sample is in two manifests, and none that was answered for is lost.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "common/samples.rs"]
mod samples;

use bytes::Bytes;
use parquet::file::reader::SerializedFileReader;
use parquet::record::RowAccessor as _;
use sconce_collector::clock::Now;
use sconce_collector::destination::{Folder, Pace};
use sconce_collector::sample::{Id, Media, Sample, Why};
use sconce_collector::store::{Limits, Outcome, Store, allocate};
use sconce_collector::upload::send;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often it is killed; CI has less time than a night.
const KILLS: &str = "SCONCE_COLLECTOR_KILLS";
const FOLDER: &str = "SCONCE_COLLECTOR_CRASH_FOLDER";
/// So much room that none is dropped for the lack of it, however fast the machine is.
const LIMITS: Limits = Limits { max_bytes: 4 << 30, max_age: Duration::from_secs(86_400) };

fn sample(number: u64) -> (Sample, Bytes) {
    let mut content = number.to_string().into_bytes();
    // Now and then a large one.
    content.resize(content.len() + (number * number % 40_000) as usize, b' ');
    let media = if number.is_multiple_of(3) { Media::Png } else { Media::Json };
    let (sample, content) = samples::sample(&content, Why::Uniform);
    (Sample { media, taken: Now::read(), ..sample }, content)
}

fn open(folder: &Path) -> Store {
    Store::open(&folder.join("store"), LIMITS, &Now::read(), allocate).unwrap()
}

fn destination(folder: &Path) -> Folder {
    Folder::new(folder.join("lake"), Pace::default())
}

/// The process that is killed: keeps samples, says which, and sends shards meanwhile.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let store = Arc::new(Mutex::new(open(folder)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (sending, lake) = (store.clone(), destination(folder));
    runtime.spawn(async move {
        loop {
            send(&sending, &lake, "node", 200_000).await.unwrap();
        }
    });
    let first = std::fs::read_to_string(folder.join("next")).ok().and_then(|next| next.parse().ok()).unwrap_or(0);
    let mut said = std::io::stderr().lock();
    for number in (first..).step_by(4) {
        let batch: Vec<_> = (number..number + 4).map(sample).collect();
        let outcomes = store.lock().unwrap().add(&batch, &Now::read());
        let is_kept = |outcome: &Outcome| matches!(outcome, Outcome::Kept | Outcome::Duplicate);
        assert!(outcomes.iter().all(is_kept), "{outcomes:?}");
        writeln!(said, "kept {}", number + 4).unwrap();
    }
}

/// Runs the process until it has kept a few batches, and some microseconds more; returns up to which number it has said so.
fn killed(folder: &Path, batches: u64, then: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let kept = |line: String| match line.strip_prefix("kept ") {
        Some(number) => number.parse::<u64>().unwrap(),
        None => panic!("the child says: {line}"),
    };
    let mut last = 0;
    for _ in 0..batches {
        last = kept(lines.next().unwrap().unwrap());
    }
    std::thread::sleep(then);
    child.kill().unwrap();
    child.wait().unwrap();
    // What it had said before it died.
    lines
        .map_while(Result::ok)
        .filter(|line| line.starts_with("kept ") && line.len() > 5)
        .for_each(|line| last = last.max(kept(line)));
    last
}

/// The ids in all manifests, and how often.
fn sent(folder: &Path) -> BTreeMap<Id, u32> {
    let mut sent = BTreeMap::new();
    for file in std::fs::read_dir(folder.join("lake/manifests")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        for row in SerializedFileReader::try_from(path.as_path()).unwrap() {
            let id: Id = row.unwrap().get_string(0).unwrap().parse().unwrap();
            *sent.entry(id).or_default() += 1;
        }
    }
    sent
}

#[test]
fn a_process_that_is_killed_at_any_moment_loses_nothing_and_sends_nothing_twice() {
    let kills: u64 = std::env::var(KILLS).ok().map_or(20, |kills| kills.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut kept = 0;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    println!("seed {random:#x}");
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..kills {
        kept = killed(folder, 1 + next(6), Duration::from_micros(next(30_000))).max(kept);
        // Whoever got no answer sends again.
        std::fs::write(folder.join("next"), kept.to_string()).unwrap();
    }
    let store = Arc::new(Mutex::new(open(folder)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async { while send(&store, &destination(folder), "node", 200_000).await.unwrap() {} });

    let sent = sent(folder);
    let twice: Vec<_> = sent.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    let lost: Vec<u64> = (0..kept).filter(|number| !sent.contains_key(&sample(*number).0.id)).collect();
    assert!(lost.is_empty(), "kept and lost: {lost:?} of {kept}");
    let store = store.lock().unwrap();
    let counts = store.counts();
    assert_eq!((counts.sent, counts.kept, &counts.dropped), (sent.len() as u64, sent.len() as u64, &BTreeMap::new()));
    println!("{kills} kills: {kept} answered for, {} sent", sent.len());
}
