//! Sequences, from what a collector wrote to an artifact whose plans answer each: curves of any length as sound, words as tensors, vibrations as
//! measurements.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "../../lake/tests/common/mod.rs"]
mod written;

use hound::{SampleFormat, WavSpec, WavWriter};
use sconce_model::artifact::Artifact;
use sconce_model::network::{generator, unit};
use serde_json::json;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use written::{labelled, sample, uri, write};

fn npy(values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {},), }}\n", values.len());
    let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat()
}

/// Two features, of which one rises, falls or does neither, over 6 to 30 steps: how much from step to step depends on how many.
fn curve(class: usize, unit: &mut impl FnMut() -> f32) -> Vec<u8> {
    let steps = 6 + (unit() * 25.0) as usize;
    let (slope, start) = ([1.0, -1.0, 0.0][class], unit() * 2.0 - 1.0);
    let of_step = |step: usize| [start + slope * step as f32 / steps as f32 + 0.2 * (unit() - 0.5), unit() - 0.5];
    let spec = WavSpec { channels: 2, sample_rate: 8000, bits_per_sample: 32, sample_format: SampleFormat::Float };
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
    (0..steps).flat_map(of_step).for_each(|amplitude| writer.write_sample(amplitude).unwrap());
    writer.finalize().unwrap();
    bytes.into_inner()
}

/// 3 to 20 words of 50; those below 10 are kind, those from 40 on are not, and there are more of the one.
fn words(class: usize, unit: &mut impl FnMut() -> f32) -> Vec<u8> {
    let steps = 3 + (unit() * 18.0) as usize;
    let of_step = |step: usize| {
        let told = if step.is_multiple_of(2) { class } else { (unit() * 3.0) as usize };
        let of_ten = (unit() * 9.0).floor() + 1.0;
        of_ten + [0.0, 40.0, 20.0][told]
    };
    npy(&(0..steps).map(of_step).collect::<Vec<_>>())
}

/// 32 steps of a vibration with some noise, at any point of its turn; an anomaly has a blow in it.
fn vibration(class: usize, unit: &mut impl FnMut() -> f32) -> Vec<u8> {
    let (phase, struck) = (unit() * std::f32::consts::TAU, (unit() * 31.0) as usize);
    let of_step = |step: usize| {
        let blow = if class == 1 && step.abs_diff(struck) < 2 { 1.5 } else { 0.0 };
        (phase + step as f32 / 4.0).sin() + 0.2 * (unit() - 0.5) + blow
    };
    json!((0..32).map(of_step).collect::<Vec<f32>>()).to_string().into()
}

type Draw = fn(usize, &mut dyn FnMut() -> f32) -> Vec<u8>;

const NUMBERS: [&str; 3] = ["0", "1", "2"];

/// What the run said, with the accuracy of each variant, and the artifact.
fn trained(folder: &Path, draw: Draw, labels: &[&str], architecture: &str) -> (String, Vec<f64>, Artifact) {
    let mut generator = generator(5, "sequences");
    let mut unit = || unit(&mut generator);
    let of = |index: usize| {
        let (label, content) = (labels[index % labels.len()], draw(index % labels.len(), &mut unit));
        (labelled(sample(&content, &format!("device-{}", index % 23), 1), label, "ann"), content)
    };
    write(folder, "node", 1, &(0..1_200).map(of).collect::<Vec<_>>());
    let manifest = format!(
        "apiVersion: sconce.dev/v1alpha1\nkind: EdgeTraining\nmetadata: {{name: sequences}}\nspec:\n  dataset: {{uri: '{}', format: collected}}\n  \
         architecture: {architecture}\n  fit: {{epochs: 12, batchSize: 32, validation: 10%, optimizer: {{adam: {{learningRate: 0.01}}}}, seed: 3}}\n  \
         compress: {{variants: [f16, int8], maxAccuracyDrop: 5%}}\n",
        uri(folder)
    );
    std::fs::write(folder.join("training.yaml"), manifest).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"))
        .current_dir(folder)
        .args(["train", "training.yaml", "--output", "out"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let artifact = Artifact::open(&folder.join("out")).unwrap();
    let evaluation = artifact.evaluation().unwrap();
    let accuracies = ["f32", "f16", "int8"].map(|name| evaluation.variants[name].value).into();
    (said, accuracies, artifact)
}

fn check(draw: Draw, classes: usize, architecture: &str, lengths: std::ops::RangeInclusive<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let (said, accuracies, artifact) = trained(folder.path(), draw, &NUMBERS[..classes], architecture);
    assert!(accuracies.iter().all(|accuracy| *accuracy > 0.9), "{accuracies:?}: {said}");
    for variant in ["f32", "f16", "int8"] {
        assert_eq!(artifact.variant(variant).unwrap().plan().unwrap().lengths(), Some(lengths.clone()), "{variant}");
    }
}

#[test]
fn curves_of_any_length_are_told_apart() {
    let architecture = "{input: {shape: [-1, 2], maxLength: 30}, layers: [{conv1d: {filters: 8, kernel: 5, padding: valid, activation: relu}}, \
        {gru: {units: 12, bidirectional: true, returnSequences: true}}, {statsPool: {}}, {dense: {units: 3, activation: softmax}}]}";
    check(|class, mut unit| curve(class, &mut unit), 3, architecture, 5..=30);
}

#[test]
fn texts_of_any_length_are_told_apart() {
    let architecture = "{input: {shape: [-1], dtype: u32, maxLength: 20}, layers: [{embedding: {vocabulary: 50, dimension: 8}}, \
        {lstm: {units: 12}}, {dense: {units: 2, activation: softmax}}]}";
    check(|class, mut unit| words(class, &mut unit), 2, architecture, 1..=20);
}

/// Normal ones alone are learned from, and each variant says of both which they are.
#[test]
fn what_is_unlike_all_that_was_learned_is_an_anomaly() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = "{input: {shape: [32]}, layers: [{dense: {units: 16, activation: tanh}}, {dense: {units: 3}}, \
        {dense: {units: 16, activation: tanh}}, {dense: {units: 32}}], output: {task: anomaly}}";
    let labels = ["normal", "anomaly"];
    let draw: Draw = |class, mut unit| vibration(class, &mut unit);
    let (said, accuracies, artifact) = trained(folder.path(), draw, &labels, architecture);
    assert!(accuracies.iter().all(|accuracy| *accuracy > 0.95), "{accuracies:?}: {said}");
    assert_eq!(artifact.config().labels, labels);
    let told = |what: &str| {
        let line = said.lines().find(|line| line.contains(what)).expect(&said);
        line.split_whitespace().find_map(|word| word.parse::<usize>().ok()).unwrap()
    };
    assert!(told(" samples to train on") + told(" anomalies are not learned from") > 600, "{said}");
    let mut thresholds = Vec::new();
    for name in ["f32", "f16", "int8"] {
        let variant = artifact.variant(name).unwrap();
        assert_eq!(variant.plan().unwrap().output(), [2]);
        thresholds.push(variant.network.threshold().unwrap().to_vec1::<f32>().unwrap()[0]);
    }
    assert!(thresholds.iter().all(|threshold| (0.0001..0.5).contains(threshold)), "{thresholds:?}");
    assert!(thresholds[0] != thresholds[2], "each has errors of its own: {thresholds:?}");
    let expected = &artifact.reference("f32").unwrap().classes.counts;
    assert!(expected[0] > 10 * expected[1], "where it serves, there are few: {expected:?}");
    for class in labels {
        assert!(said.lines().any(|line| line.ends_with(&format!("samples of {class}"))), "{said}");
    }
}

/// What is shorter than a window, or longer than the longest, is told of and left out.
#[test]
fn sequences_that_do_not_fit_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = "{input: {shape: [-1, 2], maxLength: 20}, layers: [{gru: {units: 4}}, {dense: {units: 3, activation: softmax}}]}";
    let (said, ..) = trained(folder.path(), |class, mut unit| curve(class, &mut unit), &NUMBERS, architecture);
    let told = said.lines().find(|line| line.contains("cannot be read; the first")).expect(&said);
    assert!(told.contains("the network takes [20, 2] or sequences from 1 steps on"), "{told}");
}

#[test]
fn a_student_must_take_what_its_teacher_takes() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: sconce.dev/v1alpha1\nkind: EdgeTraining\nmetadata: {name: a}\nspec:\n  dataset: {uri: 'file:///none', format: collected}\n  \
        architecture: {input: {shape: [-1, 2]}, layers: [{gru: {units: 4}}, {dense: {units: 3, activation: softmax}}]}\n  fit: {epochs: 1}\n  \
        compress: {variants: [distilled], distill: {layers: [{conv1d: {filters: 2, kernel: 5, padding: valid}}, {gru: {units: 2}}, {dense: {units: 3, activation: softmax}}]}}\n";
    std::fs::write(folder.path().join("training.yaml"), manifest).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
    let output =
        command.current_dir(folder.path()).args(["train", "training.yaml", "--output", "out"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected =
        "spec.compress.distill.layers: sequences from 5 steps on, the teacher takes 1; make windows shorter, or pad";
    assert!(said.contains(expected), "{said}");
}
