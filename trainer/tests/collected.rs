//! What collectors wrote, as training data.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "../../lake/tests/common/mod.rs"]
mod written;

use image::{GrayImage, ImageFormat, Luma};
use sconce_model::artifact::{Artifact, testing::write_tiny};
use sconce_model::preprocess::{Material, Preprocess, Step};
use sconce_model::variant::F32;
use sconce_trainer::data::{self, DataError, DataSet, Inputs, Labels, Wanted};
use sconce_trainer::manifest::{DataSource, Format};
use sconce_trainer::prepared::Prepared;
use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;
use written::{featured, labelled, put, sample, uri, write};

fn source(folder: &Path, mix: Vec<DataSource>) -> DataSource {
    DataSource { uri: uri(folder), format: Format::Collected, mix }
}

fn read(source: &DataSource) -> Result<DataSet, DataError> {
    let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![Step::Scale { by: 1.0 }] };
    let wanted = Wanted::new(&preprocess, &[1, 28, 28], 10);
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
    xs.chunks(28 * 28).map(|image| image[300] as u8).zip(samples.labels.classes().iter().copied()).collect()
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
    let (train, test) = (greys(&set.train), greys(set.test.read().unwrap()));
    assert_eq!((train.len(), test.len()), (35, 5));
    let all: BTreeSet<(u8, u8)> = train.iter().chain(&test).copied().collect();
    assert_eq!(all, (0..40).map(|grey| (grey, grey % 10)).collect());
    let cameras = |greys: &[(u8, u8)]| greys.iter().map(|(grey, _)| grey % 8).collect::<BTreeSet<u8>>();
    assert!(cameras(&train).is_disjoint(&cameras(&test)));
    let (learned, validated) = set.train.split(0.3, 3, "validation");
    let (learned, validated) = (greys(&learned), greys(&validated));
    assert_eq!((cameras(&learned).len() + cameras(&validated).len(), validated.is_empty()), (7, false));

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
    let all = [greys(&set.train), greys(set.test.read().unwrap())].concat();
    assert!(all.contains(&(3, 8)) && !all.contains(&(3, 3)), "{all:?}");
    assert!(set.name.ends_with("split by sample"), "{}", set.name);
    assert!(set.notes[1].starts_with("they are of 2 groups, too few to split by"), "{:?}", set.notes);
    say("c", "cat", "2026-11-28T13:00:00Z");
    let error = read(&source(folder.path(), vec![])).unwrap_err();
    let expected = format!("labels/c.csv: bob says that {} is \"cat\"; the network tells 0 to 9", id(3));
    assert_eq!((error.to_string(), error.is_final()), (expected, true));
}

#[test]
fn where_one_camera_has_nearly_all_its_samples_are_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    forty(folder.path(), "node-a", 1);
    let of = |grey: u8, group: &str| (labelled(sample(&picture(grey), group, 1), "1", "ann"), picture(grey));
    let mut more: Vec<_> = (40..60).map(|grey| of(grey, "door-0")).collect();
    more.extend([of(60, "gate"), of(61, "yard")]);
    write(folder.path(), "node-b", 1, &more);
    let set = read(&source(folder.path(), vec![])).unwrap();
    assert_eq!((set.train.len(), set.test.len()), (50, 12));
    assert_eq!(set.name, "collected: 62 labelled samples, split by sample");
    assert!(set.notes[1].starts_with("they are of 3 groups, too unlike in size to split by"), "{:?}", set.notes);
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
    let rows = [weighed(&set.train), weighed(set.test.read().unwrap())].concat();
    // A drawn digit may have the same grey in one place: it counts one.
    let weight =
        |grey: u8, label: u8| rows.iter().find(|(row, weight)| *row == (grey, label) && *weight != 1.0).unwrap().1;
    // One in ten of its like is there: it counts for ten, all together for one each.
    let common = 41.0 / 50.0;
    assert!((weight(77, 7) - 10.0 * common).abs() < 1e-5, "{}", weight(77, 7));
    assert!((weight(39, 9) - common).abs() < 1e-5, "{}", weight(39, 9));
}

/// As the router's tap writes it.
fn npy(shape: &str, values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat()
}

#[test]
fn features_of_the_backbone_count_and_what_was_kept_whole_becomes_them() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny(&folder.path().join("model"), 7).unwrap();
    let artifact = Artifact::open(&folder.path().join("model")).unwrap();
    let backbone = artifact.backbone(&artifact.variant(F32).unwrap()).unwrap().unwrap();
    let lake = folder.path().join("lake");
    let row = |number: usize, content: Vec<u8>, by: Option<&str>| {
        let sample = sample(&content, &format!("door-{}", number % 5), 1);
        let sample = by.map_or(sample.clone(), |by| featured(sample, by));
        (labelled(sample, &(number % 3).to_string(), "ann"), content)
    };
    let features = |number: usize| vec![number as f32; 36];
    let mut rows: Vec<_> =
        (0..20).map(|number| row(number, npy("1, 36,", &features(number)), Some(&backbone.digest))).collect();
    let other = format!("sha256:{}", "7f".repeat(32));
    rows.push(row(20, npy("1, 36,", &features(20)), Some(&other)));
    rows.push(row(21, npy("1, 35,", &features(21)[1..]), Some(&backbone.digest)));
    // An input may be as long as features are.
    let whole: Vec<f32> = (0..64).map(|pixel| pixel as f32 / 64.0).collect();
    rows.push(row(22, npy("1, 1, 8, 8,", &whole), None));
    write(&lake, "node-a", 1, &rows);
    let source = source(&lake, vec![]);
    let preprocess = artifact.preprocess();
    let read = |backbone| data::read(&source, None, 7, Wanted { backbone, ..Wanted::new(preprocess, &[1, 8, 8], 3) });
    let mut set = read(Some(&backbone)).unwrap();
    assert!(set.train.are_features());
    assert_eq!(set.notes[0], "21 of 23 samples have labels that count");
    assert!(set.notes[1].starts_with("2 labelled samples cannot be read; the first, "), "{:?}", set.notes);
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for samples in [&set.train, set.test.read().unwrap()] {
        let Inputs::Features(xs) = &samples.inputs else { panic!("{samples:?}") };
        seen.extend(xs.chunks_exact(36).map(<[f32]>::to_vec));
    }
    let inputs = Inputs::Ready(whole);
    let alone =
        data::Samples { inputs, labels: Labels::Classes(vec![0]), groups: vec![], weights: vec![], lengths: vec![] };
    let made = Prepared::new(&alone, preprocess, &[1, 8, 8]).unwrap().through(&backbone.plan().unwrap()).unwrap();
    let expected = (0..20).map(features).chain([made.into_values()]);
    seen.sort_by(|one, other| one.partial_cmp(other).unwrap());
    let mut expected: Vec<Vec<f32>> = expected.collect();
    expected.sort_by(|one, other| one.partial_cmp(other).unwrap());
    assert_eq!(seen, expected);

    // Mixed with what nobody had to hide.
    let elsewhere = folder.path().join("elsewhere");
    write(
        &elsewhere,
        "node-b",
        1,
        &(0..12).map(|number| row(number, npy("1, 8, 8,", &[number as f32; 64]), None)).collect::<Vec<_>>(),
    );
    let mixed = DataSource { mix: vec![self::source(&elsewhere, vec![])], ..source.clone() };
    let wanted = Wanted { backbone: Some(&backbone), ..Wanted::new(preprocess, &[1, 8, 8], 3) };
    let mixed = data::read(&mixed, None, 7, wanted).unwrap();
    assert!(mixed.train.are_features() && mixed.train.len() + mixed.test.len() == 33, "{}", mixed.name);

    // Of a run that learns all layers they are no input.
    write(
        &lake,
        "node-b",
        1,
        &(0..12).map(|number| row(number, npy("1, 8, 8,", &[number as f32; 64]), None)).collect::<Vec<_>>(),
    );
    let set = read(None).unwrap();
    assert!(!set.train.are_features() && set.notes[0].starts_with("13 of 35"), "{:?}", set.notes);
    assert!(set.notes[1].contains("22 labelled samples cannot be read"), "{:?}", set.notes);
    let alone = tempfile::tempdir().unwrap();
    write(alone.path(), "node-a", 1, &rows[..20]);
    let wanted = Wanted::new(preprocess, &[1, 8, 8], 3);
    let error = data::read(&self::source(alone.path(), vec![]), None, 7, wanted).unwrap_err();
    let told = "it is features of a model, from which a head alone can be learned: name that model in spec.base";
    assert!(error.is_final() && error.to_string().contains(told), "{error}");
}
