//! The loop, as people go round it: what a site sends is taken out, labelled, and learned. With the programs themselves.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use common::{Collector, png};
use image::RgbImage;
use sconce_trainer::data::{Inputs, Samples, synthetic};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DATASET: &str = "vision/digits";
const COUNT: usize = 1_000;
/// Cameras, whose pictures stay together where samples are split.
const DOORS: usize = 20;

const MANIFEST: &str = "
apiVersion: sconce.dev/v1alpha1
kind: EdgeTraining
metadata: {name: tiny}
spec:
  dataset: {uri: 'URI', format: collected}
  architecture:
    input: {shape: [1, 28, 28]}
    layers: [{maxPool2d: {}}, {flatten: {}}, {dense: {units: 32, activation: relu}}, {dense: {units: 10, activation: softmax}}]
  preprocess: [{scale: {by: -0.004}}, {normalize: {mean: [-1.02], std: [1.0]}}]
  fit: {epochs: 30, optimizer: {adam: {learningRate: 0.003}}, seed: 7}
  accept: {minAccuracy: 60%}
";

/// A program of the workspace, beside the collector.
fn program(name: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_sconce-collector")).with_file_name(name);
    assert!(program.exists(), "{} is not built: cargo build --release --workspace --bins", program.display());
    Command::new(program)
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// A world that no model has seen: dark strokes on a bright ground. With what each picture shows.
fn world() -> Vec<(Vec<u8>, u8)> {
    let Samples { inputs: Inputs::Images(images), labels, .. } = synthetic::digits(COUNT * 5 / 4, 77).train else {
        panic!("they are drawn as images")
    };
    let picture = |index: usize| {
        let pixels: Vec<u8> = images.image(index).iter().flat_map(|pixel| [255 - pixel; 3]).collect();
        png(&RgbImage::from_raw(28, 28, pixels).unwrap())
    };
    labels.classes().iter().enumerate().map(|(index, label)| (picture(index), *label)).collect()
}

struct Site {
    folder: PathBuf,
    uri: String,
    variables: Vec<(String, String)>,
}

impl Site {
    /// The collector takes the world in, and sends it.
    fn collected(&self, world: &[(Vec<u8>, u8)]) {
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let dataset = json!({"uri": self.uri, "kind": "Image", "privacy": {"policy": "Raw"}, "sources": [{"http": {}}],
            "upload": {"delaySeconds": 0}});
        let collector = Collector::start(&self.folder, &json!({DATASET: dataset}), &variables);
        // Each is answered for once it is on the disk: many wait for one batch.
        std::thread::scope(|scope| {
            for number in 0..DOORS {
                let (door, collector) = (format!("door-{number}"), &collector);
                scope.spawn(move || {
                    for (picture, _) in world.iter().skip(number).step_by(DOORS) {
                        let path = format!("/v1/samples/{DATASET}");
                        let (status, told) = collector.post(&path, &[("x-sconce-group", &door)], picture.clone());
                        assert_eq!(status, 201, "{told}");
                    }
                });
            }
        });
        collector.sent(DATASET, world.len() as u64);
    }

    fn sconce(&self, args: &[&str]) -> Value {
        let mut sconce = program("sconce");
        sconce.args(["-o", "json", "data"]).args(args).envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = sconce.current_dir(&self.folder).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Fills in the table of an export, by what `label` says of a picture.
    fn fill_in(&self, to: &str, label: impl Fn(&[u8]) -> String) -> String {
        let table = std::fs::read_to_string(self.folder.join(to).join("labels.csv")).unwrap();
        let filled = table.lines().skip(1).map(|line| {
            let id = line.split(',').next().unwrap();
            let picture = std::fs::read(self.folder.join(format!("{to}/files/{id}.png"))).unwrap();
            format!("{id},{}\n", label(&picture))
        });
        let filled: String = std::iter::once("id,label\n".to_owned()).chain(filled).collect();
        let file = format!("{to}/filled.csv");
        std::fs::write(self.folder.join(&file), filled).unwrap();
        file
    }

    /// Nothing listens where it would publish: a model that is accepted fails there.
    fn trained(&self) -> (Output, String) {
        std::fs::write(self.folder.join("training.yaml"), MANIFEST.replace("URI", &self.uri)).unwrap();
        let mut trainer = program("sconce-trainer");
        trainer.current_dir(&self.folder).envs(self.variables.iter().map(|(name, value)| (name, value)));
        trainer.args(["train", "training.yaml", "--publish", "oci://127.0.0.1:1/models/tiny:1"]);
        let output = trainer.output().unwrap();
        let told = said(&output);
        (output, told)
    }

    fn goes_round(&self) {
        let world = world();
        self.collected(&world);
        let (output, told) = self.trained();
        assert_eq!(output.status.code(), Some(1), "{told}");
        let expected = format!("0 labelled samples of {COUNT}; need at least 10 to hold some out: export some");
        assert!(told.contains(&expected), "{told}");

        // Random labels: by who they are said of, not by what they show.
        let exported = self.sconce(&["export", &self.uri, "--to", "out", "--unlabelled"]);
        assert_eq!((&exported["samples"], &exported["labelled"]), (&json!(COUNT), &json!(0)));
        let random = |picture: &[u8]| (sconce_collector::sample::Id::of(picture).0[9] % 10).to_string();
        let imported = self.sconce(&["import", &self.uri, &self.fill_in("out", random), "--by", "carl"]);
        assert_eq!((&imported["kept"], &imported["fresh"]), (&json!(COUNT), &json!(COUNT)));
        let (output, told) = self.trained();
        println!("random labels: {}", told.lines().rfind(|line| line.starts_with("Test accuracy")).unwrap());
        assert_eq!(output.status.code(), Some(3), "not accepted, and nothing is published: {told}");
        assert!(told.contains("is below spec.accept.minAccuracy 60%") && !told.contains("published oci"), "{told}");

        // True ones, by somebody else: the newest count.
        let truth: BTreeMap<&[u8], u8> = world.iter().map(|(picture, label)| (&picture[..], *label)).collect();
        let imported = self.sconce(&[
            "import",
            &self.uri,
            &self.fill_in("out", |picture| truth[picture].to_string()),
            "--by",
            "ann",
        ]);
        assert_eq!(imported["fresh"], 0);
        let conflicts = imported["conflicts"].as_array().unwrap().len() as u64;
        assert_eq!(
            (imported["kept"].as_u64(), conflicts > 800),
            (Some(conflicts), true),
            "a tenth was right by chance"
        );
        let (output, told) = self.trained();
        println!("true labels: {}", told.lines().rfind(|line| line.starts_with("Test accuracy")).unwrap());
        assert_eq!(output.status.code(), Some(1), "good enough, but nobody takes it: {told}");
        assert!(told.contains("at 127.0.0.1:1; does it run"), "{told}");
        assert!(told.contains(&format!("{COUNT} labelled samples of {DOORS} groups, split by group")), "{told}");
        assert!(told.contains("people say different things, and the newest counts"), "{told}");
    }
}

#[test]
fn what_a_site_sends_is_labelled_and_learned_and_random_labels_publish_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lake")).unwrap();
    let uri = format!("file://{}", folder.path().join("lake").display());
    Site { folder: folder.path().into(), uri, variables: vec![] }.goes_round();
}

#[test]
#[cfg(feature = "strangers")]
fn so_it_is_in_a_bucket() {
    use common::strangers::{bucket, interpreter, moto};
    use common::{access, free_port};
    let Some(interpreter) = interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let _s3 = moto(&interpreter, port);
    let endpoint = format!("http://127.0.0.1:{port}");
    let variables = access(&endpoint);
    bucket(&interpreter, &variables);
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Site { folder: folder.path().into(), uri: "s3://lake/digits".into(), variables }.goes_round();
}
