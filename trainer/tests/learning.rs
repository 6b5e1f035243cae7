//! The whole run on a small data set: it learns, it repeats to the bit, and it says what stops it.

#![allow(clippy::unwrap_used, reason = "in tests")]

use sconce_model::architecture::Architecture;
use sconce_model::drift::{Monitor, Reference};
use sconce_model::idx::Images;
use sconce_model::network::{Network, generator, unit};
use sconce_model::preprocess::{Material, Preprocess, Step};
use sconce_model::variant::Variant;
use sconce_trainer::data::{Samples, synthetic};
use sconce_trainer::evaluate::{Evaluated, evaluate};
use sconce_trainer::fit::{Epoch, FitError, Lesson, Observer, fit};
use sconce_trainer::manifest::{Fit, Optimizer};
use sconce_trainer::prepared::Prepared;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

fn preprocess() -> Preprocess {
    let steps = vec![Step::Scale { by: 1.0 / 255.0 }, Step::Normalize { mean: vec![0.13], std: vec![0.31] }];
    Preprocess { version: 1, input: Material::Image, steps }
}

struct Silent;

impl Observer for Silent {
    fn resumed(&mut self, _: &[Epoch], _: usize, _: usize) {}
    fn batch(&mut self, _: usize, _: usize, _: usize, _: f32) {}
    fn epoch(&mut self, _: &Epoch) {}
}

/// A network, its accuracy, and what it said of held-out samples.
fn run(learning_rate: f32) -> Result<(Network, f64, Reference), FitError> {
    let typed = serde_json::json!({"input": {"shape": [1, 28, 28]}, "layers": [
        {"conv2d": {"filters": 8, "kernel": 5, "stride": 2, "activation": "relu"}}, {"maxPool2d": {}}, {"flatten": {}}, {"dropout": {"rate": 0.1}},
        {"dense": {"units": 32, "activation": "relu"}}, {"dense": {"units": 10, "activation": "softmax"}}]});
    let graph = serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap();
    let mut data = synthetic::digits(1_500, 3);
    let preprocess = preprocess();
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
    let Evaluated { evaluation, mut references, .. } = evaluate(&variants, &mut data, &preprocess, None)?;
    let [Variant { network, .. }] = variants;
    assert_eq!(evaluation.test_reads, 1);
    let accuracy = evaluation.variants["f32"].value;
    Ok((network, accuracy, references.remove("f32").unwrap()))
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
    let (first, accuracy, reference) = run(0.003).unwrap();
    assert!(accuracy > 0.8, "{accuracy}");
    let (again, _, other) = run(0.003).unwrap();
    assert_eq!((weights(&first), reference), (weights(&again), other));
}

/// Windows until the alarm, of answers to such samples by chance.
fn alarm(network: Network, reference: &Reference, samples: &Samples, windows: u64) -> (Network, Option<u64>) {
    let variant = Variant::f32(network);
    let prepared = Prepared::new(samples, &preprocess(), &variant.network.graph().input).unwrap();
    let answers = prepared.answers(&variant.plan().unwrap()).unwrap();
    let inputs = prepared.moments().unwrap();
    let (mut monitor, mut generator, start) =
        (Monitor::new(reference.clone()), generator(5, "requests"), Instant::now());
    let alarm = (1..=windows).find(|window| {
        for request in 0..=reference.answers {
            let at = (unit(&mut generator) * answers.len() as f32) as usize;
            let answer = answers[at];
            let mut row = [0.0; 10];
            row[answer.class] = answer.confidence;
            let seconds = (reference.answers + request) * reference.seconds / reference.answers;
            let input = Some(inputs[at]);
            monitor.observe(&row, input, start + Duration::from_secs(window * 3 * reference.seconds + seconds));
        }
        monitor.has_drifted()
    });
    (variant.network, alarm)
}

#[test]
fn another_world_is_an_alarm_at_the_third_window_and_the_same_one_never() {
    let (network, _, reference) = run(0.003).unwrap();
    let world = synthetic::digits(6_000, 99).train;
    let changed = |change: &mut dyn FnMut(u8) -> u8| {
        let &Images { count, height, width, ref pixels } = world.images().unwrap();
        let pixels = pixels.iter().map(|pixel| change(*pixel)).collect();
        Samples::grey(Images { count, height, width, pixels }, world.labels.clone())
    };
    let mut lots = generator(6, "noise");
    let few: Vec<usize> = (0..world.len()).filter(|&at| world.labels[at] < 7).collect();
    let worlds = [
        ("darker", changed(&mut |pixel| (f32::from(pixel) * 0.6) as u8)),
        // By the input alone: the answers are as they were.
        ("a little darker", changed(&mut |pixel| (f32::from(pixel) * 0.85) as u8)),
        ("noisy", changed(&mut |pixel| (f32::from(pixel) + 120.0 * (unit(&mut lots) - 0.5)) as u8)),
        ("without three classes", world.select(&few)),
    ];
    let (mut network, silent) = alarm(network, &reference, &world, 500);
    assert_eq!(silent, None);
    for (name, samples) in worlds {
        let alarm = alarm(network, &reference, &samples, 6);
        network = alarm.0;
        assert_eq!(alarm.1, Some(3), "{name}");
    }
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_with_its_place() {
    let error = run(1e30).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("the loss is") && error.contains("in epoch 1, batch"), "{error}");
}
