//! Training against PyTorch: losses, gradients and running statistics that it found in double precision (`goldens/make.py`).

#![allow(clippy::unwrap_used, reason = "in tests")]

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use sconce_model::architecture::Architecture;
use sconce_model::network::{Mode, Network, Training};
use sconce_model::ops::{Loss, Sgd, Targets, values};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Deserialize)]
struct Goldens {
    rate: f32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    architecture: Architecture,
    batch: usize,
    loss: Asked,
    lengths: Option<Vec<u32>>,
    words: Option<usize>,
    steps: Vec<Step>,
    statistics: BTreeMap<String, Shown>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Asked {
    #[serde(rename_all = "camelCase")]
    CrossEntropy {
        #[serde(default)]
        smoothing: f32,
        class_weights: Option<Vec<f32>>,
    },
    BinaryCrossEntropy {},
    Huber {
        delta: f32,
    },
    Poisson {},
    MeanSquares {},
}

/// What is known after so many steps of plain gradient descent, one of them included in the count.
#[derive(Deserialize)]
struct Step {
    step: usize,
    loss: f64,
    gradients: BTreeMap<String, Shown>,
}

/// The length of all values, and some of them with their places.
#[derive(Deserialize)]
struct Shown {
    norm: f64,
    values: Vec<(usize, f64)>,
}

impl Shown {
    /// `least` is how long the values are held to be at least: the slope of what a norm takes away again is nothing but rounding.
    fn check(&self, got: &[f32], within: f64, least: f64, what: &str) {
        let bound = within * self.norm.max(least);
        let norm = got.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((norm - self.norm).abs() <= bound, "{what}: {norm} long, PyTorch's is {}", self.norm);
        for (at, expected) in &self.values {
            let got = f64::from(got[*at]);
            assert!((got - expected).abs() <= bound, "{what}[{at}]: {got}, PyTorch has {expected}");
        }
    }
}

/// In ±1, with 24 bits, from the name and the place: FNV-1a, then splitmix64.
fn drawn(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (1..=count as u64).map(move |at| {
        let z = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

fn tensor(values: impl Iterator<Item = f64>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values.map(|x| x as f32).collect(), shape, &Device::Cpu).unwrap()
}

/// Matrices by how many values they sum up, the scales of norms about 1, biases small.
fn draw_weights(network: &Network) {
    for (name, variable) in network.weights() {
        let drawn = drawn(name, variable.elem_count());
        let dims = variable.dims();
        let scale = (dims[1..].iter().product::<usize>() as f64).sqrt();
        let values: Vec<f64> = match dims.len() {
            2.. => drawn.map(|x| x / scale).collect(),
            _ if name.ends_with(".weight") => drawn.map(|x| 1.0 + 0.3 * x).collect(),
            _ => drawn.map(|x| 0.3 * x).collect(),
        };
        variable.set(&tensor(values.into_iter(), dims)).unwrap();
    }
}

impl Case {
    fn input(&self) -> Tensor {
        let sizes = self.architecture.input.shape.iter().map(|size| *size as usize);
        let shape: Vec<usize> = std::iter::once(self.batch).chain(sizes).collect();
        let count = shape.iter().product();
        match self.words {
            Some(words) => tensor((0..count).map(|at| (at * 5 % words) as f64), &shape),
            None => tensor(drawn("xs", count), &shape),
        }
    }

    fn loss(&self, ys: &Tensor) -> candle_core::Result<Tensor> {
        let values = || tensor(drawn("targets", ys.elem_count()).map(|x| (x + 1.0) / 2.0), ys.dims());
        let loss = match &self.loss {
            Asked::CrossEntropy { smoothing, class_weights } => {
                let classes = ys.dim(1)?;
                let labels: Vec<u32> = (0..self.batch).map(|row| (row * 3 % classes) as u32).collect();
                let loss = Loss::CrossEntropy { smoothing: *smoothing, class_weights: class_weights.clone() };
                return loss.mean(ys, Targets::Labels(&labels));
            }
            Asked::BinaryCrossEntropy {} => Loss::BinaryCrossEntropy,
            Asked::Huber { delta } => Loss::Huber { delta: *delta },
            Asked::Poisson {} => Loss::Poisson,
            Asked::MeanSquares {} => Loss::MeanSquares,
        };
        loss.mean(ys, Targets::Values(&values()))
    }

    fn step(&self, network: &Network, step: usize) -> candle_core::Result<(f64, GradStore)> {
        let training = Training { seed: 1, epoch: 1, step, frozen: &BTreeSet::new() };
        let lengths = self.lengths.as_deref().map(|lengths| Tensor::new(lengths, &Device::Cpu)).transpose()?;
        let ys = network.forward_t(&self.input(), lengths.as_ref(), Mode::Train(training))?;
        let loss = self.loss(&ys)?;
        Ok((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
    }

    fn check(&self, rate: f32) -> candle_core::Result<()> {
        let network = Network::initialise(Arc::new(self.architecture.graph().unwrap()), 1)?;
        draw_weights(&network);
        let mut optimisers: Vec<(&Var, Sgd)> =
            network.weights().map(|(_, variable)| (variable, Sgd::new(variable, rate, 0.0, false))).collect();
        let last = self.steps.iter().map(|known| known.step).max().unwrap();
        for step in 1..=last {
            let (loss, gradients) = self.step(&network, step)?;
            if let Some(known) = self.steps.iter().find(|known| known.step == step) {
                let what = format!("{} at step {step}", self.name);
                // Rounding of the steps before adds up.
                let within = if step == 1 { 2e-5 } else { 5e-4 };
                assert!((loss - known.loss).abs() <= within * known.loss, "{what}: {loss}, PyTorch has {}", known.loss);
                let names: Vec<&String> = network.weights().map(|(name, _)| name).collect();
                assert_eq!(names, known.gradients.keys().collect::<Vec<_>>(), "{what}: the same weights");
                let least = known.gradients.values().fold(0.0, |most: f64, shown| most.max(shown.norm)) / 100.0;
                for ((name, variable), shown) in network.weights().zip(known.gradients.values()) {
                    let gradient =
                        gradients.get(variable.as_tensor()).unwrap_or_else(|| panic!("{what}: {name} has none"));
                    shown.check(&values(gradient)?, within, least, &format!("{what}: {name}"));
                }
            }
            for (variable, optimiser) in &mut optimisers {
                optimiser.step(variable, gradients.get(variable.as_tensor()).unwrap())?;
            }
        }
        let names: Vec<&String> = network.statistics().map(|(name, _)| name).collect();
        assert_eq!(names, self.statistics.keys().collect::<Vec<_>>(), "{}: the same statistics", self.name);
        for ((name, variable), shown) in network.statistics().zip(self.statistics.values()) {
            shown.check(&values(variable.as_tensor())?, 5e-4, 1e-3, &format!("{}: {name}", self.name));
        }
        Ok(())
    }
}

#[test]
fn losses_gradients_and_statistics_are_those_of_pytorch() {
    let goldens: Goldens = serde_json::from_str(include_str!("goldens/goldens.json")).unwrap();
    assert_eq!(goldens.cases.len(), 9);
    for case in &goldens.cases {
        case.check(goldens.rate).unwrap();
    }
}
