//! Smaller forms of a trained network, by the plans that serve them: how small they are, and what they lose.

#![allow(clippy::unwrap_used, reason = "in tests")]

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use sconce_kernels::quantise::Scaling;
use sconce_model::architecture::Architecture;
use sconce_model::artifact::signature::PrivateKey;
use sconce_model::artifact::testing::write_tiny;
use sconce_model::artifact::{Artifact, Evaluation, bytes};
use sconce_model::idx::Images;
use sconce_model::network::{Network, generator, unit};
use sconce_model::ops::values;
use sconce_model::plan::Plan;
use sconce_model::preprocess::{Material, Preprocess, Step};
use sconce_model::variant::{Arithmetic, F32, INT8, Variant};
use sconce_trainer::answer::{Answer, value};
use sconce_trainer::compress::{Compressed, Course, compress};
use sconce_trainer::data::{DataSet, Inputs, Labels, Samples, TestSplit, synthetic};
use sconce_trainer::evaluate::evaluate;
use sconce_trainer::fit::{Epoch, Lesson, Observer, fit};
use sconce_trainer::manifest::{Compress, Distill, Fit, Form, Optimizer, Prune};
use sconce_trainer::prepared::Prepared;
use sconce_trainer::publish::{Pack, PublishError, reference, signed};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

struct Silent;

impl Observer for Silent {
    fn resumed(&mut self, _: &[Epoch], _: usize, _: usize) {}
    fn batch(&mut self, _: usize, _: usize, _: usize, _: f32) {}
    fn epoch(&mut self, _: &Epoch) {}
}

/// A trained network, and what it was trained on.
struct Trained {
    architecture: Architecture,
    network: Network,
    preprocess: Preprocess,
    data: DataSet,
    train: Prepared,
    validation: Prepared,
    recipe: Fit,
}

fn trained(layers: serde_json::Value, data: DataSet, epochs: usize, learning_rate: f32) -> Trained {
    let typed = serde_json::json!({"input": {"shape": [1, 28, 28]}, "layers": layers});
    let architecture: Architecture = serde_json::from_value(typed).unwrap();
    let network = Network::initialise(Arc::new(architecture.graph().unwrap()), 3).unwrap();
    let preprocess = Preprocess { version: 1, input: Material::Image, steps: vec![Step::Scale { by: 1.0 / 255.0 }] };
    let (train, validation) = data.train.split(0.1, 3, "validation");
    let prepared = |samples: &Samples| Prepared::new(samples, &preprocess, &network.graph().input).unwrap();
    let (train, validation) = (prepared(&train), prepared(&validation));
    let recipe = Fit { epochs, optimizer: Optimizer::Adam { learning_rate }, seed: 3, ..Fit::default() };
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
    fit(&lesson, &mut Silent).unwrap();
    Trained { architecture, network, preprocess, data, train, validation, recipe }
}

fn copy(network: &Network) -> Network {
    let weights = network.variables().iter();
    let weights = weights.map(|(name, weight)| (name.clone(), weight.as_tensor().copy().unwrap())).collect();
    Network::load(network.graph().clone(), &weights).unwrap()
}

impl Trained {
    fn compressed(&self, settings: &Compress) -> Vec<Variant> {
        let course = Course {
            architecture: &self.architecture,
            train: &self.train,
            validation: &self.validation,
            fit: &self.recipe,
            compress: settings,
            base: None,
            say: &|_| {},
        };
        let Compressed { variants, refused, .. } = compress(copy(&self.network), &course).unwrap();
        assert_eq!(refused, []);
        variants
    }

    fn evaluated(&mut self, variants: &[Variant]) -> Evaluation {
        evaluate(variants, &mut self.data, &self.preprocess, None, None).unwrap().evaluation
    }
}

/// The seed's network: a quarter of its size, and no more than 0.2 points lost, with 95 % confidence; and half of its channels
/// and units gone, the rest has learned what they knew.
#[test]
fn the_seed_cnn_loses_next_to_nothing_as_bytes_and_little_as_half_of_itself() {
    let layers = serde_json::json!([
        {"conv2d": {"filters": 32, "kernel": [3, 3], "activation": "relu"}}, {"maxPool2d": {"size": [2, 2]}}, {"flatten": {}},
        {"dense": {"units": 128, "activation": "relu"}}, {"dense": {"units": 10, "activation": "softmax"}}]);
    let mut trained = trained(layers, synthetic::digits(10_000, 3), 3, 0.001);
    let settings = Compress {
        variants: vec![Form::Int8, Form::Pruned, Form::PrunedInt8],
        prune: Prune { epochs: Some(1), ..Prune::default() },
        ..Compress::default()
    };
    let variants = trained.compressed(&settings);
    let measured = trained.evaluated(&variants).variants;
    assert!(measured["f32"].value > 0.95, "{}", measured["f32"].value);
    let sizes: Vec<f64> = variants.iter().map(|variant| bytes(variant, None).unwrap() as f64).collect();
    let [f32, int8, pruned, pruned_int8] = sizes[..] else { panic!("{sizes:?}") };
    let lost = |name: &str| measured[name].paired.clone().unwrap().drop_upper95;
    assert!(int8 / f32 <= 0.26 && lost("int8") <= 0.002, "{} {}", int8 / f32, lost("int8"));
    assert!(pruned / f32 <= 0.26 && lost("pruned") <= 0.01, "{} {}", pruned / f32, lost("pruned"));
    assert!(pruned_int8 / f32 <= 0.07 && lost("pruned-int8") <= 0.01, "{} {}", pruned_int8 / f32, lost("pruned-int8"));
}

/// Each row of a weight has a scale of its own: small ones are no worse off beside large ones.
#[test]
fn bytes_are_as_fine_as_their_own_output_needs() {
    let layers = serde_json::json!([{"dense": {"units": 3}}, {"dense": {"units": 2}}]);
    let typed = serde_json::json!({"input": {"shape": [5]}, "layers": layers});
    let graph = serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap();
    let network = Network::initialise(Arc::new(graph), 3).unwrap();
    let largest = [100.0, 1.0, 0.01_f32];
    let row = |most: f32| [-0.97, -0.31, 0.013, 0.55, 1.0].map(|part| part * most);
    let exact = Tensor::from_vec(largest.map(row).concat(), (3, 5), &Device::Cpu).unwrap();
    network.variables()["dense_1.weight"].set(&exact).unwrap();
    let inputs = BTreeMap::from([("dense_1".to_owned(), Scaling { scale: 0.01, zero_point: 0 })]);
    let rounded = Variant::int8(&network, &inputs).unwrap().network;
    let rounded = rounded.variables()["dense_1.weight"].to_vec2::<f32>().unwrap();
    for (most, rounded) in std::iter::zip(largest, rounded) {
        let off = std::iter::zip(row(most), rounded).map(|(exact, rounded)| (exact - rounded).abs());
        assert!(off.fold(0.0, f32::max) <= most / 254.0 * 1.0001, "{most}");
    }
}

/// One weight of each unit is large, and of no matter: what it is multiplied with is always black. As bytes it leaves the
/// others a few steps only. Where that loses more than it may, the others learn to do with them.
#[test]
fn weights_learn_to_be_rounded_where_rounding_alone_loses_too_much() {
    let mut data = synthetic::digits(1_500, 3);
    let Inputs::Images(images) = &mut data.train.inputs else { unreachable!() };
    let size = images.height * images.width;
    images.pixels.chunks_exact_mut(size).for_each(|image| image[0] = 0);
    let layers = serde_json::json!([{"flatten": {}}, {"dense": {"units": 24, "activation": "relu"}},
        {"dense": {"units": 10, "activation": "softmax"}}]);
    let mut trained = trained(layers, data, 20, 0.01);
    // A tenth of this, for a fifth of the epochs: enough for weights to reach the next byte.
    trained.recipe.optimizer = Optimizer::Adam { learning_rate: 0.05 };
    let first = &trained.network.variables()["dense_1.weight"];
    let mut weights = values(first).unwrap();
    weights.chunks_exact_mut(size).for_each(|unit| unit[0] = 100.0);
    first.set(&Tensor::from_vec(weights, first.shape(), &Device::Cpu).unwrap()).unwrap();

    let right = |drop: &str| -> Vec<f64> {
        let settings = Compress { variants: vec![Form::Int8], max_accuracy_drop: drop.into(), ..Compress::default() };
        let of = |variant: &Variant| {
            value(&trained.validation.answers(&variant.plan().unwrap(), variant.network.graph()).unwrap())
        };
        trained.compressed(&settings).iter().map(of).collect()
    };
    let (rounded, learned) = (right("100%"), right("1%"));
    assert_eq!(rounded[0], learned[0], "the network itself stays as it is");
    assert!(rounded[1] < 0.5, "{rounded:?}");
    assert!(learned[1] > rounded[1] + 0.25, "{rounded:?} {learned:?}");
}

/// The labels that it learns beside its teacher's answers are drawn by lot: by them alone it would know nothing.
#[test]
fn a_student_says_what_its_teacher_says_and_the_share_decides_how_much_it_listens() {
    let layers = |units: usize| {
        serde_json::json!([{"flatten": {}}, {"dense": {"units": units, "activation": "relu"}},
            {"dense": {"units": 10, "activation": "softmax"}}])
    };
    let mut trained = trained(layers(32), synthetic::digits(1_500, 3), 10, 0.005);
    let mut lots = generator(5, "labels");
    let drawn = (0..trained.data.train.len()).map(|_| (unit(&mut lots) * 10.0) as u8);
    trained.data.train.labels = Labels::Classes(drawn.collect());
    let prepared = |samples: &Samples| Prepared::new(samples, &trained.preprocess, &[1, 28, 28]).unwrap();
    let (learned, unseen) = trained.data.train.split(0.1, 3, "validation");
    (trained.train, trained.validation) = (prepared(&learned), prepared(&unseen));
    let listens = |share: &str| {
        let distill = serde_json::json!({"layers": layers(16), "share": share});
        let distill: Distill = serde_json::from_value(distill).unwrap();
        let settings = Compress { variants: vec![Form::Distilled], distill: Some(distill), ..Compress::default() };
        let said = trained.compressed(&settings).into_iter().map(|variant| {
            let answers = trained.validation.answers(&variant.plan().unwrap(), variant.network.graph()).unwrap();
            answers.iter().map(|answer| answer.class).collect::<Vec<_>>()
        });
        let [teacher, student] = &said.collect::<Vec<_>>()[..] else { panic!("two variants") };
        teacher.iter().zip(student).filter(|(teacher, student)| teacher == student).count() as f64
            / teacher.len() as f64
    };
    let (taught, alone) = (listens("100%"), listens("0%"));
    assert!(taught > 0.7 && alone < 0.4, "{taught} {alone}");
}

/// What each variant of an artifact says of drawn pictures.
fn said(folder: &Path) -> BTreeMap<String, Vec<Answer>> {
    let artifact = Artifact::open(folder).unwrap();
    let mut lots = generator(5, "pictures");
    let pixels = (0..100 * 64).map(|_| (unit(&mut lots) * 256.0) as u8).collect();
    let pictures = Samples::grey(Images { count: 100, height: 8, width: 8, pixels }, vec![1; 100]);
    let train = pictures.select(&[]);
    let mut data =
        DataSet { name: "drawn".into(), digest: String::new(), notes: vec![], train, test: TestSplit::new(pictures) };
    let variants = [F32, INT8].map(|name| artifact.variant(name).unwrap());
    let answers = evaluate(&variants, &mut data, artifact.preprocess(), None, None).unwrap().answers;
    // The same weights as f32 say something else: it is the bytes' own arithmetic that was asked.
    let other = Plan::compile(&variants[1].network, &Arithmetic::F32).unwrap();
    let prepared = Prepared::new(data.test.carry(100).as_ref().unwrap(), artifact.preprocess(), &[1, 8, 8]).unwrap();
    assert_ne!(answers[INT8], prepared.answers(&other, artifact.graph()).unwrap());
    answers
}

#[test]
fn one_byte_of_a_variant_changes_what_it_says_when_it_is_evaluated_and_is_not_as_it_was_signed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_tiny(folder, 7).unwrap();
    let key = PrivateKey::from_pem(include_str!("../../edge-runtime/tests/fetching/key.pem")).unwrap();
    signed(folder, &reference("oci://localhost:1/models/tiny:1").unwrap(), &key).unwrap();
    Pack::new(folder).unwrap();
    let before = said(folder);

    let part = "weights/int8/backbone.safetensors";
    let mut bytes = std::fs::read(folder.join(part)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let weights = tensors.tensor("conv2d_1.weight").unwrap().data();
    let from = weights.as_ptr().addr() - bytes.as_ptr().addr();
    let at = from + weights.iter().position(|byte| (64..128).contains(byte)).unwrap();
    // Its sign.
    bytes[at] ^= 0x80;
    std::fs::write(folder.join(part), bytes).unwrap();
    let after = said(folder);
    assert_eq!(before[F32], after[F32]);
    assert_ne!(before[INT8], after[INT8]);
    let Err(PublishError::Signature { why, .. }) = Pack::new(folder) else { panic!("it is published all the same") };
    assert_eq!(why.to_string(), format!("SignatureInvalid: {part} is not as it was signed"));
}
