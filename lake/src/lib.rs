//! Reads what collectors wrote, and what people said of it: the samples of a data set in a bucket or a folder, and their labels.
//!
//! ```text
//! PREFIX/manifests/NAME.parquet          a row for each sample of a shard; it makes the shard so
//! PREFIX/shards/NAME-HASH.tar            their bytes
//! PREFIX/labels/NAME.csv                 id,label,by,at: what people said later
//! PREFIX/forgotten/NAME.csv              id,by,at: which samples are to be there no more
//! ```
//! It knows no Kubernetes, no tensor and no model.

mod forget;
pub mod forgotten;
pub mod labels;
mod lake;
pub mod npy;
mod place;
mod rows;
mod tar;
mod without;

pub use forget::{Erased, Rewritten};
pub use labels::{Conflict, Label, Labels};
pub use lake::{Lake, Shard};
pub use rows::Row;

use place::Fault;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum LakeError {
    #[error("\"{uri}\": need s3://BUCKET/PREFIX or file:///FOLDER; of a claim, the folder that it is mounted at")]
    Uri { uri: String },
    #[error(
        "cannot open {uri}; of a bucket the environment says endpoint and credentials (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
    )]
    Open {
        uri: String,
        #[source]
        why: Fault,
    },
    #[error("{uri}: there is no such folder")]
    Folder { uri: String },
    #[error("cannot read {name}")]
    Read {
        name: String,
        #[source]
        why: Fault,
    },
    #[error("cannot write {name}")]
    Write {
        name: String,
        #[source]
        why: Fault,
    },
    #[error("{name}: no manifest of samples: {why}")]
    Manifest { name: String, why: String },
    #[error("{name}: no tar, or cut off: {why}")]
    Tar { name: String, why: String },
    #[error("{name}: {count} samples of its manifest are in none of its tars, the first {id}; copy the data set again")]
    Missing { name: String, count: usize, id: String },
    #[error("{name}: the bytes of {id} are not those that it is named by; copy the data set again")]
    Spoilt { name: String, id: String },
    #[error("{name}: {why}")]
    Labels { name: String, why: String },
    #[error("{name}: {why}")]
    Forgotten { name: String, why: String },
    #[error("{count} files hold what is forgotten, or may; the first")]
    Several { count: usize, source: Box<LakeError> },
}

/// Digits of an id.
const ID: usize = 64;

/// SHA-256 of a sample's bytes, as its name has it.
pub fn id(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it is one; it becomes a file's name, too.
pub fn is_id(text: &str) -> bool {
    text.len() == ID && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}
