//! The store against crashes, full disks and clocks that jump.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "common/samples.rs"]
mod samples;
#[path = "../../e2e/src/untried.rs"]
mod untried;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use samples::{label, large, now, sample};
use sconce_collector::clock::Now;
use sconce_collector::counts::Drop;
use sconce_collector::privacy::{Mask, Privacy};
use sconce_collector::sample::{Id, Sample, Why};
use sconce_collector::store::{Allocate, Limits, Outcome, Store, allocate};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LIMITS: Limits = Limits { max_bytes: 16 << 20, max_age: Duration::from_secs(14 * 86_400) };

fn open(folder: &Path, second: i64) -> Store {
    Store::open(folder, LIMITS, &now(second), allocate).unwrap()
}

fn is_balanced(store: &Store) -> bool {
    store.counts().held() == store.holds().0
}

#[test]
fn what_was_kept_is_there_again_after_a_start_and_is_not_kept_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (seven, eight) = (sample(b"7", Why::Uniform), sample(b"8", Why::Hard));
    let mut store = open(folder.path(), 0);
    let outcomes = store.add(&[seven.clone(), eight.clone(), seven.clone()], &now(1));
    assert_eq!(outcomes, [Outcome::Kept, Outcome::Kept, Outcome::Duplicate]);
    assert!(store.label(seven.0.id, label("seven"), &now(2)).unwrap());
    drop(store);

    let mut store = open(folder.path(), 3);
    assert_eq!(store.ids(), [seven.0.id, eight.0.id]);
    let (read, payload) = store.read(&seven.0.id).unwrap().unwrap();
    assert_eq!((read.label, payload), (Some(label("seven")), seven.1.clone()));
    let shard = store.plan(1 << 20, &now(4)).unwrap().unwrap();
    assert_eq!(shard.ids, [seven.0.id, eight.0.id]);
    assert!(!store.label(eight.0.id, label("eight"), &now(4)).unwrap(), "it is on its way");
    drop(store);

    let mut store = open(folder.path(), 5);
    assert_eq!(store.plan(1 << 20, &now(5)).unwrap().unwrap(), shard, "the same shard under the same name");
    store.sent(shard.number, 100, &now(6)).unwrap();
    assert_eq!(store.add(&[seven], &now(7)), [Outcome::Duplicate], "what was sent is remembered");
    drop(store);
    let store = open(folder.path(), 8);
    let counts = store.counts();
    assert_eq!((counts.kept, counts.sent, counts.sent_bytes, store.holds()), (2, 2, 100, (0, 0)));
    assert_eq!(counts.labelled, 1, "by feedback, while it was held");
}

#[test]
fn one_process_has_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let _store = open(folder.path(), 0);
    assert!(Store::open(folder.path(), LIMITS, &now(0), allocate).is_err());
}

#[test]
fn the_unlabelled_and_easy_go_first_and_the_labelled_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 0);
    let bytes = 64 << 10;
    let first: Vec<_> =
        (0..60).map(|number| large(number, bytes, if number % 3 == 0 { Why::Hard } else { Why::Uniform })).collect();
    store.add(&first, &now(1));
    assert!(store.label(first[1].0.id, label("one"), &now(2)).unwrap());
    for number in 60..500 {
        assert_eq!(store.add(&[large(number, bytes, Why::Uniform)], &now(i64::from(number))), [Outcome::Kept]);
    }
    assert!(is_balanced(&store));
    assert!(store.holds().1 <= LIMITS.max_bytes / 4 * 3);
    let held: BTreeSet<Id> = store.ids().into_iter().collect();
    let kept: Vec<usize> = (0..60).filter(|&number| held.contains(&first[number].0.id)).collect();
    assert_eq!(kept, (0..60).filter(|number| number % 3 == 0 || *number == 1).collect::<Vec<_>>());
    // When nothing easy is left, hard ones go; a labelled one never goes for an unlabelled one.
    for number in 500..800 {
        store.add(&[large(number, bytes, Why::Hard)], &now(i64::from(number)));
    }
    assert!(store.read(&first[1].0.id).unwrap().is_some());
    assert!(store.read(&first[0].0.id).unwrap().is_none());
    assert_eq!(store.add(&[large(900, bytes, Why::Uniform)], &now(900)), [Outcome::Dropped(Drop::Full)]);
    assert!(is_balanced(&store));
    let on_disk: u64 =
        std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk <= LIMITS.max_bytes, "{on_disk} bytes on the disk");
    drop(store);
    assert!(is_balanced(&open(folder.path(), 901)));
}

#[test]
fn what_is_held_for_too_long_goes_by_the_time_that_passed_and_no_clock() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 0);
    store.add(&[sample(b"old", Why::Hard)], &now(1));
    store.plan(1 << 20, &now(1)).unwrap().unwrap();
    let day = 86_400;
    for jump in [-400 * day, day, 400 * day] {
        let now = Now { wall: Timestamp::from_second(1_800_000_000 + jump).unwrap(), ..now(100) };
        store.expire(&now).unwrap();
        store.add(&[sample(b"new", Why::Hard)], &now);
        assert_eq!(store.holds().0, 2, "after a jump of {jump} s");
    }
    // Three days without a network are nothing; fifteen are too many.
    store.expire(&now(3 * day)).unwrap();
    assert_eq!(store.holds().0, 2);
    store.expire(&now(15 * day)).unwrap();
    assert_eq!((store.holds().0, store.counts().dropped[&Drop::Expired]), (1, 1));
    // What is planned may have arrived, though we were not told: it is sent as it was planned, or would be in two manifests.
    let shard = store.plan(1 << 20, &now(15 * day)).unwrap().unwrap();
    assert_eq!(shard.ids, [Id::of(b"old")]);
    store.sent(shard.number, 1, &now(15 * day)).unwrap();
    assert_eq!(store.plan(1 << 20, &now(15 * day)).unwrap(), None);
}

/// Its clock was written with samples alone: each night took it back to when the last one came.
#[test]
fn samples_grow_old_on_a_node_that_starts_anew_each_night() {
    let folder = tempfile::tempdir().unwrap();
    let at = |day: i64, hour: i64| Now { boot: format!("boot {day}"), ..now(day * 86_400 + hour * 3600) };
    let mut store = Store::open(folder.path(), LIMITS, &at(0, 8), allocate).unwrap();
    store.add(&[sample(b"old", Why::Hard)], &at(0, 9));
    // Of each night an hour counts: ten hours a day.
    for day in 0..36 {
        (8..18).for_each(|hour| store.expire(&at(day, hour)).unwrap());
        assert!(day >= 14 || store.holds().0 == 1, "after {day} days");
        drop(store);
        store = Store::open(folder.path(), LIMITS, &at(day + 1, 8), allocate).unwrap();
    }
    assert_eq!((store.holds().0, store.counts().dropped.get(&Drop::Expired)), (0, Some(&1)));
}

#[test]
fn what_is_held_for_another_place_is_dropped_and_what_arrived_there_is_new_here() {
    let folder = tempfile::tempdir().unwrap();
    let (sent, held) = (sample(b"sent", Why::Uniform), sample(b"held", Why::Uniform));
    let mut store = open(folder.path(), 0);
    assert_eq!(store.bound_for("s3://a", &now(0)).unwrap(), 0);
    store.add(std::slice::from_ref(&sent), &now(1));
    let shard = store.plan(1 << 20, &now(2)).unwrap().unwrap();
    store.sent(shard.number, 9, &now(3)).unwrap();
    store.add(std::slice::from_ref(&held), &now(4));
    let mut store = {
        drop(store);
        open(folder.path(), 5)
    };
    assert_eq!(store.bound_for("s3://a", &now(5)).unwrap(), 0, "the same place");
    assert_eq!(store.add(&[sent.clone(), held.clone()], &now(6)), [Outcome::Duplicate; 2]);
    assert_eq!(store.bound_for("s3://b", &now(7)).unwrap(), 1);
    assert_eq!((store.holds().0, store.counts().dropped[&Drop::Forgotten]), (0, 1));
    drop(store);
    let mut store = open(folder.path(), 8);
    assert_eq!(store.bound_for("s3://b", &now(8)).unwrap(), 0);
    assert_eq!(store.add(&[sent, held], &now(9)), [Outcome::Kept; 2]);
    assert!(is_balanced(&store));
}

#[test]
fn who_sends_a_sample_again_with_a_label_labels_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 0);
    let labelled = |content: &[u8], value: &str| {
        let (sample, content) = sample(content, Why::Uniform);
        (Sample { label: Some(label(value)), ..sample }, content)
    };
    let (seven, eight) = (sample(b"7", Why::Uniform), sample(b"8", Why::Uniform));
    store.add(std::slice::from_ref(&seven), &now(1));
    let again = [labelled(b"7", "seven"), eight, labelled(b"8", "eight"), labelled(b"7", "one")];
    let outcomes = store.add(&again, &now(2));
    assert_eq!(outcomes, [Outcome::Duplicate, Outcome::Kept, Outcome::Duplicate, Outcome::Duplicate]);
    for (sample, value) in [(&again[0].0, "seven"), (&again[2].0, "eight")] {
        assert_eq!(store.read(&sample.id).unwrap().unwrap().0.label, Some(label(value)));
    }
}

static DISK_IS_FULL: AtomicBool = AtomicBool::new(false);

#[test]
fn a_full_disk_refuses_samples_and_goes_on_when_it_has_room() {
    let full = |file: &std::fs::File, bytes| {
        if DISK_IS_FULL.load(Ordering::Relaxed) { Err(Error::from_raw_os_error(28)) } else { allocate(file, bytes) }
    };
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), LIMITS, &now(0), full).unwrap();
    store.add(&[sample(b"first", Why::Uniform)], &now(1));
    DISK_IS_FULL.store(true, Ordering::Relaxed);
    let outcomes: Vec<_> =
        (0..100).flat_map(|number| store.add(&[large(number, 64 << 10, Why::Uniform)], &now(2))).collect();
    let kept = outcomes.iter().filter(|outcome| **outcome == Outcome::Kept).count();
    assert!((1..100).contains(&kept), "the rest of a segment is there");
    assert_eq!(outcomes[99], Outcome::Dropped(Drop::DiskFull));
    assert_eq!(store.counts().dropped[&Drop::DiskFull], 100 - kept as u64);
    // What is held can still be sent, and that it was is told.
    let shard = store.plan(64 << 20, &now(3)).unwrap().unwrap();
    assert_eq!(shard.ids.len(), kept + 1);
    store.sent(shard.number, 1, &now(4)).unwrap();
    assert!(is_balanced(&store));
    DISK_IS_FULL.store(false, Ordering::Relaxed);
    assert_eq!(store.add(&[large(1000, 64 << 10, Why::Uniform)], &now(5)), [Outcome::Kept]);
    drop(store);
    let store = open(folder.path(), 6);
    assert_eq!(
        (store.holds().0, store.counts().sent, store.counts().dropped[&Drop::DiskFull]),
        (1, kept as u64 + 1, 100 - kept as u64)
    );
}

const DISK: &str = "SCONCE_COLLECTOR_DISK";

/// Runs a program with a disk of 8 MiB that is gone when it ends: nobody else sees the mount. False if it fails.
fn with_a_disk(flags: &[&str], program: &Path, args: &[&str], folder: &Path) -> bool {
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", r#"mount -t tmpfs -o size=8m none "$0" && exec "$@""#]);
    command.arg(folder).arg(program).args(args).env(DISK, folder).stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn a_disk_that_is_really_full_costs_nothing_that_is_held() {
    if let Some(disk) = std::env::var_os(DISK) {
        let disk = Path::new(&disk);
        // Where segments are allocated whole, the disk is met as one begins; where a file system only pretends to, in any write.
        fills(&disk.join("whole"), allocate);
        return fills(&disk.join("sparse"), |_, _| Ok(()));
    }
    let folder = tempfile::tempdir().unwrap();
    let all: [&[&str]; 2] = [&["--mount"], &["--mount", "--map-root-user"]];
    match all.into_iter().find(|flags| with_a_disk(flags, Path::new("true"), &[], folder.path())) {
        Some(flags) => {
            let this = ["a_disk_that_is_really_full_costs_nothing_that_is_held", "--exact", "--nocapture"];
            let test = std::env::current_exe().unwrap();
            assert!(with_a_disk(flags, &test, &this, folder.path()));
        }
        None => {
            untried::untried("a disk that is really full was NOT tried: unshare and mount are not allowed").unwrap()
        }
    }
}

/// Keeps samples until the disk has no room, and then makes some.
fn fills(folder: &Path, allocate: Allocate) {
    let open = |second| Store::open(&folder.join("store"), LIMITS, &now(second), allocate).unwrap();
    let mut store = open(0);
    let (mut held, mut refused) = (BTreeMap::<Id, Bytes>::new(), 0);
    let mut add = |store: &mut Store, held: &mut BTreeMap<Id, Bytes>, number| {
        let one = large(number, 64 << 10, Why::Uniform);
        match store.add(std::slice::from_ref(&one), &now(i64::from(number)))[..] {
            [Outcome::Kept] => drop(held.insert(one.0.id, one.1)),
            [Outcome::Dropped(Drop::DiskFull)] => refused += 1,
            ref other => panic!("{other:?}"),
        }
        refused
    };
    let is_intact = |store: &Store, held: &BTreeMap<Id, Bytes>| {
        assert!(is_balanced(store) && store.holds().0 == held.len() as u64, "{:?}", store.counts());
        held.iter().for_each(|(id, content)| assert_eq!(&store.read(id).unwrap().unwrap().1, content));
    };
    // Somebody else has a part of it.
    let other = folder.join("other");
    std::fs::write(&other, vec![1; 3 << 20]).unwrap();
    let refused = (0..200).map(|number| add(&mut store, &mut held, number)).last().unwrap();
    assert!(held.len() > 40 && refused > 40, "{} kept, {refused} refused", held.len());
    assert_eq!(store.counts().dropped, BTreeMap::from([(Drop::DiskFull, refused)]));
    is_intact(&store, &held);
    // What is more to be written may fail; whether it does or not, nothing is lost.
    let first = *held.keys().next().unwrap();
    store.label(first, label("one"), &now(300)).ok();
    store.plan(1 << 20, &now(301)).ok();
    is_intact(&store, &held);
    drop(store);
    let mut store = open(302);
    is_intact(&store, &held);

    std::fs::remove_file(other).unwrap();
    let before = held.len();
    assert_eq!((400..410).map(|number| add(&mut store, &mut held, number)).last(), Some(refused), "there is room");
    assert_eq!(held.len(), before + 10);
    is_intact(&store, &held);
    let mut sent = Vec::new();
    while let Some(shard) = store.plan(1 << 20, &now(500)).unwrap() {
        shard.ids.iter().for_each(|id| assert_eq!(store.read(id).unwrap().unwrap().1, held[id]));
        sent.extend(shard.ids);
        store.sent(shard.number, 1, &now(501)).unwrap();
    }
    sent.sort();
    assert_eq!(sent, held.into_keys().collect::<Vec<_>>(), "each once");
    drop(store);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_broken_segment_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 0);
    for number in 0..40 {
        store.add(&[large(number, 60_000, Why::Hard)], &now(1));
    }
    drop(store);
    let mut segments: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some())
        .collect();
    segments.sort();
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segments[0], bytes).unwrap();
    let store = open(folder.path(), 2);
    let lost = store.counts().dropped[&Drop::Corrupt];
    assert!(lost > 0 && store.holds().0 == 40 - lost, "{lost} are lost");
}

#[test]
fn what_comes_late_under_a_looser_policy_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 0);
    let masked = Privacy::Masked { mask: Mask::default() };
    let under = |content: &[u8], policy: &str| {
        let (sample, bytes) = sample(content, Why::Uniform);
        let mask = if policy == "Masked" { masked.mask() } else { None };
        (Sample { policy: policy.into(), mask, ..sample }, bytes)
    };
    store.add(&[under(b"1", "Raw"), under(b"2", "Masked")], &now(1));
    assert_eq!(store.tighten(masked.clone(), false, &now(2)).unwrap(), 1);
    let outcomes = store.add(&[under(b"3", "Raw"), under(b"4", "Masked"), under(b"1", "Raw")], &now(3));
    let private = Outcome::Dropped(Drop::Private);
    assert_eq!(outcomes, [private, Outcome::Kept, private]);
    assert_eq!((store.holds().0, store.counts().dropped[&Drop::Forgotten]), (2, 1));
    assert_eq!(store.counts().dropped[&Drop::Private], 2);
    assert!(is_balanced(&store));
}

/// It went on its way with what the new mask covers.
#[test]
fn what_another_mask_has_covered_or_cannot_be_read_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path(), 0);
    let mask = |blocks| Privacy::Masked { mask: Mask { blocks: Some(blocks), ..Mask::default() } };
    let under = |content: &[u8], privacy: &Privacy| {
        let (sample, bytes) = sample(content, Why::Uniform);
        (Sample { policy: "Masked".into(), mask: privacy.mask(), ..sample }, bytes)
    };
    assert_eq!(store.tighten(mask(8), false, &now(1)).unwrap(), 0);
    assert_eq!(store.add(&[under(b"1", &mask(8)), under(b"2", &mask(8))], &now(1)), [Outcome::Kept; 2]);
    assert_eq!(store.tighten(mask(8), false, &now(2)).unwrap(), 0, "the same mask");
    assert_eq!(store.tighten(mask(4), false, &now(3)).unwrap(), 2);
    assert_eq!(store.add(&[under(b"3", &mask(8))], &now(4)), [Outcome::Dropped(Drop::Private)]);
    assert_eq!(store.add(&[under(b"4", &mask(4))], &now(4)), [Outcome::Kept]);
    for file in std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some() {
            let length = file.metadata().unwrap().len() as usize;
            std::fs::write(file, vec![0; length]).unwrap();
        }
    }
    assert_eq!(store.tighten(mask(4), false, &now(5)).unwrap(), 1);
    assert_eq!((store.holds().0, store.counts().dropped[&Drop::Corrupt]), (0, 1));
    assert!(is_balanced(&store));
}

#[derive(Clone, Debug)]
enum Step {
    Add { number: u32, bytes: usize, hard: bool },
    Label { number: u32 },
    Plan,
    Sent,
    Forget { number: u32 },
    Pass { seconds: i64 },
    Restart,
    Full(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_u32..400, 1_usize..50_000, any::<bool>()).prop_map(|(number, bytes, hard)| Step::Add { number, bytes, hard }),
        3 => (0_u32..400).prop_map(|number| Step::Label { number }),
        2 => Just(Step::Plan),
        2 => Just(Step::Sent),
        1 => (0_u32..400).prop_map(|number| Step::Forget { number }),
        1 => (0_i64..400_000).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Full),
    ]
}

thread_local! {
    static FULL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn allocate_or_not(file: &std::fs::File, bytes: u64) -> std::io::Result<()> {
    if FULL.get() { Err(Error::from_raw_os_error(28)) } else { allocate(file, bytes) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens: what is held can be read, nothing is there twice, nothing is gone that was not counted.
    #[test]
    fn a_store_keeps_its_books(steps in prop::collection::vec(step(), 1..250)) {
        FULL.set(false);
        let limits = Limits { max_bytes: 4 << 20, ..LIMITS };
        let folder = tempfile::tempdir().unwrap();
        let mut second = 0;
        let mut store = Store::open(folder.path(), limits.clone(), &now(0), allocate_or_not).unwrap();
        let (mut contents, mut sent) = (BTreeMap::new(), BTreeSet::new());
        let mut by_number: BTreeMap<u32, Id> = BTreeMap::new();
        for step in steps {
            second += 1;
            let now = now(second);
            match step {
                Step::Add { number, bytes, hard } => {
                    let (sample, content) = large(number, bytes.max(4), if hard { Why::Hard } else { Why::Uniform });
                    let id = sample.id;
                    by_number.insert(number, id);
                    if store.add(&[(sample, content.clone())], &now) == [Outcome::Kept] {
                        prop_assert!(!sent.contains(&id), "it was sent, and comes again");
                        contents.insert(id, content);
                    }
                }
                Step::Label { number } => {
                    if let Some(id) = by_number.get(&number) {
                        store.label(*id, label("x"), &now).ok();
                    }
                }
                Step::Plan => drop(store.plan(300_000, &now).ok()),
                Step::Sent => {
                    if let Ok(Some(shard)) = store.plan(300_000, &now) && store.sent(shard.number, 1, &now).is_ok() {
                        sent.extend(shard.ids);
                    }
                }
                Step::Forget { number } => {
                    if let Some(id) = by_number.get(&number) {
                        store.forget(&[*id].into(), &now).ok();
                    }
                }
                Step::Pass { seconds } => {
                    second += seconds;
                    store.expire(&self::now(second)).ok();
                }
                Step::Restart => {
                    let before = (store.ids(), store.counts().clone(), store.plan(0, &now).ok());
                    drop(store);
                    store = Store::open(folder.path(), limits.clone(), &now, allocate_or_not).unwrap();
                    prop_assert_eq!(&store.ids(), &before.0);
                    if !FULL.get() {
                        prop_assert_eq!(store.plan(0, &now).ok(), before.2);
                    }
                }
                Step::Full(full) => FULL.set(full),
            }
            prop_assert!(is_balanced(&store), "{:?}", store.counts());
            for id in store.ids() {
                prop_assert!(!sent.contains(&id));
                let (_, content) = store.read(&id).unwrap().unwrap();
                prop_assert_eq!(&content, &contents[&id]);
            }
        }
    }
}
