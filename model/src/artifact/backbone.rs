//! What a variant makes features with: all that is before its head, by a name that is the same wherever the same features are made.

use super::{Artifact, ArtifactError, CONFIG, weights};
use crate::architecture::Architecture;
use crate::digest::named;
use crate::graph::{Node, Op, Source};
use crate::network::Network;
use crate::plan::Plan;
use crate::variant::{Arithmetic, Quantisation, Variant};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// The part of a variant before its head.
pub struct Backbone {
    /// With the weights of the variant.
    pub network: Network,
    pub arithmetic: Arithmetic,
    /// Of the preprocessing, the layers and their weights, as a digest is written: equal digests make equal features.
    pub digest: String,
}

impl Backbone {
    /// What makes the features: of `(rows, ..input)`, in the order of the graph.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn plan(&self) -> candle_core::Result<Plan> {
        Plan::compile(&self.network, &self.arithmetic)
    }
}

impl Artifact {
    /// What a variant of this artifact makes features with. `None` where there is nothing of the kind: some of the input would reach
    /// the features though no layer has multiplied it, as it is or as its words, or the head reads past what is before it.
    ///
    /// # Errors
    /// [`ArtifactError`] if the variant is of another artifact.
    pub fn backbone(&self, variant: &Variant) -> Result<Option<Backbone>, ArtifactError> {
        let graph = variant.network.graph();
        let own = self.head().filter(|head| graph.before(head).is_some());
        let Some(head) = own.or(graph.head()) else { return Ok(None) };
        let nodes = graph.before(head).unwrap_or_default();
        let Some((network, _)) = variant.network.split(head).filter(|_| hides(nodes)) else {
            return Ok(None);
        };
        let broken = |why: String| ArtifactError::Broken { file: CONFIG.into(), why };
        let entry = self.variants.iter().find(|entry| entry.name == variant.name);
        let typed = entry.and_then(|entry| entry.architecture.as_ref()).unwrap_or(&self.config.architecture);
        let architecture: Architecture =
            serde_json::from_value(typed.clone()).map_err(|error| broken(error.to_string()))?;
        let layers = architecture.before(head).map_err(|error| broken(error.to_string()))?;
        let layers = layers.ok_or_else(|| broken(format!("it has no node \"{head}\", which its variant has")))?;
        let names: Vec<&String> = nodes.iter().map(|node| &node.name).collect();
        let what = json!([self.preprocess, architecture.input, layers, names, arithmetic(&variant.arithmetic, nodes)]);
        let weights = weights::encode_part(variant, nodes, "the backbone")?.unwrap_or_default();
        let mut hasher = Sha256::new();
        hasher.update(what.to_string());
        hasher.update(weights);
        Ok(Some(Backbone { network, arithmetic: variant.arithmetic.clone(), digest: named(hasher) }))
    }
}

/// Whether on every way from the input to the last of these nodes one multiplies. Where one way has none, the input lies beside
/// what the others have made of it, or is added to that.
fn hides(nodes: &[Node]) -> bool {
    let mut hidden: Vec<bool> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let is_hidden = |source: &Source| match *source {
            Source::Input => false,
            Source::Node(read) => hidden[read],
        };
        let hides = multiplies(node) || node.inputs.iter().all(is_hidden);
        hidden.push(hides);
    }
    hidden.last().is_some_and(|last| *last)
}

/// Looked up by a word alone, an input could be read from its features.
fn multiplies(node: &Node) -> bool {
    node.matrices().next().is_some() && !matches!(node.op, Op::Embedding { .. })
}

/// Weights as bytes say all but how what they are multiplied with becomes bytes.
fn arithmetic(arithmetic: &Arithmetic, nodes: &[Node]) -> serde_json::Value {
    let inputs: BTreeMap<&String, (u32, u8)> = match arithmetic {
        Arithmetic::F32 | Arithmetic::F16 => BTreeMap::new(),
        Arithmetic::I8(Quantisation { inputs, .. }) => {
            let of_backbone = inputs.iter().filter(|(name, _)| nodes.iter().any(|node| node.name == **name));
            of_backbone.map(|(name, input)| (name, (input.scale.to_bits(), input.zero_point))).collect()
        }
    };
    json!([arithmetic.name(), inputs])
}
