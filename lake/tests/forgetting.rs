//! A sample is forgotten: by readers at once, and then by all that holds it, wherever that is interrupted.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use bytes::Bytes;
use common::{labelled, put, sample, uri, write};
use jiff::Timestamp;
use sconce_lake::{Label, Lake};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const SEVEN: &[u8] = b"\x89PNG seven";
const EIGHT: &[u8] = b"\xff\xd8 eight";
const OPEN: &[u8] = br#"{"open": 1}"#;
const SHUT: &[u8] = br#"{"open": 0}"#;

type Files = BTreeMap<String, Vec<u8>>;

fn id(content: &[u8]) -> String {
    sconce_lake::id(content)
}

fn set(contents: &[&[u8]]) -> BTreeSet<String> {
    contents.iter().map(|content| id(content)).collect()
}

fn now() -> Timestamp {
    Timestamp::from_second(100).unwrap()
}

fn of(contents: &[&[u8]]) -> Vec<(sconce_collector::sample::Sample, Vec<u8>)> {
    let one = |content: &&[u8]| (labelled(sample(content, "door", 10), "7", "http"), content.to_vec());
    contents.iter().map(one).collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            let below = files(&entry.path());
            found.extend(below.into_iter().map(|(file, content)| (format!("{name}/{file}"), content)));
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// A folder that holds these.
fn folder(files: &Files) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, content)| put(folder.path(), name, content));
    folder
}

async fn read(lake: &Lake) -> BTreeMap<String, Bytes> {
    let mut read = BTreeMap::new();
    for shard in lake.shards().await.unwrap() {
        let rows = lake.rows(&shard).await.unwrap();
        let contents = lake.contents(&shard, &rows).await.unwrap();
        read.extend(rows.into_iter().map(|row| row.id).zip(contents));
    }
    read
}

fn open(folder: &Path) -> Lake {
    Lake::open(&uri(folder)).unwrap()
}

#[tokio::test]
async fn a_tombstone_hides_a_sample_and_what_was_said_of_it() {
    let folder = tempfile::tempdir().unwrap();
    // Two nodes have it.
    write(folder.path(), "node-a", 1, &of(&[SEVEN, EIGHT]));
    write(folder.path(), "node-b", 1, &of(&[SEVEN, OPEN]));
    let lake = open(folder.path());
    let said = |content: &[u8], value: &str, by: &str| Label {
        id: id(content),
        value: value.into(),
        by: by.into(),
        at: now(),
        file: String::new(),
    };
    lake.keep(&[said(SEVEN, "7", "ann"), said(SEVEN, "1", "bob"), said(EIGHT, "8", "ann")], now()).await.unwrap();
    assert_eq!(lake.labels().await.unwrap().conflicts().count(), 1);
    let before = files(folder.path());

    let names = lake.forget(&set(&[SEVEN]), "ann", now()).await.unwrap();
    let [name] = &names[..] else { panic!("{names:?}") };
    assert!(name.starts_with("forgotten/19700101T000140Z-") && name.ends_with(".csv"), "{name}");
    let after = files(folder.path());
    let expected = format!("id,by,at\n{},ann,1970-01-01T00:01:40Z\n", id(SEVEN));
    assert_eq!(String::from_utf8_lossy(&after[name]), expected);
    assert!(before.iter().all(|(name, content)| after[name] == *content), "nothing else is touched");
    assert_eq!(read(&lake).await.into_keys().collect::<BTreeSet<_>>(), set(&[EIGHT, OPEN]));
    let labels = lake.labels().await.unwrap();
    assert_eq!((labels.ids().collect::<Vec<_>>(), labels.conflicts().count()), (vec![&*id(EIGHT)], 0));
    assert_eq!(lake.forget(&set(&[SEVEN]), "bob", now()).await.unwrap(), [""; 0], "once is enough");

    put(folder.path(), "forgotten/by-hand.csv", b"id\nseven\n");
    let told = "forgotten/by-hand.csv: line 2: \"seven\" is no id of a sample: 64 hexadecimal digits";
    assert_eq!(lake.shards().await.unwrap_err().to_string(), told, "it may be any");
}

/// What is left is to the byte what a collector would have packed without it.
#[tokio::test]
async fn what_is_erased_is_as_if_it_had_never_come() {
    let [there, without] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let lake = open(there.path());
    assert_eq!(lake.erase(|_, _| {}).await.unwrap(), sconce_lake::Erased::default());
    for (folder, all) in [(there.path(), true), (without.path(), false)] {
        let left = |contents: &[&'static [u8]]| -> Vec<&[u8]> {
            contents.iter().copied().filter(|content| all || ![SEVEN, OPEN].contains(content)).collect()
        };
        write(folder, "node-a", 1, &of(&left(&[SEVEN, EIGHT, OPEN, SHUT])));
        // Nothing of it, and all of it.
        write(folder, "node-a", 2, &of(&left(&[EIGHT])));
        if all {
            write(folder, "node-b", 1, &of(&[SEVEN]));
            write(folder, "node-b", 2, &of(&[OPEN]));
        }
    }
    let label = |content: &[u8]| format!("{},7,ann,1970-01-01T00:01:40Z\n", id(content));
    put(there.path(), "labels/a.csv", format!("id,label,by,at\n{}{}", label(SEVEN), label(EIGHT)).as_bytes());
    put(there.path(), "labels/b.csv", format!("id,label,by,at\n{}", label(OPEN)).as_bytes());
    put(without.path(), "labels/a.csv", format!("id,label,by,at\n{}", label(EIGHT)).as_bytes());
    lake.forget(&set(&[SEVEN, OPEN]), "ann", now()).await.unwrap();
    let erased = lake.erase(|_, _| {}).await.unwrap();
    let told = |found: &[sconce_lake::Rewritten]| -> Vec<_> {
        found.iter().map(|found| (found.name.clone(), found.taken.clone(), found.left)).collect()
    };
    let shard = |name: &str, taken: &[&[u8]], left| (format!("{name}-store-00000001"), set(taken), left);
    let second = ("node-b-store-00000002".to_owned(), set(&[OPEN]), 0);
    assert_eq!(told(&erased.shards), [shard("node-a", &[SEVEN, OPEN], 2), shard("node-b", &[SEVEN], 0), second]);
    let labels = |name: &str, taken: &[&[u8]], left| (format!("labels/{name}.csv"), set(taken), left);
    assert_eq!(told(&erased.labels), [labels("a", &[SEVEN], 1), labels("b", &[OPEN], 0)]);
    let mut left = files(there.path());
    left.retain(|name, _| !name.starts_with("forgotten/"));
    assert_eq!(left, files(without.path()));
    assert_eq!(lake.erase(|_, _| {}).await.unwrap(), sconce_lake::Erased::default());
}

/// Every state in which a process that forgets can be killed, and one that a collector leaves which sends a shard once more.
#[tokio::test]
async fn wherever_it_is_interrupted_nothing_else_is_lost_and_the_same_again_ends_it() {
    let begun = tempfile::tempdir().unwrap();
    write(begun.path(), "node-a", 1, &of(&[SEVEN, EIGHT, OPEN, SHUT]));
    write(begun.path(), "node-b", 1, &of(&[SEVEN]));
    open(begun.path()).forget(&set(&[SEVEN, OPEN]), "ann", now()).await.unwrap();
    let before = files(begun.path());
    open(begun.path()).erase(|_, _| {}).await.unwrap();
    let after = files(begun.path());
    let tar = |files: &Files, node: &str| {
        files.keys().find(|name| name.starts_with(&format!("shards/{node}"))).cloned().unwrap()
    };
    let manifest = |node: &str| format!("manifests/{node}-store-00000001.parquet");
    let (old, new, gone) = (tar(&before, "node-a"), tar(&after, "node-a"), tar(&before, "node-b"));
    let is_erased = async |files: &Files| {
        let folder = folder(files);
        let lake = open(folder.path());
        assert_eq!(read(&lake).await.into_keys().collect::<BTreeSet<_>>(), set(&[EIGHT, SHUT]));
        lake.erase(|_, _| {}).await.unwrap();
        assert_eq!(self::files(folder.path()), after);
        assert_eq!(read(&lake).await.len(), 2);
    };

    let mut state = before.clone();
    is_erased(&state).await;
    state.insert(new.clone(), after[&new].clone());
    is_erased(&state).await;
    state.remove(&old);
    is_erased(&state).await;
    state.insert(manifest("node-a"), after[&manifest("node-a")].clone());
    is_erased(&state).await;
    state.remove(&gone);
    is_erased(&state).await;
    state.remove(&manifest("node-b"));
    assert_eq!(state, after);

    // A writer was killed amid a file; what it left names what is forgotten, where it holds any of it.
    for whole in [&old, &manifest("node-b")] {
        let (folder, file) = whole.rsplit_once('/').unwrap();
        let mut left = before[whole].clone();
        left.truncate(left.len() * 9 / 10);
        state.insert(format!("{folder}/.{file}.4711"), left);
        is_erased(&state).await;
        state = after.clone();
    }
    state.insert("labels/.a.csv.1".into(), format!("id,label,by,at\n{},7,ann,", id(SEVEN)).into());
    is_erased(&state).await;
    state = after.clone();
    // It had sent the shard, and was killed before it knew: its manifest is refused, its tar is not.
    state.insert(old.clone(), before[&old].clone());
    is_erased(&state).await;
    // It has sent the tar, and its manifest is on the way; then it comes.
    let mut state = before.clone();
    state.remove(&manifest("node-a"));
    let folder = folder(&state);
    open(folder.path()).erase(|_, _| {}).await.unwrap();
    let left = files(folder.path());
    assert_eq!((left.contains_key(&new), left.contains_key(&old)), (true, false));
    put(folder.path(), &manifest("node-a"), &before[&manifest("node-a")]);
    is_erased(&files(folder.path())).await;
}

/// Of what is left there is no file: the tar that is sent once more is one too many.
#[tokio::test]
async fn a_tar_that_comes_again_where_only_measurements_are_left_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "node-a", 1, &of(&[SEVEN, OPEN]));
    let before = files(folder.path());
    let lake = open(folder.path());
    lake.forget(&set(&[SEVEN]), "ann", now()).await.unwrap();
    lake.erase(|_, _| {}).await.unwrap();
    let after = files(folder.path());
    let tar = before.keys().find(|name| name.starts_with("shards/")).unwrap();
    assert!(!after.contains_key(tar));
    put(folder.path(), tar, &before[tar]);
    let erased = lake.erase(|_, _| {}).await.unwrap();
    let taken: Vec<_> = erased.shards.into_iter().map(|shard| (shard.name, shard.taken)).collect();
    assert_eq!(taken, [("node-a-store-00000001".into(), set(&[SEVEN]))]);
    assert_eq!(files(folder.path()), after);
}

#[tokio::test]
async fn what_is_being_written_of_others_and_what_people_keep_there_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "node-a", 1, &of(&[SEVEN, EIGHT]));
    let tar = files(folder.path()).into_iter().find(|(name, _)| name.starts_with("shards/")).unwrap().1;
    let lake = open(folder.path());
    lake.forget(&set(&[SEVEN]), "ann", now()).await.unwrap();
    let eight = tar.windows(64).position(|at| at == id(EIGHT).as_bytes()).unwrap();
    // By a writer of now; under a name that no writer gives; and what people keep in folders of their own.
    let others = [("shards/.b.tar.7", &tar[eight..]), ("shards/.hidden", &tar), ("labels/old.csv/a.csv", b"x")];
    others.iter().for_each(|(name, content)| put(folder.path(), name, content));
    lake.erase(|_, _| {}).await.unwrap();
    let left = files(folder.path());
    others.iter().for_each(|(name, content)| assert_eq!(left[*name], *content, "{name}"));
    assert_eq!(read(&lake).await.into_keys().collect::<BTreeSet<_>>(), set(&[EIGHT]));
}

/// It ended there, and all behind it stayed.
#[tokio::test]
async fn a_shard_that_cannot_be_read_keeps_no_other_from_being_erased() {
    let folder = tempfile::tempdir().unwrap();
    for node in ["node-a", "node-b", "node-c"] {
        write(folder.path(), node, 1, &of(&[SEVEN, EIGHT]));
    }
    let label = format!("id,label,by,at\n{},7,ann,1970-01-01T00:01:40Z\n", id(SEVEN));
    put(folder.path(), "labels/a.csv", label.as_bytes());
    let lake = open(folder.path());
    lake.forget(&set(&[SEVEN]), "ann", now()).await.unwrap();
    let whole = files(folder.path());
    let tars: Vec<&String> = whole.keys().filter(|name| name.starts_with("shards/")).collect();
    let cut = |name: &str| put(folder.path(), name, &whole[name][..700]);
    cut(tars[0]);
    put(folder.path(), "manifests/node-b-store-00000001.parquet", b"PAR1");
    let error = lake.erase(|_, _| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "2 files hold what is forgotten, or may; the first");
    let first = std::error::Error::source(&error).unwrap().to_string();
    assert!(first.starts_with(tars[0]) && first.contains("no tar, or cut off"), "{first}");
    let left = files(folder.path());
    assert!(!left.contains_key(tars[2]) && !left.contains_key("labels/a.csv"), "what is behind them is erased");
    for name in [tars[0].as_str(), "manifests/node-b-store-00000001.parquet"] {
        put(folder.path(), name, &whole[name]);
    }
    lake.erase(|_, _| {}).await.unwrap();
    let held = |file: &Vec<u8>| file.windows(SEVEN.len()).any(|at| at == SEVEN);
    assert!(!files(folder.path()).values().any(held));
}

/// Who rewrites a shard, and does not know of a tombstone that has come meanwhile, would bring back what another has taken out.
#[tokio::test]
async fn what_is_forgotten_meanwhile_is_erased_too() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "node-a", 1, &of(&[SEVEN, EIGHT, OPEN]));
    let lake = open(folder.path());
    lake.forget(&set(&[SEVEN]), "ann", now()).await.unwrap();
    let meanwhile = |_, _| put(folder.path(), "forgotten/b.csv", format!("id,by,at\n{},bob,\n", id(OPEN)).as_bytes());
    let erased = lake.erase(meanwhile).await.unwrap();
    let taken: Vec<_> = erased.shards.into_iter().map(|shard| (shard.taken, shard.left)).collect();
    assert_eq!(taken, [(set(&[SEVEN]), 2), (set(&[OPEN]), 1)]);
    let held =
        |content: &[u8]| files(folder.path()).values().any(|file| file.windows(content.len()).any(|at| at == content));
    assert_eq!([SEVEN, EIGHT, OPEN].map(held), [false, true, false]);
}
