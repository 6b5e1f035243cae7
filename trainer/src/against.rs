//! The model that a run must be better than: both are asked the same test samples.

use crate::answer::Answer;
use crate::data::{Samples, is_split_otherwise};
use crate::evaluate::reading;
use crate::fit::FitError;
use crate::prepared::Prepared;
use crate::publish::{Pack, PublishError};
use crate::pull::{PullError, Registries, pulled};
use sconce_model::artifact::{Artifact, ArtifactError, DataSet};
use sconce_model::graph::Graph;
use sconce_model::preprocess::Preprocess;
use sconce_model::variant::{F32, Variant};
use std::path::Path;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum AgainstError {
    #[error("spec.accept.improveBy: {uri}")]
    Artifact { uri: String, source: Box<ArtifactError> },
    #[error("spec.accept.improveBy: {uri}")]
    Pack { uri: String, source: Box<PublishError> },
    #[error(
        "spec.accept.improveBy: what was accepted before is not to be had; if it is there no more, leave improveBy out for this run"
    )]
    Pull(#[from] PullError),
    #[error(
        "spec.accept.improveBy: {uri} {differs} than this run: the two cannot be asked the same; leave improveBy out for this one"
    )]
    Unlike { uri: String, differs: &'static str },
}

impl AgainstError {
    /// Whether it is as wrong at the next try.
    pub fn is_wrong(&self) -> bool {
        match self {
            Self::Unlike { .. } => true,
            Self::Pull(pull) => pull.is_wrong(),
            Self::Artifact { .. } | Self::Pack { .. } => false,
        }
    }
}

/// A run, as far as a model must be alike that it is compared with.
pub struct Compared<'a> {
    pub graph: &'a Graph,
    pub preprocess: &'a Preprocess,
    /// The digest of the backbone that has made all samples, if they are features.
    pub features_of: Option<&'a str>,
    pub dataset: &'a DataSet,
}

/// A trained model of before.
pub struct Against {
    /// Address by digest, or folder.
    pub uri: String,
    /// Whatever lies in the folder later.
    pub digest: String,
    trained: Variant,
    head: Option<String>,
    /// What its features are made by, if it makes any.
    backbone: Option<String>,
    preprocess: Preprocess,
    /// What it was evaluated on; artifacts of others may not say it.
    dataset: Option<DataSet>,
}

impl Against {
    /// Reads the artifact of an earlier run. `aside` is where one from a registry lies meanwhile.
    ///
    /// # Errors
    /// [`AgainstError`] if it cannot be had.
    pub fn open(uri: &str, aside: &Path, registries: Registries<'_>) -> Result<Self, AgainstError> {
        pulled(uri, aside, registries, |folder| {
            let broken = |source| AgainstError::Artifact { uri: uri.into(), source: Box::new(source) };
            let artifact = Artifact::open(folder).map_err(broken)?;
            let trained = artifact.variant(F32).map_err(broken)?;
            let backbone = artifact.backbone(&trained).map_err(broken)?.map(|backbone| backbone.digest);
            let (head, preprocess) = (artifact.head().map(String::from), artifact.preprocess().clone());
            let dataset = artifact.evaluation().map(|evaluation| evaluation.dataset.clone());
            let pack =
                Pack::new(folder).map_err(|source| AgainstError::Pack { uri: uri.into(), source: Box::new(source) });
            Ok(Self { uri: uri.into(), digest: pack?.digest(), trained, head, backbone, preprocess, dataset })
        })
    }

    /// Whether it can be asked what the run's network is asked.
    ///
    /// # Errors
    /// [`AgainstError::Unlike`] says what differs.
    pub fn check(&self, run: &Compared<'_>) -> Result<(), AgainstError> {
        let Compared { graph, preprocess, features_of, dataset } = *run;
        let is_split_otherwise = |own: &DataSet| is_split_otherwise(own, dataset);
        let own = self.trained.network.graph();
        let differs = [
            (
                (own.task(), own.labels(), own.units()) != (graph.task(), graph.labels(), graph.units()),
                "tells something else",
            ),
            ((&own.input, own.lengths()) != (&graph.input, graph.lengths()), "reads another input"),
            (self.preprocess != *preprocess, "preprocesses otherwise"),
            (features_of.is_some_and(|backbone| self.backbone.as_deref() != Some(backbone)), "has another backbone"),
            // What it has learned it would know again.
            (self.dataset.as_ref().is_some_and(is_split_otherwise), "holds out other samples"),
        ];
        match differs.into_iter().find(|(differs, _)| *differs) {
            Some((_, differs)) => Err(AgainstError::Unlike { uri: self.uri.clone(), differs }),
            None => Ok(()),
        }
    }

    /// Of the test samples, or of their features by this backbone, through the plan that serves.
    pub(crate) fn answers(&self, samples: &Samples, preprocess: &Preprocess) -> Result<Vec<Answer>, FitError> {
        let plan = reading(samples, &self.trained, self.head.as_deref())?;
        Ok(Prepared::new(samples, preprocess, plan.input())?.answers(&plan, self.trained.network.graph())?)
    }
}
