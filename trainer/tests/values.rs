//! Samples that have no class: labels of which none or several are there, amounts, counts; from what people said of them to an artifact whose
//! variants were judged by them.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "../../lake/tests/common/mod.rs"]
mod written;

use sconce_model::artifact::{Artifact, Measured};
use sconce_model::network::{generator, unit};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use written::{labelled, sample, uri, write};

/// Many samples, and what compression may cost; few, and the default.
const MANY: (usize, &str) = (1_500, "2%");
const FEW: (usize, &str) = (500, "0.5%");

/// What a sample is, and what is said of it.
type Draw = fn(&mut dyn FnMut() -> f32) -> (Vec<f32>, String);

/// Twelve numbers in which each of three patterns is there or not.
fn patterns(unit: &mut dyn FnMut() -> f32) -> (Vec<f32>, String) {
    let there: Vec<bool> = (0..3).map(|_| unit() < 0.4).collect();
    let of = |at: usize| if there[at % 3] { [1.0, -1.0, 0.5, 1.5][at / 3] } else { 0.0 };
    let xs = (0..12).map(|at| of(at) + 0.3 * (unit() - 0.5)).collect();
    let names: Vec<&str> =
        ["person", "bicycle", "dog"].into_iter().zip(there).filter(|(_, is)| *is).map(|(name, _)| name).collect();
    (xs, if names.is_empty() { "none".into() } else { names.join("|") })
}

/// A wave, of which amplitude and slope are asked.
fn wave(unit: &mut dyn FnMut() -> f32) -> (Vec<f32>, String) {
    let (amplitude, slope) = (1.0 + 2.0 * unit(), 20.0 * (unit() - 0.5));
    let of = |step: usize| amplitude * (step as f32 * 0.8).sin() + slope * step as f32 / 16.0 + 0.05 * (unit() - 0.5);
    ((0..16).map(of).collect(), format!("{amplitude}|{slope}"))
}

/// A road of 24 places, on each of which there is a car or none.
fn cars(unit: &mut dyn FnMut() -> f32) -> (Vec<f32>, String) {
    let busy = 0.5 * unit();
    let places: Vec<bool> = (0..24).map(|_| unit() < busy).collect();
    let xs = places.iter().map(|is| f32::from(u8::from(*is)) + 0.2 * (unit() - 0.5)).collect();
    (xs, places.iter().filter(|is| **is).count().to_string())
}

/// A data set in a folder, half of it kept with a chance of one in two; then a run on it.
fn run(folder: &Path, draw: Draw, architecture: &str, more: &str, (count, drop): (usize, &str)) -> Output {
    let mut generator = generator(5, "values");
    let mut unit = || unit(&mut generator);
    let of = |index: usize| {
        let (xs, said) = draw(&mut unit);
        let content = json!(xs).to_string().into_bytes();
        let mut sample = labelled(sample(&content, &format!("device-{}", index % 23), 1), &said, "ann");
        sample.probability = if index.is_multiple_of(2) { 1.0 } else { 0.5 };
        (sample, content)
    };
    write(folder, "node", 1, &(0..count).map(of).collect::<Vec<_>>());
    let manifest = format!(
        "apiVersion: sconce.dev/v1alpha1\nkind: EdgeTraining\nmetadata: {{name: values}}\nspec:\n  dataset: {{uri: '{}', format: collected}}\n  \
         architecture: {architecture}\n  fit: {{epochs: 30, batchSize: 32, optimizer: {{adam: {{learningRate: 0.01}}}}, seed: 3{more}}}\n  \
         compress: {{variants: [f16, int8], maxAccuracyDrop: {drop}}}\n  accept: {{minAccuracy: 90%}}\n",
        uri(folder)
    );
    std::fs::write(folder.join("training.yaml"), manifest).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
    command.current_dir(folder).args(["train", "training.yaml", "--output", "out", "--report", "report.json"]);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What each variant was measured to tell, and what the run said.
fn judged(folder: &Path, output: &Output) -> (Vec<Measured>, String) {
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let artifact = Artifact::open(&folder.join("out")).unwrap();
    let variants = &artifact.evaluation().unwrap().variants;
    (["f32", "f16", "int8"].map(|name| variants[name].clone()).into(), said)
}

#[test]
fn labels_of_which_several_are_there_are_learned_and_each_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = "{input: {shape: [12]}, layers: [{dense: {units: 16, activation: relu}}, {dense: {units: 3, activation: sigmoid}}], \
        output: {labels: [person, bicycle, dog]}}";
    let output = run(folder.path(), patterns, architecture, ", earlyStopping: {patience: 10}", MANY);
    let (measured, said) = judged(folder.path(), &output);
    for Measured { metric, value, f1, confusion, paired, .. } in &measured {
        assert!(metric == "accuracy" && *value > 0.95 && confusion.is_empty(), "{metric} {value}");
        assert!(f1.len() == 3 && f1.iter().all(|f1| *f1 > 0.95), "{f1:?}");
        assert!(paired.as_ref().is_none_or(|paired| paired.drop_upper95 < 0.02), "{paired:?}");
    }
    let all: Vec<&str> = said.lines().filter(|line| line.contains(": F1 ")).collect();
    assert!(
        all.len() == 3 && ["0.9", "1.0"].iter().any(|f1| all[0].starts_with(&format!("  person: F1 {f1}"))),
        "{said}"
    );
    let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    assert!(report["evaluation"]["variants"]["f32"]["f1"].is_array() && report["calibration"].is_null());
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains("<th>bicycle</th><td>F1 ") && !page.contains("Confusion"));
}

#[test]
fn amounts_are_learned_and_what_they_vary_by_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = "{input: {shape: [16]}, layers: [{dense: {units: 32, activation: relu}}, {dense: {units: 2}}], \
        output: {labels: [amplitude, slope]}}";
    let (measured, said) = judged(folder.path(), &run(folder.path(), wave, architecture, "", MANY));
    for Measured { metric, value, wilson95: (low, high), mean_absolute_error, .. } in &measured {
        assert!(metric == "r2" && *value > 0.95 && low < value && value < high, "{metric} {low} {value} {high}");
        // Half of the way from end to end are 1 and 10.
        let [amplitude, slope] = mean_absolute_error[..] else { panic!("two, not {mean_absolute_error:?}") };
        assert!(amplitude < 0.15 && slope < 0.7, "{mean_absolute_error:?}");
    }
    let expected = format!("Test r2: {:.4}", measured[0].value);
    assert_eq!(said.lines().last(), Some(&*expected), "{said}");
    assert!(said.contains("  f32  r2 0.9") && said.contains("  slope: mean absolute error 0."), "{said}");
    // Rounding moves the score of each sample a little, which is no loss of three of them.
    let few = tempfile::tempdir().unwrap();
    let output = run(few.path(), wave, architecture, "", FEW);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("  f16  r2 0.") && !said.contains("left out"), "{said}");
    // What nobody could learn is not accepted, and a constant is no use.
    let told = |said: &mut dyn FnMut() -> f32| (wave(said).0, format!("{}|{}", said(), said()));
    let lots = tempfile::tempdir().unwrap();
    let output = run(lots.path(), told, architecture, "", MANY);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stdout));
    let why = text(&output.stderr);
    assert!(why.contains("Not accepted: test r2 -0.") && why.contains("is below spec.accept.minAccuracy 90%"), "{why}");
}

#[test]
fn how_many_there_are_is_learned_as_a_rate() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = "{input: {shape: [24]}, layers: [{dense: {units: 16, activation: relu}}, {dense: {units: 1}}], output: {task: count}}";
    let (measured, said) = judged(folder.path(), &run(folder.path(), cars, architecture, "", MANY));
    for Measured { value, mean_absolute_error, .. } in &measured {
        assert!(*value > 0.95 && mean_absolute_error[0] < 0.5, "{value} {mean_absolute_error:?}");
    }
    assert!(said.contains("  0: mean absolute error 0."), "{said}");
}

#[test]
fn a_number_of_each_picture_is_one_amount_and_no_row_of_labels() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = |last: &str| {
        format!(
            "apiVersion: sconce.dev/v1alpha1\nkind: EdgeTraining\nmetadata: {{name: digits}}\nspec:\n  dataset: {{uri: 'synthetic:digits', format: idx}}\n  \
             architecture: {{input: {{shape: [1, 28, 28]}}, layers: [{{maxPool2d: {{size: 4}}}}, {{flatten: {{}}}}, {{dense: {{units: 32, activation: relu}}}}, {last}]}}\n  \
             preprocess: [{{scale: {{by: 0.004}}}}]\n  fit: {{epochs: 2}}\n"
        )
    };
    let run = |last: &str| {
        std::fs::write(folder.path().join("training.yaml"), manifest(last)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
        command.current_dir(folder.path()).args(["train", "training.yaml", "--output", "out"]).output().unwrap()
    };
    let output = run("{dense: {units: 1}}");
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.lines().last().unwrap().starts_with("Test r2: 0."),
        "{said}{}",
        text(&output.stderr)
    );
    let output = run("{dense: {units: 10, activation: sigmoid}}");
    let expected = "Error: synthetic:digits: a number of each sample, and multilabel tells 10 values: need collected samples, whose labels can say them\n";
    let said = text(&output.stderr);
    // Where backtraces are asked for, one follows.
    assert!(output.status.code() == Some(1) && said.starts_with(expected), "{said}");
}
