//! Privacy: what a policy takes away, before anything is queued. Pure. What cannot be honoured is refused, never passed on.

mod mask;
mod picture;
mod statistics;

pub use mask::{Mask, Zone};
pub use statistics::{Measured, Statistics};

use crate::counts::Drop;
use crate::sample::{Answer, Id, Kind, Media};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// From the loosest to the strictest. Features alone are no policy yet: no source gives them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "policy")]
pub enum Privacy {
    /// As it was taken.
    Raw,
    /// Images without what the mask covers.
    Masked { mask: Mask },
    /// Counts and histograms over many samples; no sample leaves.
    StatisticsOnly,
}

/// What is left of a sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Left {
    Content {
        content: Bytes,
        media: Media,
        redactions: Vec<String>,
    },
    /// Nothing of its own: it counts in the statistics.
    Nothing,
}

#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    #[error(
        "the bytes are none of JPEG, PNG, WAV, NPY and JSON: what they are cannot be told, so neither what they show"
    )]
    Unknown,
    #[error("Masked covers images, and this is {0}: let the dataset be Raw or StatisticsOnly")]
    NoImage(&'static str),
    #[error("the image cannot be read, so not masked: {0}")]
    Image(String),
    #[error("the mask has no zones for the camera \"{0}\" and none for all: what it shows would leave uncovered")]
    NoZones(String),
    #[error(
        "this dataset needs consent, and the sample has no mark of it: header x-sconce-consent, user property consent, file .consent"
    )]
    NoConsent,
    #[error("this dataset is of the kind {0:?}, and this is {1}")]
    Strange(Kind, &'static str),
}

impl Refusal {
    pub fn why(&self) -> Drop {
        match self {
            Self::Strange(..) => Drop::Strange,
            Self::NoConsent => Drop::NoConsent,
            Self::Unknown | Self::NoImage(_) | Self::Image(_) | Self::NoZones(_) => Drop::Private,
        }
    }
}

impl Privacy {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Raw => "Raw",
            Self::Masked { .. } => "Masked",
            Self::StatisticsOnly => "StatisticsOnly",
        }
    }

    /// Names the mask, if there is one: another mask has another name.
    pub fn mask(&self) -> Option<String> {
        let Self::Masked { mask } = self else { return None };
        // Maps of numbers and texts are always written.
        let written = serde_json::to_vec(mask).unwrap_or_default();
        Some(Id::of(&written).to_string()[..16].to_owned())
    }

    /// Whether what was taken under a policy and a mask, by their names, may leave under this one. Of two masks none is the stricter.
    pub fn allows(&self, policy: &str, mask: Option<&str>) -> bool {
        let order = ["Raw", "Masked", "StatisticsOnly"];
        let strictness = |name: &str| order.iter().position(|policy| *policy == name);
        let is_as_strict = strictness(policy) >= strictness(self.name());
        is_as_strict && (policy != self.name() || mask == self.mask().as_deref())
    }

    /// What may be queued of a sample that a camera, or another source, has taken.
    ///
    /// # Errors
    /// [`Refusal`]: the sample may not be queued.
    pub fn enforce(&self, camera: &str, content: Bytes) -> Result<Left, Refusal> {
        let media = Media::of(&content).ok_or(Refusal::Unknown)?;
        match self {
            Self::Raw => Ok(Left::Content { content, media, redactions: Vec::new() }),
            Self::StatisticsOnly => Ok(Left::Nothing),
            Self::Masked { mask } => {
                let (content, redactions) = match media {
                    Media::Jpg | Media::Png => mask.cover(camera, &content, media)?,
                    other => return Err(Refusal::NoImage(other.extension())),
                };
                Ok(Left::Content { content, media, redactions })
            }
        }
    }

    /// What may be queued of an answer. Whoever sees no sample sees no single answer.
    pub fn answer(&self, answer: Option<Answer>) -> Option<Answer> {
        match self {
            Self::Raw | Self::Masked { .. } => answer,
            Self::StatisticsOnly => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_under_a_looser_policy_may_not_leave() {
        let masked = Privacy::Masked { mask: Mask::default() };
        let name = masked.mask();
        let allowed =
            ["Raw", "Masked", "StatisticsOnly", "Unheard"].map(|policy| masked.allows(policy, name.as_deref()));
        assert_eq!(allowed, [false, true, true, false]);
        assert!(Privacy::Raw.allows("Masked", name.as_deref()) && Privacy::Raw.allows("Raw", None));
        // What another mask has covered may show what this one covers.
        let coarser = Privacy::Masked { mask: Mask { blocks: Some(4), ..Mask::default() } };
        assert!(!coarser.allows("Masked", name.as_deref()) && !coarser.allows("Masked", None));
        assert!(coarser.allows("Masked", coarser.mask().as_deref()));
    }
}
