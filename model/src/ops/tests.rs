//! Gradients against central differences of the same forward pass.

use super::*;
use crate::architecture::Activation;
use crate::graph::Pad;
use crate::network::{generator, unit};
use candle_core::{Device, Var};

const WINDOW: Window = Window {
    kernel: (1, 1),
    stride: (1, 1),
    pad: Pad { top: 0, bottom: 0, left: 0, right: 0 },
    dilation: (1, 1),
    groups: 1,
};
const POOLING: Pooling = Pooling { size: (2, 2), stride: (2, 2), pad: WINDOW.pad };

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
    check(&[&xs, &w, &b], || dense(xs.as_tensor(), w.as_tensor(), b.as_tensor(), Activation::None));
    check(&[&xs, &w, &b], || dense(xs.as_tensor(), w.as_tensor(), b.as_tensor(), Activation::Relu));
}

/// candle's forward is right; only its gradients are not.
#[test]
fn both_convolutions_say_what_candle_says() {
    for (channels, relu) in [(3, false), (9, true)] {
        let (xs, w, b) = (drawn(&[2, channels, 9, 11], "xs"), drawn(&[5, channels, 3, 2], "w"), drawn(&[5], "b"));
        let window = Window { kernel: (3, 2), pad: Pad { top: 1, bottom: 1, left: 1, right: 1 }, ..WINDOW };
        let activation = if relu { Activation::Relu } else { Activation::None };
        let ours = conv2d(xs.as_tensor(), w.as_tensor(), b.as_tensor(), window, activation).unwrap();
        let theirs = xs.conv2d(&w, 1, 1, 1, 1).unwrap().broadcast_add(&b.reshape((1, 5, 1, 1)).unwrap()).unwrap();
        let theirs = if relu { theirs.relu().unwrap() } else { theirs };
        assert_eq!(ours.dims(), theirs.dims());
        let furthest = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(furthest < 1e-5, "{furthest}");
    }
}

#[test]
fn the_first_of_equal_maxima_gets_the_gradient_and_a_nan_stays() {
    let xs = Var::zeros((1, 1, 2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let gradients = max_pool2d(xs.as_tensor(), POOLING).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(xs.as_tensor()).unwrap().flatten_all().unwrap();
    assert_eq!(gradient.to_vec1::<f32>().unwrap(), [1.0, 0.0, 0.0, 0.0]);
    let xs = Tensor::new(&[[[[0.0_f32, f32::NAN], [1.0, 2.0]]]], &Device::Cpu).unwrap();
    let ys = max_pool2d(&xs, POOLING).unwrap().flatten_all().unwrap();
    assert!(ys.to_vec1::<f32>().unwrap()[0].is_nan());
}

#[test]
fn a_row_that_counts_twice_is_as_two_rows() {
    let logits = drawn(&[2, 4], "logits");
    let [loss, twice] = [false, true].map(|twice| {
        let loss = Loss::CrossEntropy { smoothing: 0.1, class_weights: Some(vec![1.0, 2.0, 0.5, 1.0]) };
        if twice {
            let rows = Tensor::cat(&[logits.as_tensor(), &logits.narrow(0, 1, 1).unwrap()], 0).unwrap();
            loss.mean(&rows, Targets::Labels(&[2, 1, 1])).unwrap()
        } else {
            loss.mean(logits.as_tensor(), Targets::Weighted(&[2, 1], &[1.0, 2.0])).unwrap()
        }
    });
    let gradient = |loss: &Tensor| {
        let gradients = loss.backward().unwrap();
        gradients.get(logits.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert!((loss.to_scalar::<f32>().unwrap() - twice.to_scalar::<f32>().unwrap()).abs() < 1e-6);
    let apart = gradient(&loss).into_iter().zip(gradient(&twice)).map(|(one, other)| (one - other).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-6);
    let fault = Loss::cross_entropy().mean(logits.as_tensor(), Targets::Weighted(&[2, 1], &[1.0]));
    assert!(fault.unwrap_err().to_string().contains("1 weights for 2 rows"));
}

#[test]
fn a_row_of_values_that_counts_twice_is_as_two_of_them() {
    let ys = drawn(&[2, 3], "ys");
    let values = drawn(&[2, 3], "values").as_tensor().abs().unwrap();
    for loss in [Loss::BinaryCrossEntropy, Loss::Huber { delta: 1.0 }, Loss::Poisson, Loss::MeanSquares] {
        let of = |rows: &[usize], counts: Option<&[f32]>| {
            let picked = |xs: &Tensor| {
                Tensor::cat(&rows.iter().map(|row| xs.narrow(0, *row, 1).unwrap()).collect::<Vec<_>>(), 0).unwrap()
            };
            let values = picked(&values);
            let targets = counts.map_or(Targets::Values(&values), |counts| Targets::WeightedValues(&values, counts));
            let mean = loss.mean(&picked(ys.as_tensor()), targets).unwrap();
            let gradients = mean.backward().unwrap();
            let gradient = gradients.get(ys.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (mean.to_scalar::<f32>().unwrap(), gradient)
        };
        let (once, twice) = (of(&[0, 1], Some(&[1.0, 2.0])), of(&[0, 1, 1], None));
        assert!((once.0 - twice.0).abs() < 1e-6, "{loss:?}");
        assert!(once.1.iter().zip(&twice.1).all(|(one, other)| (one - other).abs() < 1e-6), "{loss:?}");
        let fault = loss.mean(ys.as_tensor(), Targets::WeightedValues(&values, &[1.0])).unwrap_err().to_string();
        assert!(fault.contains("1 weights for 2 rows"), "{fault}");
    }
}

#[test]
fn loss_is_that_of_its_definition_its_gradient_too_and_large_logits_are_no_trouble() {
    let logits = drawn(&[3, 4], "logits");
    let plain = Loss::cross_entropy();
    check(&[&logits], || plain.mean(logits.as_tensor(), Targets::Labels(&[2, 0, 3])));
    let loss = |rows: &[[f32; 2]], labels: &[u32]| {
        let logits = Tensor::from_slice(&rows.concat(), (rows.len(), 2), &Device::Cpu).unwrap();
        plain.mean(&logits, Targets::Labels(labels)).and_then(|loss| loss.to_scalar::<f32>())
    };
    assert!((loss(&[[0.0, 0.0], [0.0, 0.0]], &[0, 1]).unwrap() - std::f32::consts::LN_2).abs() < 1e-6);
    assert_eq!(loss(&[[1e4, -1e4]], &[1]).unwrap(), 2e4);
    assert!(loss(&[[f32::NAN, 0.0]], &[1]).unwrap().is_nan());
    let error = loss(&[[0.0, 0.0]], &[2]).unwrap_err().to_string();
    assert!(error.contains("label 2, but the network tells 2 classes"), "{error}");
}

#[test]
fn views_that_begin_late_or_stride_are_read_as_what_they_are() {
    let wide = drawn(&[2, 3, 9, 8], "wide");
    let (w, b) = (drawn(&[4, 2, 3, 3], "w"), drawn(&[4], "b"));
    let window = Window { kernel: (3, 3), ..WINDOW };
    let view = || wide.narrow(1, 1, 2)?.transpose(2, 3);
    check(&[&wide, &w, &b], || conv2d(&view()?, w.as_tensor(), b.as_tensor(), window, Activation::None));
    check(&[&wide], || max_pool2d(&view()?, POOLING));
    let (flat, w) = (drawn(&[6, 7], "flat"), drawn(&[3, 4], "w2"));
    let b = drawn(&[3], "b2");
    check(&[&flat, &w, &b], || dense(&flat.narrow(0, 1, 4)?.t()?, w.as_tensor(), b.as_tensor(), Activation::None));
}

#[test]
fn data_gets_no_gradient_and_zero_is_no_slope() {
    let xs = Tensor::zeros((1, 1, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let (w, b) = (drawn(&[2, 1, 2, 2], "w"), Var::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap());
    let window = Window { kernel: (2, 2), ..WINDOW };
    let gradients = conv2d(&xs, w.as_tensor(), b.as_tensor(), window, Activation::Relu)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    assert!(gradients.get(&xs).is_none());
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
