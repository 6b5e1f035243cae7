//! Training: batches in an order drawn by the seed, an optimiser, and checks that stop a run that learns nothing.
//!
//! Every number that is drawn depends on the seed and on where it is needed, never on what was drawn before: so a run goes on from
//! a checkpoint to the same bits.

mod checkpoint;
mod features;
mod init;
mod optimise;
mod schedule;
mod weighing;

pub use checkpoint::{CheckpointError, Checkpoints};
pub use init::as_torch;
pub use schedule::Best;

use crate::answer::value;
use crate::data::{Order, TestError};
use crate::manifest::{Fit, Metric};
use crate::prepared::{Asked, Chance, Prepared, PreparedError};
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use checkpoint::{Snapshot, State, Tensors, restore, weights};
use features::Features;
use optimise::Optimise;
use schedule::{Place, ends, factor};
use sconce_kernels::quantise::Scaling;
use sconce_model::metrics::argmax;
use sconce_model::network::{Mode, Network, Training, Unlearned};
use sconce_model::ops::{Loss, Targets, soft_cross_entropy, values};
use sconce_model::plan::Plan;
use sconce_model::variant::{Arithmetic, Variant, VariantError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use thiserror::Error;

/// A network that has next to no loss is right and sure: its gradients may be zeros although it could learn.
const LEARNED: f32 = 1e-3;

#[derive(Debug, Error)]
pub enum FitError {
    #[error(transparent)]
    Prepared(#[from] PreparedError),
    #[error("\"{variable}\" has {fault} at the first step: the network cannot learn as asked")]
    Gradient { variable: String, fault: &'static str },
    #[error("the loss is {loss} in epoch {epoch}, batch {batch}: try a smaller learning rate")]
    Diverged { epoch: usize, batch: usize, loss: f32 },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Test(#[from] TestError),
    #[error("stopped in epoch {epoch}, after batch {batch}; the same command goes on from there")]
    Stopped { epoch: usize, batch: usize },
    #[error(
        "spec.base.head reads past the backbone, whose features are all that there is of the samples: let it read the last of them alone"
    )]
    NoHead,
    #[error("cannot round the weights")]
    Rounding(#[from] VariantError),
    #[error("cannot compute")]
    Tensor(#[from] candle_core::Error),
}

/// What is known after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    pub number: usize,
    pub loss: f32,
    /// On the training samples, as they were seen, where each has a class that the network tells; of anomalies none is known before their
    /// threshold.
    pub accuracy: Option<f64>,
    /// What the metric of the task is there.
    pub validation: Option<f64>,
    pub validation_loss: Option<f64>,
    pub took: Duration,
}

/// Told of progress: `batch` after each one, `epoch` after each, and once what an earlier process has done.
pub trait Observer {
    fn resumed(&mut self, epochs: &[Epoch], epoch: usize, batch: usize);
    fn batch(&mut self, epoch: usize, batch: usize, batches: usize, loss: f32);
    fn epoch(&mut self, epoch: &Epoch);
}

/// What is learned, and from what.
pub struct Lesson<'a> {
    pub network: &'a Network,
    pub train: &'a Prepared,
    pub validation: &'a Prepared,
    pub recipe: &'a Fit,
    /// Absent: a run that ends early begins anew.
    pub checkpoints: Option<&'a Checkpoints>,
    /// Set from outside: keep a checkpoint and end.
    pub stop: &'a AtomicBool,
    /// The node from which on the network learns: those before it stay as they are. Absent: all learn.
    pub learned_from: Option<&'a str>,
    /// Beside the labels.
    pub teacher: Option<Teacher<'a>>,
    /// With the weights that its int8 variant would have, each step moves the exact ones.
    pub rounding: Option<Rounding<'a>>,
}

/// How the inputs of products become bytes, by the names of the nodes.
pub type Rounding<'a> = &'a BTreeMap<String, Scaling>;

/// A network whose answers are learned, softened by a temperature; they count `share` of the loss.
#[derive(Clone, Copy)]
pub struct Teacher<'a> {
    pub network: &'a Network,
    pub temperature: f64,
    pub share: f64,
}

/// Trains the network in place; returns the epoch whose weights it has.
///
/// # Errors
/// [`FitError`] if a variable gets no gradient, the loss is no number, or it was asked to stop.
pub fn fit(lesson: &Lesson<'_>, observer: &mut impl Observer) -> Result<usize, FitError> {
    if lesson.train.are_features() {
        let head = lesson.learned_from.and_then(|from| lesson.network.split(from)).map(|(_, head)| head);
        let head = head.ok_or(FitError::NoHead)?;
        return learn(&Lesson { network: &head, learned_from: None, ..*lesson }, observer);
    }
    match Features::of(lesson)? {
        Some(Features { head, train, validation }) => {
            let alone =
                Lesson { network: &head, train: &train, validation: &validation, learned_from: None, ..*lesson };
            learn(&alone, observer)
        }
        None => learn(lesson, observer),
    }
}

fn learn(lesson: &Lesson<'_>, observer: &mut impl Observer) -> Result<usize, FitError> {
    let mut run = Run::begin(lesson)?;
    if run.state != State::fresh() {
        observer.resumed(&run.state.epochs, run.state.epoch, run.state.batch);
    }
    let recipe = lesson.recipe;
    while run.state.epoch <= recipe.epochs && !ends(recipe.early_stopping, run.state.best, run.state.epoch - 1) {
        let began = Instant::now();
        run.batches(observer)?;
        let epoch = run.end_epoch(began)?;
        let number = epoch.number;
        if number.is_multiple_of(recipe.checkpoint.every_epochs) || number == recipe.epochs {
            run.checkpoint()?;
        }
        // After its checkpoint: who reads of an epoch can rely on it.
        observer.epoch(&epoch);
    }
    match (run.state.best, &run.best) {
        (Some(best), Some(weights)) => {
            restore(lesson.network, weights)?;
            Ok(best.epoch)
        }
        _ => Ok(run.state.epoch - 1),
    }
}

impl State {
    fn fresh() -> Self {
        Self { epoch: 1, losses: 0.0_f64.to_bits(), ..Self::default() }
    }
}

struct Run<'a> {
    lesson: &'a Lesson<'a>,
    loss: Loss,
    /// Nodes that stay as they are.
    frozen: BTreeSet<String>,
    optimise: Optimise,
    state: State,
    /// Weights of the best epoch.
    best: Option<Tensors>,
}

impl<'a> Run<'a> {
    /// From the newest checkpoint, or anew.
    fn begin(lesson: &'a Lesson<'a>) -> Result<Self, FitError> {
        let Lesson { network, train, recipe, .. } = *lesson;
        let loss = weighing::loss(recipe, train, network.graph());
        let before = lesson.learned_from.and_then(|from| network.graph().before(from)).unwrap_or_default();
        let frozen = before.iter().map(|node| node.name.clone()).collect();
        let Some(Snapshot { mut state, weights, moments, best }) = lesson.checkpoints.and_then(Checkpoints::newest)
        else {
            let optimise = Optimise::new(recipe.optimizer, network);
            return Ok(Self { lesson, loss, frozen, optimise, state: State::fresh(), best: None });
        };
        restore(network, &weights)?;
        let optimise = Optimise::resume(recipe.optimizer, network, state.steps, &moments)?;
        state.recipe.clear();
        Ok(Self { lesson, loss, frozen, optimise, state, best })
    }

    /// What is left of the epoch.
    fn batches(&mut self, observer: &mut impl Observer) -> Result<(), FitError> {
        let Lesson { train, recipe, stop, .. } = *self.lesson;
        let epoch = self.state.epoch;
        let order = Order::new(train.len(), recipe.seed, &format!("epoch {epoch}"));
        let batches = train.len().div_ceil(recipe.batch_size);
        while self.state.batch < batches {
            if stop.load(Relaxed) {
                self.checkpoint()?;
                return Err(FitError::Stopped { epoch, batch: self.state.batch });
            }
            let first = self.state.batch * recipe.batch_size;
            let places = first..(first + recipe.batch_size).min(train.len());
            let indices: Vec<usize> = places.map(|place| order.at(place)).collect();
            let loss = self.step(&indices, batches)?;
            self.state.batch += 1;
            observer.batch(epoch, self.state.batch, batches, loss);
        }
        Ok(())
    }

    fn step(&mut self, indices: &[usize], of_epoch: usize) -> Result<f32, FitError> {
        let Lesson { network, train, recipe, .. } = *self.lesson;
        let State { epoch, batch, .. } = self.state;
        let xs = train.augmented(indices, Chance { steps: &recipe.augment, seed: recipe.seed, epoch })?;
        let training = Training { seed: recipe.seed, epoch, step: batch, frozen: &self.frozen };
        // Straight through: gradients are those at the rounded weights, and move the exact ones.
        let exact = self.round()?;
        let lengths = train.lengths(indices)?;
        let logits = network.forward_t(&xs, lengths.as_ref(), Mode::Train(training))?;
        let (asked, weights) = (train.asked(indices)?, train.weights(indices));
        let targets = match (&asked, &weights) {
            _ if network.threshold().is_some() => Targets::Values(&xs),
            (Asked::Classes(labels), None) => Targets::Labels(labels),
            (Asked::Classes(labels), Some(weights)) => Targets::Weighted(labels, weights),
            (Asked::Values(values), None) => Targets::Values(values),
            (Asked::Values(values), Some(weights)) => Targets::WeightedValues(values, weights),
        };
        let mean = self.loss((&xs, lengths.as_ref()), &logits, targets)?;
        let loss = mean.to_scalar::<f32>()?;
        if !loss.is_finite() {
            return Err(FitError::Diverged { epoch, batch: batch + 1, loss });
        }
        let gradients = mean.backward()?;
        if (epoch, batch) == (1, 0) {
            self.all_learn(&gradients, loss, &logits, targets)?;
        }
        if let Some(exact) = exact {
            // Statistics stay as they have been gathered.
            network.weights().try_for_each(|(name, variable)| variable.set(&exact[name]))?;
        }
        let place = Place { step: self.optimise.steps(), of_epoch: of_epoch as u64, epochs: recipe.epochs as u64 };
        self.optimise.step(network, &gradients, factor(recipe.schedule, place), recipe.clip_norm)?;
        let losses = f64::from_bits(self.state.losses) + f64::from(loss) * indices.len() as f64;
        self.state.losses = losses.to_bits();
        if let (Asked::Classes(labels), None) = (asked, network.threshold()) {
            let rows = logits.to_vec2::<f32>()?;
            self.state.right += rows.iter().zip(&labels).filter(|(row, label)| argmax(row) == **label as usize).count();
        }
        Ok(loss)
    }

    /// Whether each weight that is to learn can. Where there is nothing to be learned, it is asked as if all were of one class, which
    /// the first is not, or as if all values were other ones.
    fn all_learn(
        &self,
        gradients: &GradStore,
        loss: f32,
        logits: &Tensor,
        targets: Targets<'_>,
    ) -> Result<(), FitError> {
        let network = self.lesson.network;
        let doubted = match targets {
            _ if loss > LEARNED => None,
            Targets::Values(values) | Targets::WeightedValues(values, _) => {
                Some(self.loss.mean(logits, Targets::Values(&(values + 1.0)?))?.backward()?)
            }
            Targets::Labels(labels) | Targets::Weighted(labels, _) => {
                let other = (labels[0] + 1) % network.graph().units() as u32;
                let others = vec![other; labels.len()];
                Some(Loss::cross_entropy().mean(logits, Targets::Labels(&others))?.backward()?)
            }
        };
        let unlearned = network.unlearned(doubted.as_ref().unwrap_or(gradients), &self.frozen)?;
        unlearned.map_or(Ok(()), |Unlearned { variable, fault }| Err(FitError::Gradient { variable, fault }))
    }

    /// Rounds the weights, if that is to be learned; returns what they were.
    fn round(&self) -> Result<Option<Tensors>, FitError> {
        let Lesson { network, rounding: Some(inputs), .. } = *self.lesson else { return Ok(None) };
        let exact = weights(network)?;
        let rounded = Variant::int8(network, inputs)?;
        restore(network, &weights(&rounded.network)?)?;
        Ok(Some(exact))
    }

    fn loss(
        &self,
        (xs, lengths): (&Tensor, Option<&Tensor>),
        logits: &Tensor,
        targets: Targets<'_>,
    ) -> candle_core::Result<Tensor> {
        let own = self.loss.mean(logits, targets)?;
        let Some(Teacher { network, temperature, share }) = self.lesson.teacher else { return Ok(own) };
        let says = (network.forward_t(xs, lengths, Mode::Eval)? / temperature)?;
        let taught = soft_cross_entropy(&(logits / temperature)?, &candle_nn::ops::softmax(&says, 1)?)?;
        // The gradient of softened answers is smaller by the temperature's square.
        (own * (1.0 - share))? + (taught * (share * temperature * temperature))?
    }

    fn end_epoch(&mut self, began: Instant) -> Result<Epoch, FitError> {
        let Lesson { network, train, validation, recipe, .. } = *self.lesson;
        let count = train.len().max(1) as f64;
        let validated = (!validation.is_empty()).then(|| validated(network, validation)).transpose()?;
        let number = self.state.epoch;
        let epoch = Epoch {
            number,
            loss: (f64::from_bits(self.state.losses) / count) as f32,
            accuracy: network.graph().classifies().then(|| self.state.right as f64 / count),
            validation: validated.as_ref().and_then(|validated| validated.accuracy),
            validation_loss: validated.as_ref().map(|validated| validated.loss),
            took: began.elapsed(),
        };
        if let Some(stopping) = recipe.early_stopping {
            let value = match stopping.metric {
                Metric::Accuracy => epoch.validation,
                Metric::Loss => epoch.validation_loss,
            };
            if let Some(value) = value
                && Best::improved(&mut self.state.best, stopping.metric, number, value)
            {
                self.best = Some(weights(network)?);
            }
        }
        self.state = State {
            epoch: number + 1,
            batch: 0,
            losses: 0.0_f64.to_bits(),
            right: 0,
            epochs: [std::mem::take(&mut self.state.epochs), vec![epoch]].concat(),
            ..std::mem::take(&mut self.state)
        };
        Ok(epoch)
    }

    fn checkpoint(&self) -> Result<(), FitError> {
        let Some(checkpoints) = self.lesson.checkpoints else { return Ok(()) };
        let snapshot = Snapshot {
            state: State { steps: self.optimise.steps(), ..self.state.clone() },
            weights: weights(self.lesson.network)?,
            moments: self.optimise.kept()?,
            best: self.best.clone(),
        };
        Ok(checkpoints.write(&snapshot)?)
    }
}

/// Of the validation split.
struct Validated {
    /// None before there is a threshold of anomalies.
    accuracy: Option<f64>,
    loss: f64,
}

fn validated(network: &Network, validation: &Prepared) -> candle_core::Result<Validated> {
    let plan = Plan::compile(network, &Arithmetic::F32)?;
    let mean = |sum: f64| sum / validation.len() as f64;
    Ok(match network.threshold() {
        Some(threshold) => {
            let errors = validation.errors(&plan, values(threshold)?[0])?;
            Validated { accuracy: None, loss: mean(errors.iter().sum()) }
        }
        None => {
            let answers = validation.answers(&plan, network.graph())?;
            Validated { accuracy: Some(value(&answers)), loss: mean(answers.iter().map(|answer| answer.loss).sum()) }
        }
    })
}
