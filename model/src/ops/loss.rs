//! Softmax and cross-entropy in one: no logarithm ever sees a probability that has become zero.

use super::slice;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use std::sync::OnceLock;

/// The mean of `−log softmax(logits)[label]`. `logits` is `(batch, classes)`, `labels` one index of a class per row.
pub fn softmax_cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let (batch, classes) = logits.dims2()?;
    if labels.len() != batch {
        candle_core::bail!("{} labels for {batch} rows of logits", labels.len())
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
        candle_core::bail!("label {label}, but the network tells {classes} classes")
    }
    let op = SoftmaxCrossEntropy { labels: labels.to_vec(), probabilities: OnceLock::new() };
    logits.contiguous()?.apply_op1(op)
}

struct SoftmaxCrossEntropy {
    labels: Vec<u32>,
    /// Kept for the backward pass.
    probabilities: OnceLock<Vec<f32>>,
}

impl CustomOp1 for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "softmax-cross-entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut probabilities = slice(logits, layout)?.to_vec();
        let mut loss = 0.0_f64;
        for (row, &label) in probabilities.chunks_exact_mut(layout.dims()[1]).zip(&self.labels) {
            // Shifted by the largest, every exponent is at most 0. A NaN stays one: the sum has it.
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let at_label = row[label as usize] - largest;
            row.iter_mut().for_each(|x| *x = (*x - largest).exp());
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= sum);
            loss += f64::from(sum.ln() - at_label);
        }
        self.probabilities.set(probabilities).ok();
        Ok((CpuStorage::F32(vec![(loss / self.labels.len().max(1) as f64) as f32]), ().into()))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Some(probabilities) = self.probabilities.get() else {
            candle_core::bail!("softmax-cross-entropy: backward before forward")
        };
        let scale = gradient.to_scalar::<f32>()? / self.labels.len().max(1) as f32;
        let mut dx = probabilities.clone();
        for (row, &label) in dx.chunks_exact_mut(logits.dim(1)?).zip(&self.labels) {
            row[label as usize] -= 1.0;
            row.iter_mut().for_each(|x| *x *= scale);
        }
        Tensor::from_vec(dx, logits.shape(), &Device::Cpu).map(Some)
    }
}
