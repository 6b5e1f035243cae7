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
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::Semaphore;

/// Requests that may wait for features of a model; one more is refused at once.
const WAITING: usize = 16;
/// Whoever had no memory for its backbone looks again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// Why there are no features of an input.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FeaturesError {
    #[error(
        "the model gives no features: not every way from its input to its head leads through a layer that multiplies, or the head reads past them; train one that has such layers"
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
    waiting: Arc<Semaphore>,
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
    /// Whoever asks is told why, and nothing is read again: until the version is loaded anew, or until then.
    Without {
        why: FeaturesError,
        until: Option<Instant>,
    },
    Ready(Box<Ready>),
}

impl State {
    /// Why there are none, while that is so.
    fn without(&self, now: Instant) -> Option<&FeaturesError> {
        match self {
            State::Without { why, until } if until.is_none_or(|until| now < until) => Some(why),
            _ => None,
        }
    }
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
        Self { whose: Arc::new(whose), waiting: Arc::new(Semaphore::new(WAITING)) }
    }

    /// Whether an input is worth preparing.
    ///
    /// # Errors
    /// [`FeaturesError`] that it would be refused with: there is no backbone, or too many wait.
    pub fn admit(&self) -> Result<(), FeaturesError> {
        if self.waiting.available_permits() == 0 {
            return Err(EngineError::QueueFull { limit: WAITING }.into());
        }
        // Held by whoever works: then there is a backbone, or that will soon be known.
        let Ok(state) = self.whose.state.try_lock() else { return Ok(()) };
        state.without(Instant::now()).map_or(Ok(()), |why| Err(why.clone()))
    }

    /// What the backbone makes of an input, `(rows, ..features)`, and the backbone's digest.
    ///
    /// # Errors
    /// [`FeaturesError`]: there is no backbone, or too many wait, or it took too long.
    pub async fn of(&self, input: Input, terms: Terms) -> Result<(Output, String), FeaturesError> {
        let Ok(place) = self.waiting.clone().try_acquire_owned() else {
            return Err(EngineError::QueueFull { limit: WAITING }.into());
        };
        let whose = self.whose.clone();
        let made = async move {
            let made = tokio::task::spawn_blocking(move || {
                // Given back by who works, even if nobody waits for it any more: so inputs and threads are no more than places.
                let _place = place;
                whose.made(&input, terms)
            });
            made.await.map_err(|error| EngineError::Failed { why: error.to_string() })?
        };
        tokio::select! {
            biased;
            () = until(terms.deadline) => Err(EngineError::Late.into()),
            () = until(terms.expires) => Err(EngineError::Expired.into()),
            made = made => made,
        }
    }
}

impl Whose {
    fn made(&self, input: &Input, terms: Terms) -> Result<(Output, String), FeaturesError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_over = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
        if is_over(terms.deadline) {
            return Err(EngineError::Late.into());
        }
        if is_over(terms.expires) {
            return Err(EngineError::Expired.into());
        }
        if let Some(why) = state.without(now) {
            return Err(why.clone());
        }
        if !matches!(*state, State::Ready(_)) {
            *state = self.prepared(now);
        }
        let ready = match &*state {
            State::Ready(ready) => ready,
            State::Without { why, .. } => return Err(why.clone()),
            State::Unasked => unreachable!("it was asked just now"),
        };
        let mut scratch = ready.runner.plan.scratch(input.rows);
        let failed = |error: candle_core::Error| EngineError::Failed { why: error.to_string() };
        let ys = ready.runner.infer(&[&input.xs], &mut scratch).map_err(failed)?.remove(0);
        Ok((Output { ys }, ready.digest.clone()))
    }

    fn prepared(&self, now: Instant) -> State {
        let model = &self.name;
        match self.loaded() {
            Ok(Some(ready)) => {
                tracing::info!(model, backbone = ready.digest, "gives features");
                State::Ready(Box::new(ready))
            }
            Ok(None) => {
                tracing::warn!(model, "it gives no features: nothing before its head makes any");
                State::Without { why: FeaturesError::NoBackbone, until: None }
            }
            Err(error) => {
                // Of the memory others give back.
                let until = matches!(error, LoadError::Memory { .. }).then(|| now + AGAIN);
                let why = told(&error);
                tracing::warn!(model, why, "it gives no features");
                State::Without { why: FeaturesError::Load { why }, until }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use std::future::ready;

    /// Of a folder that is not there.
    fn features() -> Features {
        let source = Source { version: None, folder: "no such folder".into(), digest: None };
        let (name, variant, state) = ("m".into(), "f32".into(), Mutex::new(State::Unasked));
        let whose = Arc::new(Whose { name, source, variant, trust: Trust::default(), state });
        Features { whose, waiting: Arc::new(Semaphore::new(WAITING)) }
    }

    fn input() -> Input {
        Input { xs: Tensor::zeros((1, 1), DType::F32, &Device::Cpu).unwrap(), rows: 1 }
    }

    /// The place went back with the request, while the thread and the input stayed: there was no end to them.
    #[test]
    fn whoever_is_gone_keeps_a_place_until_its_work_is() {
        let (features, runtime) = (features(), tokio::runtime::Builder::new_current_thread().build().unwrap());
        let whose = features.whose.clone();
        let busy = whose.state.lock().unwrap();
        runtime.block_on(async {
            for _ in 0..WAITING {
                assert_eq!(features.admit(), Ok(()));
                tokio::select! {
                    biased;
                    made = features.of(input(), Terms::default()) => panic!("{:?}", made.map(|_| ())),
                    // Its client goes away.
                    () = ready(()) => {}
                }
            }
            let full = FeaturesError::from(EngineError::QueueFull { limit: WAITING });
            assert_eq!(features.of(input(), Terms::default()).await.map(|_| ()), Err(full.clone()));
            assert_eq!(features.admit(), Err(full));
        });
        drop(busy);
        let all = runtime.block_on(features.waiting.acquire_many(WAITING as u32)).unwrap();
        drop(all);
        // Whoever worked has found that there is nothing: nobody's input is prepared for that.
        assert!(matches!(features.admit(), Err(FeaturesError::Load { .. })));
    }

    #[test]
    fn nothing_is_made_after_the_deadline() {
        let Features { whose, .. } = features();
        let now = Some(Instant::now());
        let made = |terms| whose.made(&input(), terms).map(|_| ());
        assert_eq!(made(Terms { deadline: now, ..Terms::default() }), Err(EngineError::Late.into()));
        assert_eq!(made(Terms { expires: now, ..Terms::default() }), Err(EngineError::Expired.into()));
        assert!(matches!(*whose.state.lock().unwrap(), State::Unasked), "it was not even read");
        assert!(matches!(made(Terms::default()), Err(FeaturesError::Load { .. })));
    }

    #[test]
    fn memory_is_asked_for_again_and_nothing_else() {
        let (now, why) = (Instant::now(), FeaturesError::NoBackbone);
        let full = State::Without { why: why.clone(), until: Some(now + AGAIN) };
        assert_eq!((full.without(now), full.without(now + AGAIN)), (Some(&why), None));
        let none = State::Without { why: why.clone(), until: None };
        assert_eq!((none.without(now + AGAIN), State::Unasked.without(now)), (Some(&why), None));
    }
}
