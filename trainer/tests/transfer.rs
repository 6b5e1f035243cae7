//! Learning from what another model knows: the head learns, the backbone stays as it is, to the bit, in every form.

#![allow(clippy::unwrap_used, reason = "in tests")]

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use sconce_model::artifact::{Artifact, Description, files, write};
use sconce_model::graph::Role;
use sconce_model::idx::{Images, write_images, write_labels};
use sconce_model::network::Network;
use sconce_model::variant::{Arithmetic, F32, INT8, Variant};
use sconce_trainer::answer;
use sconce_trainer::base::{BaseError, open};
use sconce_trainer::data::{Samples, synthetic};
use sconce_trainer::manifest::{self, Freeze};
use sconce_trainer::prepared::Prepared;
use sconce_trainer::publish::Pack;
use sconce_trainer::pull::{PullError, Registries};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

/// With convolutions, norms and a dropout in its backbone.
const NETWORK: &str = "architecture:
    input: {shape: [1, 28, 28]}
    layers: [{conv2d: {filters: 8, kernel: 5, stride: 2, batchNorm: true, activation: relu}}, {maxPool2d: {}}, {flatten: {}},
      {dropout: {rate: 0.1}}, {dense: {units: 48, activation: relu}}, {dense: {units: 10, activation: softmax}}]
  preprocess: [{scale: {by: 0.004}}]";

fn manifest(network: &str, fit: &str) -> String {
    format!(
        "apiVersion: sconce.dev/v1alpha1\nkind: EdgeTraining\nmetadata: {{name: digits}}\nspec:
  dataset: {{uri: 'synthetic:digits', format: idx}}
  {network}
  fit: {{optimizer: {{adam: {{learningRate: 0.003}}}}, seed: 7, {fit}}}
  compress: {{variants: [f16, int8], maxAccuracyDrop: 100%}}\n"
    )
}

fn leave(folder: &Path, train: &Samples, test: &Samples) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, samples) in [("train", train), ("t10k", test)] {
        std::fs::write(folder.join(format!("{name}-images-idx3-ubyte")), write_images(samples.images().unwrap()))
            .unwrap();
        std::fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), write_labels(samples.labels.classes()))
            .unwrap();
    }
}

/// The site's world: less contrast, another light, and the picture mirrored.
fn shifted(samples: &Samples) -> Samples {
    let &Images { count, height, width, ref pixels } = samples.images().unwrap();
    let mut pixels = pixels.clone();
    for row in pixels.chunks_exact_mut(width) {
        row.reverse();
        row.iter_mut().for_each(|pixel| *pixel = 60 + *pixel / 2);
    }
    Samples::grey(Images { count, height, width, pixels }, samples.labels.classes().to_vec())
}

/// What the program says.
fn train(folder: &Path, manifest: &str, data: &str, output: &str) -> String {
    let file = format!("{output}.yaml");
    std::fs::write(folder.join(&file), manifest).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
    let output =
        command.current_dir(folder).args(["train", &file, "--data", data, "--output", output]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// What the artifact says, of other weights.
fn write_like(artifact: &Artifact, folder: &Path, variants: &[Variant]) {
    let mut evaluation = artifact.evaluation().unwrap().clone();
    evaluation.variants.retain(|name, _| variants.iter().any(|variant| variant.name == *name));
    let description = Description {
        labels: artifact.config().labels.clone(),
        architecture: &serde_json::from_value(artifact.config().architecture.clone()).unwrap(),
        head: None,
        architectures: &BTreeMap::new(),
        preprocess: artifact.preprocess(),
        variants,
        references: &BTreeMap::new(),
        evaluation: &evaluation,
    };
    write(folder, &description).unwrap();
}

/// A folder with two data sets, `home` and `site`, and a model of the first in `base`.
fn based() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (home, test) = synthetic::digits(3_000, 3).train.split(0.25, 3, "home");
    leave(&folder.path().join("home"), &home, &test);
    leave(&folder.path().join("site"), &shifted(&home), &shifted(&test));
    train(folder.path(), &manifest(NETWORK, "epochs: 4"), "home", "base");
    folder
}

fn part(folder: &Path, artifact: &str, variant: &str, part: &str) -> Vec<u8> {
    std::fs::read(folder.join(artifact).join(format!("weights/{variant}/{part}.safetensors"))).unwrap()
}

fn is_shared(folder: &Path, update: &str) {
    for variant in ["f32", "f16", "int8"] {
        let bytes = |artifact: &str, of: &str| part(folder, artifact, variant, of);
        assert_eq!(bytes(update, "backbone"), bytes("base", "backbone"), "{variant} of {update}");
        assert_ne!(bytes(update, "head"), bytes("base", "head"), "{variant} of {update}");
        println!("{variant}: backbone {} bytes, head {}", bytes("base", "backbone").len(), bytes(update, "head").len());
    }
    // What a node fetches beside a head, but for manifest and signature.
    let beside = files(&folder.join(update)).unwrap().into_iter();
    let beside = beside.filter(|file| !["weights/", "report/"].iter().any(|folder| file.path.starts_with(folder)));
    let beside: usize = beside.map(|file| file.bytes.len()).sum();
    assert!(beside < 58 << 10, "{update}: {beside} bytes");
}

fn value(folder: &Path, artifact: &str) -> f64 {
    Artifact::open(&folder.join(artifact)).unwrap().evaluation().unwrap().variants[F32].value
}

/// How many of the site's test samples the base tells.
fn before(folder: &Path) -> f64 {
    let artifact = Artifact::open(&folder.join("base")).unwrap();
    let test = shifted(&synthetic::digits(3_000, 3).train.split(0.25, 3, "home").1);
    let test = Prepared::new(&test, artifact.preprocess(), &artifact.graph().input).unwrap();
    answer::value(&test.answers(&artifact.variant(F32).unwrap().plan().unwrap(), artifact.graph()).unwrap())
}

#[test]
fn a_head_learns_a_shifted_world_and_the_backbone_is_the_same_bytes_in_every_form() {
    let folder = based();
    let at = folder.path();
    let said = train(at, &manifest("base: {uri: base}", "epochs: 8"), "site", "update");
    let digest = Pack::new(&at.join("base")).unwrap().digest();
    let told = format!("Base: {digest}; the head begins with dense_2, what is before it stays as it is\n");
    assert!(said.contains(&told), "{said}");
    is_shared(at, "update");
    let (before, after) = (before(at), value(at, "update"));
    println!("on the shifted test samples: {before:.4} before, {after:.4} after the head has learned");
    assert!(value(at, "base") > 0.8 && before < 0.6 && after > before + 0.2, "{before} {after}");
    let [base, update] = ["base", "update"].map(|folder| Artifact::open(&at.join(folder)).unwrap());
    assert_eq!(update.preprocess(), base.preprocess(), "as nothing else was said");

    // Where chance changes what is seen, the backbone is asked each time: it stays as it is all the same.
    let changed = "epochs: 1, augment: [{shift: {pixels: 1}}]";
    train(at, &manifest("base: {uri: base}", changed), "site", "augmented");
    is_shared(at, "augmented");

    // Another head, and an update of that: the backbone is still the first one's.
    let head =
        "base: {uri: base, head: [{dense: {units: 16, activation: relu}}, {dense: {units: 10, activation: softmax}}]}";
    let said = train(at, &manifest(head, "epochs: 2"), "site", "deeper");
    assert!(said.contains("the head begins with dense_2,"), "{said}");
    is_shared(at, "deeper");
    let said = train(at, &manifest("base: {uri: deeper}", "epochs: 1"), "site", "again");
    assert!(said.contains("the head begins with dense_2,"), "{said}");
    is_shared(at, "again");

    // Nothing stays.
    let all = "base: {uri: base, freeze: None}";
    let said = train(at, &manifest(all, "epochs: 1"), "site", "all");
    assert!(said.contains("what is before it learns, too"), "{said}");
    assert_ne!(part(at, "all", "f32", "backbone"), part(at, "base", "f32", "backbone"));
}

/// How a run ends that must be better than a model of before, what it says, and why it is not accepted.
fn accepted(folder: &Path, manifest: &str, improve_by: &str, flags: &[&str]) -> (Option<i32>, String, String) {
    let manifest = format!("{manifest}  accept: {{minAccuracy: 10%, improveBy: {improve_by}}}\n");
    std::fs::write(folder.join("better.yaml"), manifest).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
    command.current_dir(folder).args(["train", "better.yaml", "--data", "site", "--output", "better"]).args(flags);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn an_update_that_is_no_better_than_what_was_accepted_is_not_accepted() {
    let folder = based();
    let at = folder.path();
    let update = manifest("base: {uri: base}", "epochs: 8");
    // The base itself, as nothing else was accepted yet: the head learns far more than ten points.
    let (code, said, error) = accepted(at, &update, "10%", &[]);
    assert!(code == Some(0) && said.contains(" before, by base\n"), "{said}{error}");
    let digest = Pack::new(&at.join("better")).unwrap().digest();
    std::fs::rename(at.join("better"), at.join("first")).unwrap();
    // The same run again is the same model: not worse, and not better.
    let (code, said, error) = accepted(at, &update, "0%", &["--against", "first"]);
    assert!(code == Some(0) && said.contains(" before, by first\n"), "{said}{error}");
    assert_eq!(Pack::new(&at.join("better")).unwrap().digest(), digest, "what it is compared with is no part of it");
    let (code, _, error) = accepted(at, &update, "0.1%", &["--against", "first"]);
    assert_eq!(code, Some(3), "{error}");
    assert!(
        error.contains("of what was accepted before is +0.00 points, less than spec.accept.improveBy 0.1%"),
        "{error}"
    );
    // Less was learned: that would have been published, for the floor is low.
    let (code, _, error) = accepted(at, &manifest("base: {uri: base}", "epochs: 1"), "0%", &["--against", "first"]);
    assert!(code == Some(3) && error.contains(" points, less than spec.accept.improveBy 0%"), "{error}");
}

#[test]
fn what_cannot_be_asked_the_same_is_no_measure() {
    let folder = based();
    let at = folder.path();
    let other = NETWORK.replace("by: 0.004", "by: 0.008");
    let (code, _, error) = accepted(at, &manifest(&other, "epochs: 1"), "0%", &["--against", "base"]);
    let expected = "spec.accept.improveBy: base preprocesses otherwise than this run: the two cannot be asked the same; leave improveBy out";
    assert!(code == Some(1) && error.contains(expected), "{error}");
    let (code, said, error) = accepted(at, &manifest(&other, "epochs: 1"), "0%", &[]);
    let expected = "accept.improveBy 0% is not asked for: there is no artifact of an earlier run\n";
    assert!(code == Some(0) && said.contains(expected), "{said}{error}");
    // Another head than the base's: it never told what this one tells.
    let head = "base: {uri: base, head: [{dense: {units: 11, activation: softmax}}]}";
    let (code, said, error) = accepted(at, &manifest(head, "epochs: 1"), "0%", &[]);
    let expected = "accept.improveBy 0% is not asked for: the base tells something else than this run\n";
    assert!(code == Some(0) && said.contains(expected), "{said}{error}");
    let (code, _, error) = accepted(at, &manifest(NETWORK, "epochs: 1"), "0%", &["--against", "nowhere"]);
    assert!(code == Some(1) && error.contains("spec.accept.improveBy: nowhere"), "{error}");
    // It has learned from nine tenths of what another seed holds out.
    for file in ["images-idx3", "labels-idx1"] {
        std::fs::remove_file(at.join(format!("site/t10k-{file}-ubyte"))).unwrap();
    }
    let plain = manifest(NETWORK, "epochs: 1");
    train(at, &plain, "site", "held");
    let (code, said, error) = accepted(at, &plain, "0%", &["--against", "held"]);
    assert!(code == Some(0) && said.contains(" before, by held\n"), "{said}{error}");
    let (code, _, error) = accepted(at, &plain.replace("seed: 7", "seed: 8"), "0%", &["--against", "held"]);
    assert!(code == Some(1) && error.contains("held holds out other samples than this run: the two"), "{error}");
}

/// Where it is a folder, another model may lie there by the next try.
#[test]
fn what_waits_to_be_published_waits_only_where_it_is_held_against_the_same_model() {
    let folder = based();
    let at = folder.path();
    let flags = ["--against", "first", "--publish", "oci://127.0.0.1:1/models/digits:1"];
    let is_made_already = || {
        let (code, said, error) = accepted(at, &manifest("base: {uri: base}", "epochs: 8"), "0%", &flags);
        assert!(code == Some(1) && error.contains("the artifact is in better, but not published"), "{said}{error}");
        said.contains("better is made already")
    };
    train(at, &manifest(NETWORK, "epochs: 2"), "home", "first");
    assert!(!is_made_already() && is_made_already());
    train(at, &manifest(NETWORK, "epochs: 1"), "home", "other");
    std::fs::remove_dir_all(at.join("first")).unwrap();
    std::fs::rename(at.join("other"), at.join("first")).unwrap();
    assert!(!is_made_already());
}

/// Bytes that have learned to be rounded are not the nearest to the weights: an update has them all the same.
#[test]
fn bytes_of_a_base_that_learned_to_be_rounded_stay() {
    let folder = based();
    let artifact = Artifact::open(&folder.path().join("base")).unwrap();
    let (network, int8) = (artifact.variant(F32).unwrap().network, artifact.variant(INT8).unwrap());
    let Arithmetic::I8(quantisation) = &int8.arithmetic else { panic!("{:?}", int8.arithmetic) };
    let moved = network.variables().iter().map(|(name, weight)| (name.clone(), (weight.as_tensor() * 1.02).unwrap()));
    let moved = Network::load(network.graph().clone(), &moved.collect()).unwrap();
    let int8 = Variant::int8(&moved, &quantisation.inputs).unwrap();
    write_like(&artifact, &folder.path().join("rounded"), &[Variant::f32(network), int8]);
    train(folder.path(), &manifest("base: {uri: rounded}", "epochs: 1"), "site", "update");
    let bytes = |artifact: &str| part(folder.path(), artifact, "int8", "backbone");
    assert!(bytes("update") == bytes("rounded") && bytes("update") != bytes("base"));
}

/// At the first step, before anything is learned: a weight that could not learn is named.
#[test]
fn a_head_whose_features_say_nothing_is_named() {
    let folder = based();
    let artifact = Artifact::open(&folder.path().join("base")).unwrap();
    let network = artifact.variant(F32).unwrap().network;
    // Below zero for whatever is read.
    let bias = &network.variables()["dense_1.bias"];
    bias.set(&(bias.ones_like().unwrap() * -1e6).unwrap()).unwrap();
    write_like(&artifact, &folder.path().join("dead"), &[Variant::f32(network)]);
    let file = folder.path().join("training.yaml");
    for fit in ["epochs: 1", "epochs: 1, augment: [{flip: {}}]"] {
        std::fs::write(&file, manifest("base: {uri: dead}", fit)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
        let output = command.current_dir(folder.path()).args(["train", "training.yaml", "--data", "site"]).output();
        let output = output.unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaint.contains("\"dense_2.weight\" has a gradient of zeros at the first step"), "{complaint}");
        assert_eq!(output.status.code(), Some(1));
    }
}

type Blobs = Arc<BTreeMap<String, Vec<u8>>>;

async fn blob(State(blobs): State<Blobs>, uri: Uri) -> Result<Vec<u8>, StatusCode> {
    blobs.get(uri.path().rsplit('/').next().unwrap()).cloned().ok_or(StatusCode::NOT_FOUND)
}

/// A registry that gives what it has, whatever it is called.
async fn registry(blobs: Blobs) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = axum::Router::new().fallback(blob).with_state(blobs);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

#[tokio::test]
async fn a_base_comes_from_a_registry_by_digest_and_wrong_bytes_are_refused() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    sconce_model::artifact::testing::write_tiny(&model, 7).unwrap();
    let pack = Pack::new(&model).unwrap();
    let digest = pack.digest();
    let mut blobs: BTreeMap<String, Vec<u8>> =
        pack.files.iter().map(|file| (file.digest.clone(), file.bytes.clone())).collect();
    blobs.insert(digest.clone(), pack.manifest);
    let head = pack.files.iter().find(|file| file.path == "weights/f32/head.safetensors").unwrap().digest.clone();
    let bring = async |blobs: &BTreeMap<String, Vec<u8>>| {
        let uri = format!("oci://{}/models/tiny@{digest}", registry(Arc::new(blobs.clone())).await);
        let typed =
            manifest::Base { uri, secret_ref: serde::de::IgnoredAny, freeze: Freeze::Backbone, head: Vec::new() };
        let aside = folder.path().join("aside");
        let opened = {
            let aside = aside.clone();
            tokio::task::spawn_blocking(move || open(&typed, &aside, Registries { insecure: &[], config: None }))
                .await
                .unwrap()
        };
        (opened, aside.exists())
    };
    let (base, left) = bring(&blobs).await;
    let base = base.unwrap();
    assert_eq!((base.digest.as_str(), base.head.as_str(), left), (digest.as_str(), "dense_1", false));
    let drawn = Network::initialise(Arc::new(base.architecture.graph().unwrap()), 8).unwrap();
    base.lend(&drawn).unwrap();
    let known = Artifact::open(&model).unwrap().variant(F32).unwrap().network;
    for parameter in known.graph().parameters().filter(|parameter| parameter.role == Role::Weight) {
        let [ours, theirs] = [&drawn, &known]
            .map(|network| network.variables()[&parameter.name].flatten_all().unwrap().to_vec1::<f32>().unwrap());
        assert_eq!(ours == theirs, parameter.name != "dense_1.weight", "{}", parameter.name);
    }

    let mut spoilt = blobs.clone();
    spoilt.get_mut(&head).unwrap()[8] ^= 1;
    let error = bring(&spoilt).await.0.err().unwrap();
    let said =
        std::error::Error::source(&error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    assert!(said.contains("weights/f32/head.safetensors") && said.contains("sha256:"), "{said}");
    spoilt.remove(&head);
    assert!(matches!(bring(&spoilt).await.0, Err(BaseError::Pull(PullError::Registry { .. }))));
}

#[test]
fn what_is_wrong_with_a_base_is_named_with_its_field() {
    let check = |network: &str, expected: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), manifest(network, "epochs: 1")).unwrap();
        let error = manifest::read(file.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&format!("{NETWORK}\n  base: {{uri: base}}"), "spec: need architecture, or base, exactly one");
    check("preprocess: []", "spec: need architecture, or base, exactly one");
    check(
        "base: {uri: 'oci://localhost:5000/models/digits:1.0.0'}",
        "spec.base.uri: \"oci://localhost:5000/models/digits:1.0.0\"; need",
    );
    check("base: {uri: base, freeze: Head}", "unknown variant `Head`, expected");

    let folder = based();
    let train = |network: &str, expected: &str| {
        std::fs::write(folder.path().join("training.yaml"), manifest(network, "epochs: 1")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
        let output = command.current_dir(folder.path()).args(["train", "training.yaml", "--data", "site"]).output();
        let complaint = String::from_utf8_lossy(&output.unwrap().stderr).into_owned();
        assert!(complaint.contains(expected), "{complaint}");
    };
    train("base: {uri: nowhere}", "spec.base.uri: nowhere");
    train("base: {uri: base, head: [{conv2d: {filters: 2, kernel: 3}}]}", "spec.base.head: layers[5] \"conv2d_2\"");
    train("base: {uri: base, head: [{dense: {units: 10}}]}", "a number of each sample, and regression tells 10 values");
}
