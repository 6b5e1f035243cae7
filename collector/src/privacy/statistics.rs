//! Statistics over samples that do not leave: how many, how their values are spread, which classes were answered. Pure.
//!
//! Nothing is told but how many samples are alike, and that only of five or more: no sum, mean or extreme, of which a single value
//! could be worked out.

use super::picture::decode;
use crate::sample::{Answer, Media};
use image::Pixel as _;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

const BINS: usize = 16;
/// What fewer samples have is not told, be it a class, a kind of file, a value or a brightness: it could be one person.
const FEWEST: u64 = 5;
/// Fields of measurements that are told, at most.
const FIELDS: usize = 64;
/// Values of each, to two digits, that are counted at once; others count in the field alone.
const VALUES: usize = 64;

/// Over one part of time.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    samples: u64,
    media: BTreeMap<&'static str, u64>,
    /// Of pictures.
    brightness: [u64; BINS],
    fields: BTreeMap<String, Field>,
    classes: BTreeMap<u64, u64>,
    scores: [u64; BINS],
}

/// What counts of one sample.
#[derive(Debug, PartialEq)]
pub struct Measured {
    media: Option<Media>,
    /// Of all pixels, from 0 to 1.
    brightness: Option<f64>,
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

fn brightness(content: &[u8], media: Media) -> Option<f64> {
    let picture = decode(content, media).ok()?;
    let sum: u64 = picture.pixels().map(|pixel| u64::from(pixel.to_luma().0[0])).sum();
    Some(sum as f64 / 255.0 / picture.pixels().len().max(1) as f64)
}

fn fields(content: &[u8]) -> Vec<(String, f64)> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_slice(content) else { return Vec::new() };
    fields.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
}

/// Of one measured number.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
struct Field {
    count: u64,
    /// How many have each value, to two digits, such as `3.1e4`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, u64>,
}

impl Field {
    fn add(&mut self, value: f64) {
        self.count += 1;
        // Zero has no sign.
        let value = format!("{:.1e}", value + 0.0);
        if self.values.len() < VALUES || self.values.contains_key(&value) {
            *self.values.entry(value).or_default() += 1;
        }
    }

    /// What is not told yet: of a slow sensor five are alike after an hour. A full table is of values that hardly come again.
    fn rest(self) -> Self {
        if self.count < FEWEST {
            return self;
        }
        let told = self.told().values;
        let mut values = self.values;
        values.retain(|value, _| !told.contains_key(value));
        if values.len() == VALUES {
            values.clear();
        }
        Self { count: 0, values }
    }

    /// What is told of it. A value that all have alone is none: whoever is known to be among them would be known to have it.
    fn told(&self) -> Self {
        let mut values = of_enough(&self.values);
        if values.len() < 2 {
            values.clear();
        }
        Self { count: self.count, values }
    }
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
            self.brightness[bin(brightness)] += 1;
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
            self.fields.entry(name).or_default().add(value);
        }
    }

    /// With what the next part of time begins, once this one is told.
    pub fn rest(self) -> Self {
        let rest = self.fields.into_iter().map(|(name, field)| (name, field.rest()));
        let fields = rest.filter(|(_, field)| *field != Field::default()).collect();
        Self { fields, ..Self::default() }
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
            brightness: shares(&self.brightness),
            fields: fields.map(|(name, field)| (name.as_str(), field.told())).collect(),
            classes: of_enough(&self.classes),
            scores: shares(&self.scores),
        };
        serde_json::to_vec(&told).ok()
    }
}

fn bin(share: f64) -> usize {
    ((share.clamp(0.0, 1.0) * BINS as f64) as usize).min(BINS - 1)
}

fn of_enough<K: Ord + Clone>(counts: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    counts.iter().filter(|(_, count)| **count >= FEWEST).map(|(key, &count)| (key.clone(), count)).collect()
}

/// Shares of the bins that enough samples are in, to three digits; `None` if there is no such.
fn shares(bins: &[u64; BINS]) -> Option<[f64; BINS]> {
    let told = bins.map(|samples| if samples >= FEWEST { samples } else { 0 });
    let all: u64 = told.iter().sum();
    (all > 0).then(|| told.map(|samples| (samples as f64 / all as f64 * 1000.0).round() / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
        assert_eq!(told["fields"], json!({"speed": {"count": 5}}), "one has each value");
        assert!(!told.to_string().contains("B-XY"));
    }

    /// A mean of equal values is each of them, and one that is far from the others is in any mean.
    #[test]
    fn a_value_is_told_that_five_have_and_not_all_and_to_two_digits() {
        let mut statistics = Statistics::default();
        let mut told = |value: f64, times| {
            let content = json!({"speed": value}).to_string();
            (0..times).for_each(|_| statistics.add(Measured::of(content.as_bytes()), None));
            let told = statistics.told(Timestamp::UNIX_EPOCH).unwrap();
            serde_json::from_slice::<serde_json::Value>(&told).unwrap()["fields"]["speed"].clone()
        };
        assert_eq!(told(31415.926535, 6), json!({"count": 6}));
        assert_eq!(told(-0.0, 4), json!({"count": 10}));
        assert_eq!(told(27182.8, 1), json!({"count": 11}));
        assert_eq!(told(0.0, 1), json!({"count": 12, "values": {"0.0e0": 5, "3.1e4": 6}}));
        assert_eq!(told(31000.0, 1), json!({"count": 13, "values": {"0.0e0": 5, "3.1e4": 7}}));
    }

    /// Of a sensor that measures each minute, a part of five minutes alone would tell nothing.
    #[test]
    fn what_is_not_told_waits_until_it_may_be() {
        let mut statistics = Statistics::default();
        let mut part = |values: [f64; 5]| {
            for value in values {
                statistics.add(Measured::of(json!({"speed": value}).to_string().as_bytes()), None);
            }
            let told = statistics.told(Timestamp::UNIX_EPOCH).unwrap();
            statistics = std::mem::take(&mut statistics).rest();
            serde_json::from_slice::<serde_json::Value>(&told).unwrap()["fields"]["speed"].clone()
        };
        assert_eq!(part([1.0, 1.0, 1.0, 2.0, 3.0]), json!({"count": 5}));
        assert_eq!(part([1.0, 1.0, 2.0, 2.0, 2.0]), json!({"count": 5}), "one value that five have is alone");
        assert_eq!(part([1.0, 2.0, 3.0, 3.0, 4.0]), json!({"count": 5, "values": {"1.0e0": 6, "2.0e0": 5}}));
        assert_eq!(part([1.0, 3.0, 3.0, 4.0, 4.0]), json!({"count": 5}), "each is told once");
    }

    /// One white picture was told among black ones, and one sure answer among unsure ones.
    #[test]
    fn what_one_sample_has_alone_is_in_no_histogram() {
        let mut bins = [0; BINS];
        (bins[0], bins[15]) = (4, 1);
        assert_eq!(shares(&bins), None);
        bins[0] = 5;
        let mut told = [0.0; BINS];
        told[0] = 1.0;
        assert_eq!(shares(&bins), Some(told));
        bins[15] = 5;
        (told[0], told[15]) = (0.5, 0.5);
        assert_eq!(shares(&bins), Some(told));
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
        assert_eq!(few["media"], json!({"json": 9}));
        assert!(few["brightness"].is_null() && few["scores"].is_null(), "{few}");
        let enough = told(1);
        assert_eq!(enough["media"], json!({"json": 9, "png": 5}));
        assert_eq!((&enough["brightness"][12], &enough["scores"][8]), (&1.0.into(), &1.0.into()));
        assert_eq!(enough["classes"]["3"], 5);
    }
}
