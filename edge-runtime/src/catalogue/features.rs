//! What a model's backbone makes of an input. Few ask for it: it is compiled when somebody does, runs beside what serves, and one
//! input after the other.

use super::{Settings, Source, room};
use crate::decode::Input;
use crate::encode::Output;
use crate::engine::{EngineError, Runner, Terms, until};
use crate::load::{LoadError, open};
use sconce_kernels::{IsaToken, Threads};
use sconce_model::artifact::signature::Trust;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use tokio::sync::Semaphore;

/// Requests that may wait for features of a model; one more is refused at once.
const WAITING: usize = 16;

/// Why there are no features of an input.
#[derive(Debug, Error)]
pub enum FeaturesError {
    #[error(
        "the model gives no features: no layer before its head multiplies, or the head reads past them; train one that has such layers"
    )]
    NoBackbone,
    #[error("the model's backbone cannot be loaded")]
    Load(#[from] LoadError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The backbone of a version that serves.
pub struct Features {
    whose: Arc<Whose>,
    waiting: Semaphore,
}

struct Whose {
    name: String,
    source: Source,
    variant: String,
    trust: Trust,
    state: Mutex<State>,
}

enum State {
    Unasked,
    /// It has no backbone.
    None,
    Ready(Box<Ready>),
}

struct Ready {
    runner: Runner,
    digest: String,
}

impl Features {
    pub(super) fn new(name: &str, source: &Source, Settings { variant, trust, .. }: &Settings) -> Self {
        let (name, source) = (name.to_owned(), source.clone());
        let state = Mutex::new(State::Unasked);
        let whose = Whose { name, source, variant: variant.clone(), trust: trust.clone(), state };
        Self { whose: Arc::new(whose), waiting: Semaphore::new(WAITING) }
    }

    /// What the backbone makes of an input, `(rows, ..features)`, and the backbone's digest.
    ///
    /// # Errors
    /// [`FeaturesError`]: there is no backbone, or too many wait, or it took too long.
    pub async fn of(&self, input: Input, terms: Terms) -> Result<(Output, String), FeaturesError> {
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(EngineError::QueueFull { limit: WAITING }.into());
        };
        let whose = self.whose.clone();
        let made = tokio::task::spawn_blocking(move || whose.made(&input));
        tokio::select! {
            biased;
            () = until(terms.deadline) => Err(EngineError::Late.into()),
            () = until(terms.expires) => Err(EngineError::Expired.into()),
            made = made => made.map_err(|error| EngineError::Failed { why: error.to_string() })?,
        }
    }
}

impl Whose {
    fn made(&self, input: &Input) -> Result<(Output, String), FeaturesError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Unasked) {
            *state = self.prepared()?;
        }
        let State::Ready(ready) = &*state else { return Err(FeaturesError::NoBackbone) };
        let mut scratch = ready.runner.plan.scratch(input.rows);
        let failed = |error: candle_core::Error| EngineError::Failed { why: error.to_string() };
        let ys = ready.runner.infer(&[&input.xs], &mut scratch).map_err(failed)?.remove(0);
        Ok((Output { ys }, ready.digest.clone()))
    }

    /// The version's files are verified again: weights were not kept beside those that are packed.
    fn prepared(&self) -> Result<State, LoadError> {
        let Self { name, source, variant, trust, .. } = self;
        // First: it is soon said, and asked again by whoever comes next.
        room::check_again(&source.folder, variant)?;
        let opened = open(&source.folder, source.digest.as_deref(), trust)?;
        let Some(backbone) = opened.backbone(variant)? else {
            tracing::warn!(model = name, "it gives no features: nothing before its head does");
            return Ok(State::None);
        };
        let runner = Runner { plan: backbone.plan()?, isa: IsaToken::detect()?, threads: Threads::one() };
        tracing::info!(model = name, backbone = backbone.digest, "gives features");
        Ok(State::Ready(Box::new(Ready { runner, digest: backbone.digest })))
    }
}
