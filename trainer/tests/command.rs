//! The program as people run it: what it prints, what it writes, how it ends.

#![allow(clippy::unwrap_used, reason = "in tests")]

use sconce_model::artifact::Artifact;
use sconce_model::idx::{read_images, read_labels, write_images, write_labels};
use sconce_trainer::data::synthetic;
use sconce_trainer::publish::Pack;
use std::path::Path;
use std::process::{Command, Output};

const MANIFEST: &str = "
apiVersion: sconce.dev/v1alpha1
kind: EdgeTraining
metadata: {name: tiny}
spec:
  dataset: {uri: 'synthetic:digits', format: idx}
  architecture:
    input: {shape: [1, 28, 28]}
    layers: [{maxPool2d: {}}, {flatten: {}}, {dense: {units: 16, activation: relu}}, {dense: {units: 10, activation: softmax}}]
  preprocess: [{scale: {by: 0.004}}]
  fit: {epochs: 2, optimizer: {adam: {learningRate: 0.003}}, seed: 7}
  compress: {variants: [f16, int8], maxAccuracyDrop: DROP}
  accept: {minAccuracy: FLOOR}
";

/// A folder with 1,000 digits as IDX files, and a manifest.
fn folder(floor: &str, drop: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let digits = synthetic::digits(1_250, 3).train;
    std::fs::write(folder.path().join("train-images-idx3-ubyte"), write_images(&digits.images)).unwrap();
    std::fs::write(folder.path().join("train-labels-idx1-ubyte"), write_labels(&digits.labels)).unwrap();
    std::fs::write(folder.path().join("training.yaml"), MANIFEST.replace("FLOOR", floor).replace("DROP", drop))
        .unwrap();
    folder
}

fn train(folder: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
    command.current_dir(folder).args(["train", "training.yaml", "--data", "."]).args(flags);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_run_says_what_it_did_and_leaves_what_was_asked_for() {
    let folder = folder("30%", "20%");
    let output = train(folder.path(), &["--output", "out/", "--held-out", "held-out", "--report", "report.json"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    for expected in ["Data: IDX files, 10 % held out by seed 7 (sha256:", "On 100 test samples, IDX files"] {
        assert!(said.contains(expected), "{expected:?} in {said}");
    }
    let lines: Vec<serde_json::Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [_, second, last] = &lines[..] else { panic!("two epochs and a result: {lines:?}") };
    assert_eq!((&second["epoch"], &second["epochs"], &second["etaSeconds"]), (&2.into(), &2.into(), &0.0.into()));
    assert!(second["loss"].is_number() && second["accuracy"].is_number());
    let result = &last["result"];
    assert_eq!(result["digest"], Pack::new(&folder.path().join("out")).unwrap().digest());
    assert_eq!((&result["accepted"], &result["published"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!(result["verdicts"][2]["variant"], "int8");
    assert_eq!(result["verdicts"][2]["passed"], true);
    let accuracy = said.lines().last().unwrap().strip_prefix("Test accuracy: 0.").unwrap();
    assert_eq!(accuracy.len(), 4);

    let artifact = Artifact::open(&folder.path().join("out")).unwrap();
    let names: Vec<&str> = artifact.variants().iter().map(|variant| variant.name.as_str()).collect();
    assert_eq!(names, ["f32", "f16", "int8"]);
    assert_eq!(artifact.evaluation().unwrap().test_reads, 1);
    assert!(!folder.path().join("out.partial").exists());
    let held_out = |file: &str| std::fs::read(folder.path().join("held-out").join(file)).unwrap();
    assert_eq!(read_images(&held_out("images.idx3")).unwrap().count, 100);
    assert_eq!(read_labels(&held_out("labels.idx1")).unwrap().len(), 100);
    assert_eq!(held_out("preprocess.json"), std::fs::read(folder.path().join("out/preprocess.json")).unwrap());
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!((report["epochs"].as_array().unwrap().len(), report["accepted"].as_bool()), (2, Some(true)));
}

#[test]
fn a_model_below_the_floor_is_told_by_the_exit_code_and_never_published() {
    let folder = folder("100%", "20%");
    // Nothing listens there: publishing would fail, with another exit code.
    let output = train(folder.path(), &["--publish", "oci://127.0.0.1:1/models/tiny:1.0.0"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("is below spec.accept.minAccuracy 100%"));
    assert!(text(&output.stdout).lines().last().unwrap().starts_with("Test accuracy: 0."));
}

#[test]
fn a_folder_of_other_files_is_refused_before_training() {
    let folder = folder("30%", "20%");
    let output = train(folder.path(), &["--output", "."]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("which is no part of an artifact: name another folder"));
    assert!(folder.path().join("training.yaml").exists());
    assert_eq!(text(&output.stdout), "");
}

/// Who starts a run again after a failure, such as a Job, must not start again what cannot get better.
#[test]
fn last_words_are_written_and_what_another_try_would_not_change_ends_with_0() {
    let words = |folder: &Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.join("words")).unwrap()).unwrap()
    };
    let flags = ["--result", "words", "--report", "report.json"];
    let strict = folder("100%", "20%");
    let output = train(strict.path(), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = words(strict.path());
    assert_eq!((&told["result"]["accepted"], &told["result"]["published"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(told["result"]["verdicts"][0]["variant"], "f32");

    let wrong = folder("30%", "lots");
    let output = train(wrong.path(), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let error = words(wrong.path())["result"]["error"].as_str().unwrap().to_owned();
    assert!(error.ends_with("spec.compress.maxAccuracyDrop: lots; need a percentage, such as 0.5%"), "{error}");

    // A registry that is down may be up at the next try.
    let unpublished = folder("30%", "20%");
    let output = train(unpublished.path(), &["--result", "words", "--publish", "oci://127.0.0.1:1/m/tiny:1"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(!unpublished.path().join("words").exists());
}
