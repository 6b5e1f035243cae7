//! A sample: bytes, and what is known of them. Its name is the SHA-256 of the bytes, so that the same sample is the same twice.

use crate::clock::Now;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// SHA-256 of the content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Id(pub [u8; 32]);

impl Id {
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

#[derive(thiserror::Error, Debug)]
#[error("an id is 64 hexadecimal digits, the SHA-256 of the sample's bytes")]
pub struct NoId;

impl FromStr for Id {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NoId);
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NoId)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NoId)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Id {
    type Error = NoId;

    fn try_from(text: String) -> Result<Self, NoId> {
        text.parse()
    }
}

/// What the bytes are: the last part of a file's name.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    Jpg,
    Png,
    Wav,
    /// A tensor, as NumPy writes it.
    Npy,
    Json,
}

impl Media {
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpg => "jpg",
            Self::Png => "png",
            Self::Wav => "wav",
            Self::Npy => "npy",
            Self::Json => "json",
        }
    }

    /// By the first bytes; what a sender says of them is not believed.
    pub fn of(content: &[u8]) -> Option<Self> {
        match content {
            [0xff, 0xd8, ..] => Some(Self::Jpg),
            [0x89, b'P', b'N', b'G', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some(Self::Wav),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Self::Npy),
            // A text that is skipped is not looked into, whether it is UTF-8: manifests tell it as it came.
            _ => std::str::from_utf8(content)
                .ok()
                .and_then(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).ok())
                .map(|_| Self::Json),
        }
    }
}

/// What a dataset is of. Tensors, which models are asked with, belong to every one.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Image,
    Audio,
    Sensor,
}

impl Kind {
    pub fn holds(self, media: Media) -> bool {
        match media {
            Media::Npy => true,
            Media::Jpg | Media::Png => self == Self::Image,
            Media::Wav => self == Self::Audio,
            Media::Json => self == Self::Sensor,
        }
    }
}

/// Why it was kept.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// By lot. These alone tell what the world is like.
    Uniform,
    /// The model was unsure, or has few of its class.
    Hard,
}

/// What a model said of it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// `NAME.NAMESPACE`.
    pub model: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Which tier answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tier: String,
    /// The best class; it, its score and its margin are absent where the answer was no classifier's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// How far the best is before the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Where the sample is features: digest of the backbone that made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backbone: Option<String>,
}

/// What it shows, who says so, and since when.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Label {
    pub value: String,
    pub author: String,
    /// How the label came: `feedback`, `folder`, `csv`.
    pub source: String,
    pub time: Timestamp,
}

/// What is known of a sample, beside its bytes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub id: Id,
    pub media: Media,
    /// Whence it came, such as `http` or `mqtt:door/7/image`.
    pub source: String,
    /// Samples of one group never stand on both sides of a split: a camera's hour, a speaker, a patient.
    pub group: String,
    pub taken: Now,
    pub why: Why,
    /// That a sample like this one is kept: its weight in any estimate is the inverse.
    pub probability: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// What its sender said of consent, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<String>,
    /// The policy that was enforced before it was queued, and what that took away.
    pub policy: String,
    /// Which mask covered it: the first digits of the mask's SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redactions: Vec<String>,
}

/// What is dropped first, where not all can be held; within a rank the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Easy,
    Hard,
    Labelled,
}

impl Sample {
    pub fn rank(&self) -> Rank {
        match (&self.label, self.why) {
            (Some(_), _) => Rank::Labelled,
            (None, Why::Hard) => Rank::Hard,
            (None, Why::Uniform) => Rank::Easy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = Id::of(b"seven");
        assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
        assert!("7".parse::<Id>().is_err());
        assert!("é".repeat(32).parse::<Id>().is_err());
    }

    #[test]
    fn bytes_say_what_they_are() {
        assert_eq!(Media::of(&[0xff, 0xd8, 0xff]), Some(Media::Jpg));
        assert_eq!(Media::of(b"RIFF\0\0\0\0WAVEfmt "), Some(Media::Wav));
        assert_eq!(Media::of(br#"{"temperature": 21.5}"#), Some(Media::Json));
        assert_eq!(Media::of(b"MZ\x90"), None);
        assert_eq!(Media::of(b"{\"ort\": \"K\xf6ln\"}"), None, "Latin-1");
    }
}
