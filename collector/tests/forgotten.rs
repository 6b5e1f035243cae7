//! What is forgotten where samples go does not go there again.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;
#[path = "common/samples.rs"]
mod samples;

use bytes::Bytes;
use common::bucket::Bucket;
use common::{Collector, access, arrived, files, until};
use sconce_collector::clock::Now;
use sconce_collector::counts::Drop;
use sconce_collector::destination::{Destination as _, Folder, Pace};
use sconce_collector::forgotten::Forgotten;
use sconce_collector::sample::{Id, Media, Sample, Why};
use sconce_collector::shard::pack;
use sconce_collector::store::{Limits, Shard, Store, allocate};
use sconce_collector::upload::send;
use sconce_lake::Lake;
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CONTENTS: [&[u8]; 3] = [b"\x89PNG seven", b"\xff\xd8 eight", br#"{"open": 1}"#];
const LIMITS: Limits = Limits { max_bytes: 16 << 20, max_age: Duration::from_secs(86_400) };

#[test]
fn what_is_held_and_forgotten_is_dropped_and_counted_however_often_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let bucket = Bucket::at(listener);
    let tombstone = |name: &str, content: &[u8]| {
        let table = format!("id,by,at\n{},ann,2026-11-28T12:00:00Z\n", Id::of(content));
        bucket.put(&format!("lake/doors/forgotten/{name}.csv"), table.as_bytes());
    };
    let datasets = json!({"vision/doors": {
        "uri": "s3://lake/doors",
        "privacy": {"policy": "Raw"},
        "sources": [{"http": {}}],
        "upload": {"delaySeconds": 0},
    }});
    let [one, two, three, four] = [1, 2, 3, 4].map(|number| format!("{{\"open\": {number}}}").into_bytes());
    let [one, two, three, four] = [&one, &two, &three, &four].map(|sample| &sample[..]);
    tombstone("a", one);
    // What lies in folders below is passed over: it stopped the whole data set.
    bucket.put("lake/doors/forgotten/old/x.csv", b"seven");
    let collector = Collector::start(folder.path(), &datasets, &access(&endpoint));
    let post = |content: &[u8]| collector.post("/v1/samples/vision/doors", &[], content.to_vec()).0;
    let dropped = |samples: u64| {
        until("it is dropped", || collector.status()["datasets"]["vision/doors"]["dropped"]["Forgotten"] == samples);
    };
    assert_eq!((post(one), post(two)), (201, 201));
    collector.sent("vision/doors", 1);
    dropped(1);
    assert_eq!(post(one), 201, "it is not known here any more");
    dropped(2);
    // Forgotten while the collector runs.
    tombstone("b", three);
    assert_eq!(post(three), 201);
    dropped(3);
    // Another sample in a table that was read before.
    tombstone("b", four);
    assert_eq!(post(four), 201);
    dropped(4);
    let counted = "sconce_collector_dropped_samples_total{dataset=\"vision/doors\",reason=\"Forgotten\"} 4";
    assert!(collector.metrics().contains(counted), "{}", collector.metrics());
    assert_eq!(collector.status()["datasets"]["vision/doors"]["held"], 0);
    bucket.leave(folder.path());
    let all = arrived(&folder.path().join("lake/doors"));
    assert_eq!(all.into_iter().map(|(_, content)| content).collect::<Vec<_>>(), [two]);
    let holds = |(_, content): &(_, Vec<u8>)| content.windows(one.len()).any(|bytes| bytes == one);
    assert!(!files(&folder.path().join("lake")).iter().any(holds), "nowhere in the bucket");
}

#[test]
fn while_it_cannot_be_told_what_is_forgotten_nothing_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    std::fs::create_dir_all(lake.join("forgotten")).unwrap();
    std::fs::write(lake.join("forgotten/by-hand.csv"), "sample\nseven\n").unwrap();
    let datasets = json!({"vision/doors": {
        "uri": format!("file://{}", lake.display()),
        "privacy": {"policy": "Raw"},
        "sources": [{"http": {}}],
        "upload": {"delaySeconds": 0},
    }});
    let collector = Collector::start(folder.path(), &datasets, &[]);
    assert_eq!(collector.post("/v1/samples/vision/doors", &[], br#"{"open": 1}"#.to_vec()).0, 201);
    let told = "forgotten/by-hand.csv: no column id in its first line";
    until("it is told", || collector.log.lock().unwrap().contains(told));
    assert_eq!(collector.status()["datasets"]["vision/doors"]["held"], 1);
    std::fs::remove_file(lake.join("forgotten/by-hand.csv")).unwrap();
    collector.sent("vision/doors", 1);
}

fn sample(content: &[u8]) -> (Sample, Bytes) {
    let (sample, content) = samples::sample(content, Why::Uniform);
    (Sample { media: Media::of(&content).unwrap(), ..sample }, content)
}

fn open(folder: &Path) -> Store {
    Store::open(&folder.join("store"), LIMITS, &Now::read(), allocate).unwrap()
}

/// A process was killed after it had sent a shard, or a part of it, and before it knew; then a sample of it is forgotten. It was sent
/// with the sample once more, or all others under another name.
#[tokio::test]
async fn a_shard_that_is_sent_again_is_what_is_left_of_it_where_it_arrived() {
    for (parts, is_erased) in [(0, true), (1, false), (1, true), (2, false), (2, true)] {
        let folder = tempfile::tempdir().unwrap();
        let lake = folder.path().join("lake");
        let place = Folder::new(lake.clone(), Pace::default());
        std::fs::create_dir(&lake).unwrap();
        let all = CONTENTS.map(sample);
        let planned = {
            let mut store = open(folder.path());
            store.add(&all, &Now::read());
            store.plan(1 << 20, &Now::read()).unwrap().unwrap()
        };
        assert_eq!(planned.ids.len(), 3);
        let packed = pack("node", &planned, &all).unwrap();
        for (name, content) in packed.tar.into_iter().chain([packed.manifest]).take(parts) {
            place.put(&name, content.into()).await.unwrap();
        }
        let reader = Lake::open(&format!("file://{}", lake.display())).unwrap();
        let ids = [all[0].0.id.to_string()].into();
        reader.forget(&ids, "ann", samples::now(0).wall).await.unwrap();
        if is_erased {
            reader.erase(|_, _| {}).await.unwrap();
        }

        let store = Arc::new(Mutex::new(open(folder.path())));
        assert!(send(&store, &place, &mut Forgotten::default(), "node", 1 << 20).await.unwrap());
        reader.erase(|_, _| {}).await.unwrap();
        let Shard { store: name, number, .. } = planned;
        let left = pack("node", &Shard { store: name, number, ids: vec![] }, &all[1..]).unwrap();
        let mut expected: Vec<_> =
            left.tar.into_iter().chain([left.manifest]).map(|(name, content)| (lake.join(name), content)).collect();
        let mut found = files(&lake.join("shards"));
        found.extend(files(&lake.join("manifests")));
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{parts} parts were sent");
        let counts = store.lock().unwrap().counts().clone();
        assert_eq!((counts.kept, counts.sent, counts.dropped[&Drop::Forgotten], counts.held()), (3, 2, 1, 0));
        drop(store);
        assert_eq!(open(folder.path()).counts(), &counts);
    }
}

#[tokio::test]
async fn a_shard_of_nothing_but_what_is_forgotten_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let place = Folder::new(lake.clone(), Pace::default());
    let store = Arc::new(Mutex::new(open(folder.path())));
    let now = Now::read();
    store.lock().unwrap().add(&[sample(CONTENTS[0])], &now);
    store.lock().unwrap().plan(1 << 20, &now).unwrap();
    let table = format!("id,by,at\n{},ann,\n", Id::of(CONTENTS[0]));
    place.put("forgotten/a.csv", table.into()).await.unwrap();
    assert!(!send(&store, &place, &mut Forgotten::default(), "node", 1 << 20).await.unwrap());
    assert_eq!(files(&lake).len(), 1, "the tombstone alone");
    assert_eq!(store.lock().unwrap().holds().0, 0);
}

/// What came just when it had been looked up what is forgotten, was planned, and sent.
#[tokio::test]
async fn what_is_forgotten_is_in_no_shard_though_it_comes_all_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let place = Folder::new(lake.clone(), Pace::default());
    let gone = Id::of(CONTENTS[0]);
    place.put("forgotten/a.csv", format!("id\n{gone}\n").into()).await.unwrap();
    let store = Arc::new(Mutex::new(open(folder.path())));
    let (coming, is_over) = (store.clone(), Arc::new(AtomicBool::new(false)));
    let over = is_over.clone();
    let comes = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            // Whoever sleeps while another has the lock does not get it in between.
            if let Ok(mut store) = coming.try_lock() {
                store.add(&[sample(CONTENTS[0])], &Now::read());
            }
        }
    });
    let mut forgotten = Forgotten::default();
    for number in 0..200 {
        store.lock().unwrap().add(&[sample(format!("{{\"open\": {number}}}").as_bytes())], &Now::read());
        send(&store, &place, &mut forgotten, "node", 1 << 20).await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    comes.join().unwrap();
    let holds = |(_, content): &(_, Vec<u8>)| content.windows(CONTENTS[0].len()).any(|bytes| bytes == CONTENTS[0]);
    assert!(!files(&lake).iter().any(holds));
}
