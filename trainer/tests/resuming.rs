//! A run goes on from where it was ended, to the bit, and however many threads it has.

#![allow(clippy::unwrap_used, reason = "in tests")]

use sconce_model::idx::{write_images, write_labels};
use sconce_trainer::data::synthetic;
use sconce_trainer::publish::Pack;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Everything that draws numbers or keeps a state: momentum, dropout, augmentation, a schedule, the best epoch.
const MANIFEST: &str = "
apiVersion: sconce.dev/v1alpha1
kind: EdgeTraining
metadata: {name: tiny}
spec:
  dataset: {uri: 'synthetic:digits', format: idx}
  architecture:
    input: {shape: [1, 28, 28]}
    layers: [{conv2d: {filters: 4, kernel: 5, stride: 2, activation: relu}}, {maxPool2d: {}}, {flatten: {}}, {dropout: {rate: 0.2}}, {dense: {units: 10, activation: softmax}}]
  preprocess: [{scale: {by: 0.004}}]
  fit:
    epochs: 12
    optimizer: OPTIMIZER
    seed: 7
    schedule: {cosine: {warmupEpochs: 1}}
    loss: {labelSmoothing: 0.1}
    classWeights: balanced
    clipNorm: 1.0
    earlyStopping: {metric: loss, patience: 12}
    augment: [{shift: {pixels: 1}}, {rotate: {degrees: 5}}, {noise: {std: 0.05}}]
";

fn folder(optimizer: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let digits = synthetic::digits(1_500, 3).train;
    std::fs::write(folder.path().join("train-images-idx3-ubyte"), write_images(digits.images().unwrap())).unwrap();
    std::fs::write(folder.path().join("train-labels-idx1-ubyte"), write_labels(digits.labels.classes())).unwrap();
    std::fs::write(folder.path().join("training.yaml"), MANIFEST.replace("OPTIMIZER", optimizer)).unwrap();
    folder
}

fn start(folder: &Path, output: &str, threads: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
    command.current_dir(folder).env("RAYON_NUM_THREADS", threads).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.args(["train", "training.yaml", "--data", ".", "--output", output]).spawn().unwrap()
}

/// Runs to its end; returns what it said.
fn train(folder: &Path, output: &str, threads: &str) -> String {
    let done = start(folder, output, threads).wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Sends a signal as soon as two epochs have been told of.
fn end_after_two_epochs(folder: &Path, signal: &str) -> (ExitStatus, String) {
    let mut child = start(folder, "resumed", "1");
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    said.find(|line| {
        line.as_ref().unwrap().starts_with("{\"accuracy\"") && line.as_ref().unwrap().contains("\"epoch\":2,")
    })
    .unwrap()
    .unwrap();
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    // Read on, or a full pipe holds it up.
    said.for_each(drop);
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    (child.wait().unwrap(), complaint)
}

fn weights(folder: &Path, output: &str) -> Vec<u8> {
    let part = |part| std::fs::read(folder.join(output).join(format!("weights/f32/{part}.safetensors"))).unwrap();
    [part("backbone"), part("head")].concat()
}

/// Of the whole artifact: its weights, and all that is told of them.
fn digest(folder: &Path, output: &str) -> String {
    Pack::new(&folder.join(output)).unwrap().digest()
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_bits_on_other_threads_too() {
    let folder = folder("{adam: {learningRate: 0.003}}");
    let folder = folder.path();
    let whole = train(folder, "whole", "1");
    assert!(!whole.contains("going on"));
    let (status, _) = end_after_two_epochs(folder, "-KILL");
    assert_eq!(status.signal(), Some(9), "it ended before it was killed");
    let rest = train(folder, "resumed", "2");
    assert!(rest.contains("going on from a checkpoint: epoch "), "{rest}");
    assert!(!rest.contains("\"epoch\":2,"), "what was done is not done again: {rest}");
    assert_eq!(weights(folder, "whole"), weights(folder, "resumed"));
    assert_eq!(digest(folder, "whole"), digest(folder, "resumed"));
    assert!(!folder.join("resumed.checkpoints").exists(), "a run that is done needs none");
}

#[test]
fn a_run_that_is_asked_to_stop_keeps_the_batch_that_it_is_in() {
    let folder = folder("{sgd: {learningRate: 0.05, momentum: 0.9, nesterov: true}}");
    let folder = folder.path();
    train(folder, "whole", "2");
    let (status, complaint) = end_after_two_epochs(folder, "-TERM");
    assert_eq!(status.code(), Some(143), "{complaint}");
    assert!(complaint.contains("the same command goes on from there"), "{complaint}");
    assert!(train(folder, "resumed", "1").contains("going on from a checkpoint: epoch "));
    assert_eq!(weights(folder, "whole"), weights(folder, "resumed"));
    assert_eq!(digest(folder, "whole"), digest(folder, "resumed"));
}
