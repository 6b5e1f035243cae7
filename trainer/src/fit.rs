//! Training: batches in an order drawn by the seed, Adam, and checks that stop a run that learns nothing.

use crate::data::{Samples, shuffled};
use crate::manifest::{Fit, Optimizer};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::metrics::argmax;
use sconce_model::network::{Mode, Network, Training};
use sconce_model::ops::{Adam, Loss, Targets};
use sconce_model::plan::Plan;
use sconce_model::preprocess::{Preprocess, PreprocessError};
use sconce_model::variant::Arithmetic;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum FitError {
    #[error("cannot preprocess the images")]
    Preprocess(#[from] PreprocessError),
    #[error(
        "preprocess gives {got} numbers an image, the network takes {need} ({input:?}): mend centerCrop or input.shape"
    )]
    Input { got: usize, need: usize, input: Vec<usize> },
    #[error("\"{variable}\" has {fault} at the first step: the network cannot learn")]
    Gradient { variable: String, fault: &'static str },
    #[error("the loss is {loss} in epoch {epoch}, batch {batch}: try a smaller learning rate")]
    Diverged { epoch: usize, batch: usize, loss: f32 },
    #[error("cannot compute")]
    Tensor(#[from] candle_core::Error),
}

/// Samples in one batch of an evaluation.
const ANSWERED_AT_ONCE: usize = 256;

/// Samples as the network takes them.
pub struct Prepared {
    xs: Vec<f32>,
    labels: Vec<u32>,
    /// Without the batch.
    shape: Vec<usize>,
}

/// What is known after an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    pub number: usize,
    pub loss: f32,
    /// On the training samples, as they were seen.
    pub accuracy: f64,
    pub validation: Option<f64>,
    pub took: Duration,
}

/// Told of progress: `batch` after each one, `epoch` after each.
pub trait Observer {
    fn batch(&mut self, epoch: usize, batch: usize, batches: usize, loss: f32);
    fn epoch(&mut self, epoch: &Epoch);
}

impl Prepared {
    /// # Errors
    /// [`FitError`] if preprocessing does not fit the samples or the network.
    pub fn new(samples: &Samples, preprocess: &Preprocess, input: &[usize]) -> Result<Self, FitError> {
        let need: usize = input.iter().product();
        let xs = preprocess.apply_all(&samples.images)?;
        if xs.len() != need * samples.len() {
            return Err(FitError::Input { got: xs.len() / samples.len().max(1), need, input: input.into() });
        }
        Ok(Self { xs, labels: samples.labels.iter().map(|&label| u32::from(label)).collect(), shape: input.into() })
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `(batch, ..input)`, and a label for each.
    pub(crate) fn batch(&self, indices: &[usize]) -> candle_core::Result<(Tensor, Vec<u32>)> {
        let size: usize = self.shape.iter().product();
        let xs: Vec<f32> =
            indices.iter().flat_map(|&index| &self.xs[index * size..(index + 1) * size]).copied().collect();
        let labels: Vec<u32> = indices.iter().map(|&index| self.labels[index]).collect();
        let shape: Vec<usize> = std::iter::once(indices.len()).chain(self.shape.iter().copied()).collect();
        Ok((Tensor::from_vec(xs, shape, &Device::Cpu)?, labels))
    }

    /// `(label, answer)` of every sample, through a plan that serves: the same answers on every machine.
    pub fn answers(&self, plan: &Plan) -> candle_core::Result<Vec<(usize, usize)>> {
        let isa = IsaToken::detect().map_err(candle_core::Error::wrap)?;
        let cpu = Cpu { isa, threads: &Threads::available()? };
        let mut scratch = plan.scratch(ANSWERED_AT_ONCE);
        let order: Vec<usize> = (0..self.len()).collect();
        let mut answers = Vec::with_capacity(self.len());
        for indices in order.chunks(ANSWERED_AT_ONCE) {
            let rows = plan.infer(cpu, &[&self.batch(indices)?.0], &mut scratch)?.remove(0).to_vec2::<f32>()?;
            answers.extend(indices.iter().zip(rows).map(|(&index, row)| (self.labels[index] as usize, argmax(&row))));
        }
        Ok(answers)
    }
}

/// Trains the network in place.
///
/// # Errors
/// [`FitError`] if a variable gets no gradient, or the loss is no number.
pub fn fit(
    network: &Network,
    train: &Prepared,
    validation: &Prepared,
    recipe: &Fit,
    observer: &mut impl Observer,
) -> Result<(), FitError> {
    let Optimizer::Adam { learning_rate } = recipe.optimizer;
    let mut optimizers: Vec<Adam> =
        network.weights().map(|(_, variable)| Adam::new(variable, learning_rate)).collect();
    let frozen = BTreeSet::new();
    for epoch in 1..=recipe.epochs {
        let began = Instant::now();
        let order = shuffled(train.len(), recipe.seed, &format!("epoch {epoch}"));
        let batches = train.len().div_ceil(recipe.batch_size);
        let (mut losses, mut right) = (0.0_f64, 0_usize);
        for (batch, indices) in (1..).zip(order.chunks(recipe.batch_size)) {
            let (xs, labels) = train.batch(indices)?;
            let training = Training { seed: recipe.seed, epoch, step: batch, frozen: &frozen };
            let logits = network.forward_t(&xs, None, Mode::Train(training))?;
            let mean = Loss::cross_entropy().mean(&logits, Targets::Labels(&labels))?;
            let loss = mean.to_scalar::<f32>()?;
            if !loss.is_finite() {
                return Err(FitError::Diverged { epoch, batch, loss });
            }
            let gradients = mean.backward()?;
            if (epoch, batch) == (1, 1) {
                all_learn(network, &gradients)?;
            }
            for ((_, variable), optimizer) in network.weights().zip(&mut optimizers) {
                if let Some(gradient) = gradients.get(variable.as_tensor()) {
                    optimizer.step(variable, gradient)?;
                }
            }
            losses += f64::from(loss) * indices.len() as f64;
            right += logits
                .to_vec2::<f32>()?
                .iter()
                .zip(labels)
                .filter(|(row, label)| argmax(row) == *label as usize)
                .count();
            observer.batch(epoch, batch, batches, loss);
        }
        let count = train.len() as f64;
        observer.epoch(&Epoch {
            number: epoch,
            loss: (losses / count) as f32,
            accuracy: right as f64 / count,
            validation: if validation.is_empty() { None } else { Some(validated(network, validation)?) },
            took: began.elapsed(),
        });
    }
    Ok(())
}

fn validated(network: &Network, validation: &Prepared) -> candle_core::Result<f64> {
    Ok(accuracy(&validation.answers(&Plan::compile(network, &Arithmetic::F32)?)?))
}

/// Every variable has a gradient of finite numbers: one without is never moved, and nobody would notice.
fn all_learn(network: &Network, gradients: &GradStore) -> Result<(), FitError> {
    for (name, variable) in network.weights() {
        let fault = |fault| FitError::Gradient { variable: name.clone(), fault };
        let gradient = gradients.get(variable.as_tensor()).ok_or_else(|| fault("no gradient"))?;
        if !gradient.flatten_all()?.to_vec1::<f32>()?.iter().all(|g| g.is_finite()) {
            return Err(fault("a gradient that is not finite"));
        }
    }
    Ok(())
}

pub fn accuracy(answers: &[(usize, usize)]) -> f64 {
    answers.iter().filter(|(label, answer)| label == answer).count() as f64 / answers.len().max(1) as f64
}
