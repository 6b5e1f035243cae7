//! Which range of values becomes 0 to 255, found on training samples.

use crate::data::shuffled;
use crate::prepared::Prepared;
use sconce_kernels::quantise::Scaling;
use sconce_model::network::{Network, Read};
use sconce_model::ops::values;
use sconce_model::variant::{VariantError, quantisable};
use std::collections::BTreeMap;

/// Training samples that ranges are found on.
const CALIBRATION: usize = 512;
/// Samples in one batch of a calibration.
const AT_ONCE: usize = 32;
/// Values that are kept of what a layer reads, about.
const KEPT: usize = 1 << 20;

/// How the inputs of products become bytes, by what they read of some training samples.
///
/// # Errors
/// [`VariantError`] if a layer reads what is no number.
pub fn calibrate(network: &Network, train: &Prepared, seed: u64) -> Result<BTreeMap<String, Scaling>, VariantError> {
    let mut samples = shuffled(train.len(), seed, "calibration");
    samples.truncate(CALIBRATION);
    let mut read: BTreeMap<String, Vec<f32>> =
        quantisable(network.graph()).map(|node| (node.name.clone(), Vec::new())).collect();
    // What fills a sequence up is nothing that a layer will read.
    let at_once = if train.have_lengths() { 1 } else { AT_ONCE };
    for indices in samples.chunks(at_once) {
        network.infer_through(&train.batch(indices)?, |node, what, xs| {
            let of_node = read.get_mut(&node.name).filter(|_| what == Read::Input);
            if let Some(read) = of_node {
                let values = values(&xs)?;
                // Odd, so that not the same channel is met each time.
                let step = (values.len() / indices.len() * samples.len() / KEPT) | 1;
                read.extend(values.iter().step_by(step));
            }
            Ok(xs)
        })?;
    }
    let scaling = |(node, values): (String, Vec<f32>)| {
        let not_finite = |&value: &f32| VariantError::NotFinite { weight: format!("the input of {node}"), value };
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(not_finite(value)),
            None => Ok((node, scaling(&values))),
        }
    };
    read.into_iter().map(scaling).collect()
}

/// The scaling whose bytes are nearest to the values, in the mean square: where it is cheaper, the rarest are cut off.
fn scaling(values: &[f32]) -> Scaling {
    let (min, max) = values.iter().fold((0.0_f32, 0.0_f32), |(min, max), x| (min.min(*x), max.max(*x)));
    let cut = |step: u8| {
        let share = 1.0 - f32::from(step) / 40.0;
        Scaling::of_range(min * share, max * share)
    };
    let candidates = (0..=20).filter_map(cut).map(|scaling| (error(values, scaling), scaling));
    let nearest = candidates.min_by(|(one, _), (other, _)| one.total_cmp(other));
    nearest.map_or(Scaling { scale: 1.0, zero_point: 0 }, |(_, scaling)| scaling)
}

/// Sum of squares.
fn error(values: &[f32], Scaling { scale, zero_point }: Scaling) -> f64 {
    let (low, high) = (-f32::from(zero_point), 255.0 - f32::from(zero_point));
    let square = |x: &f32| f64::from(x - (x / scale).round_ties_even().clamp(low, high) * scale).powi(2);
    values.iter().map(square).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_values_far_out_are_cut_off_and_common_ones_are_not() {
        let mut values: Vec<f32> = (0..100_000).map(|i| i as f32 / 100_000.0).collect();
        let whole = scaling(&values);
        assert!((whole.scale - 1.0 / 255.0).abs() < 1e-4, "{whole:?}");
        values.push(1.6);
        let cut = scaling(&values);
        assert!(cut.scale < 1.5 / 255.0, "{cut:?}");
        assert!(error(&values, cut) < error(&values, Scaling::of_range(0.0, 1.6).unwrap()));
        assert_eq!(scaling(&[]), Scaling { scale: 1.0, zero_point: 0 });
    }
}
