//! How much it takes, and from whom.

use crate::process::{Process, files};
use crate::registry::{Mood, Registry};
use crate::{LARGE, bytes};
use sconce_model::digest::sha256;
use std::sync::Arc;
use tempfile::{TempDir, tempdir};
use tokio::sync::watch;

struct Bed {
    kept: TempDir,
    registry: Arc<Registry>,
    store: Process,
}

async fn bed(most_bytes: u64) -> Bed {
    let kept = tempdir().unwrap();
    let store = Process::start(kept.path(), most_bytes);
    Bed { registry: Registry::start().await, store, kept }
}

impl Bed {
    async fn pull(&self, digest: &str) {
        assert_eq!(sha256(&self.store.blob(&self.registry, digest).await), digest);
    }

    fn keeps(&self, expected: &[&String]) {
        let mut expected: Vec<_> = expected.iter().map(|digest| digest.replace(':', "-")).collect();
        let mut found = files(self.kept.path(), false);
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn what_was_used_longest_ago_goes_first() {
    let bed = bed(3 * LARGE as u64).await;
    let [a, b, c, d] = [1, 2, 3, 4].map(|seed| bed.registry.add(bytes(seed, LARGE)));
    for digest in [&a, &b, &c, &a, &d] {
        bed.pull(digest).await;
    }
    bed.keeps(&[&a, &c, &d]);
    assert_eq!(bed.store.counted("evictions_total").await, 1);
    assert_eq!(bed.store.counted("kept_bytes").await, 3 * LARGE as u64);
    // The order outlives the process.
    bed.pull(&c).await;
    let Bed { kept, registry, store } = bed;
    store.kill();
    let bed = Bed { store: Process::start(kept.path(), 3 * LARGE as u64), kept, registry };
    bed.pull(&b).await;
    bed.keeps(&[&b, &c, &d]);
}

#[tokio::test]
async fn what_is_being_read_or_written_does_not_go() {
    // So much that no socket takes it in.
    let long = 24 << 20;
    let bed = bed(long as u64 + LARGE as u64).await;
    let read = bed.registry.add(bytes(1, long));
    bed.pull(&read).await;
    let mut reading = bed.store.ask(&bed.registry, &read).await;
    let mut seen = reading.chunk().await.unwrap().unwrap().to_vec();
    let (release, released) = watch::channel(false);
    let written = bed.registry.add(bytes(2, LARGE));
    bed.registry.mood(&written, &[Mood::Held(LARGE / 2, released)]);
    let writing = bed.store.ask(&bed.registry, &written).await;
    // There is no room beside them: it is passed on.
    let other = bed.registry.add(bytes(3, LARGE));
    bed.pull(&other).await;
    assert_eq!(bed.store.counted("requests_total{outcome=\"relayed\"}").await, 1);
    bed.keeps(&[&read]);
    release.send_replace(true);
    assert_eq!(sha256(&writing.bytes().await.unwrap()), written);
    bed.keeps(&[&read, &written]);
    while let Some(chunk) = reading.chunk().await.unwrap() {
        seen.extend_from_slice(&chunk);
    }
    assert_eq!(sha256(&seen), read);
}

#[tokio::test]
async fn what_is_larger_than_all_room_is_passed_on() {
    let bed = bed(LARGE as u64).await;
    let [small, large] = [bed.registry.add(bytes(1, 1000)), bed.registry.add(bytes(2, LARGE + 1))];
    bed.pull(&small).await;
    bed.pull(&large).await;
    bed.keeps(&[&small]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_as_if_there_were_none() {
    let (place, registry) = (tempdir().unwrap(), Registry::start().await);
    let folder = place.path().join("store");
    std::fs::write(&folder, "a file").unwrap();
    let store = Process::start(&folder, 1 << 30);
    let [small, large] = [registry.add(bytes(1, 1000)), registry.add(bytes(2, LARGE))];
    for digest in [&small, &large] {
        assert_eq!(&sha256(&store.blob(&registry, digest).await), digest);
    }
    assert_eq!(store.counted("requests_total{outcome=\"relayed\"}").await, 2);
    // Once it can be used, it is.
    std::fs::remove_file(&folder).unwrap();
    for _ in 0..2 {
        assert_eq!(sha256(&store.blob(&registry, &large).await), large);
    }
    assert_eq!(registry.asked(&large).len(), 2);
    // The disk goes while it runs: what is asked for comes.
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(sha256(&store.blob(&registry, &large).await), large);
    assert_eq!(sha256(&store.blob(&registry, &small).await), small);
}

#[tokio::test]
async fn a_registry_that_hangs_holds_up_no_other_file() {
    let bed = bed(1 << 30).await;
    let slow = Registry::start().await;
    let [kept, new] = [1, 2].map(|seed| bed.registry.add(bytes(seed, LARGE)));
    bed.pull(&kept).await;
    let (_never, held) = watch::channel(false);
    let mut hanging = Vec::new();
    // As many as may be under way, and more.
    for seed in 0..40 {
        let digest = slow.add(bytes(100 + seed, LARGE));
        slow.mood(&digest, &[Mood::Held(LARGE / 2, held.clone())]);
        hanging.push((bed.store.ask(&slow, &digest).await, digest));
    }
    let busy = hanging.iter().filter(|(answer, _)| answer.status() == 503).count();
    assert_eq!(busy, 8);
    bed.pull(&kept).await;
    // The same file of a registry that is well is another download; who goes away makes room for it.
    let first = hanging.remove(0).1;
    drop(hanging);
    assert_eq!(bed.registry.add(bytes(100, LARGE)), first);
    bed.pull_soon(&first).await;
    bed.pull_soon(&new).await;
}

impl Bed {
    /// When there is room for it: nobody is told when others have gone.
    async fn pull_soon(&self, digest: &str) {
        while self.store.ask(&self.registry, digest).await.status() == 503 {
            tokio::task::yield_now().await;
        }
        self.pull(digest).await;
    }
}
