//! Statistics over samples that do not leave: how many, how their values are spread, which classes were answered. Pure.

use super::picture::decode;
use crate::sample::{Answer, Media};
use image::Pixel as _;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

const BINS: usize = 16;
/// A class, a kind of file or a histogram that fewer have is not told: it could be one person.
const FEWEST: u64 = 5;
/// Fields of measurements that are told, at most.
const FIELDS: usize = 64;

/// Over one part of time.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    samples: u64,
    media: BTreeMap<&'static str, u64>,
    /// Those whose pixels are counted.
    pictures: u64,
    /// Of all pixels, by brightness.
    brightness: [u64; BINS],
    fields: BTreeMap<String, Field>,
    classes: BTreeMap<u64, u64>,
    scores: [u64; BINS],
}

/// What counts of one sample.
#[derive(Debug, PartialEq)]
pub struct Measured {
    media: Option<Media>,
    brightness: Option<[u64; BINS]>,
    /// The numbers of a flat object, by their fields; nothing of its texts.
    fields: Vec<(String, f64)>,
}

impl Measured {
    /// Takes milliseconds of a picture; one that is too large counts as a file alone.
    pub fn of(content: &[u8]) -> Self {
        let media = Media::of(content);
        let mut measured = Self { media, brightness: None, fields: Vec::new() };
        match media {
            Some(media @ (Media::Jpg | Media::Png)) => measured.brightness = brightness(content, media),
            Some(Media::Json) => measured.fields = fields(content),
            Some(Media::Wav | Media::Npy) | None => {}
        }
        measured
    }
}

fn brightness(content: &[u8], media: Media) -> Option<[u64; BINS]> {
    let mut bins = [0; BINS];
    let picture = decode(content, media).ok()?;
    picture.pixels().for_each(|pixel| bins[bin(f64::from(pixel.to_luma().0[0]) / 255.0)] += 1);
    Some(bins)
}

fn fields(content: &[u8]) -> Vec<(String, f64)> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_slice(content) else { return Vec::new() };
    fields.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
}

/// Of one measured number.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq)]
struct Field {
    count: u64,
    mean: f64,
    /// Sum of squared distances from the mean.
    #[serde(skip)]
    spread: f64,
    deviation: f64,
}

#[derive(Serialize)]
struct Told<'a> {
    /// Equal parts of time, and equal nodes, are told one by one.
    until: Timestamp,
    samples: u64,
    media: BTreeMap<&'a str, u64>,
    brightness: Option<[f64; BINS]>,
    fields: BTreeMap<&'a str, Field>,
    classes: BTreeMap<u64, u64>,
    scores: Option<[f64; BINS]>,
}

impl Statistics {
    pub fn add(&mut self, measured: Measured, answer: Option<&Answer>) {
        self.samples += 1;
        let Some(media) = measured.media else { return };
        *self.media.entry(media.extension()).or_default() += 1;
        if let Some(brightness) = measured.brightness {
            self.pictures += 1;
            self.brightness.iter_mut().zip(brightness).for_each(|(bin, pixels)| *bin += pixels);
        }
        measured.fields.into_iter().for_each(|(name, value)| self.add_field(name, value));
        if let Some(class) = answer.and_then(|answer| answer.prediction) {
            *self.classes.entry(class).or_default() += 1;
        }
        if let Some(score) = answer.and_then(|answer| answer.score) {
            self.scores[bin(score)] += 1;
        }
    }

    fn add_field(&mut self, name: String, value: f64) {
        if self.fields.len() < FIELDS || self.fields.contains_key(&name) {
            let field = self.fields.entry(name).or_default();
            field.count += 1;
            let distance = value - field.mean;
            field.mean += distance / field.count as f64;
            field.spread += distance * (value - field.mean);
        }
    }

    /// What is told of this part of time, in JSON; `None` of too few samples.
    pub fn told(&self, until: Timestamp) -> Option<Vec<u8>> {
        if self.samples < FEWEST {
            return None;
        }
        let fields = self.fields.iter().filter(|(_, field)| field.count >= FEWEST);
        let told = Told {
            until,
            samples: self.samples,
            media: of_enough(&self.media),
            brightness: (self.pictures >= FEWEST).then(|| shares(&self.brightness)),
            fields: fields
                .map(|(name, field)| {
                    (name.as_str(), Field { deviation: (field.spread / field.count as f64).sqrt(), ..*field })
                })
                .collect(),
            classes: of_enough(&self.classes),
            scores: (self.scores.iter().sum::<u64>() >= FEWEST).then(|| shares(&self.scores)),
        };
        serde_json::to_vec(&told).ok()
    }
}

fn bin(share: f64) -> usize {
    ((share.clamp(0.0, 1.0) * BINS as f64) as usize).min(BINS - 1)
}

fn of_enough<K: Ord + Copy>(counts: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    counts.iter().filter(|(_, count)| **count >= FEWEST).map(|(&key, &count)| (key, count)).collect()
}

/// Each to three digits; of a histogram that is not empty.
fn shares(bins: &[u64; BINS]) -> [f64; BINS] {
    let all: u64 = bins.iter().sum();
    bins.map(|count| (count as f64 / all.max(1) as f64 * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_samples_tell_nothing_and_many_no_single_one() {
        let mut statistics = Statistics::default();
        for value in 1..=4 {
            let content = format!(r#"{{"speed": {value}, "plate": "B-XY 1"}}"#);
            statistics.add(Measured::of(content.as_bytes()), None);
        }
        assert_eq!(statistics.told(Timestamp::UNIX_EPOCH), None);
        statistics.add(Measured::of(br#"{"speed": 5, "rare": 7}"#), None);
        let told: serde_json::Value = serde_json::from_slice(&statistics.told(Timestamp::UNIX_EPOCH).unwrap()).unwrap();
        assert_eq!(told["until"], "1970-01-01T00:00:00Z");
        assert_eq!(told["fields"]["speed"]["mean"], 3.0);
        assert_eq!(told["fields"]["speed"]["deviation"], 2.0_f64.sqrt());
        assert_eq!(told["fields"].as_object().unwrap().len(), 1, "{told}");
        assert!(!told.to_string().contains("B-XY"));
    }

    /// Five samples were enough to tell all that one of them was.
    #[test]
    fn a_histogram_of_few_is_not_told_among_many() {
        let mut picture = Vec::new();
        image::RgbImage::from_pixel(4, 4, image::Rgb([200; 3]))
            .write_to(&mut std::io::Cursor::new(&mut picture), image::ImageFormat::Png)
            .unwrap();
        let answer = Answer {
            model: "street.vision".into(),
            version: String::new(),
            tier: String::new(),
            prediction: Some(3),
            score: Some(0.5),
            margin: None,
            backbone: None,
        };
        let mut statistics = Statistics::default();
        (0..9).for_each(|_| statistics.add(Measured::of(b"{}"), None));
        let mut told = |pictures| {
            (0..pictures).for_each(|_| statistics.add(Measured::of(&picture), Some(&answer)));
            serde_json::from_slice::<serde_json::Value>(&statistics.told(Timestamp::UNIX_EPOCH).unwrap()).unwrap()
        };
        let few = told(4);
        assert_eq!(few["media"], serde_json::json!({"json": 9}));
        assert!(few["brightness"].is_null() && few["scores"].is_null(), "{few}");
        let enough = told(1);
        assert_eq!(enough["media"], serde_json::json!({"json": 9, "png": 5}));
        assert_eq!((&enough["brightness"][12], &enough["scores"][8]), (&1.0.into(), &1.0.into()));
        assert_eq!(enough["classes"]["3"], 5);
    }
}
