//! Records: what a segment's frames say. Each is some JSON and a blob. Pure.

use crate::clock::Mark;
use crate::counts::{Counts, Drop};
use crate::sample::{Id, Label, Sample};
use crate::segment::{self, Frame};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub const COMMIT: u8 = 1;

/// As much of an id as is remembered of samples that were sent.
pub type Seen = [u8; 16];

/// A sample as it is held: since when by the store's own clock.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Held {
    pub lived: u64,
    pub sample: Sample,
}

/// What a commit says: it makes the batch before it so.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Commit {
    pub counts: Counts,
    pub mark: Mark,
}

/// Begins a segment: all that older ones said and that outlives them, but for samples.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Names this store among those of all nodes and times.
    pub store: String,
    pub next_shard: u64,
    /// Where its samples go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

#[allow(clippy::large_enum_variant, reason = "a record is written, or folded, as soon as it is made")]
pub enum Record<'a> {
    Checkpoint(Checkpoint),
    /// Samples that were sent lately.
    Seen(Vec<Seen>),
    Sample(Held, &'a [u8]),
    Label(Id, Label),
    Gone(Drop, Vec<Id>),
    /// A shard that is to be sent: it is sent as it is here, or not at all.
    Shard(u64, Vec<Id>),
    Sent(u64),
}

#[derive(thiserror::Error, Debug)]
pub enum BadRecord {
    #[error("a record of kind {0} is none that this version knows")]
    Kind(u8),
    #[error("a record is cut off")]
    Short,
    #[error("a record is not understood")]
    Json(#[from] serde_json::Error),
}

impl<'a> Record<'a> {
    /// # Errors
    /// If serde_json cannot write one of our own types.
    pub fn append(&self, bytes: &mut Vec<u8>) -> serde_json::Result<()> {
        match self {
            Self::Checkpoint(checkpoint) => json(bytes, 2, checkpoint, &[]),
            Self::Seen(seen) => json(bytes, 3, &(), &seen.concat()),
            Self::Sample(held, payload) => json(bytes, 4, held, payload),
            Self::Label(id, label) => json(bytes, 5, &(id, label), &[]),
            Self::Gone(why, ids) => json(bytes, 6, why, &blob(ids)),
            Self::Shard(number, ids) => json(bytes, 7, number, &blob(ids)),
            Self::Sent(number) => json(bytes, 8, number, &[]),
        }
    }

    /// # Errors
    /// [`BadRecord`]: a frame that is whole, but says nothing that we know.
    pub fn read(frame: Frame<'a>) -> Result<Self, BadRecord> {
        let (json, blob) = split(frame.body)?;
        Ok(match frame.kind {
            2 => Self::Checkpoint(serde_json::from_slice(json)?),
            3 => Self::Seen(blob.as_chunks().0.to_vec()),
            4 => Self::Sample(serde_json::from_slice(json)?, blob),
            5 => {
                let (id, label) = serde_json::from_slice(json)?;
                Self::Label(id, label)
            }
            6 => Self::Gone(serde_json::from_slice(json)?, ids(blob)),
            7 => Self::Shard(serde_json::from_slice(json)?, ids(blob)),
            8 => Self::Sent(serde_json::from_slice(json)?),
            kind => return Err(BadRecord::Kind(kind)),
        })
    }
}

/// # Errors
/// As [`Record::append`].
pub fn append_commit(bytes: &mut Vec<u8>, commit: &Commit) -> serde_json::Result<()> {
    json(bytes, COMMIT, commit, &[])
}

/// # Errors
/// [`BadRecord`].
pub fn read_commit(body: &[u8]) -> Result<Commit, BadRecord> {
    parsed(split(body)?.0)
}

fn parsed<T: DeserializeOwned>(json: &[u8]) -> Result<T, BadRecord> {
    Ok(serde_json::from_slice(json)?)
}

fn json(bytes: &mut Vec<u8>, kind: u8, value: &impl Serialize, blob: &[u8]) -> serde_json::Result<()> {
    let json = serde_json::to_vec(value)?;
    segment::append(bytes, kind, &[&(json.len() as u32).to_le_bytes(), &json, blob]);
    Ok(())
}

fn split(body: &[u8]) -> Result<(&[u8], &[u8]), BadRecord> {
    let (length, rest) = body.split_first_chunk().ok_or(BadRecord::Short)?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or(BadRecord::Short)
}

fn blob(ids: &[Id]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

fn ids(blob: &[u8]) -> Vec<Id> {
    blob.as_chunks().0.iter().map(|&id| Id(id)).collect()
}
