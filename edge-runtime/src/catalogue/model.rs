//! A version of a model, running.

use super::Source;
use crate::batch::Policy;
use crate::decode::Signature;
use crate::encode::Identity;
use crate::engine::{Engine, Executor};
use crate::load::{LoadError, load};
use crate::metrics::{Metrics, OfModel, Served};
use std::sync::Arc;
use std::time::Instant;

/// Whoever holds it can ask it; its owners end when nobody does.
pub struct Model {
    pub identity: Identity,
    pub signature: Signature,
    pub engine: Engine,
    pub metrics: Arc<OfModel>,
}

/// How models are loaded and run; the same for all.
#[derive(Clone, Debug)]
pub struct Settings {
    pub variant: String,
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
        let Self { variant, policy, queue_size, threads, executor } = self;
        let loaded = load(&source.folder, source.digest.as_deref(), variant, policy.max_batch_size, *threads)?;
        let isa = loaded.runner.isa.name();
        let version = source.version.clone().unwrap_or_else(|| version_of(&loaded.digest));
        let executor = executor.unwrap_or_else(|| Executor::suited(loaded.one_row));
        let metrics = metrics.of(Served { model: name, version: &version, digest: &loaded.digest, variant, isa });
        let engine = Engine::start(loaded.runner, *policy, *queue_size, metrics.clone(), executor);
        let engine = engine.map_err(LoadError::Threads)?;
        tracing::info!(model = name, version, isa, executor = executor.name(), one_row = ?loaded.one_row, took = ?began.elapsed(), "loaded");
        let identity = Identity { name: name.into(), version };
        Ok(Model { identity, signature: loaded.signature, engine, metrics })
    }
}

/// The beginning of its digest; `1` without one.
fn version_of(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").and_then(|hex| hex.get(..12));
    hex.map_or_else(|| "1".into(), |hex| format!("sha256-{hex}"))
}
