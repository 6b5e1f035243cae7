//! The whole run on a small data set: it learns, it repeats to the bit, and it says what stops it.

#![allow(clippy::unwrap_used, reason = "in tests")]

use candle_core::{Device, Tensor};
use sconce_model::architecture::Architecture;
use sconce_model::drift::{Monitor, Reference};
use sconce_model::idx::Images;
use sconce_model::network::{Network, generator, unit};
use sconce_model::preprocess::{Material, Preprocess, Step};
use sconce_model::variant::Variant;
use sconce_trainer::data::{Samples, synthetic};
use sconce_trainer::evaluate::{Evaluated, evaluate};
use sconce_trainer::fit::{Epoch, FitError, Lesson, Observer, fit};
use sconce_trainer::manifest::{Augment, ClassWeights, EarlyStopping, Fit, Loss, Metric, Optimizer, Schedule};
use sconce_trainer::prepared::Prepared;
use std::iter::zip;
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
    let Evaluated { evaluation, mut references, .. } = evaluate(&variants, &mut data, &preprocess, None, None)?;
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
    let answers = prepared.answers(&variant.plan().unwrap(), variant.network.graph()).unwrap();
    let inputs = prepared.moments().unwrap();
    let (mut monitor, mut generator, start) =
        (Monitor::new(reference.clone()), generator(5, "requests"), Instant::now());
    let alarm = (1..=windows).find(|window| {
        for request in 0..=reference.answers {
            let at = (unit(&mut generator) * answers.len() as f32) as usize;
            let answer = &answers[at];
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
        Samples::grey(Images { count, height, width, pixels }, world.labels.classes().to_vec())
    };
    let mut lots = generator(6, "noise");
    let few: Vec<usize> = (0..world.len()).filter(|&at| world.labels.classes()[at] < 7).collect();
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

/// Remembers the losses of epochs.
struct Losses(Vec<f32>);

impl Observer for Losses {
    fn resumed(&mut self, _: &[Epoch], _: usize, _: usize) {}
    fn batch(&mut self, _: usize, _: usize, _: usize, _: f32) {}
    fn epoch(&mut self, epoch: &Epoch) {
        self.0.push(epoch.loss);
    }
}

/// `layers` follow the pixels.
fn network(layers: serde_json::Value) -> Network {
    let mut all = vec![serde_json::json!({"flatten": {}})];
    all.extend(layers.as_array().unwrap().iter().cloned());
    let typed = serde_json::json!({"input": {"shape": [1, 28, 28]}, "layers": all});
    let graph = serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap();
    Network::initialise(Arc::new(graph), 3).unwrap()
}

/// Trains on all of them, and validates on none; the losses of the epochs.
fn teach(network: &Network, samples: &Samples, recipe: &Fit) -> Result<Vec<f32>, FitError> {
    Ok(validated(network, samples, &samples.select(&[]), recipe)?.1)
}

/// Which epoch was kept, and the losses of all.
fn validated(
    network: &Network,
    samples: &Samples,
    validation: &Samples,
    recipe: &Fit,
) -> Result<(usize, Vec<f32>), FitError> {
    let prepared = |samples| Prepared::new(samples, &preprocess(), &network.graph().input).unwrap();
    let (train, validation) = (prepared(samples), prepared(validation));
    let lesson = Lesson {
        network,
        train: &train,
        validation: &validation,
        recipe,
        checkpoints: None,
        stop: &AtomicBool::new(false),
        learned_from: None,
        teacher: None,
        rounding: None,
    };
    let mut losses = Losses(Vec::new());
    let kept = fit(&lesson, &mut losses)?;
    Ok((kept, losses.0))
}

fn fill(network: &Network, variable: &str, value: impl Fn(usize) -> f32) {
    let variable = &network.variables()[variable];
    let values = (0..variable.elem_count()).map(value).collect();
    variable.set(&Tensor::from_vec::<_, f32>(values, variable.shape(), &Device::Cpu).unwrap()).unwrap();
}

fn deep() -> Network {
    network(
        serde_json::json!([{"dense": {"units": 8, "activation": "relu"}}, {"dense": {"units": 10, "activation": "softmax"}}]),
    )
}

/// Below zero for whatever is read.
fn dead() -> Network {
    let network = deep();
    fill(&network, "dense_1.bias", |_| -1e6);
    network
}

#[test]
fn a_layer_that_never_fires_ends_the_run_by_name_before_anything_is_learned() {
    let network = dead();
    let before = weights(&network);
    let error = teach(&network, &synthetic::digits(50, 3).train, &Fit::default()).unwrap_err();
    let told = "\"dense_1.bias\" has a gradient of zeros at the first step: the network cannot learn as asked";
    assert_eq!((error.to_string().as_str(), weights(&network)), (told, before));
}

/// Who is right and sure has gradients of zeros everywhere: that excused a dead layer, too.
#[test]
fn a_network_with_nothing_to_learn_may_go_on_and_a_dead_layer_in_it_is_named_all_the_same() {
    let digits = synthetic::digits(200, 3).train;
    let threes: Vec<usize> = (0..digits.len()).filter(|&at| digits.labels.classes()[at] == 3).collect();
    let recipe = Fit { epochs: 1, ..Fit::default() };
    let sure = |network: Network| {
        fill(&network, "dense_2.bias", |class| if class == 3 { 100.0 } else { 0.0 });
        teach(&network, &digits.select(&threes), &recipe).map_err(|error| error.to_string())
    };
    assert!(sure(deep()).unwrap()[0] < 1e-6);
    assert!(sure(dead()).unwrap_err().starts_with("\"dense_1.bias\" has a gradient of zeros"));
}

/// One step an epoch, on all samples.
fn whole(epochs: usize, momentum: f32, nesterov: bool) -> Fit {
    let optimizer = Optimizer::Sgd { learning_rate: RATE, momentum, nesterov };
    Fit { epochs, batch_size: 64, optimizer, ..Fit::default() }
}

const RATE: f32 = 0.1;

/// How each line of a recipe moves the weights, held against the steps of plain gradients.
#[test]
fn schedules_momentum_and_clipping_do_to_each_step_what_they_say() {
    let digits = synthetic::digits(50, 3).train;
    let begun = || network(serde_json::json!([{"dense": {"units": 10, "activation": "softmax"}}]));
    let flat = |network: &Network| weights(network).concat().into_iter().map(f32::from_bits).collect::<Vec<f32>>();
    let after = |recipe: Fit| {
        let network = begun();
        teach(&network, &digits, &recipe).unwrap();
        flat(&network)
    };
    let (w0, w1, w2) = (flat(&begun()), after(whole(1, 0.0, false)), after(whole(2, 0.0, false)));
    let steps = |before: &[f32], after: &[f32]| zip(before, after).map(|(b, a)| b - a).collect::<Vec<f32>>();
    let (first, second) = (steps(&w0, &w1), steps(&w1, &w2));
    // `one` and `two` are what the plain steps are multiplied with.
    let check = |recipe: Fit, one: f32, two: f32| {
        let got = after(recipe.clone());
        let expected = zip(&w0, zip(&first, &second)).map(|(w, (first, second))| w - one * first - two * second);
        let far = zip(&got, expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
        assert!(far < 1e-5, "{far}: {recipe:?}");
    };
    let norm = |step: &[f32]| step.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(norm(&first) > 0.01 && norm(&second) > 0.01);
    let scheduled = |schedule| Fit { schedule: Some(schedule), ..whole(2, 0.0, false) };
    check(scheduled(Schedule::Cosine { warmup_epochs: 0 }), 1.0, 0.5);
    check(scheduled(Schedule::Step { every_epochs: 1, factor: 0.25 }), 1.0, 0.25);
    check(scheduled(Schedule::Step { every_epochs: 2, factor: 0.25 }), 1.0, 1.0);
    check(whole(2, 0.9, false), 1.9, 1.0);
    check(whole(1, 0.9, true), 1.9, 0.0);
    check(Fit { clip_norm: Some(0.5), ..whole(1, 0.0, false) }, RATE * 0.5 / norm(&first), 0.0);
}

/// Of a network that says the same of all, whatever it sees.
#[test]
fn the_loss_is_smoothed_and_weighed_as_the_recipe_says() {
    let digits = synthetic::digits(50, 3).train;
    let of = |label: u8| digits.labels.classes().iter().position(|known| *known == label).unwrap();
    let samples = digits.select(&[of(0), of(0), of(0), of(9)]);
    let says = |class: usize| class as f64 / 10.0;
    let loss = |recipe: Fit| {
        let network = network(serde_json::json!([{"dense": {"units": 10, "activation": "softmax"}}]));
        fill(&network, "dense_1.weight", |_| 0.0);
        fill(&network, "dense_1.bias", |class| says(class) as f32);
        f64::from(teach(&network, &samples, &recipe).unwrap()[0])
    };
    let all = (0..10).map(|class| says(class).exp()).sum::<f64>().ln();
    let of_class = |class| all - says(class);
    let plain = (3.0 * of_class(0) + of_class(9)) / 4.0;
    let check = |recipe: Fit, expected: f64| {
        let got = loss(recipe);
        assert!((got - expected).abs() < 1e-5, "{got}, not {expected}");
    };
    check(whole(1, 0.0, false), plain);
    let smoothed = Fit { loss: Loss { label_smoothing: 0.2 }, ..whole(1, 0.0, false) };
    check(smoothed, 0.8 * plain + 0.2 * (0..10).map(of_class).sum::<f64>() / 10.0);
    let balanced = Fit { class_weights: Some(ClassWeights::Balanced), ..whole(1, 0.0, false) };
    check(balanced, f64::midpoint(of_class(0), of_class(9)));
}

/// Zeros are called threes by those who validate: the more is learned, the worse it is there, and the better in training.
#[test]
fn a_run_stops_where_validation_grows_no_better_and_keeps_the_weights_of_its_best_epoch() {
    let digits = synthetic::digits(500, 3).train;
    let zeros: Vec<usize> = (0..digits.len()).filter(|&at| digits.labels.classes()[at] == 0).collect();
    let threes = vec![3; zeros.len()];
    let zeros = Samples::grey(digits.select(&zeros).images().unwrap().clone(), threes);
    let after = |epochs, early_stopping| {
        let network = network(serde_json::json!([{"dense": {"units": 10, "activation": "softmax"}}]));
        fill(&network, "dense_1.weight", |_| 0.0);
        fill(&network, "dense_1.bias", |class| if class == 3 { 5.0 } else { 0.0 });
        let optimizer = Optimizer::Sgd { learning_rate: 0.001, momentum: 0.0, nesterov: false };
        let recipe = Fit { optimizer, early_stopping, ..whole(epochs, 0.0, false) };
        let (kept, losses) = validated(&network, &digits, &zeros, &recipe).unwrap();
        (kept, losses, weights(&network))
    };
    let (_, _, first) = after(1, None);
    let (last, losses, third) = after(3, None);
    assert!(last == 3 && losses.is_sorted_by(|before, after| before > after) && first != third, "{losses:?}");
    for metric in [Metric::Accuracy, Metric::Loss] {
        let (kept, losses, weights) = after(8, Some(EarlyStopping { metric, patience: 2 }));
        assert_eq!((kept, losses.len()), (1, 3), "{metric:?}: {losses:?}");
        assert_eq!(weights, first, "{metric:?}");
    }
}

#[test]
fn what_is_learned_from_is_augmented_as_the_recipe_says() {
    let digits = synthetic::digits(50, 3).train;
    let loss = |augment: Vec<Augment>| teach(&deep(), &digits, &Fit { augment, ..whole(1, 0.0, false) }).unwrap();
    let shifted = || loss(vec![Augment::Shift { pixels: 4 }]);
    assert_eq!(shifted(), shifted());
    assert_ne!(shifted(), loss(vec![]));
}
