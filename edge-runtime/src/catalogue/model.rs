//! A version of a model, running.

use super::{Features, Source};
use crate::batch::Policy;
use crate::builtin::{self, Builtin};
use crate::decode::{Input, Signature};
use crate::encode::Identity;
use crate::engine::{Engine, EngineError, Executor};
use crate::load::{LoadError, load, open};
use crate::metrics::{Metrics, OfModel, Served};
use sconce_model::artifact::TensorSpec;
use sconce_model::artifact::signature::Trust;
use sconce_model::drift::{Moments, Monitor, Reference};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Whoever holds it can ask it; its owners end when nobody does.
pub struct Model {
    pub identity: Identity,
    pub kind: Kind,
    pub metrics: Arc<OfModel>,
}

/// What answers.
pub enum Kind {
    /// Of an artifact.
    Network(Box<Network>),
    /// One of Triton's examples, without one.
    Builtin(Builtin),
}

/// What is asked batch by batch.
pub struct Network {
    pub signature: Signature,
    pub engine: Engine,
    pub features: Features,
    /// Where it is known what the variant said of held-out samples.
    drift: Option<Mutex<Monitor>>,
    /// Whether it is known what these were, too.
    knows_inputs: bool,
}

impl Network {
    /// What is kept of an input, where that is held against something.
    ///
    /// # Errors
    /// If the tensor is no `f32`.
    pub fn moments(&self, input: &Input) -> candle_core::Result<Option<Vec<Moments>>> {
        self.knows_inputs.then(|| input.moments()).transpose()
    }

    /// Whether what it says, or is asked, is spread otherwise than it was on held-out samples, `rows` of answers to `inputs` seen; they
    /// are read where that is known.
    pub fn drifts<E>(
        &self,
        rows: impl FnOnce() -> Result<Vec<Vec<f32>>, E>,
        inputs: Option<&[Moments]>,
        now: Instant,
    ) -> Result<bool, E> {
        let Some(drift) = &self.drift else { return Ok(false) };
        let rows = rows()?;
        let mut drift = drift.lock().unwrap_or_else(PoisonError::into_inner);
        let input = |at: usize| inputs.and_then(|inputs| inputs.get(at).copied());
        rows.iter().enumerate().for_each(|(at, row)| drift.observe(row, input(at), now));
        Ok(drift.has_drifted())
    }
}

impl Model {
    /// One of Triton's examples.
    pub fn builtin(builtin: Builtin, metrics: &Metrics) -> Self {
        let identity = Identity { name: builtin.name().into(), version: "1".into() };
        let Identity { name: model, version } = &identity;
        let metrics = metrics.of(Served { model, version, digest: "", variant: "", isa: "" });
        Self { identity, kind: Kind::Builtin(builtin), metrics }
    }

    /// The tensors, and where they are taken the encoded images that may be sent instead.
    pub fn inputs(&self) -> Vec<TensorSpec> {
        match &self.kind {
            Kind::Network(network) => network.signature.inputs().collect(),
            Kind::Builtin(builtin) => builtin.inputs(),
        }
    }

    /// The tensor, where it is one.
    pub fn input(&self) -> Option<&TensorSpec> {
        match &self.kind {
            Kind::Network(network) => Some(&network.signature.input),
            Kind::Builtin(_) => None,
        }
    }

    pub fn outputs(&self) -> Vec<TensorSpec> {
        match &self.kind {
            Kind::Network(network) => vec![network.signature.output.clone()],
            Kind::Builtin(builtin) => builtin.outputs(),
        }
    }

    /// Rows of one request, at most.
    pub fn max_batch_size(&self) -> usize {
        match &self.kind {
            Kind::Network(network) => network.signature.max_batch_size,
            Kind::Builtin(_) => builtin::MAX_BATCH_SIZE,
        }
    }

    /// What batches are made by, where they are.
    pub fn policy(&self) -> Option<&Policy> {
        match &self.kind {
            Kind::Network(network) => Some(network.engine.policy()),
            Kind::Builtin(_) => None,
        }
    }

    /// Whether one more request may come, whatever it is.
    ///
    /// # Errors
    /// [`EngineError`] that it would be refused with.
    pub fn admit(&self) -> Result<(), EngineError> {
        match &self.kind {
            Kind::Network(network) => network.engine.admit(),
            Kind::Builtin(_) => Ok(()),
        }
    }

    /// More bytes than a request that the model takes can have.
    pub fn largest_request(&self) -> usize {
        match &self.kind {
            Kind::Network(network) => network.signature.largest_request(),
            Kind::Builtin(builtin) => builtin.largest_request(),
        }
    }
}

/// How models are loaded and run; the same for all.
#[derive(Clone, Debug)]
pub struct Settings {
    pub variant: String,
    /// Whose signature each must have.
    pub trust: Trust,
    pub policy: Policy,
    /// Requests that may wait for each.
    pub queue_size: usize,
    /// That compute, for each that does not run inline.
    pub threads: usize,
    /// `None`: as suits the model.
    pub executor: Option<Executor>,
}

impl Settings {
    /// Loads a version and starts it, warm. It takes its time, and needs a runtime.
    ///
    /// # Errors
    /// [`LoadError`]: nothing is served that is not what its digest says, or fails at warm-up.
    pub fn start(&self, name: &str, source: &Source, metrics: &Metrics) -> Result<Model, LoadError> {
        let began = Instant::now();
        let Self { variant, trust, policy, queue_size, threads, executor } = self;
        let opened = open(&source.folder, source.digest.as_deref(), trust)?;
        let loaded = load(&opened, variant, policy.max_batch_size, *threads)?;
        let isa = loaded.runner.isa.name();
        let version = source.version.clone().unwrap_or_else(|| version_of(&loaded.digest));
        let executor = executor.unwrap_or_else(|| Executor::suited(loaded.one_row));
        let metrics = metrics.of(Served { model: name, version: &version, digest: &loaded.digest, variant, isa });
        let engine = Engine::start(loaded.runner, *policy, *queue_size, metrics.clone(), executor);
        let engine = engine.map_err(LoadError::Threads)?;
        tracing::info!(model = name, version, isa, executor = executor.name(), one_row = ?loaded.one_row, took = ?began.elapsed(), "loaded");
        let identity = Identity { name: name.into(), version };
        let knows_inputs = loaded.reference.as_ref().is_some_and(|Reference { inputs, .. }| inputs.is_some());
        let drift = loaded.reference.map(|reference| Mutex::new(Monitor::new(reference)));
        let features = Features::new(name, source, self);
        let network = Network { signature: loaded.signature, engine, features, drift, knows_inputs };
        Ok(Model { identity, kind: Kind::Network(Box::new(network)), metrics })
    }
}

/// The beginning of its digest; `1` without one.
fn version_of(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").and_then(|hex| hex.get(..12));
    hex.map_or_else(|| "1".into(), |hex| format!("sha256-{hex}"))
}
