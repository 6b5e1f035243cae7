//! Features alone leave, with the programs themselves: asked of a model, collected, labelled, learned from. And nothing else does.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod common;

use bytes::Bytes;
use common::{Collector, files, statistics, until};
use sconce_edge_runtime::wire::grpc_inference_service_client::GrpcInferenceServiceClient;
use sconce_edge_runtime::wire::model_infer_request::InferInputTensor;
use sconce_edge_runtime::wire::{ModelInferRequest, raw_bytes};
use sconce_lake::{Label, Lake};
use sconce_model::artifact::Artifact;
use sconce_model::idx::{Images, write_images, write_labels};
use sconce_model::variant::F32;
use sconce_trainer::answer::value;
use sconce_trainer::data::{self, DataSet, Inputs, Samples, Wanted, synthetic};
use sconce_trainer::manifest::{DataSource, Format};
use sconce_trainer::prepared::Prepared;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

const MODEL: &str = "digits.vision";
const DATASET: &str = "vision/digits";
/// In a picture's comment.
const WORDS: &str = "canary-7f3a9c-do-not-tell";

/// With convolutions, norms and a dropout before its head.
const NETWORK: &str = "architecture:
    input: {shape: [1, 28, 28]}
    layers: [{conv2d: {filters: 8, kernel: 5, stride: 2, batchNorm: true, activation: relu}}, {maxPool2d: {}}, {flatten: {}},
      {dropout: {rate: 0.1}}, {dense: {units: 48, activation: relu}}, {dense: {units: 10, activation: softmax}}]
  preprocess: [{scale: {by: 0.004}}]";

fn manifest(dataset: &str, network: &str, fit: &str) -> String {
    format!(
        "apiVersion: sconce.dev/v1alpha1\nkind: EdgeTraining\nmetadata: {{name: digits}}\nspec:
  dataset: {{{dataset}}}
  {network}
  fit: {{optimizer: {{adam: {{learningRate: 0.003}}}}, seed: 7, {fit}}}
  compress: {{variants: [f16, int8], maxAccuracyDrop: 100%}}\n"
    )
}

/// A program of the workspace, beside the collector.
fn program(name: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_sconce-collector")).with_file_name(name);
    assert!(program.exists(), "{} is not built: cargo build --release --workspace --bins", program.display());
    Command::new(program)
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{said}");
    said
}

fn train(folder: &Path, manifest: &str, more: &[&str], output: &str) -> String {
    let file = format!("{output}.yaml");
    std::fs::write(folder.join(&file), manifest).unwrap();
    said(program("sconce-trainer").current_dir(folder).args(["train", &file, "--output", output]).args(more))
}

/// Another light, less contrast, and mirrored.
fn shifted(samples: &Samples) -> Samples {
    let &Images { count, height, width, ref pixels } = samples.images().unwrap();
    let mut pixels = pixels.clone();
    for row in pixels.chunks_exact_mut(width) {
        row.reverse();
        row.iter_mut().for_each(|pixel| *pixel = 60 + *pixel / 2);
    }
    Samples::grey(Images { count, height, width, pixels }, samples.labels.classes().to_vec())
}

fn leave(folder: &Path, train: &Samples, test: &Samples) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, samples) in [("train", train), ("t10k", test)] {
        let images = write_images(samples.images().unwrap());
        std::fs::write(folder.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        std::fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), write_labels(samples.labels.classes()))
            .unwrap();
    }
}

/// As a camera sends it, with a comment.
fn png(pixels: &[u8]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::GrayImage::from_raw(28, 28, pixels.to_vec()).unwrap().write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    let mut bytes = bytes.into_inner();
    let content = [b"tEXtComment\0".as_slice(), WORDS.as_bytes()].concat();
    let crc = !content.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    let chunk = [&((content.len() - 4) as u32).to_be_bytes()[..], &content, &crc.to_be_bytes()].concat();
    let end = bytes.len() - 12;
    bytes.splice(end..end, chunk);
    bytes
}

/// A server or a router, and all that it says.
struct Serving {
    child: Child,
    grpc: String,
    metrics: String,
    log: Arc<Mutex<String>>,
}

impl Serving {
    fn start(args: &[&str]) -> Self {
        let mut child = program("edge-runtime")
            .args(args)
            .args(["--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-format", "json"])
            .env("RUST_LOG", "trace,hyper=info,h2=info,tower=info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let fields = lines.by_ref().find_map(|line| {
            let fields = serde_json::from_str::<Value>(&line).ok()?["fields"].clone();
            fields["grpc"].is_string().then_some(fields)
        });
        let fields = fields.expect("it says where it listens");
        let address = |name: &str| fields[name].as_str().unwrap().to_owned();
        let log = Arc::new(Mutex::new(String::new()));
        let (written, grpc, metrics) = (log.clone(), address("grpc"), address("metrics"));
        std::thread::spawn(move || lines.for_each(|line| *written.lock().unwrap() += &(line + "\n")));
        Self { child, grpc, metrics, log }
    }

    fn told(&self) -> String {
        let mut stream = std::net::TcpStream::connect(&self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text + &self.log.lock().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A site: a server, a router that taps it, and a collector.
struct Site {
    server: Serving,
    router: Serving,
    collector: Collector,
}

impl Site {
    fn start(folder: &Path, model: &str, privacy: Value) -> Self {
        let model = folder.join(model);
        let serve = ["serve", "--model", model.to_str().unwrap(), "--name", MODEL, "--rest", "127.0.0.1:0"];
        let server = Serving::start(&serve);
        let lake = format!("file://{}", folder.join("lake").display());
        let dataset = json!({"uri": lake, "kind": "Image", "privacy": privacy, "upload": {"delaySeconds": 0}});
        let often = [("SCONCE_STATISTICS_SECONDS", "1")];
        let collector = Collector::start(folder, &json!({DATASET: dataset}), &often);
        let backends = json!([{"tier": "Edge", "address": server.grpc}]);
        let wish = json!({"dataset": DATASET, "share": 1, "features": privacy["policy"] == "FeaturesOnly"});
        let [routes, taps] = [("routes", json!({"backends": backends})), ("taps", wish)].map(|(name, of_model)| {
            let file = folder.join(format!("{name}.json"));
            std::fs::write(&file, json!({"schema": 1, "models": {MODEL: of_model}}).to_string()).unwrap();
            file.to_str().unwrap().to_owned()
        });
        let local = format!("{}/", collector.local);
        let router = Serving::start(&["route", "--routes", &routes, "--taps", &taps, "--collector", &local]);
        Self { server, router, collector }
    }

    /// Asks the model for each input.
    fn asked(&self, inputs: impl IntoIterator<Item = (InferInputTensor, Bytes)>) {
        let address = format!("http://{}", self.router.grpc);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = GrpcInferenceServiceClient::connect(address).await.unwrap();
            for (input, raw) in inputs {
                let (model_name, inputs, raw_input_contents) = (MODEL.into(), vec![input], vec![raw]);
                let request = ModelInferRequest { model_name, inputs, raw_input_contents, ..Default::default() };
                client.model_infer(request).await.unwrap();
            }
        });
    }

    fn status(&self) -> Value {
        self.collector.status()["datasets"][DATASET].clone()
    }

    /// All that the programs have said, on any way.
    fn told(&self) -> String {
        let collector = self.collector.metrics() + &self.collector.status().to_string();
        let logs = self.collector.log.lock().unwrap().clone();
        [collector, logs, self.server.told(), self.router.told()].concat()
    }
}

fn input(name: &str, datatype: &str, shape: Vec<i64>) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: datatype.into(), shape, ..Default::default() }
}

/// As a file.
fn encoded(pictures: &[Vec<u8>]) -> impl Iterator<Item = (InferInputTensor, Bytes)> {
    pictures.iter().map(|picture| (input("encoded", "BYTES", vec![1]), raw_bytes(&[Bytes::from(picture.clone())])))
}

/// As numbers.
fn tensor(pixels: &[u8]) -> (InferInputTensor, Bytes) {
    (input("input", "FP32", vec![1, 1, 28, 28]), numbers(pixels).into())
}

fn numbers(pixels: &[u8]) -> Vec<u8> {
    pixels.iter().flat_map(|pixel| (f32::from(*pixel) * 0.004).to_le_bytes()).collect()
}

/// Which signs of the pictures are in some bytes: their comment, their file, or a line of pixels, as the model reads it or in a
/// picture.
fn signs(bytes: &[u8], pictures: &[Vec<u8>], samples: &Samples) -> BTreeSet<&'static str> {
    let contains = |sign: &[u8]| bytes.windows(sign.len()).any(|window| window == sign);
    let mut found = BTreeSet::new();
    if contains(WORDS.as_bytes()) {
        found.insert("words");
    }
    if pictures.iter().any(|picture| contains(&picture[33..65])) {
        found.insert("file");
    }
    let line = &samples.images().unwrap().image(0)[14 * 28 + 8..][..8];
    if contains(line) || contains(&numbers(line)) {
        found.insert("pixels");
    }
    let signature = b"\x89PNG\r\n\x1a\n";
    for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(signature)) {
        let mut reader = image::ImageReader::new(std::io::Cursor::new(&bytes[at..]));
        reader.set_format(image::ImageFormat::Png);
        let Ok(picture) = reader.decode() else { continue };
        if picture.to_luma8().as_raw().windows(line.len()).any(|window| window == line) {
            found.insert("picture");
        }
    }
    found
}

fn pictures(samples: &Samples) -> Vec<Vec<u8>> {
    (0..samples.len()).map(|index| png(samples.images().unwrap().image(index))).collect()
}

/// Pictures, and one as a tensor.
const ASKED: u64 = 17;

/// What a site gives away of some pictures, and what its collector has counted.
fn gives_away(model: impl Fn(&Path), privacy: Value) -> (BTreeSet<&'static str>, Value) {
    let folder = tempfile::tempdir().unwrap();
    model(&folder.path().join("model"));
    let samples = synthetic::digits(20, 5).train;
    let pictures = pictures(&samples);
    let is_told = privacy["policy"] == "StatisticsOnly";
    let site = Site::start(folder.path(), "model", privacy);
    let dark = tensor(samples.images().unwrap().image(0));
    site.asked(encoded(&pictures).chain([dark]));
    let told = || -> u64 {
        let told = statistics(&folder.path().join("lake"));
        told.iter().map(|told| told["samples"].as_u64().unwrap()).sum()
    };
    until("all are sent, told of or dropped", || {
        let status = site.status();
        let dropped: u64 =
            status["dropped"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
        // Of four, the last, nothing is told.
        if is_told {
            told() + 4 >= ASKED && status["sent"].as_u64() > Some(0)
        } else {
            status["sent"].as_u64().unwrap() + dropped == ASKED
        }
    });
    let mut found = signs(site.told().as_bytes(), &pictures, &samples);
    let status = site.status();
    drop(site);
    for (path, content) in files(folder.path()) {
        if !path.starts_with(folder.path().join("model")) {
            found.extend(signs(&content, &pictures, &samples));
        }
    }
    (found, status)
}

fn square(folder: &Path) {
    sconce_model::artifact::testing::write_square(folder, 7, 28).unwrap();
}

#[test]
fn of_requests_nothing_is_found_under_any_policy_but_raw() {
    let (found, status) = gives_away(square, json!({"policy": "Raw"}));
    let all = BTreeSet::from(["words", "file", "pixels", "picture"]);
    assert_eq!((found, &status["sent"]), (all, &json!(ASKED)), "the search itself is proved");
    let (found, status) = gives_away(square, json!({"policy": "FeaturesOnly"}));
    assert_eq!((found, &status["sent"]), (BTreeSet::new(), &json!(ASKED)), "{status}");
    // A tensor is no picture that could be covered.
    let (found, status) = gives_away(square, json!({"policy": "Masked", "mask": {"blocks": 4}}));
    let counted = (&status["sent"], &status["dropped"]["Private"]);
    assert_eq!((found, counted), (BTreeSet::new(), (&json!(ASKED - 1), &json!(1))), "{status}");
    let (found, status) = gives_away(square, json!({"policy": "StatisticsOnly"}));
    assert!(found.is_empty() && status["sent"].as_u64() > Some(0), "{found:?} {status}");
}

#[test]
fn of_a_model_without_a_backbone_nothing_is_kept_and_that_is_counted() {
    let bare = |folder: &Path| {
        square(folder);
        let file = folder.join("config.json");
        let config = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, config.replace("\"head\": \"dense_1\"", "\"head\": \"conv2d_1\"")).unwrap();
    };
    let (found, status) = gives_away(bare, json!({"policy": "FeaturesOnly"}));
    assert_eq!(
        (found, &status["kept"], &status["dropped"]),
        (BTreeSet::new(), &json!(0), &json!({"NoFeatures": ASKED}))
    );
}

/// What a backbone makes of samples, one row for each, as bytes.
fn rows(samples: &Samples) -> Vec<Vec<u8>> {
    let Inputs::Features(xs) = &samples.inputs else { panic!("they are features") };
    let size = xs.len() / samples.len();
    xs.chunks_exact(size).map(|row| row.iter().flat_map(|value| value.to_le_bytes()).collect()).collect()
}

#[test]
fn a_head_learned_from_features_alone_is_to_the_bit_what_it_is_with_the_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (home, test) = synthetic::digits(3_000, 3).train.split(0.25, 3, "home");
    leave(&at.join("home"), &home, &test);
    train(at, &manifest("uri: 'synthetic:digits', format: idx", NETWORK, "epochs: 4"), &["--data", "home"], "base");

    let world = shifted(&synthetic::digits(750, 9).train);
    let site = Site::start(at, "base", json!({"policy": "FeaturesOnly"}));
    site.asked(encoded(&pictures(&world)));
    site.collector.sent(DATASET, world.len() as u64);
    drop(site);

    // Who knows what they showed labels them, by the features' names.
    let artifact = Artifact::open(&at.join("base")).unwrap();
    let backbone = artifact.backbone(&artifact.variant(F32).unwrap()).unwrap().unwrap();
    let reads = &artifact.graph().input;
    let through = |samples: &Samples| {
        let prepared = Prepared::new(samples, artifact.preprocess(), reads).unwrap();
        let made = prepared.through(&backbone.plan().unwrap()).unwrap().into_values();
        Samples { inputs: Inputs::Features(made), ..samples.clone() }
    };
    let index: HashMap<Vec<u8>, usize> = rows(&through(&world)).into_iter().zip(0..).collect();
    let uri = format!("file://{}", at.join("lake").display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let labelled = runtime.block_on(async {
        let (lake, now) = (Lake::open(&uri).unwrap(), jiff::Timestamp::now());
        let mut said = Vec::new();
        for shard in lake.shards().await.unwrap() {
            let rows = lake.rows(&shard).await.unwrap();
            assert!(rows.iter().all(|row| row.backbone.as_ref() == Some(&backbone.digest) && row.prediction.is_some()));
            let contents = lake.contents(&shard, &rows).await.unwrap();
            said.extend(rows.into_iter().zip(contents).map(|(row, content)| {
                let value = world.labels.classes()[index[&content[128..]]].to_string();
                Label { id: row.id, value, by: "ann".into(), at: now, file: String::new() }
            }));
        }
        lake.keep(&said, now).await.unwrap();
        said.len()
    });
    assert_eq!(labelled, world.len());

    let (dataset, base, fit) =
        (format!("uri: '{uri}', format: collected"), "base: {uri: base}", "epochs: 12, validation: 0%");
    let told = train(at, &manifest(&dataset, base, fit), &[], "update");
    assert!(told.contains(&format!("{0} of {0} samples have labels that count", world.len())), "{told}");
    assert!(told.contains("of features alone it cannot be judged"), "{told}");

    // The same pictures in the same order, whole.
    let source = DataSource { uri, format: Format::Collected, mix: vec![] };
    let wanted = Wanted { backbone: Some(&backbone), ..Wanted::new(artifact.preprocess(), reads, 10) };
    let DataSet { train: learned, test: mut held_out, .. } = data::read(&source, None, 7, wanted).unwrap();
    let whole = |features: &Samples| world.select(&rows(features).iter().map(|row| index[row]).collect::<Vec<_>>());
    let (learned, held_out) = (whole(&learned), whole(held_out.read().unwrap()));
    // A run puts pictures of a folder, which have no groups, in this order: undone beforehand, both runs have the same.
    let mut places = vec![0; learned.len()];
    data::shuffled(learned.len(), 7, "validation").into_iter().enumerate().for_each(|(at, place)| places[place] = at);
    leave(&at.join("site"), &learned.select(&places), &held_out);
    let whole = manifest("uri: 'synthetic:digits', format: idx", base, fit);
    train(at, &whole, &["--data", "site"], "whole");
    let part = |artifact: &str, part: &str| {
        std::fs::read(at.join(format!("{artifact}/weights/f32/{part}.safetensors"))).unwrap()
    };
    assert!(part("update", "head") == part("whole", "head") && part("update", "head") != part("base", "head"));
    assert!(part("update", "backbone") == part("base", "backbone"));
    let update = Artifact::open(&at.join("update")).unwrap();
    assert_eq!(update.variants().iter().map(|variant| &*variant.name).collect::<Vec<_>>(), ["f32"]);

    let accuracy = |artifact: &Artifact| {
        let prepared = Prepared::new(&held_out, artifact.preprocess(), reads).unwrap();
        value(&prepared.answers(&artifact.variant(F32).unwrap().plan().unwrap(), artifact.graph()).unwrap())
    };
    let (before, after) = (accuracy(&artifact), accuracy(&update));
    let judged = update.evaluation().unwrap().variants[F32].value;
    println!("of {} pictures {before:.4} before, {after:.4} after; by features alone {judged:.4}", held_out.len());
    assert!(after > before + 0.2 && (after - judged).abs() < 0.02, "{before} {after} {judged}");
}
