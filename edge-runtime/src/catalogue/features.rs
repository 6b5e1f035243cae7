//! What a model's backbone makes of an input. Few ask for it: it is compiled when somebody does, runs beside what serves, and one
//! input after the other.

use super::{Settings, Source, room, told};
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
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FeaturesError {
    #[error(
        "the model gives no features: no layer before its head multiplies, or the head reads past them; train one that has such layers"
    )]
    NoBackbone,
    #[error("the model's backbone cannot be loaded: {why}")]
    Load { why: String },
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
    /// It stays so until the version is loaded anew: whoever asks is told why, and nothing is read again.
    Without(FeaturesError),
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
            *state = self.prepared().map_or_else(State::Without, |ready| State::Ready(Box::new(ready)));
        }
        let ready = match &*state {
            State::Ready(ready) => ready,
            State::Without(why) => return Err(why.clone()),
            State::Unasked => unreachable!("it was asked just now"),
        };
        let mut scratch = ready.runner.plan.scratch(input.rows);
        let failed = |error: candle_core::Error| EngineError::Failed { why: error.to_string() };
        let ys = ready.runner.infer(&[&input.xs], &mut scratch).map_err(failed)?.remove(0);
        Ok((Output { ys }, ready.digest.clone()))
    }

    fn prepared(&self) -> Result<Ready, FeaturesError> {
        let model = &self.name;
        let ready = match self.loaded() {
            Ok(Some(ready)) => ready,
            Ok(None) => {
                tracing::warn!(model, "it gives no features: nothing before its head makes any");
                return Err(FeaturesError::NoBackbone);
            }
            Err(error) => {
                let why = told(&error);
                tracing::warn!(model, why, "it gives no features");
                return Err(FeaturesError::Load { why });
            }
        };
        tracing::info!(model, backbone = ready.digest, "gives features");
        Ok(ready)
    }

    /// The version's files are verified again: weights were not kept beside those that are packed.
    fn loaded(&self) -> Result<Option<Ready>, LoadError> {
        let Self { source, variant, trust, .. } = self;
        // First: it is soon said.
        room::check_again(&source.folder, variant)?;
        let Some(backbone) = open(&source.folder, source.digest.as_deref(), trust)?.backbone(variant)? else {
            return Ok(None);
        };
        let runner = Runner { plan: backbone.plan()?, isa: IsaToken::detect()?, threads: Threads::one() };
        Ok(Some(Ready { runner, digest: backbone.digest }))
    }
}
