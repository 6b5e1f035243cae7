//! Samples as a network takes them, and its answers to them.

use crate::answer::{Answer, Judge};
use crate::augment::Planes;
use crate::data::{Inputs, Labels, Samples, rows};
use crate::manifest::Augment;
use candle_core::{Device, Tensor};
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::drift::Moments;
use sconce_model::graph::Graph;
use sconce_model::plan::Plan;
use sconce_model::preprocess::{Preprocess, PreprocessError};
use std::ops::Range;
use thiserror::Error;

/// Samples in one batch of an evaluation.
const ANSWERED_AT_ONCE: usize = 256;

#[derive(Debug, Error)]
pub enum PreparedError {
    #[error("cannot preprocess the images")]
    Preprocess(#[from] PreprocessError),
    #[error(
        "preprocess gives {got} numbers an image, the network takes {need} ({input:?}): mend centerCrop or input.shape"
    )]
    Input { got: usize, need: usize, input: Vec<usize> },
}

/// Samples as the network takes them.
pub struct Prepared {
    xs: Vec<f32>,
    labels: Labels,
    /// How much each counts; none = all alike.
    weights: Vec<f32>,
    /// Without the batch; of the longest.
    shape: Vec<usize>,
    /// Steps of each, if they may have any number.
    lengths: Vec<usize>,
    /// Where each lies among `xs`.
    rows: Vec<Range<usize>>,
    are_features: bool,
    /// What preprocessing makes of black and of white, for each channel.
    black: Vec<f32>,
    white: Vec<f32>,
}

/// An augmentation: its steps, the seed, the epoch.
#[derive(Clone, Copy)]
pub struct Chance<'a> {
    pub steps: &'a [Augment],
    pub seed: u64,
    pub epoch: usize,
}

/// What a network should say of a batch.
pub enum Asked {
    Classes(Vec<u32>),
    /// `(batch, values)`.
    Values(Tensor),
}

impl Prepared {
    /// `input` is the network's, or of features the head's.
    ///
    /// # Errors
    /// [`PreparedError`] if preprocessing does not fit the samples or the network.
    pub fn new(samples: &Samples, preprocess: &Preprocess, input: &[usize]) -> Result<Self, PreparedError> {
        let of_all: usize = input.iter().product();
        let need = match &samples.lengths[..] {
            [] => of_all * samples.len(),
            lengths => input[1..].iter().product::<usize>() * lengths.iter().sum::<usize>(),
        };
        let xs = match &samples.inputs {
            Inputs::Images(images) => preprocess.apply_all(images)?,
            Inputs::Ready(xs) | Inputs::Features(xs) => xs.clone(),
        };
        if xs.len() != need {
            let got = xs.len() / samples.len().max(1);
            return Err(PreparedError::Input { got, need: of_all, input: input.into() });
        }
        let labels = samples.labels.clone();
        let (black, white) = (preprocess.pixel(0), preprocess.pixel(u8::MAX));
        let (weights, are_features) = (samples.weights.clone(), samples.are_features());
        let (lengths, rows) = (samples.lengths.clone(), rows(xs.len(), samples.len(), &samples.lengths));
        Ok(Self { xs, labels, weights, shape: input.into(), lengths, rows, are_features, black, white })
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What the network should say of some of them.
    pub fn asked(&self, indices: &[usize]) -> candle_core::Result<Asked> {
        Ok(match self.labels.select(indices) {
            Labels::Classes(classes) => Asked::Classes(classes.into_iter().map(u32::from).collect()),
            Labels::Values { of_each, all } => {
                Asked::Values(Tensor::from_vec(all, (indices.len(), of_each), &Device::Cpu)?)
            }
        })
    }

    /// How much some of them count; `None` where all count alike.
    pub fn weights(&self, indices: &[usize]) -> Option<Vec<f32>> {
        let weights = indices.iter().map(|&index| self.weights.get(index).copied());
        weights.collect::<Option<Vec<_>>>().filter(|weights| !weights.is_empty())
    }

    /// One that no other is longer than.
    pub fn longest(&self) -> usize {
        (0..self.lengths.len()).max_by_key(|index| self.lengths[*index]).unwrap_or(0)
    }

    /// Whether a batch of one is what a plan that serves is asked, and one of several is filled up.
    pub fn have_lengths(&self) -> bool {
        !self.lengths.is_empty()
    }

    /// `(batch)`, how many steps of each are valid; none where they all have as many.
    pub fn lengths(&self, indices: &[usize]) -> candle_core::Result<Option<Tensor>> {
        let lengths = || indices.iter().map(|&index| self.lengths[index] as u32).collect::<Vec<_>>();
        self.have_lengths().then(|| Tensor::new(lengths(), &Device::Cpu)).transpose()
    }

    /// `(batch, ..input)`; sequences are filled up to the longest of them.
    pub fn batch(&self, indices: &[usize]) -> candle_core::Result<Tensor> {
        self.changed(indices, |_, _| {})
    }

    /// As [`Self::batch`], each image changed by chance.
    pub fn augmented(&self, indices: &[usize], chance: Chance<'_>) -> candle_core::Result<Tensor> {
        let (&[_, height, width], false) = (&self.shape[..], self.are_features) else { return self.batch(indices) };
        let planes = Planes { height, width, black: &self.black, white: &self.white };
        let Chance { steps, seed, epoch } = chance;
        self.changed(indices, |sample, image| {
            if !steps.is_empty() {
                planes.augment(image, steps, seed, epoch, sample);
            }
        })
    }

    fn changed(&self, indices: &[usize], mut change: impl FnMut(usize, &mut [f32])) -> candle_core::Result<Tensor> {
        let mut shape = self.shape.clone();
        if let Some(steps) = indices.iter().filter_map(|&index| self.lengths.get(index)).max() {
            shape[0] = *steps;
        }
        let taken: usize = shape.iter().product();
        let mut xs: Vec<f32> = Vec::with_capacity(indices.len() * taken);
        for &index in indices {
            let begun = xs.len();
            xs.extend_from_slice(&self.xs[self.rows[index].clone()]);
            xs.resize(begun + taken, 0.0);
            change(index, &mut xs[begun..]);
        }
        shape.insert(0, indices.len());
        Tensor::from_vec(xs, shape, &Device::Cpu)
    }

    /// What a plan that serves says of every sample, which a network of this graph was compiled to: the same on every machine.
    ///
    /// # Errors
    /// If the plan does not fit.
    pub fn answers(&self, plan: &Plan, graph: &Graph) -> candle_core::Result<Vec<Answer>> {
        let judge = Judge::new(graph.task(), graph.loss(), (0..self.len()).map(|index| self.labels.values(index)));
        let mut answers = Vec::with_capacity(self.len());
        self.inferred(plan, |row| {
            let index = answers.len();
            answers.push(match self.labels.classes().get(index) {
                Some(class) => judge.of_class(row, usize::from(*class)),
                None => judge.of_values(row, self.labels.values(index)),
            });
        })?;
        Ok(answers)
    }

    /// The mean square between each sample and what a network makes of it that tells anomalies from this threshold on.
    ///
    /// # Errors
    /// If the plan does not fit.
    pub fn errors(&self, plan: &Plan, threshold: f32) -> candle_core::Result<Vec<f64>> {
        let mut errors = Vec::with_capacity(self.len());
        self.inferred(plan, |said| errors.push(f64::from(threshold) * f64::from(said[1]) / f64::from(said[0])))?;
        Ok(errors)
    }

    /// What is kept of each sample where it is told whether inputs drift; none of features, which are no input.
    pub fn moments(&self) -> Option<Vec<Moments>> {
        let of = |row: &Range<usize>| Moments::of(&self.xs[row.clone()]);
        (!self.are_features).then(|| self.rows.iter().map(of).collect())
    }

    /// The samples as another network takes them, which reads what the plan gives. Chance cannot change them any more.
    ///
    /// # Errors
    /// If the plan does not fit.
    pub fn through(&self, plan: &Plan) -> candle_core::Result<Self> {
        let mut xs = Vec::with_capacity(self.len() * plan.output().iter().product::<usize>());
        self.inferred(plan, |row| xs.extend_from_slice(row))?;
        let (labels, weights) = (self.labels.clone(), self.weights.clone());
        let (shape, lengths, rows) = (plan.output().into(), Vec::new(), rows(xs.len(), self.len(), &[]));
        let (black, white) = (Vec::new(), Vec::new());
        Ok(Self { xs, labels, weights, shape, lengths, rows, are_features: true, black, white })
    }

    /// Whether they are what a backbone made: its head reads them, and no whole network.
    pub fn are_features(&self) -> bool {
        self.are_features
    }

    /// All numbers, one sample after the other.
    pub fn into_values(self) -> Vec<f32> {
        self.xs
    }

    /// What the plan gives for each sample, in their order.
    fn inferred(&self, plan: &Plan, mut each: impl FnMut(&[f32])) -> candle_core::Result<()> {
        let isa = IsaToken::detect().map_err(candle_core::Error::wrap)?;
        let cpu = Cpu { isa, threads: &Threads::available()? };
        let mut scratch = plan.scratch(ANSWERED_AT_ONCE);
        let order: Vec<usize> = (0..self.len()).collect();
        let at_once = if self.have_lengths() { 1 } else { ANSWERED_AT_ONCE };
        for indices in order.chunks(at_once) {
            let rows = plan.infer(cpu, &[&self.batch(indices)?], &mut scratch)?.remove(0);
            rows.flatten_from(1)?.to_vec2::<f32>()?.iter().for_each(|row| each(row));
        }
        Ok(())
    }
}
