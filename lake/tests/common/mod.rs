//! A data set in a folder, as a collector writes it.

#![allow(dead_code, reason = "each test uses what it needs")]

use bytes::Bytes;
use sconce_collector::clock::Now;
use sconce_collector::sample::{Answer, Id, Label, Media, Sample, Why};
use sconce_collector::shard::{Packed, pack};
use sconce_collector::store::Shard;
use std::path::Path;

/// Of a camera at an hour, taken some seconds after 1970, and chosen by lot.
pub fn sample(content: &[u8], group: &str, second: i64) -> Sample {
    let wall = jiff::Timestamp::from_second(second).unwrap();
    Sample {
        id: Id::of(content),
        media: Media::of(content).unwrap(),
        source: "http".into(),
        group: group.into(),
        taken: Now { wall, boot: "boot".into(), since_boot: 7 },
        why: Why::Uniform,
        probability: 1.0,
        answer: None,
        label: None,
        consent: None,
        policy: "Raw".into(),
        mask: None,
        redactions: vec![],
    }
}

pub fn labelled(sample: Sample, value: &str, author: &str) -> Sample {
    let label = Label { value: value.into(), author: author.into(), source: "http".into(), time: sample.taken.wall };
    Sample { label: Some(label), ..sample }
}

/// With what a model said.
pub fn answered(sample: Sample, prediction: u64, margin: f64) -> Sample {
    let (model, score) = ("digits.vision".into(), Some(0.5 + margin / 2.0));
    let (prediction, margin) = (Some(prediction), Some(margin));
    let answer = Answer { model, version: "1".into(), tier: "edge".into(), prediction, score, margin, backbone: None };
    Sample { answer: Some(answer), ..sample }
}

/// What a model's backbone made of a request, at which nobody else looks.
pub fn featured(sample: Sample, backbone: &str) -> Sample {
    let answered = answered(sample, 7, 0.25);
    let answer = answered.answer.map(|answer| Answer { backbone: Some(backbone.into()), ..answer });
    Sample { answer, policy: "FeaturesOnly".into(), ..answered }
}

/// A shard of a node, whole.
pub fn write(folder: &Path, node: &str, number: u64, samples: &[(Sample, Vec<u8>)]) {
    let samples: Vec<(Sample, Bytes)> =
        samples.iter().map(|(sample, content)| (sample.clone(), Bytes::from(content.clone()))).collect();
    let ids = samples.iter().map(|(sample, _)| sample.id).collect();
    let Packed { tar, manifest } = pack(node, &Shard { store: "store".into(), number, ids }, &samples).unwrap();
    for (name, bytes) in tar.into_iter().chain([manifest]) {
        put(folder, &name, &bytes);
    }
}

pub fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

pub fn uri(folder: &Path) -> String {
    format!("file://{}", folder.display())
}
