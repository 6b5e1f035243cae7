//! Samples for a store.

#![allow(dead_code, reason = "each test uses what it needs")]

use bytes::Bytes;
use jiff::Timestamp;
use sconce_collector::clock::Now;
use sconce_collector::sample::{Id, Label, Media, Sample, Why};

pub fn now(second: i64) -> Now {
    Now {
        wall: Timestamp::from_second(1_800_000_000 + second).unwrap(),
        boot: "a".into(),
        since_boot: second.unsigned_abs() * 1000,
    }
}

pub fn sample(content: &[u8], why: Why) -> (Sample, Bytes) {
    let sample = Sample {
        id: Id::of(content),
        media: Media::Json,
        source: "test".into(),
        group: "door".into(),
        taken: now(0),
        why,
        probability: 1.0,
        answer: None,
        label: None,
        consent: None,
        policy: "Raw".into(),
        mask: None,
        redactions: Vec::new(),
    };
    (sample, Bytes::copy_from_slice(content))
}

/// `number`, and so many bytes that say nothing more.
pub fn large(number: u32, bytes: usize, why: Why) -> (Sample, Bytes) {
    let mut content = number.to_le_bytes().to_vec();
    content.resize(bytes, number as u8);
    sample(&content, why)
}

pub fn label(value: &str) -> Label {
    Label { value: value.into(), author: "ann".into(), source: "feedback".into(), time: now(0).wall }
}
