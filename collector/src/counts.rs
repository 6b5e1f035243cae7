//! What became of samples: every one that is gone is counted, by reason.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a sample is gone without having been sent.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// The dataset's buffer was full, and this was the least of what it held.
    Full,
    /// It was held for longer than the dataset allows.
    Expired,
    /// The disk had no room.
    DiskFull,
    /// More came than could be written.
    Busy,
    /// Larger than a segment holds.
    TooLarge,
    /// The privacy policy could not be honoured with it.
    Private,
    /// The dataset needs consent, and nobody had told of any.
    NoConsent,
    /// Features alone may leave, and there were none: it is of no model, or its model has no backbone, or did not answer in time.
    NoFeatures,
    /// It is not of the dataset's kind.
    Strange,
    /// It was held, and a broken disk has lost it.
    Corrupt,
    /// Somebody asked that it be forgotten.
    Forgotten,
}

impl Drop {
    pub const ALL: [Self; 11] = [
        Self::Full,
        Self::Expired,
        Self::DiskFull,
        Self::Busy,
        Self::TooLarge,
        Self::Private,
        Self::NoConsent,
        Self::NoFeatures,
        Self::Strange,
        Self::Corrupt,
        Self::Forgotten,
    ];

    /// Whether a sample that goes so had been kept before.
    pub fn was_kept(self) -> bool {
        matches!(self, Self::Full | Self::Expired | Self::Corrupt | Self::Forgotten)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "Full",
            Self::Expired => "Expired",
            Self::DiskFull => "DiskFull",
            Self::Busy => "Busy",
            Self::TooLarge => "TooLarge",
            Self::Private => "Private",
            Self::NoConsent => "NoConsent",
            Self::NoFeatures => "NoFeatures",
            Self::Strange => "Strange",
            Self::Corrupt => "Corrupt",
            Self::Forgotten => "Forgotten",
        }
    }
}

/// Since the store was made. `kept = held + sent + those dropped that were kept`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub kept: u64,
    /// Came again with the same content.
    pub duplicates: u64,
    pub sent: u64,
    /// Those of them that had a label; what was sent by a version that did not count them has none.
    #[serde(default)]
    pub labelled: u64,
    pub sent_bytes: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<Drop, u64>,
}

impl Counts {
    pub fn drop(&mut self, why: Drop, samples: u64) {
        if samples > 0 {
            *self.dropped.entry(why).or_default() += samples;
        }
    }

    /// How many must be held, if none is lost.
    pub fn held(&self) -> u64 {
        let gone: u64 = self.dropped.iter().filter(|(why, _)| why.was_kept()).map(|(_, samples)| samples).sum();
        self.kept.saturating_sub(self.sent).saturating_sub(gone)
    }
}
