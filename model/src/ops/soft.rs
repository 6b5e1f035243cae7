//! Cross-entropy against shares of classes: what a teacher says, rather than a label.

use super::record::{elements, like, record};
use candle_core::{Result, Tensor};

/// The mean over the batch of `−shares · log softmax(logits)`. Both are `(batch, classes)`; the shares of a row sum up to 1.
///
/// # Errors
/// If the shapes differ.
pub fn soft_cross_entropy(logits: &Tensor, shares: &Tensor) -> Result<Tensor> {
    let (batch, classes) = logits.dims2()?;
    if shares.dims() != logits.dims() {
        candle_core::bail!("shares are {:?}, the network says {:?}", shares.dims(), logits.dims())
    }
    let (logits, shares) = (logits.contiguous()?, shares.contiguous()?);
    let mut slopes = elements(&logits)?.to_vec();
    let mut loss = 0.0_f64;
    for (row, shares) in slopes.chunks_exact_mut(classes).zip(elements(&shares)?.chunks_exact(classes)) {
        // Shifted by the largest, every exponent is at most 0. A NaN stays one: the sum has it.
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = row.iter().map(|x| (x - largest).exp()).sum::<f32>().ln();
        for (x, share) in row.iter_mut().zip(shares) {
            let log = *x - largest - log_sum;
            loss -= f64::from(*share) * f64::from(log);
            *x = log.exp() - share;
        }
    }
    let count = batch.max(1) as f64;
    record("soft-cross-entropy", [&logits], vec![(loss / count) as f32], (), move |[logits], _, gradient| {
        let scale = gradient.to_scalar::<f32>()? / count as f32;
        Ok([like(slopes.iter().map(|slope| slope * scale).collect(), logits)?])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn gradient_agrees_with_central_differences() {
        let logits = [0.3_f32, -1.2, 2.0, 0.0, 0.0, 0.7];
        let shares = [0.3_f32, 0.2, 0.5, 0.0, 0.9, 0.1];
        let plain = |at: &[f64]| -> f64 {
            let rows = at.chunks(3).zip(shares.chunks(3));
            let of_row = |(row, shares): (&[f64], &[f32])| -> f64 {
                let log = row.iter().map(|x| x.exp()).sum::<f64>().ln();
                row.iter().zip(shares).map(|(x, share)| f64::from(*share) * (log - x)).sum()
            };
            rows.map(of_row).sum::<f64>() / 2.0
        };
        let xs = Var::from_vec(logits.to_vec(), (2, 3), &Device::Cpu).unwrap();
        let taught = Tensor::new(&shares, &Device::Cpu).unwrap().reshape((2, 3)).unwrap();
        let loss = soft_cross_entropy(&xs, &taught).unwrap();
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
        let shares = Tensor::new(&[[0.0_f32, 1.0]], &Device::Cpu).unwrap();
        assert!(soft_cross_entropy(&xs, &shares).unwrap().to_scalar::<f32>().unwrap().is_nan());
    }
}
