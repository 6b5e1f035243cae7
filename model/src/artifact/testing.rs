//! Versions for the tests and benchmarks of other rooms: seeded, never trained.

use super::{Artifact, ArtifactError, DataSet, Description, Evaluation, Measured, write};
use crate::architecture::{Architecture, Task};
use crate::network::Network;
use crate::preprocess::{Material, Preprocess, Step};
use crate::variant::{F32, Variant, quantisable};
use sconce_kernels::quantise::Scaling;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Writes a version with input `(batch, 1, 8, 8)`, three classes, and the variants f32, f16 and int8.
///
/// # Errors
/// As [`write`].
pub fn write_tiny(folder: &Path, seed: u64) -> Result<(), ArtifactError> {
    write_square(folder, seed, 8)
}

/// As [`write_tiny`], with input `(batch, 1, side, side)`.
///
/// # Errors
/// As [`write`].
pub fn write_square(folder: &Path, seed: u64, side: usize) -> Result<(), ArtifactError> {
    let typed = serde_json::json!({"input": {"shape": [1, side, side]}, "layers": [
        {"conv2d": {"filters": 4, "kernel": 3, "activation": "relu"}}, {"maxPool2d": {}}, {"flatten": {}},
        {"dense": {"units": 3, "activation": "softmax"}}]});
    write_drawn(folder, typed, seed)
}

/// Writes a version of any network of images that ends in classes, in the same variants.
///
/// # Errors
/// As [`write`].
pub fn write_drawn(folder: &Path, typed: serde_json::Value, seed: u64) -> Result<(), ArtifactError> {
    let unknown = |why: String| ArtifactError::UnknownArchitecture { why };
    let architecture: Architecture = serde_json::from_value(typed).map_err(|error| unknown(error.to_string()))?;
    let graph = architecture.graph().map_err(|error| unknown(error.to_string()))?;
    let network = Network::initialise(Arc::new(graph), seed).map_err(|source| ArtifactError::Network { source })?;
    write_network(folder, &architecture, network)
}

/// Writes what another version becomes if its head is learned anew: all but the head is the same.
///
/// # Errors
/// As [`write`], and those of reading the other version.
pub fn write_update(folder: &Path, of: &Path, seed: u64) -> Result<(), ArtifactError> {
    let tensor = |source| ArtifactError::Network { source };
    let before = Artifact::open(of)?;
    let architecture: Architecture = serde_json::from_value(before.config().architecture.clone())
        .map_err(|error| ArtifactError::UnknownArchitecture { why: error.to_string() })?;
    let network = before.variant(F32)?.network;
    let drawn = Network::initialise(network.graph().clone(), seed).map_err(tensor)?;
    let backbone = before.head().and_then(|head| network.graph().before(head)).unwrap_or_default();
    for node in &network.graph().nodes[backbone.len()..] {
        for name in node.parameters.iter().map(|parameter| &parameter.name) {
            network.variables()[name].set(&drawn.variables()[name]).map_err(tensor)?;
        }
    }
    write_network(folder, &architecture, network)
}

fn write_network(folder: &Path, architecture: &Architecture, network: Network) -> Result<(), ArtifactError> {
    let classes = network.graph().units();
    // As of whoever knows better, where classes have their numbers alone.
    let letters = ('a'..='z').map(String::from).cycle();
    let labels = match network.graph().output.task {
        Some(Task::Anomaly) => network.graph().labels(),
        _ if network.graph().output.labels.is_empty() => letters.take(classes).collect(),
        _ => network.graph().output.labels.clone(),
    };
    let inputs = quantisable(network.graph()).map(|node| (node.name.clone(), Scaling { scale: 0.02, zero_point: 100 }));
    let inputs = inputs.collect();
    let (f16, int8) = (Variant::f16(&network)?, Variant::int8(&network, &inputs)?);
    let variants = [Variant::f32(network), f16, int8];
    let measured = |variant: &Variant| Measured {
        path: variant.arithmetic.name().into(),
        metric: "accuracy".into(),
        value: 0.99,
        wilson95: (0.98, 0.995),
        ece: None,
        confusion: vec![vec![0; classes]; classes],
        f1: vec![],
        mean_absolute_error: vec![],
        paired: None,
    };
    let evaluation = Evaluation {
        schema: 1,
        dataset: DataSet { name: "none".into(), digest: crate::digest::sha256(b""), n: 0 },
        test_reads: 1,
        variants: variants.iter().map(|variant| (variant.name.clone(), measured(variant))).collect(),
    };
    let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![Step::Scale { by: 1.0 / 255.0 }] };
    write(
        folder,
        &Description {
            labels,
            architecture,
            head: None,
            architectures: &BTreeMap::new(),
            preprocess: &preprocess,
            variants: &variants,
            references: &BTreeMap::new(),
            evaluation: &evaluation,
        },
    )
}
