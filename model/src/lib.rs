//! What a model is: its architecture, one network for reference and training, preprocessing, and the artifact.

pub mod architecture;
pub mod artifact;
pub mod digest;
pub mod drift;
pub mod graph;
pub mod idx;
pub mod metrics;
pub mod network;
pub mod ops;
pub mod plan;
pub mod preprocess;
pub mod variant;

#[cfg(test)]
mod zoo;
