//! What a store holds when its buffer is small, or becomes so.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "common/samples.rs"]
mod samples;

use samples::{label, large, now, sample};
use sconce_collector::counts::Drop;
use sconce_collector::sample::Why;
use sconce_collector::store::{Limits, Outcome, Store, allocate};
use std::path::Path;
use std::time::Duration;

fn limits(mebibytes: u64) -> Limits {
    Limits { max_bytes: mebibytes << 20, max_age: Duration::from_secs(14 * 86_400) }
}

fn on_disk(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// It was carried from segment to segment for ever.
#[test]
fn a_buffer_that_becomes_smaller_is_met_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), limits(64), &now(0), allocate).unwrap();
    for number in 0..200 {
        store.add(&[large(number, 200_000, Why::Hard)], &now(1));
    }
    let of_a_label = large(7, 200_000, Why::Hard).0.id;
    assert!(store.label(of_a_label, label("seven"), &now(2)).unwrap());
    store.limit(limits(32), &now(3)).unwrap();
    let (held, bytes) = store.holds();
    assert!(held > 0 && bytes <= 24 << 20, "{held} samples of {bytes} bytes are held");
    assert!(on_disk(folder.path()) <= 32 << 20, "{} bytes on the disk", on_disk(folder.path()));
    assert!(store.read(&of_a_label).unwrap().is_some(), "what is worth most stays");
    assert_eq!(store.counts().dropped[&Drop::Full], 200 - held);
    for number in 200..300 {
        assert_eq!(store.add(&[large(number, 200_000, Why::Hard)], &now(4)), [Outcome::Kept]);
    }
    // All is on its way: nothing may go, and nothing comes.
    let shard = store.plan(64 << 20, &now(5)).unwrap().unwrap();
    store.limit(limits(4), &now(6)).unwrap();
    assert_eq!(store.add(&[large(400, 200_000, Why::Hard)], &now(7)), [Outcome::Dropped(Drop::Full)]);
    assert_eq!(store.holds().0, shard.ids.len() as u64);
    assert_eq!(store.counts().held(), store.holds().0);
}

/// Each segment begins with the names of what was sent, which are a quarter of the smallest.
#[test]
fn the_smallest_buffer_holds_samples_beside_what_it_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), limits(4), &now(0), allocate).unwrap();
    for round in 0..50_u32 {
        let some: Vec<_> = (0..100).map(|number| sample(&(round * 100 + number).to_be_bytes(), Why::Uniform)).collect();
        store.add(&some, &now(1));
        let shard = store.plan(4 << 20, &now(1)).unwrap().unwrap();
        store.sent(shard.number, 1, &now(1)).unwrap();
    }
    for number in 0..1000 {
        assert_eq!(store.add(&[large(number, 20_000, Why::Hard)], &now(2)), [Outcome::Kept]);
    }
    assert!(store.holds().0 > 50, "{} samples are held", store.holds().0);
    assert!(on_disk(folder.path()) <= 4 << 20, "{} bytes on the disk", on_disk(folder.path()));
    assert_eq!(store.counts().held(), store.holds().0);
}

/// The best of a batch took room for all of it.
#[test]
fn an_easy_sample_takes_no_room_from_a_hard_one_because_it_came_with_a_labelled_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), limits(4), &now(0), allocate).unwrap();
    let mut number = 0;
    while !store.counts().dropped.contains_key(&Drop::Full) {
        store.add(&[large(number, 20_000, Why::Hard)], &now(1));
        number += 1;
    }
    // Some went at once for the last: this one takes what is left of that.
    store.add(&[large(number, 20_000, Why::Hard)], &now(1));
    let (mut labelled, content) = large(10_000, 10_000, Why::Hard);
    labelled.label = Some(label("seven"));
    let easy = |number| large(number, 40_000, Why::Uniform);
    let first = store.add(&[easy(10_001), (labelled.clone(), content.clone())], &now(2));
    assert_eq!(first, [Outcome::Dropped(Drop::Full), Outcome::Kept]);
    let again = store.add(&[easy(10_002), (labelled, content)], &now(3));
    assert_eq!(again, [Outcome::Dropped(Drop::Full), Outcome::Duplicate]);
    assert_eq!(store.counts().held(), store.holds().0);
}
