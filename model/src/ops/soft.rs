//! Cross-entropy against shares of classes: what smoothed labels, weighed classes and a teacher's answers have in common.

use super::slice;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use std::sync::OnceLock;

/// The sum of `−targets · log softmax(logits)`. `logits` is `(batch, classes)`, and so is `targets`, flat; a row that counts less,
/// as in a mean, has a smaller sum.
pub fn soft_cross_entropy(logits: &Tensor, targets: Vec<f32>) -> Result<Tensor> {
    let (batch, classes) = logits.dims2()?;
    if targets.len() != batch * classes {
        candle_core::bail!("{} targets for {batch} rows of {classes} logits", targets.len())
    }
    logits.contiguous()?.apply_op1(SoftCrossEntropy { targets, probabilities: OnceLock::new() })
}

struct SoftCrossEntropy {
    targets: Vec<f32>,
    /// Kept for the backward pass.
    probabilities: OnceLock<Vec<f32>>,
}

impl CustomOp1 for SoftCrossEntropy {
    fn name(&self) -> &'static str {
        "soft-cross-entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut probabilities = slice(logits, layout)?.to_vec();
        let classes = layout.dims()[1];
        let mut loss = 0.0_f64;
        for (row, targets) in probabilities.chunks_exact_mut(classes).zip(self.targets.chunks_exact(classes)) {
            // Shifted by the largest, every exponent is at most 0. A NaN stays one: the sum has it.
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = row.iter().map(|x| (x - largest).exp()).sum();
            let log = sum.ln();
            for (x, target) in row.iter_mut().zip(targets) {
                if *target != 0.0 {
                    loss += f64::from(*target) * f64::from(log - (*x - largest));
                }
                *x = (*x - largest).exp() / sum;
            }
            // Where no class is asked for, the row counts nothing, but is no number all the same if it has none.
            if !log.is_finite() {
                loss = f64::NAN;
            }
        }
        self.probabilities.set(probabilities).ok();
        Ok((CpuStorage::F32(vec![loss as f32]), ().into()))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Some(probabilities) = self.probabilities.get() else {
            candle_core::bail!("soft-cross-entropy: backward before forward")
        };
        let scale = gradient.to_scalar::<f32>()?;
        let classes = logits.dim(1)?;
        let mut dx = probabilities.clone();
        for (row, targets) in dx.chunks_exact_mut(classes).zip(self.targets.chunks_exact(classes)) {
            let sum: f32 = targets.iter().sum();
            row.iter_mut().zip(targets).for_each(|(x, target)| *x = (*x * sum - target) * scale);
        }
        Tensor::from_vec(dx, logits.shape(), &Device::Cpu).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn gradient_agrees_with_central_differences() {
        let logits = [0.3_f32, -1.2, 2.0, 0.0, 0.0, 0.7];
        let targets = vec![0.2_f32, 0.1, 0.2, 0.0, 0.9, 0.1];
        let plain = |at: &[f64]| -> f64 {
            let rows = at.chunks(3).zip(targets.chunks(3));
            let of_row = |(row, targets): (&[f64], &[f32])| -> f64 {
                let log = row.iter().map(|x| x.exp()).sum::<f64>().ln();
                row.iter().zip(targets).map(|(x, target)| f64::from(*target) * (log - x)).sum()
            };
            rows.map(of_row).sum()
        };
        let xs = Var::from_vec(logits.to_vec(), (2, 3), &Device::Cpu).unwrap();
        let loss = soft_cross_entropy(&xs, targets.clone()).unwrap();
        let wide: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
        assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - plain(&wide)).abs() < 1e-6);
        let gradient = loss.backward().unwrap().get(&xs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (index, got) in gradient.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut at = wide.clone();
                at[index] += by;
                plain(&at)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((f64::from(got) - expected).abs() < 1e-6, "{index}: {got} {expected}");
        }
    }

    #[test]
    fn what_is_no_number_stays_so() {
        let xs = Tensor::new(&[[f32::NAN, 0.0]], &Device::Cpu).unwrap();
        assert!(soft_cross_entropy(&xs, vec![0.0, 1.0]).unwrap().to_scalar::<f32>().unwrap().is_nan());
    }
}
