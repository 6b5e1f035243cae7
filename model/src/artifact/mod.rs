//! A model version as a folder: what it is (`config.json`), how raw material becomes input (`preprocess.json`), its variants
//! (`variants.json`), what it can (`evaluation.json`) and its weights.
//!
//! Bytes are the same for the same content: keys are sorted, and there is no time stamp.

mod backbone;
mod error;
mod files;
mod formats;
pub mod signature;
pub mod testing;
mod weights;

pub use backbone::Backbone;
pub use error::ArtifactError;
pub use files::{File, files, media_type};
pub use formats::{Config, DataSet, Evaluation, Paired, Result as Measured, TensorSpec, VariantEntry};

use crate::architecture::{ANY_TIME, Architecture, Output, Task};
use crate::drift::Reference;
use crate::graph::Graph;
use crate::network::Network;
use crate::preprocess::Preprocess;
use crate::variant::{Arithmetic, Quantisation, Variant, quantisable};
use formats::{QuantisationEntry, ScalingEntry, Variants};
use sconce_kernels::quantise::Scaling;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const CONFIG: &str = "config.json";
pub const PREPROCESS: &str = "preprocess.json";
/// For people; in a folder, since nodes fetch what describes an artifact from its top.
pub const REPORT: &str = "report/index.html";
pub const VARIANTS: &str = "variants.json";
pub const EVALUATION: &str = "evaluation.json";
const SYMMETRIC: &str = "symmetricPerChannel";
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
    /// Names of what the network says; [`Graph::labels`] unless somebody knows better.
    pub labels: Vec<String>,
    pub architecture: &'a Architecture,
    /// The node that the head begins with; [`Graph::head`] if it is not said.
    pub head: Option<&'a str>,
    /// Of variants that are networks of their own, by their names.
    pub architectures: &'a BTreeMap<String, Architecture>,
    pub preprocess: &'a Preprocess,
    pub variants: &'a [Variant],
    /// What variants said of held-out samples, by their names.
    pub references: &'a BTreeMap<String, Reference>,
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
        let Output { labels, .. } = &graph.output;
        let tells_anomalies = graph.task() == Task::Anomaly;
        let are_as_typed = if tells_anomalies { config.labels == graph.labels() } else { *labels == config.labels };
        let is_as_typed = config.task == graph.task().word() && (labels.is_empty() && !tells_anomalies || are_as_typed);
        // Artifacts of before architectures said it have what they were given.
        if graph.output != Output::default() && !is_as_typed {
            let why = "task and labels are not those of the architecture's output".into();
            return Err(ArtifactError::Broken { file: CONFIG.into(), why });
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
        preprocess
            .check()
            .map_err(|fault| ArtifactError::Broken { file: PREPROCESS.into(), why: fault.to_string() })?;
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

    /// What a variant said of held-out samples, where that is known.
    pub fn reference(&self, variant: &str) -> Option<&Reference> {
        self.variants.iter().find(|entry| entry.name == variant)?.reference.as_ref()
    }

    /// The node that the head begins with.
    pub fn head(&self) -> Option<&str> {
        self.config.head.as_deref().or(self.graph.head())
    }

    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_ref()
    }

    /// Loads a variant: each file is read into memory once, then parsed.
    ///
    /// # Errors
    /// [`ArtifactError`] if there is no such variant, or its tensors are not those of the architecture.
    pub fn variant(&self, name: &str) -> Result<Variant, ArtifactError> {
        let entry = self.variants.iter().find(|entry| entry.name == name).ok_or_else(|| ArtifactError::Variant {
            got: name.into(),
            known: self.variants.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let mut stored = weights::Stored::default();
        for file in &entry.files {
            stored.read(file, &read(&self.folder, file)?)?;
        }
        let files = entry.files.join(", ");
        let broken = |why| ArtifactError::Broken { file: files.clone(), why };
        let weights::Weights { tensors, scales } = stored.dequantise().map_err(broken)?;
        let graph = self.graph_of(entry)?;
        let network = Network::load(graph.clone(), &tensors)
            .map_err(|fault| ArtifactError::Weights { file: files.clone(), fault: Box::new(fault) })?;
        let threshold = network.threshold().map(|threshold| threshold.to_vec1::<f32>()).transpose();
        let threshold = threshold.map_err(|error| broken(error.to_string()))?;
        if let Some([got]) = threshold.as_deref()
            && !(got.is_normal() && *got > 0.0)
        {
            return Err(broken(format!("anomaly.threshold is {got}; need above 0")));
        }
        let arithmetic = match entry.arithmetic.as_str() {
            "i8-exact" => Arithmetic::I8(quantisation(entry, &graph, scales)?),
            _ if !scales.is_empty() => {
                return Err(broken(format!("bytes as weights, where variants.json says {}", entry.arithmetic)));
            }
            "f32" => Arithmetic::F32,
            "f16" => Arithmetic::F16,
            got => return Err(ArtifactError::Arithmetic { variant: name.into(), got: got.into() }),
        };
        Ok(Variant { name: name.into(), network, arithmetic })
    }

    /// The version's, or the variant's own, which has to read and say the same.
    fn graph_of(&self, entry: &VariantEntry) -> Result<Arc<Graph>, ArtifactError> {
        let Some(typed) = &entry.architecture else { return Ok(self.graph.clone()) };
        let unknown =
            |why: String| ArtifactError::UnknownArchitecture { why: format!("variant \"{}\": {why}", entry.name) };
        let architecture: Architecture =
            serde_json::from_value(typed.clone()).map_err(|error| unknown(error.to_string()))?;
        let graph = architecture.graph().map_err(|error| unknown(error.to_string()))?;
        let says = |graph: &Graph| (graph.input.clone(), graph.any_time, output_spec(graph), graph.task());
        if says(&graph) != says(&self.graph) {
            let why = format!("\"{}\" reads or says something else than the version", entry.name);
            return Err(ArtifactError::Broken { file: VARIANTS.into(), why });
        }
        Ok(Arc::new(graph))
    }
}

/// The scales of weights, from the variant's files, with those of their inputs, from `variants.json`.
fn quantisation(
    entry: &VariantEntry,
    graph: &Graph,
    mut weights: BTreeMap<String, Vec<f32>>,
) -> Result<Quantisation, ArtifactError> {
    let broken = |why| Err(ArtifactError::Broken { file: VARIANTS.into(), why });
    let mut quantisation = Quantisation::default();
    let Some(QuantisationEntry { weights: how, activations }) = &entry.quantisation else {
        return broken(format!("\"{}\" needs quantisation", entry.name));
    };
    if how != SYMMETRIC {
        return broken(format!("quantisation.weights: {how}; known is {SYMMETRIC}"));
    }
    for node in quantisable(graph) {
        let Some(input) = activations.get(&node.name) else { continue };
        if node.matrices().any(|parameter| !weights.contains_key(&parameter.name)) {
            continue;
        }
        if !(input.scale.is_normal() && input.scale > 0.0) {
            return broken(format!("quantisation.activations.{}: scale {}; need above 0", node.name, input.scale));
        }
        let input = Scaling { scale: input.scale, zero_point: input.zero_point };
        quantisation.inputs.insert(node.name.clone(), input);
        let of_node = node.matrices().filter_map(|parameter| weights.remove_entry(&parameter.name));
        quantisation.weights.extend(of_node);
    }
    let mut stray = activations.keys().filter(|name| !quantisation.inputs.contains_key(*name)).chain(weights.keys());
    if let Some(name) = stray.next() {
        return broken(format!(
            "quantisation: \"{name}\" needs both bytes as weights and activations, in a layer before the last"
        ));
    }
    Ok(quantisation)
}

/// Writes a version into an empty or absent folder.
///
/// # Errors
/// [`ArtifactError::Write`] with the path.
pub fn write(folder: &Path, description: &Description<'_>) -> Result<(), ArtifactError> {
    let graph = description.variants.first().map(|variant| variant.network.graph()).ok_or(ArtifactError::NoVariant)?;
    let config = Config {
        schema: SCHEMA,
        task: graph.task().word().into(),
        labels: description.labels.clone(),
        inputs: vec![input_spec(graph)],
        outputs: vec![output_spec(graph)],
        architecture: serde_json::to_value(description.architecture)
            .map_err(|error| ArtifactError::Broken { file: CONFIG.into(), why: error.to_string() })?,
        head: description.head.or(graph.head()).map(str::to_owned),
    };
    let mut variants = Vec::with_capacity(description.variants.len());
    for variant in description.variants {
        let parts = weights::encode(variant, description.head)?;
        parts.iter().try_for_each(|(file, bytes)| write_file(folder, file, bytes))?;
        let architecture = description.architectures.get(&variant.name).map(serde_json::to_value).transpose();
        let architecture =
            architecture.map_err(|error| ArtifactError::Broken { file: VARIANTS.into(), why: error.to_string() })?;
        let reference = description.references.get(&variant.name).cloned();
        variants.push(VariantEntry { architecture, reference, ..entry(variant, &parts)? });
    }
    write_json(folder, CONFIG, &config)?;
    write_json(folder, PREPROCESS, description.preprocess)?;
    write_json(folder, VARIANTS, &Variants { schema: SCHEMA, variants })?;
    write_json(folder, EVALUATION, description.evaluation)
}

/// How large a variant's weights are as files; `head` as in [`Description`].
///
/// # Errors
/// [`ArtifactError`] if a weight cannot be read.
pub fn bytes(variant: &Variant, head: Option<&str>) -> Result<u64, ArtifactError> {
    Ok(weights::size(&weights::encode(variant, head)?))
}

fn entry(variant: &Variant, parts: &[weights::Part]) -> Result<VariantEntry, ArtifactError> {
    let bytes = weights::size(parts);
    let plan = variant.plan().map_err(|source| ArtifactError::Network { source })?;
    let quantisation = match &variant.arithmetic {
        Arithmetic::F32 | Arithmetic::F16 => None,
        Arithmetic::I8(Quantisation { inputs, .. }) => {
            let activation = |(node, input): (&String, &Scaling)| {
                (node.clone(), ScalingEntry { scale: input.scale, zero_point: input.zero_point })
            };
            Some(QuantisationEntry { weights: SYMMETRIC.into(), activations: inputs.iter().map(activation).collect() })
        }
    };
    Ok(VariantEntry {
        name: variant.name.clone(),
        arithmetic: variant.arithmetic.name().into(),
        architecture: None,
        files: parts.iter().map(|(file, _)| file.clone()).collect(),
        bytes,
        // With what a full batch of 16 needs meanwhile.
        memory_bytes: bytes + (plan.weight_bytes_beyond_files() + 16 * plan.scratch_bytes()) as u64,
        scratch_bytes: Some(plan.scratch_bytes() as u64),
        flops: variant.network.graph().flops(),
        quantisation,
        reference: None,
    })
}

fn input_spec(graph: &Graph) -> TensorSpec {
    let mut spec = tensor_spec("input", &graph.input);
    if graph.any_time {
        spec.shape[1] = ANY_TIME;
    }
    spec
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
