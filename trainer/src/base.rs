//! The model that a network begins from: read out of its folder, or brought from a registry, by digest.

use crate::manifest::{self, Freeze};
use crate::publish::{Pack, PublishError};
use crate::pull::{PullError, Registries, pulled};
use candle_core::Result as Computed;
use sconce_model::architecture::{Architecture, ArchitectureError};
use sconce_model::artifact::{Artifact, ArtifactError, Backbone};
use sconce_model::graph::{Graph, Source};
use sconce_model::network::Network;
use sconce_model::preprocess::Preprocess;
use sconce_model::variant::{Arithmetic, F32, INT8, Variant};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum BaseError {
    #[error("spec.base.uri: {uri}")]
    Artifact { uri: String, source: Box<ArtifactError> },
    #[error("spec.base.uri: {uri}")]
    Pack { uri: String, source: Box<PublishError> },
    #[error(
        "spec.base.uri: {uri} has no head to begin from: no layer has weights, or it tells anomalies; name a trained classifier"
    )]
    NoHead { uri: String },
    #[error("spec.base.head: {0}")]
    Head(#[from] ArchitectureError),
    #[error("spec.base.uri: {uri} is no model of ours: {why}")]
    Manifest { uri: String, why: String },
    #[error("spec.base.uri")]
    Pull(#[from] PullError),
}

impl BaseError {
    /// Whether what is asked for can never be: it is as wrong at the next try.
    pub fn is_wrong(&self) -> bool {
        match self {
            Self::NoHead { .. } | Self::Head(_) | Self::Manifest { .. } => true,
            Self::Pull(pull) => pull.is_wrong(),
            Self::Artifact { .. } | Self::Pack { .. } => false,
        }
    }
}

/// What is taken over from a model.
pub struct Base {
    /// Of the whole model.
    pub digest: String,
    /// With the head that is asked for.
    pub architecture: Architecture,
    /// The node that the head begins with; those before it are the backbone.
    pub head: String,
    pub freeze: Freeze,
    pub preprocess: Preprocess,
    network: Network,
    /// What its trained network makes features with, if there is something of the kind.
    backbone: Option<Backbone>,
    /// If it has one.
    int8: Option<Variant>,
}

/// Reads a model. `aside` is where one from a registry lies meanwhile.
///
/// # Errors
/// [`BaseError`] names the field.
pub fn open(typed: &manifest::Base, aside: &Path, registries: Registries<'_>) -> Result<Base, BaseError> {
    pulled(&typed.uri, aside, registries, |folder| read(typed, folder))
}

fn read(typed: &manifest::Base, folder: &Path) -> Result<Base, BaseError> {
    let uri = || typed.uri.clone();
    let artifact =
        Artifact::open(folder).map_err(|source| BaseError::Artifact { uri: uri(), source: Box::new(source) })?;
    let variant = |name: &str| {
        artifact.variant(name).map_err(|source| BaseError::Artifact { uri: uri(), source: Box::new(source) })
    };
    let architecture: Architecture = serde_json::from_value(artifact.config().architecture.clone())
        .map_err(|error| BaseError::Manifest { uri: uri(), why: error.to_string() })?;
    let own = artifact.head().ok_or_else(|| BaseError::NoHead { uri: uri() })?;
    let (architecture, head) = match &typed.head[..] {
        [] => (architecture, own.to_owned()),
        layers => architecture.with_head(own, layers)?.ok_or_else(|| BaseError::NoHead { uri: uri() })?,
    };
    let trained = variant(F32)?;
    let backbone =
        artifact.backbone(&trained).map_err(|source| BaseError::Artifact { uri: uri(), source: Box::new(source) })?;
    let graph = architecture.graph()?;
    let backbone = backbone.filter(|backbone| reads_alone(&graph, &head, backbone));
    let has_int8 = artifact.variants().iter().any(|variant| variant.name == INT8);
    Ok(Base {
        digest: Pack::new(folder).map_err(|source| BaseError::Pack { uri: uri(), source: Box::new(source) })?.digest(),
        architecture,
        head,
        freeze: typed.freeze,
        preprocess: artifact.preprocess().clone(),
        network: trained.network,
        backbone,
        int8: has_int8.then(|| variant(INT8)).transpose()?,
    })
}

/// Whether the head reads what the backbone makes, and nothing before: the one that is asked for may begin before the base's own does.
fn reads_alone(graph: &Graph, head: &str, backbone: &Backbone) -> bool {
    let Some(before) = graph.before(head).filter(|before| *before == &backbone.network.graph().nodes[..]) else {
        return false;
    };
    let mut reads = graph.nodes[before.len()..].iter().flat_map(|node| &node.inputs);
    reads.all(|source| matches!(source, Source::Node(read) if read + 1 >= before.len()))
}

impl Base {
    /// The node from which on all is learned; none if that is all.
    pub fn learned_from(&self) -> Option<&str> {
        (self.freeze == Freeze::Backbone).then_some(self.head.as_str())
    }

    /// What makes features that the head can learn from, and be judged by: where it stays as it is, and reads what it read before.
    pub fn backbone(&self, preprocess: &Preprocess) -> Option<&Backbone> {
        let is_frozen = self.freeze == Freeze::Backbone && *preprocess == self.preprocess;
        self.backbone.as_ref().filter(|_| is_frozen)
    }

    /// Gives a network the backbone's weights.
    ///
    /// # Errors
    /// None but candle's own.
    pub fn lend(&self, network: &Network) -> Computed<()> {
        take(network, &self.network, &self.head)
    }

    /// Where the backbone is frozen, an int8 variant has its bytes, also if they learned to be rounded.
    ///
    /// # Errors
    /// None but candle's own.
    pub fn lend_bytes(&self, variant: &mut Variant) -> Computed<()> {
        let (Some(head), Some(base)) = (self.learned_from(), &self.int8) else { return Ok(()) };
        let (Arithmetic::I8(ours), Arithmetic::I8(theirs)) = (&mut variant.arithmetic, &base.arithmetic) else {
            return Ok(());
        };
        let nodes = variant.network.graph().before(head).unwrap_or_default();
        let matrices: BTreeSet<&String> =
            nodes.iter().flat_map(|node| node.matrices().map(|matrix| &matrix.name)).collect();
        let of = |scales: &BTreeMap<String, Vec<f32>>| -> BTreeSet<String> {
            scales.keys().filter(|name| matrices.contains(name)).cloned().collect()
        };
        // Those of another build may have left other layers as they were.
        if of(&ours.weights) != of(&theirs.weights) {
            return Ok(());
        }
        for name in of(&theirs.weights) {
            let scales = theirs.weights[&name].clone();
            ours.weights.insert(name, scales);
        }
        take(&variant.network, &base.network, head)
    }
}

/// All that is before the head.
fn take(network: &Network, from: &Network, head: &str) -> Computed<()> {
    let nodes = network.graph().before(head).unwrap_or_default();
    nodes.iter().flat_map(|node| &node.parameters).try_for_each(|parameter| {
        match from.variables().get(&parameter.name) {
            Some(values) => network.variables()[&parameter.name].set(values),
            None => candle_core::bail!("the base has no {}", parameter.name),
        }
    })
}
