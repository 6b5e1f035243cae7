//! Sequences of any length, from what a collector wrote to an artifact whose plans answer each: curves, and words.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "../../lake/tests/common/mod.rs"]
mod written;

use sconce_model::artifact::Artifact;
use sconce_model::network::{generator, unit};
use std::path::Path;
use std::process::Command;
use written::{labelled, sample, uri, write};

fn npy(steps: usize, features: Option<usize>, values: &[f32]) -> Vec<u8> {
    let shape = features.map_or(format!("(1, {steps},)"), |features| format!("(1, {steps}, {features},)"));
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat()
}

/// Two features, of which one rises, falls or does neither, over 6 to 30 steps: how much from step to step depends on how many.
fn curve(class: usize, unit: &mut impl FnMut() -> f32) -> Vec<u8> {
    let steps = 6 + (unit() * 25.0) as usize;
    let (slope, start) = ([1.0, -1.0, 0.0][class], unit() * 2.0 - 1.0);
    let of_step = |step: usize| [start + slope * step as f32 / steps as f32 + 0.2 * (unit() - 0.5), unit() - 0.5];
    npy(steps, Some(2), &(0..steps).flat_map(of_step).collect::<Vec<_>>())
}

/// 3 to 20 words of 50; those below 10 are kind, those from 40 on are not, and there are more of the one.
fn words(class: usize, unit: &mut impl FnMut() -> f32) -> Vec<u8> {
    let steps = 3 + (unit() * 18.0) as usize;
    let of_step = |step: usize| {
        let told = if step.is_multiple_of(2) { class } else { (unit() * 3.0) as usize };
        let of_ten = (unit() * 9.0).floor() + 1.0;
        of_ten + [0.0, 40.0, 20.0][told]
    };
    npy(steps, None, &(0..steps).map(of_step).collect::<Vec<_>>())
}

type Draw = fn(usize, &mut dyn FnMut() -> f32) -> Vec<u8>;

/// What the run said, with the accuracy of each variant, and the artifact.
fn trained(folder: &Path, draw: Draw, classes: usize, architecture: &str) -> (String, Vec<f64>, Artifact) {
    let mut generator = generator(5, "sequences");
    let mut unit = || unit(&mut generator);
    let of = |index: usize| {
        let (class, content) = (index % classes, draw(index % classes, &mut unit));
        (labelled(sample(&content, &format!("device-{}", index % 24), 1), &class.to_string(), "ann"), content)
    };
    write(folder, "node", 1, &(0..900).map(of).collect::<Vec<_>>());
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
    let (said, accuracies, artifact) = trained(folder.path(), draw, classes, architecture);
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

/// What is shorter than a window, or longer than the longest, is told of and left out.
#[test]
fn sequences_that_do_not_fit_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = "{input: {shape: [-1, 2], maxLength: 20}, layers: [{gru: {units: 4}}, {dense: {units: 3, activation: softmax}}]}";
    let (said, ..) = trained(folder.path(), |class, mut unit| curve(class, &mut unit), 3, architecture);
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
