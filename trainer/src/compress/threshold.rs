//! From which error on an input is an anomaly, found on normal samples that training has not seen.

use crate::prepared::Prepared;
use candle_core::{Device, Result, Tensor, bail};
use sconce_model::variant::Variant;

/// So many of normal inputs are called anomalies.
const FALSE_ALARMS: f64 = 0.01;

/// Sets the threshold of a variant that tells anomalies: each has errors of its own. Of others nothing changes.
///
/// # Errors
/// If what it says is no number.
pub fn settle(variant: &Variant, validation: &Prepared) -> Result<()> {
    let Some(threshold) = variant.network.threshold() else { return Ok(()) };
    // Whatever it was: found again, it is the same bits.
    threshold.set(&Tensor::new(&[1.0_f32], &Device::Cpu)?)?;
    let errors = validation.errors(&variant.plan()?, 1.0)?;
    let found = quantile(errors, 1.0 - FALSE_ALARMS) as f32;
    if !found.is_finite() {
        bail!("the network makes no numbers of the validation samples");
    }
    // Where nothing is left to be wrong, whatever differs at all is an anomaly.
    threshold.set(&Tensor::new(&[found.max(f32::MIN_POSITIVE)], &Device::Cpu)?)
}

/// The least value that so many of all do not exceed.
fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let many = (values.len() as f64 * share).ceil() as usize;
    values.get(many.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_is_beyond() {
        let found = quantile((1..=200).rev().map(f64::from).collect(), 1.0 - FALSE_ALARMS);
        assert_eq!(found, 198.0);
        assert_eq!(quantile(vec![3.0], 0.99), 3.0);
        assert!(quantile(vec![], 0.99).is_nan());
        assert!(quantile(vec![1.0, f64::NAN], 0.99).is_nan(), "what is no number is beyond all numbers");
    }
}
