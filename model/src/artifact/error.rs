//! What can be wrong with an artifact.

use crate::network::WeightsError;
use crate::variant::VariantError;
use std::path::PathBuf;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ArtifactError {
    #[error("{} is missing: fetch the artifact again, or name its folder", path.display())]
    Missing { path: PathBuf },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{file}: schema {got}; this build knows {known}: use a newer build")]
    Schema { file: String, got: u32, known: u32 },
    #[error("{file} is broken: {why}; fetch the artifact again")]
    Broken { file: String, why: String },
    /// Tensors that are not those of the architecture: the fault names tensor, what it is, and what is needed.
    #[error("{file} is broken: {fault}; fetch the artifact again")]
    Weights { file: String, fault: Box<WeightsError> },
    #[error("unknown architecture: {why}; use a newer build, or train again with layers that this one knows")]
    UnknownArchitecture { why: String },
    #[error("no variant \"{got}\"; the artifact has {known}")]
    Variant { got: String, known: String },
    #[error("variant \"{variant}\" is computed by {got}, which this build does not know: use a newer build")]
    Arithmetic { variant: String, got: String },
    #[error("a version needs a variant")]
    NoVariant,
    #[error("cannot compress the network: {0}")]
    Compress(#[from] VariantError),
    #[error("cannot build the network")]
    Network { source: candle_core::Error },
}
