//! What a collector packs is read, and what is broken is named.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::{answered, featured, labelled, put, sample, uri, write};
use jiff::Timestamp;
use sconce_lake::{Label, Lake, LakeError, Row};
use std::path::Path;

const PNG: &[u8] = b"\x89PNG seven";
const JPG: &[u8] = b"\xff\xd8 eight";
const JSON: &[u8] = br#"{"open": 1}"#;

fn lake(folder: &Path) -> Lake {
    Lake::open(&uri(folder)).unwrap()
}

#[tokio::test]
async fn rows_and_bytes_are_what_was_collected() {
    let folder = tempfile::tempdir().unwrap();
    let seven = labelled(answered(sample(PNG, "door/1", 10), 7, 0.25), "7", "ann");
    let mut eight = sample(JPG, "door/2", 20);
    eight.probability = 0.125;
    let samples = [(seven, PNG.to_vec()), (eight, JPG.to_vec()), (sample(JSON, "door/1", 30), JSON.to_vec())];
    write(folder.path(), "node-a", 3, &samples);
    let lake = lake(folder.path());
    let shards = lake.shards().await.unwrap();
    let [shard] = &shards[..] else { panic!("{shards:?}") };
    assert_eq!(shard.name, "node-a-store-00000003");
    let rows = lake.rows(shard).await.unwrap();
    let id = |content: &[u8]| sconce_lake::id(content);
    let at = |second| Timestamp::from_second(second).unwrap();
    let file = "manifests/node-a-store-00000003.parquet".to_owned();
    let row = |content: &[u8], media: &str, group: &str, second| Row {
        id: id(content),
        media: media.into(),
        source: "http".into(),
        group: group.into(),
        time: at(second),
        probability: 1.0,
        ..Row::default()
    };
    let seven = Row {
        prediction: Some(7),
        score: Some(0.625),
        margin: Some(0.25),
        label: Some(Label { id: id(PNG), value: "7".into(), by: "ann".into(), at: at(10), file }),
        ..row(PNG, "png", "door/1", 10)
    };
    let eight = Row { probability: 0.125, ..row(JPG, "jpg", "door/2", 20) };
    let open = Row { content: Some(r#"{"open": 1}"#.into()), ..row(JSON, "json", "door/1", 30) };
    assert_eq!(rows, [seven, eight, open]);
    assert_eq!(lake.contents(shard, &rows).await.unwrap(), [PNG, JPG, JSON]);
    assert_eq!(lake.contents(shard, &rows[1..2]).await.unwrap(), [JPG], "only what is asked for");
}

#[tokio::test]
async fn features_say_what_made_them() {
    let folder = tempfile::tempdir().unwrap();
    let (features, digest) = (b"\x93NUMPY features".to_vec(), format!("sha256:{}", "7f".repeat(32)));
    write(folder.path(), "node-a", 1, &[(featured(sample(&features, "g", 1), &digest), features.clone())]);
    let lake = lake(folder.path());
    let shards = lake.shards().await.unwrap();
    let rows = lake.rows(&shards[0]).await.unwrap();
    assert_eq!((rows[0].media.as_str(), rows[0].backbone.as_deref()), ("npy", Some(&*digest)));
    assert_eq!(lake.contents(&shards[0], &rows).await.unwrap(), [features]);
}

#[tokio::test]
async fn a_tar_without_its_manifest_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "node-a", 1, &[(sample(PNG, "g", 1), PNG.to_vec())]);
    write(folder.path(), "node-b", 1, &[(sample(JPG, "g", 1), JPG.to_vec())]);
    std::fs::remove_file(folder.path().join("manifests/node-b-store-00000001.parquet")).unwrap();
    put(folder.path(), "manifests/.node-b-store-00000001.parquet.17", b"half");
    let names: Vec<String> = lake(folder.path()).shards().await.unwrap().into_iter().map(|shard| shard.name).collect();
    assert_eq!(names, ["node-a-store-00000001"]);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(lake(empty.path()).shards().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_lost_or_spoilt_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "node-a", 1, &[(sample(PNG, "g", 1), PNG.to_vec())]);
    let lake = lake(folder.path());
    let shards = lake.shards().await.unwrap();
    let rows = lake.rows(&shards[0]).await.unwrap();
    let tar = std::fs::read_dir(folder.path().join("shards")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&tar).unwrap();
    let spoilt = String::from_utf8_lossy(PNG).replace("seven", "eight");
    assert_eq!(spoilt.len(), String::from_utf8_lossy(PNG).len());
    let mut other = whole.clone();
    let at = whole.windows(5).position(|bytes| bytes == b"seven").unwrap();
    other[at..at + 5].copy_from_slice(b"eight");
    std::fs::write(&tar, other).unwrap();
    let error = lake.contents(&shards[0], &rows).await.unwrap_err();
    assert!(matches!(&error, LakeError::Spoilt { id, .. } if *id == rows[0].id), "{error}");
    std::fs::write(&tar, &whole[whole.len() - 1024..]).unwrap();
    let error = lake.contents(&shards[0], &rows).await.unwrap_err();
    assert!(matches!(&error, LakeError::Missing { count: 1, .. }), "{error}");
}

#[tokio::test]
async fn labels_are_kept_beside_the_samples_and_the_newest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let of = |content: &[u8]| sconce_lake::id(content);
    write(folder.path(), "node-a", 1, &[(labelled(sample(PNG, "g", 99), "1", "http"), PNG.to_vec())]);
    let lake = lake(folder.path());
    let label = |value: &str, by: &str, second| {
        let at = Timestamp::from_second(second).unwrap();
        Label { id: of(PNG), value: value.into(), by: by.into(), at, file: String::new() }
    };
    let name = lake.keep(&[label("7", "ann", 20)], Timestamp::from_second(20).unwrap()).await.unwrap();
    assert!(name.starts_with("labels/19700101T000020Z-") && name.ends_with(".csv"), "{name}");
    let again = lake.keep(&[label("7", "ann", 20)], Timestamp::from_second(20).unwrap()).await.unwrap();
    assert_eq!(again, name, "the same once more is the same");
    lake.keep(&[label("2", "bob", 10)], Timestamp::from_second(30).unwrap()).await.unwrap();
    let labels = lake.labels().await.unwrap();
    let row = lake.rows(&lake.shards().await.unwrap()[0]).await.unwrap().remove(0);
    assert_eq!(labels.of(&row).unwrap(), &Label { file: name, ..label("7", "ann", 20) });
    assert_eq!(labels.conflicts().count(), 1);

    put(folder.path(), "labels/by-hand.csv", format!("id,label\n{},7\n", of(PNG)).as_bytes());
    let error = lake.labels().await.unwrap_err().to_string();
    assert_eq!(error, "labels/by-hand.csv: line 2: need who said it, by, and when, at");
}

#[test]
fn addresses_say_what_they_need() {
    let error = |uri: &str| Lake::open(uri).map(drop).unwrap_err().to_string();
    assert_eq!(
        error("lake/digits"),
        "\"lake/digits\": need s3://BUCKET/PREFIX or file:///FOLDER; of a claim, the folder that it is mounted at"
    );
    assert_eq!(error("file:///there/is/none"), "file:///there/is/none: there is no such folder");
}
