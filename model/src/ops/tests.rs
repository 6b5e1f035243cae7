//! Gradients against central differences of the same forward pass.

use super::*;
use crate::graph::Pad;
use crate::network::{generator, unit};
use candle_core::{Device, Var};

fn drawn(shape: &[usize], name: &str) -> Var {
    let mut generator = generator(1, name);
    // Distinct values far apart compared with the step, so that no window's maximum changes within it.
    let count: usize = shape.iter().product();
    let mut values: Vec<f32> = (0..count).map(|index| (index as f32 - count as f32 / 2.0) / count as f32).collect();
    for index in (1..count).rev() {
        values.swap(index, (unit(&mut generator) * (index + 1) as f32) as usize);
    }
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
}

/// Checks d(Σ ys·c)/d(variable) for every variable, `c` being fixed numbers that tell outputs apart.
fn check(variables: &[&Var], forward: impl Fn() -> Result<Tensor>) {
    let weigh = |ys: Tensor| -> Result<Tensor> {
        let count = ys.elem_count();
        let c: Vec<f32> = (0..count).map(|index| 1.0 + (index % 7) as f32 / 3.0).collect();
        (ys.flatten_all()? * Tensor::from_vec(c, count, &Device::Cpu)?)?.sum_all()
    };
    let gradients = weigh(forward().unwrap()).unwrap().backward().unwrap();
    for (which, variable) in variables.iter().enumerate() {
        let gradient: Vec<f32> = gradients.get(variable.as_tensor()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let values: Vec<f32> = variable.flatten_all().unwrap().to_vec1().unwrap();
        for index in (0..values.len()).step_by(1 + values.len() / 24) {
            let at = |value: f32| {
                let mut moved = values.clone();
                moved[index] = value;
                variable.set(&Tensor::from_vec(moved, variable.shape(), &Device::Cpu).unwrap()).unwrap();
                f64::from(weigh(forward().unwrap()).unwrap().to_scalar::<f32>().unwrap())
            };
            const STEP: f32 = 1.0 / 512.0;
            let difference = (at(values[index] + STEP) - at(values[index] - STEP)) / f64::from(2.0 * STEP);
            at(values[index]);
            let got = f64::from(gradient[index]);
            assert!(
                (got - difference).abs() <= 2e-2 * difference.abs().max(1.0),
                "variable {which}[{index}]: {got}, by differences {difference}"
            );
        }
    }
}

#[test]
fn dense_gradients() {
    let (xs, w, b) = (drawn(&[3, 5], "xs"), drawn(&[4, 5], "w"), drawn(&[4], "b"));
    check(&[&xs, &w, &b], || dense(xs.as_tensor(), w.as_tensor(), b.as_tensor(), false));
}

#[test]
fn convolution_gradients_with_odd_sizes_stride_and_asymmetric_padding() {
    let (xs, w, b) = (drawn(&[2, 3, 7, 6], "xs"), drawn(&[4, 3, 3, 2], "w"), drawn(&[4], "b"));
    let window = Window { kernel: (3, 2), stride: (2, 1), pad: Pad { top: 0, bottom: 1, left: 1, right: 0 } };
    check(&[&xs, &w, &b], || conv2d(xs.as_tensor(), w.as_tensor(), b.as_tensor(), window, false, true));
}

#[test]
fn max_pool_gradient_is_whole_also_where_the_size_is_odd() {
    let xs = drawn(&[2, 2, 11, 7], "xs");
    check(&[&xs], || max_pool2d(xs.as_tensor(), (2, 2), (2, 2)));
    check(&[&xs], || max_pool2d(xs.as_tensor(), (3, 3), (2, 2)));
}

#[test]
fn data_gets_no_gradient_and_zero_is_no_slope() {
    let xs = Var::zeros((1, 1, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let (w, b) = (drawn(&[2, 1, 2, 2], "w"), Var::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap());
    let window = Window { kernel: (2, 2), stride: (1, 1), pad: Pad::default() };
    let gradients = conv2d(xs.as_tensor(), w.as_tensor(), b.as_tensor(), window, true, false)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    assert!(gradients.get(xs.as_tensor()).is_none());
    assert_eq!(gradients.get(b.as_tensor()).unwrap().to_vec1::<f32>().unwrap(), [0.0, 0.0]);
}

#[test]
fn adam_takes_the_steps_of_its_definition() {
    let variable = Var::new(&[1.0_f32, -2.0], &Device::Cpu).unwrap();
    let mut adam = Adam::new(&variable, 0.1);
    let (mut w, mut m, mut v) = ([1.0_f64, -2.0], [0.0_f64; 2], [0.0_f64; 2]);
    for step in 1..=20 {
        let g = [0.5 * f64::from(step), -0.1];
        adam.step(&variable, &Tensor::new(&[g[0] as f32, g[1] as f32], &Device::Cpu).unwrap()).unwrap();
        for i in 0..2 {
            m[i] = 0.9 * m[i] + 0.1 * g[i];
            v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
            w[i] -= 0.1 * (m[i] / (1.0 - 0.9_f64.powi(step))) / ((v[i] / (1.0 - 0.999_f64.powi(step))).sqrt() + 1e-8);
        }
    }
    for (got, want) in variable.to_vec1::<f32>().unwrap().into_iter().zip(w) {
        assert!((f64::from(got) - want).abs() < 1e-4, "{got} {want}");
    }
}
