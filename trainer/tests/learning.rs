//! The whole run on a small data set: it learns, it repeats to the bit, and it says what stops it.

#![allow(clippy::unwrap_used, reason = "in tests")]

use sconce_model::architecture::Architecture;
use sconce_model::network::Network;
use sconce_model::preprocess::{Material, Preprocess, Step};
use sconce_model::variant::Variant;
use sconce_trainer::data::synthetic;
use sconce_trainer::evaluate::{Evaluated, evaluate};
use sconce_trainer::fit::{Epoch, FitError, Lesson, Observer, fit};
use sconce_trainer::manifest::{Fit, Optimizer};
use sconce_trainer::prepared::Prepared;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

struct Silent;

impl Observer for Silent {
    fn resumed(&mut self, _: &[Epoch], _: usize, _: usize) {}
    fn batch(&mut self, _: usize, _: usize, _: usize, _: f32) {}
    fn epoch(&mut self, _: &Epoch) {}
}

fn run(learning_rate: f32) -> Result<(Network, f64), FitError> {
    let typed = serde_json::json!({"input": {"shape": [1, 28, 28]}, "layers": [
        {"conv2d": {"filters": 8, "kernel": 5, "stride": 2, "activation": "relu"}}, {"maxPool2d": {}}, {"flatten": {}}, {"dropout": {"rate": 0.1}},
        {"dense": {"units": 32, "activation": "relu"}}, {"dense": {"units": 10, "activation": "softmax"}}]});
    let graph = serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap();
    let mut data = synthetic::digits(1_500, 3);
    let steps = vec![Step::Scale { by: 1.0 / 255.0 }, Step::Normalize { mean: vec![0.13], std: vec![0.31] }];
    let preprocess = Preprocess { version: 1, input: Material::Image, steps };
    let network = Network::initialise(Arc::new(graph), 3)?;
    let recipe = Fit { epochs: 5, optimizer: Optimizer::Adam { learning_rate }, seed: 3, ..Fit::default() };
    let (train, validation) = data.train.split(0.1, 3, "validation");
    let prepared = |samples| Prepared::new(samples, &preprocess, &network.graph().input);
    let (train, validation) = (prepared(&train)?, prepared(&validation)?);
    let lesson = Lesson {
        network: &network,
        train: &train,
        validation: &validation,
        recipe: &recipe,
        checkpoints: None,
        stop: &AtomicBool::new(false),
        learned_from: None,
        teacher: None,
        rounding: None,
    };
    fit(&lesson, &mut Silent)?;
    let variants = [Variant::f32(network)];
    let Evaluated { evaluation, .. } = evaluate(&variants, &mut data, &preprocess)?;
    let [Variant { network, .. }] = variants;
    assert_eq!(evaluation.test_reads, 1);
    let accuracy = evaluation.variants["f32"].value;
    Ok((network, accuracy))
}

fn weights(network: &Network) -> Vec<Vec<u32>> {
    let bits = |variable: &candle_core::Var| {
        let values: Vec<f32> = variable.flatten_all().unwrap().to_vec1().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    network.variables().values().map(bits).collect()
}

#[test]
fn digits_are_learned_and_the_same_seed_learns_the_same_bits() {
    let (first, accuracy) = run(0.003).unwrap();
    assert!(accuracy > 0.8, "{accuracy}");
    assert_eq!(weights(&first), weights(&run(0.003).unwrap().0));
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_with_its_place() {
    let error = run(1e30).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("the loss is") && error.contains("in epoch 1, batch"), "{error}");
}
