//! What collectors wrote, as training data.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "../../lake/tests/common/mod.rs"]
mod written;

use image::{GrayImage, ImageFormat, Luma};
use sconce_model::preprocess::{Material, Preprocess, Step};
use sconce_trainer::data::{self, DataError, DataSet, Inputs, Wanted};
use sconce_trainer::manifest::{DataSource, Format};
use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;
use written::{labelled, put, sample, uri, write};

fn source(folder: &Path, mix: Vec<DataSource>) -> DataSource {
    DataSource { uri: uri(folder), format: Format::Collected, mix }
}

fn read(source: &DataSource) -> Result<DataSet, DataError> {
    let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![Step::Scale { by: 1.0 }] };
    let wanted = Wanted { preprocess: &preprocess, input: &[1, 28, 28], classes: 10, backbone: None };
    data::read(source, None, 7, wanted)
}

/// One grey, which tells it from all others.
fn picture(grey: u8) -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    GrayImage::from_pixel(28, 28, Luma([grey])).write_to(&mut png, ImageFormat::Png).unwrap();
    png.into_inner()
}

/// Forty pictures of a node, of so many cameras, each labelled by its last digit.
fn forty(folder: &Path, node: &str, cameras: u8) {
    let of = |grey: u8| {
        let content = picture(grey);
        let group = format!("door-{}", grey % cameras);
        (labelled(sample(&content, &group, 1), &(grey % 10).to_string(), "ann"), content)
    };
    write(folder, node, 1, &(0..20).map(of).collect::<Vec<_>>());
    write(folder, node, 2, &(20..40).map(of).collect::<Vec<_>>());
}

/// The greys of all rows, each beside its label.
fn greys(samples: &data::Samples) -> Vec<(u8, u8)> {
    let Inputs::Ready(xs) = &samples.inputs else { panic!("collected samples are ready") };
    xs.chunks(28 * 28).map(|image| image[300] as u8).zip(samples.labels.iter().copied()).collect()
}

#[test]
fn each_labelled_sample_is_there_once_and_no_camera_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    forty(folder.path(), "node-a", 8);
    // Another node has seen some of the same, and others without labels.
    let seen: Vec<_> = (30..60).map(|grey| (sample(&picture(grey), "door-9", 1), picture(grey))).collect();
    write(folder.path(), "node-b", 1, &seen);
    let mut set = read(&source(folder.path(), vec![])).unwrap();
    assert_eq!(set.name, "collected: 40 labelled samples of 8 groups, split by group");
    assert_eq!(set.notes, ["40 of 60 samples have labels that count"]);
    let (train, test) = (greys(&set.train), greys(set.test.read()));
    assert_eq!((train.len(), test.len()), (35, 5));
    let all: BTreeSet<(u8, u8)> = train.iter().chain(&test).copied().collect();
    assert_eq!(all, (0..40).map(|grey| (grey, grey % 10)).collect());
    let cameras = |greys: &[(u8, u8)]| greys.iter().map(|(grey, _)| grey % 8).collect::<BTreeSet<u8>>();
    assert!(cameras(&train).is_disjoint(&cameras(&test)));

    let elsewhere = tempfile::tempdir().unwrap();
    forty(elsewhere.path(), "node-z", 8);
    let same = read(&source(elsewhere.path(), vec![])).unwrap();
    assert_eq!((same.digest, same.train), (set.digest, set.train), "whichever shards they came in");
}

#[test]
fn what_people_say_later_counts_and_is_told_where_it_cannot() {
    let folder = tempfile::tempdir().unwrap();
    forty(folder.path(), "node-a", 2);
    let id = |grey| sconce_lake::id(&picture(grey));
    let say = |name: &str, label: &str, at: &str| {
        let text = format!("id,label,by,at\n{},{label},bob,{at}\n", id(3));
        put(folder.path(), &format!("labels/{name}.csv"), text.as_bytes());
    };
    say("b", "8", "2026-11-28T12:00:00Z");
    say("a", "cat", "2026-11-28T11:00:00Z");
    let mut set = read(&source(folder.path(), vec![])).unwrap();
    let all = [greys(&set.train), greys(set.test.read())].concat();
    assert!(all.contains(&(3, 8)) && !all.contains(&(3, 3)), "{all:?}");
    assert!(set.name.ends_with("split by sample"), "{}", set.name);
    assert!(set.notes[1].starts_with("they are of 2 groups, too few to split by"), "{:?}", set.notes);
    say("c", "cat", "2026-11-28T13:00:00Z");
    let error = read(&source(folder.path(), vec![])).unwrap_err();
    let expected = format!("labels/c.csv: bob says that {} is \"cat\"; the network tells 0 to 9", id(3));
    assert_eq!((error.to_string(), error.is_final()), (expected, true));
}

#[test]
fn broken_pictures_are_left_out_and_told_and_too_few_are_no_data_set() {
    let folder = tempfile::tempdir().unwrap();
    forty(folder.path(), "node-a", 8);
    let broken = b"\x89PNG, or not".to_vec();
    write(folder.path(), "node-b", 1, &[(labelled(sample(&broken, "g", 1), "1", "ann"), broken.clone())]);
    let set = read(&source(folder.path(), vec![])).unwrap();
    let expected = format!("1 labelled samples cannot be read; the first, {}: ", sconce_lake::id(&broken));
    assert!(set.notes[1].starts_with(&expected), "{:?}", set.notes);
    let alone = tempfile::tempdir().unwrap();
    write(alone.path(), "node-b", 1, &[(labelled(sample(&broken, "g", 1), "1", "ann"), broken)]);
    assert!(matches!(read(&source(alone.path(), vec![])), Err(DataError::Unread { got: 1, .. })));
    let few = tempfile::tempdir().unwrap();
    write(few.path(), "node-b", 1, &[(sample(&picture(1), "g", 1), picture(1))]);
    let error = read(&source(few.path(), vec![])).unwrap_err().to_string();
    assert!(error.contains(": 0 labelled samples of 1; need at least 10 to hold some out: export some"), "{error}");
}

#[test]
fn rare_samples_count_more_and_what_was_known_is_mixed_in() {
    let folder = tempfile::tempdir().unwrap();
    forty(folder.path(), "node-a", 8);
    let content = picture(77);
    let mut rare = labelled(sample(&content, "door-1", 1), "7", "ann");
    rare.probability = 0.1;
    write(folder.path(), "node-b", 1, &[(rare, content)]);
    let before = DataSource { uri: "synthetic:digits".into(), format: Format::Idx, mix: vec![] };
    let mut set = read(&source(folder.path(), vec![before])).unwrap();
    assert!(set.name.starts_with("collected: 41 ") && set.name.contains(" + synthetic:digits v1"), "{}", set.name);
    assert_eq!(set.train.len() + set.test.len(), 10_041);
    assert!(set.train.len() > 8_030 && set.test.len() > 2_001, "both are in both: {}", set.test.len());
    let weighed = |samples: &data::Samples| greys(samples).into_iter().zip(samples.weights.clone()).collect::<Vec<_>>();
    let rows = [weighed(&set.train), weighed(set.test.read())].concat();
    // A drawn digit may have the same grey in one place: it counts one.
    let weight =
        |grey: u8, label: u8| rows.iter().find(|(row, weight)| *row == (grey, label) && *weight != 1.0).unwrap().1;
    // One in ten of its like is there: it counts for ten, all together for one each.
    let common = 41.0 / 50.0;
    assert!((weight(77, 7) - 10.0 * common).abs() < 1e-5, "{}", weight(77, 7));
    assert!((weight(39, 9) - common).abs() < 1e-5, "{}", weight(39, 9));
}
