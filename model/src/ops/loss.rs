//! Losses of what a network says before its last sigmoid or softmax: each stable for any number, each the mean over the batch.

use super::record::{elements, like, record};
use candle_core::{Result, Tensor};

/// What training makes small.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// `−log softmax(logits)[label]`, one class per row. `smoothing` of the weight is spread over all classes alike. With a weight
    /// for each class, rows count as much as their label's. Both as in PyTorch.
    CrossEntropy { smoothing: f32, class_weights: Option<Vec<f32>> },
    /// Each output on its own is one of two: `multilabel`. Targets are 0, 1, or between.
    BinaryCrossEntropy,
    /// Half the square up to a distance of `delta`, linear beyond: one bad target does not outweigh all others.
    Huber { delta: f32 },
    /// Of a count: the rate is softplus of the output.
    Poisson,
    /// Of a reconstruction.
    MeanSquares,
}

/// What the rows should have said.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// The index of a class for each row.
    Labels(&'a [u32]),
    /// The index of a class for each row, and how much the row counts.
    Weighted(&'a [u32], &'a [f32]),
    /// As many values as the network says.
    Values(&'a Tensor),
    /// As many values as the network says, and how much each row counts.
    WeightedValues(&'a Tensor, &'a [f32]),
}

impl Loss {
    /// Plain cross-entropy.
    pub fn cross_entropy() -> Self {
        Self::CrossEntropy { smoothing: 0.0, class_weights: None }
    }

    /// A scalar. `ys` is `(batch, ..)`, what [`crate::network::Network::forward_t`] says.
    ///
    /// # Errors
    /// If the targets do not fit: how many, which class, what kind.
    pub fn mean(&self, ys: &Tensor, targets: Targets<'_>) -> Result<Tensor> {
        let (targets, counts) = match (self, targets) {
            (Self::CrossEntropy { smoothing, class_weights }, Targets::Labels(labels)) => {
                return softmax_cross_entropy(ys, labels, None, *smoothing, class_weights.as_deref());
            }
            (Self::CrossEntropy { smoothing, class_weights }, Targets::Weighted(labels, counts)) => {
                return softmax_cross_entropy(ys, labels, Some(counts), *smoothing, class_weights.as_deref());
            }
            (Self::CrossEntropy { .. }, Targets::Values(_) | Targets::WeightedValues(..)) => {
                candle_core::bail!("cross-entropy needs a label for each row, got values")
            }
            (_, Targets::Labels(_) | Targets::Weighted(..)) => {
                candle_core::bail!("this loss needs values to compare with, got labels of classes")
            }
            (_, Targets::Values(targets)) => (targets, None),
            (_, Targets::WeightedValues(targets, counts)) => (targets, Some(counts)),
        };
        let name = match self {
            Self::CrossEntropy { .. } => "cross-entropy",
            Self::BinaryCrossEntropy => "binary-cross-entropy",
            Self::Huber { .. } => "huber",
            Self::Poisson => "poisson",
            Self::MeanSquares => "mean-squares",
        };
        each(ys, targets, counts, name, |y, t| self.of(y, t))
    }

    /// Of one value that the network says, and what it should have said: the loss, and its slope. None of classes, which are told together.
    pub fn of(&self, y: f32, t: f32) -> Option<(f64, f32)> {
        Some(match *self {
            Self::CrossEntropy { .. } => return None,
            // log(1 + eˣ) without overflow: the exponent is never positive.
            Self::BinaryCrossEntropy => {
                (f64::from(y.max(0.0) - y * t) + f64::from((-y.abs()).exp()).ln_1p(), sigmoid(y) - t)
            }
            Self::Huber { delta } => {
                let (far, delta) = (f64::from(y - t), f64::from(delta));
                if far.abs() <= delta {
                    (far * far / 2.0, far as f32)
                } else {
                    (delta * (far.abs() - delta / 2.0), (delta * far.signum()) as f32)
                }
            }
            Self::Poisson => {
                // Far below zero softplus is the exponential, and its logarithm the output itself.
                let rate = softplus(y);
                let log = if y < -15.0 { f64::from(y) } else { rate.ln() };
                let slope = f64::from(sigmoid(y));
                let by_log = if y < -15.0 { 1.0 } else { slope / rate };
                (rate - f64::from(t) * log, (slope - f64::from(t) * by_log) as f32)
            }
            Self::MeanSquares => (f64::from(y - t).powi(2), 2.0 * (y - t)),
        })
    }
}

/// The rate that a network says of a count: log(1 + eˣ), without overflow.
pub fn softplus(x: f32) -> f64 {
    f64::from(x.max(0.0)) + f64::from((-x.abs()).exp()).ln_1p()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The mean of a function of output and target, which tells its slope, too; `counts` says how much each row counts.
fn each(
    ys: &Tensor,
    targets: &Tensor,
    counts: Option<&[f32]>,
    name: &'static str,
    of: impl Fn(f32, f32) -> Option<(f64, f32)>,
) -> Result<Tensor> {
    if ys.dims() != targets.dims() {
        candle_core::bail!("targets are {:?}, the network says {:?}", targets.dims(), ys.dims())
    }
    let batch = ys.dims().first().copied().unwrap_or(1);
    if let Some(counts) = counts.filter(|counts| counts.len() != batch) {
        candle_core::bail!("{} weights for {batch} rows of values", counts.len())
    }
    let (ys, targets) = (ys.contiguous()?, targets.contiguous()?);
    let of_row = (ys.elem_count() / batch.max(1)).max(1);
    let (mut sum, mut slopes) = (0.0, Vec::with_capacity(ys.elem_count()));
    for (at, (&y, &t)) in elements(&ys)?.iter().zip(elements(&targets)?.iter()).enumerate() {
        let Some((loss, slope)) = of(y, t) else { candle_core::bail!("{name} is of labels, not of values") };
        let count = counts.map_or(1.0, |counts| counts[at / of_row]);
        sum += loss * f64::from(count);
        slopes.push(slope * count);
    }
    let total = counts.map_or(batch as f32, |counts| counts.iter().sum());
    let total = if total > 0.0 { total * of_row as f32 } else { 1.0 };
    record(name, [&ys], vec![(sum / f64::from(total)) as f32], (), move |[ys], _, gradient| {
        let scale = gradient.to_scalar::<f32>()? / total;
        Ok([like(slopes.iter().map(|slope| slope * scale).collect(), ys)?])
    })
}

/// `counts` says how much each row counts, `weights` how much each class.
fn softmax_cross_entropy(
    logits: &Tensor,
    labels: &[u32],
    counts: Option<&[f32]>,
    smoothing: f32,
    weights: Option<&[f32]>,
) -> Result<Tensor> {
    let (batch, classes) = logits.dims2()?;
    if labels.len() != batch {
        candle_core::bail!("{} labels for {batch} rows of logits", labels.len())
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
        candle_core::bail!("label {label}, but the network tells {classes} classes")
    }
    if let Some(weights) = weights.filter(|weights| weights.len() != classes) {
        candle_core::bail!("{} class weights for {classes} classes", weights.len())
    }
    if let Some(counts) = counts.filter(|counts| counts.len() != batch) {
        candle_core::bail!("{} weights for {batch} rows of logits", counts.len())
    }
    let weights = weights.map_or_else(|| vec![1.0; classes], <[f32]>::to_vec);
    let counts = counts.map_or_else(|| vec![1.0; batch], <[f32]>::to_vec);
    let of_row = |(&label, &count): (&u32, &f32)| f64::from(weights[label as usize]) * f64::from(count);
    let total: f64 = labels.iter().zip(&counts).map(of_row).sum();
    let logits = logits.contiguous()?;
    let mut slopes = elements(&logits)?.to_vec();
    let mut loss = 0.0_f64;
    for ((row, &label), &count) in slopes.chunks_exact_mut(classes).zip(labels).zip(&counts) {
        let asked = |class: usize| {
            let here = if class == label as usize { 1.0 - smoothing } else { 0.0 };
            count * weights[class] * (here + smoothing / classes as f32)
        };
        let all: f32 = (0..classes).map(asked).sum();
        // Shifted by the largest, every exponent is at most 0. A NaN stays one: the sum has it.
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = f64::from(row.iter().map(|x| (x - largest).exp()).sum::<f32>()).ln();
        let at = |(class, x): (usize, &f32)| match asked(class) {
            // An infinite logit of a class that nobody asks for is no fault.
            0.0 => 0.0,
            asked => f64::from(asked) * (log_sum - f64::from(x - largest)),
        };
        loss += row.iter().enumerate().map(at).sum::<f64>() + if log_sum.is_nan() { f64::NAN } else { 0.0 };
        for (class, x) in row.iter_mut().enumerate() {
            *x = all * (f64::from(*x - largest) - log_sum).exp() as f32 - asked(class);
        }
    }
    let total = if total > 0.0 { total } else { 1.0 };
    record("softmax-cross-entropy", [&logits], vec![(loss / total) as f32], (), move |[logits], _, gradient| {
        let scale = gradient.to_scalar::<f32>()? / total as f32;
        Ok([like(slopes.iter().map(|slope| slope * scale).collect(), logits)?])
    })
}
