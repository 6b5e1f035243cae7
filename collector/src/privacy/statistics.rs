//! Statistics over samples that do not leave: how many, how their values are spread, which classes were answered. Pure.

use crate::sample::{Answer, Media};
use serde::Serialize;
use std::collections::BTreeMap;

const BINS: usize = 16;
/// A class that fewer have is not told: it could be one person.
const FEWEST: u64 = 5;
/// Fields of measurements that are told, at most.
const FIELDS: usize = 64;

/// Over one part of time.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    samples: u64,
    media: BTreeMap<&'static str, u64>,
    /// Of all pixels, by brightness.
    brightness: [u64; BINS],
    fields: BTreeMap<String, Field>,
    classes: BTreeMap<u64, u64>,
    scores: [u64; BINS],
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
    samples: u64,
    media: &'a BTreeMap<&'static str, u64>,
    brightness: Option<[f64; BINS]>,
    fields: BTreeMap<&'a str, Field>,
    classes: BTreeMap<u64, u64>,
    scores: Option<[f64; BINS]>,
}

impl Statistics {
    pub fn add(&mut self, content: &[u8], answer: Option<&Answer>) {
        self.samples += 1;
        let Some(media) = Media::of(content) else { return };
        *self.media.entry(media.extension()).or_default() += 1;
        match media {
            Media::Jpg | Media::Png => self.add_image(content),
            Media::Json => self.add_measurements(content),
            Media::Wav | Media::Npy => {}
        }
        if let Some(answer) = answer {
            *self.classes.entry(answer.prediction).or_default() += 1;
            self.scores[bin(answer.score)] += 1;
        }
    }

    fn add_image(&mut self, content: &[u8]) {
        if let Ok(picture) = image::load_from_memory(content) {
            picture.to_luma8().pixels().for_each(|pixel| self.brightness[bin(f64::from(pixel.0[0]) / 255.0)] += 1);
        }
    }

    /// The numbers of a flat object, by their fields; nothing of its texts.
    fn add_measurements(&mut self, content: &[u8]) {
        let Ok(serde_json::Value::Object(fields)) = serde_json::from_slice(content) else { return };
        for (name, value) in fields {
            let Some(value) = value.as_f64() else { continue };
            if self.fields.len() < FIELDS || self.fields.contains_key(&name) {
                let field = self.fields.entry(name).or_default();
                field.count += 1;
                let distance = value - field.mean;
                field.mean += distance / field.count as f64;
                field.spread += distance * (value - field.mean);
            }
        }
    }

    /// What is told of this part of time, in JSON; `None` of too few samples.
    pub fn told(&self) -> Option<Vec<u8>> {
        if self.samples < FEWEST {
            return None;
        }
        let fields = self.fields.iter().filter(|(_, field)| field.count >= FEWEST);
        let told = Told {
            samples: self.samples,
            media: &self.media,
            brightness: shares(&self.brightness),
            fields: fields
                .map(|(name, field)| {
                    (name.as_str(), Field { deviation: (field.spread / field.count as f64).sqrt(), ..*field })
                })
                .collect(),
            classes: self
                .classes
                .iter()
                .filter(|(_, count)| **count >= FEWEST)
                .map(|(&class, &count)| (class, count))
                .collect(),
            scores: shares(&self.scores),
        };
        serde_json::to_vec(&told).ok()
    }
}

fn bin(share: f64) -> usize {
    ((share.clamp(0.0, 1.0) * BINS as f64) as usize).min(BINS - 1)
}

fn shares(bins: &[u64; BINS]) -> Option<[f64; BINS]> {
    let all: u64 = bins.iter().sum();
    (all > 0).then(|| bins.map(|count| (count as f64 / all as f64 * 1000.0).round() / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_samples_tell_nothing_and_many_no_single_one() {
        let mut statistics = Statistics::default();
        for value in 1..=4 {
            statistics.add(format!(r#"{{"speed": {value}, "plate": "B-XY 1"}}"#).as_bytes(), None);
        }
        assert_eq!(statistics.told(), None);
        statistics.add(br#"{"speed": 5, "rare": 7}"#, None);
        let told: serde_json::Value = serde_json::from_slice(&statistics.told().unwrap()).unwrap();
        assert_eq!(told["fields"]["speed"]["mean"], 3.0);
        assert_eq!(told["fields"]["speed"]["deviation"], 2.0_f64.sqrt());
        assert_eq!(told["fields"].as_object().unwrap().len(), 1, "{told}");
        assert!(!told.to_string().contains("B-XY"));
    }
}
