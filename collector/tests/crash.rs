//! A process that collects and sends, killed at any moment: no sample is in two manifests, and none that was answered for is lost.
//! First the store and what sends it, thousands of samples a second; then the program itself.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;
#[path = "common/samples.rs"]
mod samples;

use bytes::Bytes;
use common::{Collector, arrived, until};
use parquet::file::reader::SerializedFileReader;
use parquet::record::RowAccessor as _;
use sconce_collector::clock::Now;
use sconce_collector::destination::{Folder, Pace};
use sconce_collector::forgotten::Forgotten;
use sconce_collector::sample::{Id, Media, Sample, Why};
use sconce_collector::store::{Limits, Outcome, Store, allocate};
use sconce_collector::upload::send;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often each is killed. Unset: the store often, the program, which takes longer to begin anew, less so.
const KILLS: &str = "SCONCE_COLLECTOR_KILLS";
const FOLDER: &str = "SCONCE_COLLECTOR_CRASH_FOLDER";
/// So much room that none is dropped for the lack of it, however fast the machine is.
const LIMITS: Limits = Limits { max_bytes: 4 << 30, max_age: Duration::from_secs(86_400) };

/// Files, and measurements.
fn content(number: u64) -> Vec<u8> {
    let mut content = if number.is_multiple_of(3) { b"\x89PNG".to_vec() } else { Vec::new() };
    content.extend(number.to_string().bytes());
    // Now and then a large one.
    content.resize(content.len() + (number * number % 40_000) as usize, b' ');
    content
}

fn sample(number: u64) -> (Sample, Bytes) {
    let content = content(number);
    let media = Media::of(&content).unwrap();
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
            send(&sending, &lake, &mut Forgotten::default(), "node", 200_000).await.unwrap();
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

fn kills(unset: u64) -> u64 {
    std::env::var(KILLS).ok().map_or(unset, |kills| kills.parse().unwrap())
}

/// Numbers below others, as they come.
fn random() -> impl FnMut(u64) -> u64 {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    println!("seed {random:#x}");
    move |below| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    }
}

#[test]
fn a_process_that_is_killed_at_any_moment_loses_nothing_and_sends_nothing_twice() {
    let kills = kills(200);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut kept = 0;
    let mut next = random();
    for _ in 0..kills {
        kept = killed(folder, 1 + next(6), Duration::from_micros(next(30_000))).max(kept);
        // Whoever got no answer sends again.
        std::fs::write(folder.join("next"), kept.to_string()).unwrap();
    }
    let store = Arc::new(Mutex::new(open(folder)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (lake, mut forgotten) = (destination(folder), Forgotten::default());
    runtime.block_on(async { while send(&store, &lake, &mut forgotten, "node", 200_000).await.unwrap() {} });

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

/// Who posts samples, and notes which it got an answer for.
#[derive(Default)]
struct Book {
    next: u64,
    /// Those that got none are sent again, after newer ones.
    again: Vec<u64>,
    answered: BTreeSet<u64>,
}

/// Posts one after the other, until nobody answers.
async fn post(client: reqwest::Client, url: String, book: Arc<Mutex<Book>>, only_again: bool) {
    loop {
        let number = {
            let mut book = book.lock().unwrap();
            let unanswered = if only_again || book.next.is_multiple_of(8) { book.again.pop() } else { None };
            if only_again && unanswered.is_none() {
                return;
            }
            unanswered.unwrap_or_else(|| {
                book.next += 1;
                book.next
            })
        };
        let answer = client.post(&url).body(content(number)).send().await.map(|answer| answer.status().as_u16());
        let mut book = book.lock().unwrap();
        match answer {
            Ok(200 | 201) => drop(book.answered.insert(number)),
            Ok(other) => panic!("{other} for {number}"),
            Err(_) => return book.again.push(number),
        }
    }
}

/// Kills the program while it takes samples and sends them to `uri`, and then lets it send the rest. `leave` copies what has
/// arrived into the folder `lake`, which is looked into.
fn program_is_killed(folder: &Path, uri: &str, variables: &[(&str, &str)], leave: impl FnOnce(&Path)) {
    let datasets = json!({"vision/digits": {
        "uri": uri,
        "privacy": {"policy": "Raw"},
        "sources": [{"http": {}}],
        // So slow that kills fall into what is on its way.
        "upload": {"delaySeconds": 0, "bytesPerSecond": 512 << 10},
    }});
    let start = || Collector::start(folder, &datasets, variables);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let book = Arc::new(Mutex::new(Book::default()));
    let posts = |collector: &Collector, only_again| {
        let url = format!("{}/v1/samples/vision/digits", collector.http);
        let client = reqwest::Client::new();
        let each = || runtime.spawn(post(client.clone(), url.clone(), book.clone(), only_again));
        (0..4).map(|_| each()).collect::<Vec<_>>()
    };
    let ended = |posts: Vec<tokio::task::JoinHandle<()>>| {
        posts.into_iter().for_each(|post| runtime.block_on(post).unwrap());
    };
    let answered = || book.lock().unwrap().answered.len() as u64;
    let (kills, mut next) = (kills(20), random());
    for _ in 0..kills {
        let collector = start();
        let posting = posts(&collector, false);
        let enough = answered() + 4 * next(3);
        until("some are answered for", || answered() >= enough);
        std::thread::sleep(Duration::from_micros(next(300_000)));
        collector.kill();
        ended(posting);
    }
    let collector = start();
    ended(posts(&collector, true));
    until("all that is held is sent", || collector.status()["datasets"]["vision/digits"]["held"] == 0);
    let status = collector.status()["datasets"]["vision/digits"].clone();
    collector.kill();
    leave(folder);
    let mut times: BTreeMap<Id, u64> = BTreeMap::new();
    arrived(&folder.join("lake")).iter().for_each(|(_, content)| *times.entry(Id::of(content)).or_default() += 1);
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "sent twice: {twice:?}");
    let book = book.lock().unwrap();
    let lost: Vec<_> = book.answered.iter().filter(|number| !times.contains_key(&Id::of(&content(**number)))).collect();
    assert!(lost.is_empty(), "answered for and lost: {lost:?} of {}", book.answered.len());
    let sent = json!(times.len());
    assert_eq!((&status["sent"], &status["kept"], status.get("dropped")), (&sent, &sent, None), "{status}");
    println!("{kills} kills of the program: {} answered for, {sent} sent", book.answered.len());
}

#[test]
fn the_program_that_is_killed_at_any_moment_loses_nothing_and_sends_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("file://{}", folder.path().join("lake").display());
    program_is_killed(folder.path(), &uri, &[], |_| {});
}

#[test]
#[cfg(feature = "strangers")]
fn nor_does_it_where_it_sends_to_a_bucket() {
    use common::strangers::{bucket, interpreter, leave, moto};
    use common::{access, free_port};
    let Some(interpreter) = interpreter() else { return };
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let _s3 = moto(&interpreter, port);
    let endpoint = format!("http://127.0.0.1:{port}");
    let variables = access(&endpoint);
    bucket(&interpreter, &variables);
    program_is_killed(folder.path(), "s3://lake/lake", &variables, |folder| leave(&interpreter, &variables, folder));
}
