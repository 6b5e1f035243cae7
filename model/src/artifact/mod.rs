//! A model version as a folder: what it is (`config.json`), how raw material becomes input (`preprocess.json`), its variants
//! (`variants.json`), what it can (`evaluation.json`) and its weights.
//!
//! Bytes are the same for the same content: keys are sorted, and there is no time stamp.

mod error;
mod files;
mod formats;
pub mod testing;

pub use error::ArtifactError;
pub use files::{File, files, media_type};
pub use formats::{Config, DataSet, Evaluation, Result as Measured, TensorSpec, VariantEntry};

use crate::architecture::Architecture;
use crate::graph::Graph;
use crate::network::Network;
use crate::preprocess::Preprocess;
use candle_core::{Device, Tensor};
use formats::Variants;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const CONFIG: &str = "config.json";
pub const PREPROCESS: &str = "preprocess.json";
pub const VARIANTS: &str = "variants.json";
pub const EVALUATION: &str = "evaluation.json";
/// The variant that training makes.
pub const F32: &str = "f32";
const WEIGHTS: &str = "weights/f32/model.safetensors";
const SCHEMA: u32 = 1;

pub struct Artifact {
    folder: PathBuf,
    config: Config,
    graph: Arc<Graph>,
    preprocess: Preprocess,
    variants: Vec<VariantEntry>,
    evaluation: Option<Evaluation>,
}

/// What a version is made of, before it is a folder.
pub struct Description<'a> {
    pub task: &'a str,
    pub labels: Vec<String>,
    pub architecture: &'a Architecture,
    pub preprocess: &'a Preprocess,
    pub network: &'a Network,
    pub evaluation: &'a Evaluation,
}

impl Artifact {
    /// Reads all but the weights.
    ///
    /// # Errors
    /// [`ArtifactError`] names the file, what is wrong with it, and what to do.
    pub fn open(folder: &Path) -> Result<Self, ArtifactError> {
        let config: Config = read_json(folder, CONFIG)?;
        schema(CONFIG, config.schema)?;
        let architecture: Architecture = serde_json::from_value(config.architecture.clone())
            .map_err(|error| ArtifactError::UnknownArchitecture { why: error.to_string() })?;
        let graph =
            architecture.graph().map_err(|error| ArtifactError::UnknownArchitecture { why: error.to_string() })?;
        if config.task == "classification" && config.labels.len() != graph.units() {
            let error =
                crate::architecture::ArchitectureError::Labels { units: graph.units(), labels: config.labels.len() };
            return Err(ArtifactError::UnknownArchitecture { why: error.to_string() });
        }
        for (what, got, needed) in
            [("inputs", &config.inputs, input_spec(&graph)), ("outputs", &config.outputs, output_spec(&graph))]
        {
            if !matches!(&got[..], [got] if got.datatype == needed.datatype && got.shape == needed.shape) {
                let why = format!("{what} are not the architecture's: one of {} {:?}", needed.datatype, needed.shape);
                return Err(ArtifactError::Broken { file: CONFIG.into(), why });
            }
        }
        let variants: Variants = read_json(folder, VARIANTS)?;
        schema(VARIANTS, variants.schema)?;
        for file in variants.variants.iter().flat_map(|variant| &variant.files) {
            if !inside(file) {
                let why = format!("\"{file}\" is no path inside the artifact");
                return Err(ArtifactError::Broken { file: VARIANTS.into(), why });
            }
        }
        // A variant is served by its files alone; the evaluation is for those who choose.
        let evaluation = match read_json(folder, EVALUATION) {
            Ok(evaluation @ Evaluation { schema: got, .. }) => schema(EVALUATION, got).map(|()| Some(evaluation))?,
            Err(ArtifactError::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        let preprocess: Preprocess = read_json(folder, PREPROCESS)?;
        schema(PREPROCESS, preprocess.version)?;
        Ok(Self {
            folder: folder.into(),
            config,
            graph: Arc::new(graph),
            preprocess,
            variants: variants.variants,
            evaluation,
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    pub fn variants(&self) -> &[VariantEntry] {
        &self.variants
    }

    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_ref()
    }

    /// Loads the weights of a variant: each file is read into memory once, then parsed.
    ///
    /// # Errors
    /// [`ArtifactError`] if there is no such variant, or its tensors are not those of the architecture.
    pub fn network(&self, variant: &str) -> Result<Network, ArtifactError> {
        let entry = self.variants.iter().find(|entry| entry.name == variant).ok_or_else(|| ArtifactError::Variant {
            got: variant.into(),
            known: self.variants.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let mut weights = BTreeMap::new();
        for file in &entry.files {
            let broken = |why: String| ArtifactError::Broken { file: file.clone(), why };
            let bytes = read(&self.folder, file)?;
            let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
                .map_err(|error| broken(error.to_string()))?;
            weights.extend(tensors);
        }
        Network::load(self.graph.clone(), &weights)
            .map_err(|fault| ArtifactError::Weights { file: entry.files.join(", "), fault: Box::new(fault) })
    }
}

/// Writes a version into an empty or absent folder.
///
/// # Errors
/// [`ArtifactError::Write`] with the path.
pub fn write(folder: &Path, description: &Description<'_>) -> Result<(), ArtifactError> {
    let graph = description.network.graph();
    let tensors: BTreeMap<&str, &Tensor> =
        description.network.variables().iter().map(|(name, variable)| (name.as_str(), variable.as_tensor())).collect();
    let weights = safetensors::serialize(tensors, None)
        .map_err(|error| ArtifactError::Broken { file: WEIGHTS.into(), why: error.to_string() })?;
    let config = Config {
        schema: SCHEMA,
        task: description.task.into(),
        labels: description.labels.clone(),
        inputs: vec![input_spec(graph)],
        outputs: vec![output_spec(graph)],
        architecture: serde_json::to_value(description.architecture)
            .map_err(|error| ArtifactError::Broken { file: CONFIG.into(), why: error.to_string() })?,
    };
    let bytes = weights.len() as u64;
    // Weights, and room for the two largest activations of a full batch of 16.
    let memory_bytes = bytes + 2 * 16 * 4 * graph.largest_activation() as u64;
    let variant = VariantEntry {
        name: F32.into(),
        arithmetic: F32.into(),
        files: vec![WEIGHTS.into()],
        bytes,
        memory_bytes,
        flops: graph.flops(),
    };
    write_file(folder, WEIGHTS, &weights)?;
    write_json(folder, CONFIG, &config)?;
    write_json(folder, PREPROCESS, description.preprocess)?;
    write_json(folder, VARIANTS, &Variants { schema: SCHEMA, variants: vec![variant] })?;
    write_json(folder, EVALUATION, description.evaluation)
}

fn input_spec(graph: &Graph) -> TensorSpec {
    tensor_spec("input", &graph.input)
}

fn output_spec(graph: &Graph) -> TensorSpec {
    tensor_spec("output", graph.nodes.last().map_or(&graph.input, |node| &node.shape))
}

/// `shape` is without the batch.
fn tensor_spec(name: &str, shape: &[usize]) -> TensorSpec {
    let shape = std::iter::once(-1).chain(shape.iter().map(|&size| size as i64)).collect();
    TensorSpec { name: name.into(), datatype: "FP32".into(), shape }
}

/// Whether a path stays inside the folder: another's artifact is not trusted.
fn inside(file: &str) -> bool {
    !file.is_empty() && Path::new(file).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn schema(file: &str, got: u32) -> Result<(), ArtifactError> {
    if got == SCHEMA { Ok(()) } else { Err(ArtifactError::Schema { file: file.into(), got, known: SCHEMA }) }
}

fn read(folder: &Path, file: &str) -> Result<Vec<u8>, ArtifactError> {
    let path = folder.join(file);
    std::fs::read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ArtifactError::Missing { path },
        _ => ArtifactError::Read { path, source },
    })
}

fn read_json<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<T, ArtifactError> {
    let bytes = read(folder, file)?;
    serde_json::from_slice(&bytes).map_err(|error| ArtifactError::Broken { file: file.into(), why: error.to_string() })
}

fn write_json(folder: &Path, file: &str, value: &impl Serialize) -> Result<(), ArtifactError> {
    let broken = |error: serde_json::Error| ArtifactError::Broken { file: file.into(), why: error.to_string() };
    // By way of `Value`, whose maps are sorted.
    let value = serde_json::to_value(value).map_err(broken)?;
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(broken)?;
    bytes.push(b'\n');
    write_file(folder, file, &bytes)
}

fn write_file(folder: &Path, file: &str, bytes: &[u8]) -> Result<(), ArtifactError> {
    let path = folder.join(file);
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, bytes));
    made.map_err(|source| ArtifactError::Write { path, source })
}

#[cfg(test)]
mod tests;
