//! First values of parameters: each from the seed and its own name, the same on every machine.

use crate::graph::{Init, Parameter};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// Row by row.
pub(super) fn drawn(parameter: &Parameter, seed: u64) -> Vec<f32> {
    let count = parameter.shape.iter().product();
    let mut generator = generator(seed, &parameter.name);
    match parameter.init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::ForgetGate => (0..count).map(|at| if at * 4 / count == 1 { 1.0 } else { 0.0 }).collect(),
        Init::GlorotUniform { fan_in, fan_out } => {
            let limit = (6.0 / (fan_in + fan_out) as f32).sqrt();
            (0..count).map(|_| (unit(&mut generator) * 2.0 - 1.0) * limit).collect()
        }
        Init::Words { padding } => {
            let width = count / parameter.shape.first().copied().unwrap_or(1).max(1);
            let one = |at: usize, drawn: f32| if at / width.max(1) == padding { 0.0 } else { drawn };
            (0..count).map(|at| one(at, (unit(&mut generator) * 2.0 - 1.0) * 0.05)).collect()
        }
        Init::Orthogonal => orthogonal(&mut generator, count, parameter.shape.last().copied().unwrap_or(1)),
    }
}

/// As many columns, which are no longer than wide, made perpendicular one after the other (Gram and Schmidt).
fn orthogonal(generator: &mut ChaCha8Rng, count: usize, width: usize) -> Vec<f32> {
    let height = count / width;
    let mut columns: Vec<Vec<f64>> = Vec::with_capacity(width);
    for _ in 0..width {
        let mut column: Vec<f64> = (0..height).map(|_| f64::from(unit(generator)) - 0.5).collect();
        // Twice: what the first pass leaves of the others is of the order of a rounding.
        for other in columns.iter().chain(&columns) {
            let along: f64 = column.iter().zip(other).map(|(x, y)| x * y).sum();
            column.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
        }
        let length = column.iter().map(|x| x * x).sum::<f64>().sqrt();
        column.iter_mut().for_each(|x| *x /= length);
        columns.push(column);
    }
    (0..count).map(|at| columns[at % width][at / width] as f32).collect()
}

/// A generator for one purpose: the same seed and name give the same numbers, on every machine.
pub fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let key = Sha256::new_with_prefix(seed.to_le_bytes()).chain_update(name).finalize();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&key);
    ChaCha8Rng::from_seed(bytes)
}

/// A number in `[0, 1)`, of 24 bits: our own mapping, since libraries' may change between versions.
pub fn unit(generator: &mut ChaCha8Rng) -> f32 {
    (generator.next_u32() >> 8) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Role;

    fn check(shape: &[usize], init: Init) -> Vec<f32> {
        drawn(&Parameter { name: "w".into(), shape: shape.into(), init, role: Role::Weight }, 7)
    }

    #[test]
    fn columns_are_perpendicular_and_of_length_one() {
        let (height, width) = (12, 4);
        let values = check(&[height, width], Init::Orthogonal);
        for (a, b) in (0..width).flat_map(|a| (0..width).map(move |b| (a, b))) {
            let product: f32 = (0..height).map(|row| values[row * width + a] * values[row * width + b]).sum();
            assert!((product - f32::from(a == b)).abs() < 1e-6, "columns {a} and {b}: {product}");
        }
    }

    #[test]
    fn second_gate_begins_open() {
        assert_eq!(check(&[8], Init::ForgetGate), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
