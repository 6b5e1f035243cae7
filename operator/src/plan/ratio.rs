//! How far predictions are off: what clients waited whole over what was predicted, by hardware class, variant and tier.

use super::predict::ratio;
use sconce_api::Tier;
use std::collections::BTreeMap;

/// As predicted, in percent.
pub const AS_PREDICTED: u64 = 100;
/// A correction is never believed beyond half and double: a router may err, or lie.
pub const BOUNDS: (u64, u64) = (50, 200);

/// What a prediction is multiplied with, in percent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ratios(BTreeMap<Tier, BTreeMap<String, BTreeMap<String, u64>>>);

impl Ratios {
    pub fn percent(&self, tier: Tier, class: &str, variant: &str) -> u64 {
        self.0.get(&tier).and_then(|classes| classes.get(class)?.get(variant)).copied().unwrap_or(AS_PREDICTED)
    }

    pub fn put(&mut self, key: RatioKey, percent: u64) {
        let variants = self.0.entry(key.tier).or_default().entry(key.class).or_default();
        variants.insert(key.variant, percent.clamp(BOUNDS.0, BOUNDS.1));
    }

    /// All that correct anything, in the order of tier, class and variant.
    pub fn all(&self) -> impl Iterator<Item = (RatioKey, u64)> {
        let all = self.0.iter().flat_map(|(tier, classes)| {
            let variants = classes.iter().flat_map(|(class, variants)| variants.iter().map(move |of| (class, of)));
            variants.map(|(class, (variant, percent))| {
                (RatioKey { class: class.clone(), variant: variant.clone(), tier: *tier }, *percent)
            })
        });
        all.filter(|(_, percent)| *percent != AS_PREDICTED)
    }
}

/// What predictions are corrected by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RatioKey {
    pub class: String,
    pub variant: String,
    pub tier: Tier,
}

/// What one site tells of a prediction, in percent of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatioSample {
    pub key: RatioKey,
    pub percent: u64,
}

/// What was measured over what was predicted, within bounds.
pub fn observed_percent(measured_us: u64, predicted_us: u64) -> u64 {
    ratio(measured_us, AS_PREDICTED, predicted_us).clamp(BOUNDS.0, BOUNDS.1)
}
