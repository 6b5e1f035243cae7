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

/// From the loosest to the strictest.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "policy")]
pub enum Privacy {
    /// As it was taken.
    Raw,
    /// Images without what the mask covers.
    Masked { mask: Mask },
    /// Of requests of models, what the model's backbone made of them where it serves: what they were does not come here.
    FeaturesOnly,
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
    #[error(
        "FeaturesOnly keeps what a model's backbone makes of a request, and this is none: does the model have layers before its head?"
    )]
    NoFeatures,
    #[error("this dataset is of the kind {0:?}, and this is {1}")]
    Strange(Kind, &'static str),
}

impl Refusal {
    pub fn why(&self) -> Drop {
        match self {
            Self::Strange(..) => Drop::Strange,
            Self::NoConsent => Drop::NoConsent,
            Self::NoFeatures => Drop::NoFeatures,
            Self::Unknown | Self::NoImage(_) | Self::Image(_) | Self::NoZones(_) => Drop::Private,
        }
    }
}

impl Privacy {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Raw => "Raw",
            Self::Masked { .. } => "Masked",
            Self::FeaturesOnly => "FeaturesOnly",
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
        let order = ["Raw", "Masked", "FeaturesOnly", "StatisticsOnly"];
        let strictness = |name: &str| order.iter().position(|policy| *policy == name);
        let is_as_strict = strictness(policy) >= strictness(self.name());
        is_as_strict && (policy != self.name() || mask == self.mask().as_deref())
    }

    /// What may be queued of a sample that a camera, or another source, has taken; `backbone` names what made features of it.
    ///
    /// # Errors
    /// [`Refusal`]: the sample may not be queued.
    pub fn enforce(&self, camera: &str, content: Bytes, backbone: Option<&str>) -> Result<Left, Refusal> {
        let media = Media::of(&content);
        if *self == Self::FeaturesOnly && !(media == Some(Media::Npy) && backbone.is_some_and(is_digest)) {
            return Err(Refusal::NoFeatures);
        }
        let media = media.ok_or(Refusal::Unknown)?;
        match self {
            Self::Raw => Ok(Left::Content { content, media, redactions: Vec::new() }),
            Self::FeaturesOnly => Ok(Left::Content { content, media, redactions: vec!["all but features".into()] }),
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
            Self::Raw | Self::Masked { .. } | Self::FeaturesOnly => answer,
            Self::StatisticsOnly => None,
        }
    }
}

/// `sha256:` and 64 hexadecimal digits: it leaves, and is to say nothing else.
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| digits.parse::<Id>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_leave_by_the_name_of_what_made_them_and_nothing_else_does() {
        let tensor = Bytes::from_static(b"\x93NUMPY\x01\x00...");
        let digest = format!("sha256:{}", "7f".repeat(32));
        let left = |content: &Bytes, backbone| Privacy::FeaturesOnly.enforce("door", content.clone(), backbone);
        let redactions = vec!["all but features".into()];
        let whole = Left::Content { content: tensor.clone(), media: Media::Npy, redactions };
        assert_eq!(left(&tensor, Some(&digest)), Ok(whole));
        let more = format!("{digest} and the input");
        for backbone in [None, Some(""), Some("sha256:7f"), Some(&*more)] {
            assert_eq!(left(&tensor, backbone), Err(Refusal::NoFeatures), "{backbone:?}");
        }
        for content in [&b""[..], b"\x89PNG", b"{}"] {
            let content = Bytes::from_static(content);
            assert_eq!(left(&content, Some(&digest)), Err(Refusal::NoFeatures), "{content:?}");
        }
    }

    #[test]
    fn what_was_taken_under_a_looser_policy_may_not_leave() {
        let masked = Privacy::Masked { mask: Mask::default() };
        let name = masked.mask();
        let allowed = ["Raw", "Masked", "FeaturesOnly", "StatisticsOnly", "Unheard"]
            .map(|policy| masked.allows(policy, name.as_deref()));
        assert_eq!(allowed, [false, true, true, true, false]);
        let features = ["Raw", "Masked", "FeaturesOnly", "StatisticsOnly"]
            .map(|policy| Privacy::FeaturesOnly.allows(policy, None));
        assert_eq!(features, [false, false, true, true]);
        assert!(!Privacy::StatisticsOnly.allows("FeaturesOnly", None));
        assert!(Privacy::Raw.allows("Masked", name.as_deref()) && Privacy::Raw.allows("Raw", None));
        // What another mask has covered may show what this one covers.
        let coarser = Privacy::Masked { mask: Mask { blocks: Some(4), ..Mask::default() } };
        assert!(!coarser.allows("Masked", name.as_deref()) && !coarser.allows("Masked", None));
        assert!(coarser.allows("Masked", coarser.mask().as_deref()));
    }
}
