//! Training: batches in an order drawn by the seed, Adam, and checks that stop a run that learns nothing.

use crate::data::{Samples, shuffled};
use crate::manifest::{Fit, Optimizer};
use candle_core::{Device, Tensor};
use sconce_model::metrics::argmax;
use sconce_model::network::{Mode, Network, generator};
use sconce_model::ops::Adam;
use sconce_model::preprocess::{Preprocess, PreprocessError};
use std::time::{Duration, Instant};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum FitError {
    #[error("preprocess: {0}")]
    Preprocess(#[from] PreprocessError),
    #[error(
        "preprocess gives {got} numbers an image, the network takes {need} ({input:?}): mend centerCrop or input.shape"
    )]
    Input { got: usize, need: usize, input: Vec<usize> },
    #[error("\"{variable}\" has {fault} at the first step: the network cannot learn")]
    Gradient { variable: String, fault: &'static str },
    #[error("the loss is {loss} in epoch {epoch}, batch {batch}: try a smaller learning rate")]
    Diverged { epoch: usize, batch: usize, loss: f32 },
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

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
        let mut xs = Vec::with_capacity(samples.len() * need);
        for index in 0..samples.len() {
            let image = preprocess.apply(samples.images.image(index), samples.images.height, samples.images.width)?;
            if image.len() != need {
                return Err(FitError::Input { got: image.len(), need, input: input.into() });
            }
            xs.extend(image);
        }
        Ok(Self { xs, labels: samples.labels.iter().map(|&label| u32::from(label)).collect(), shape: input.into() })
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `(batch, ..input)` and `(batch)`.
    fn batch(&self, indices: &[usize]) -> candle_core::Result<(Tensor, Tensor)> {
        let size: usize = self.shape.iter().product();
        let xs: Vec<f32> =
            indices.iter().flat_map(|&index| &self.xs[index * size..(index + 1) * size]).copied().collect();
        let labels: Vec<u32> = indices.iter().map(|&index| self.labels[index]).collect();
        let shape: Vec<usize> = std::iter::once(indices.len()).chain(self.shape.iter().copied()).collect();
        Ok((Tensor::from_vec(xs, shape, &Device::Cpu)?, Tensor::from_vec(labels, indices.len(), &Device::Cpu)?))
    }

    /// `(label, answer)` of every sample, through the network that serves.
    pub fn answers(&self, network: &Network) -> candle_core::Result<Vec<(usize, usize)>> {
        let order: Vec<usize> = (0..self.len()).collect();
        let mut answers = Vec::with_capacity(self.len());
        for indices in order.chunks(256) {
            let rows = network.infer(&self.batch(indices)?.0)?.to_vec2::<f32>()?;
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
    let mut optimizers: Vec<_> = network
        .variables()
        .iter()
        .map(|(name, variable)| (name, variable, Adam::new(variable, learning_rate)))
        .collect();
    for epoch in 1..=recipe.epochs {
        let began = Instant::now();
        let order = shuffled(train.len(), recipe.seed, &format!("epoch {epoch}"));
        let mut dropout = generator(recipe.seed, &format!("dropout {epoch}"));
        let batches = train.len().div_ceil(recipe.batch_size);
        let (mut losses, mut right) = (0.0_f64, 0_usize);
        for (batch, indices) in order.chunks(recipe.batch_size).enumerate() {
            let (xs, labels) = train.batch(indices)?;
            let logits = network.forward_t(&xs, &mut Mode::Train(&mut dropout))?;
            let loss = candle_nn::loss::cross_entropy(&logits, &labels)?;
            let gradients = loss.backward()?;
            for (name, variable, optimizer) in &mut optimizers {
                let gradient = gradients.get(variable.as_tensor());
                let fault = |fault| FitError::Gradient { variable: name.to_string(), fault };
                let gradient = gradient.ok_or_else(|| fault("no gradient"))?;
                if epoch == 1 && batch == 0 && !gradient.flatten_all()?.to_vec1::<f32>()?.iter().all(|g| g.is_finite())
                {
                    return Err(fault("a gradient that is not finite"));
                }
                optimizer.step(variable, gradient)?;
            }
            let loss = loss.to_scalar::<f32>()?;
            if !loss.is_finite() {
                return Err(FitError::Diverged { epoch, batch: batch + 1, loss });
            }
            losses += f64::from(loss) * indices.len() as f64;
            let rows = logits.to_vec2::<f32>()?;
            right +=
                indices.iter().zip(rows).filter(|(index, row)| train.labels[**index] as usize == argmax(row)).count();
            observer.batch(epoch, batch + 1, batches, loss);
        }
        let validated = if validation.is_empty() { None } else { Some(accuracy(&validation.answers(network)?)) };
        let count = train.len() as f64;
        observer.epoch(&Epoch {
            number: epoch,
            loss: (losses / count) as f32,
            accuracy: right as f64 / count,
            validation: validated,
            took: began.elapsed(),
        });
    }
    Ok(())
}

pub fn accuracy(answers: &[(usize, usize)]) -> f64 {
    answers.iter().filter(|(label, answer)| label == answer).count() as f64 / answers.len().max(1) as f64
}
