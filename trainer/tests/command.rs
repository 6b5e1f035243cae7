//! The program as people run it: what it prints, what it writes, how it ends.

#![allow(clippy::unwrap_used, reason = "in tests")]

#[path = "../../e2e/src/untried.rs"]
mod untried;

use sconce_model::artifact::Artifact;
use sconce_model::idx::{read_images, read_labels, write_images, write_labels};
use sconce_trainer::data::synthetic;
use sconce_trainer::publish::Pack;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
    std::fs::write(folder.path().join("train-images-idx3-ubyte"), write_images(digits.images().unwrap())).unwrap();
    std::fs::write(folder.path().join("train-labels-idx1-ubyte"), write_labels(digits.labels.classes())).unwrap();
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
    let variants = report["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 3);
    assert!(
        variants.iter().all(|variant| variant["passed"] == true && variant["latencyMicros"].as_f64().unwrap() > 0.0)
    );
    let evaluation = artifact.evaluation().unwrap();
    for variant in variants {
        let confusion = &evaluation.variants[variant["name"].as_str().unwrap()].confusion;
        let (low, high) = interval((0..10).map(|class| confusion[class][class]).sum(), 100);
        let told = [0, 1].map(|end| variant["wilson95"][end].as_f64().unwrap());
        assert!((told[0] - low).abs() < 1e-6 && (told[1] - high).abs() < 1e-6, "{variant}, not {low} to {high}");
    }
    assert_eq!(report["calibration"]["ece"].as_f64(), evaluation.variants["f32"].ece);
    let bins = report["calibration"]["bins"].as_array().unwrap();
    assert_eq!(bins.iter().map(|bin| bin["count"].as_u64().unwrap()).sum::<u64>(), 100);
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    page(&html, said.lines().last().unwrap(), 5);
    // The artifact's own, which is no other when the same run took longer, or ran elsewhere.
    let kept = std::fs::read_to_string(folder.path().join("out/report/index.html")).unwrap();
    page(&kept, said.lines().last().unwrap(), 4);
    assert!(html.contains("µs") && html.contains("Machine") && !kept.contains("µs") && !kept.contains("Machine"));
    for variant in variants {
        let [low, high] = [0, 1].map(|end| variant["wilson95"][end].as_f64().unwrap());
        assert!(html.contains(&format!("<td>{low:.4}–{high:.4}</td>")), "{variant} in {html}");
    }
    let [low, high] = [0, 1].map(|end| variants[0]["wilson95"][end].as_f64().unwrap());
    assert!(html.contains(&format!("<span>95 % interval {low:.4} to {high:.4}, 100 samples</span>")), "{html}");
}

/// Wilson's: the shares of right answers that this many of `n` are 1.96 deviations away from, found by halving.
fn interval(right: u64, n: u64) -> (f64, f64) {
    let (n, seen) = (n as f64, right as f64 / n as f64);
    let fits = |share: f64| (seen - share).abs() <= 1.959_963_985 * (share * (1.0 - share) / n).sqrt();
    let end = |mut inside: f64, mut outside: f64| {
        for _ in 0..60 {
            let middle = f64::midpoint(inside, outside);
            if fits(middle) { inside = middle } else { outside = middle }
        }
        inside
    };
    (end(seen, 0.0), end(seen, 1.0))
}

/// One file that needs no other, with a plot of all that was measured, and the counts that it shows are all the samples.
fn page(page: &str, accuracy: &str, plots: usize) {
    for outside in ["http:", "https:", "src=", "<link", "url(", "<script"] {
        assert!(!page.contains(outside), "{outside} in {page}");
    }
    let accuracy = accuracy.replace("accuracy: ", "accuracy: <b>");
    assert!(page.contains(&accuracy), "{accuracy} in {page}");
    assert_eq!(
        page.matches("<svg").count(),
        plots,
        "loss, accuracy, two of the variants or without times one, calibration"
    );
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    for variant in ["f32", "f16", "int8"] {
        assert!(page.contains(&format!("<th>{variant}</th>")), "{variant} in {page}");
    }
    let confusion = page.split("class=\"confusion\"").nth(1).unwrap().split("</table>").next().unwrap();
    let counts = confusion.split("<td").skip(1).map(|cell| {
        let count = cell.split('>').nth(1).unwrap().split('<').next().unwrap();
        count.parse::<u32>().unwrap()
    });
    assert_eq!(counts.sum::<u32>(), 100);
}

/// Of the other test split all labels are wrong: what is learned of the rest is the worst there.
#[test]
fn another_test_split_changes_neither_the_epoch_that_is_kept_nor_a_weight() {
    let runs = [0, 1].map(|off| {
        let folder = folder("0%", "100%");
        let test = synthetic::digits(500, 4).train;
        let labels: Vec<u8> = test.labels.classes().iter().map(|label| (label + off) % 10).collect();
        std::fs::write(folder.path().join("t10k-images-idx3-ubyte"), write_images(test.images().unwrap())).unwrap();
        std::fs::write(folder.path().join("t10k-labels-idx1-ubyte"), write_labels(&labels)).unwrap();
        let file = folder.path().join("training.yaml");
        let stopping = "fit: {earlyStopping: {patience: 3}, epochs: 8,";
        let typed = std::fs::read_to_string(&file).unwrap().replace("fit: {epochs: 2,", stopping);
        std::fs::write(&file, typed).unwrap();
        let output = train(folder.path(), &["--output", "out"]);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
        let kept = said.lines().find_map(|line| line.strip_prefix("kept: epoch ")).unwrap().to_owned();
        let files = sconce_model::artifact::files(&folder.path().join("out")).unwrap();
        let weights = files.into_iter().filter(|file| file.path.starts_with("weights/"));
        let artifact = Artifact::open(&folder.path().join("out")).unwrap();
        let measured = artifact.evaluation().unwrap().variants["f32"].value;
        (measured, kept, weights.map(|file| (file.path, file.digest)).collect::<Vec<_>>())
    });
    let [(known, kept, weights), (wrong, kept_again, weights_again)] = runs;
    assert!(known > 0.5 && wrong < 0.1 && !kept.starts_with("1,") && weights.len() == 6, "{known} {wrong} {kept}");
    assert_eq!((kept, weights), (kept_again, weights_again));
}

#[test]
fn on_a_terminal_a_bar_is_drawn_and_epochs_are_lines_for_people() {
    let folder = folder("0%", "100%");
    let mut command = Command::new("script");
    command.args(["-qec", "exec \"$PROGRAM\" train training.yaml --data . --output out", "/dev/null"]);
    command.env("PROGRAM", env!("CARGO_BIN_EXE_sconce-trainer")).env("TERM", "xterm").stdin(Stdio::null());
    let output = match command.current_dir(folder.path()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let why = "the bar on a terminal was NOT tried: script is missing; Debian: apt-get install bsdutils";
            return untried::untried(why).unwrap();
        }
        output => output.unwrap(),
    };
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let any = |parts: [&str; 2]| said.split(['\r', '\n']).any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(any(["epoch 2/2 [", "/26  loss "]), "a bar: {said:?}");
    assert!(any(["epoch 2/2  loss ", "  accuracy "]), "a line: {said:?}");
    assert!(!said.contains("{\"") && said.contains("Test accuracy: 0."), "{said:?}");
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

/// With the registry down, each try made all variants anew.
#[test]
fn a_finished_artifact_is_published_by_the_next_try_and_made_only_once() {
    let folder = folder("30%", "20%");
    let flags = |registry: &str| {
        let target = format!("oci://{registry}/m/tiny:1");
        let output = train(folder.path(), &["--output", "out", "--result", "words", "--publish", &target]);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, said, error) = flags("127.0.0.1:1");
    assert_eq!(code, Some(1), "{error}");
    assert!(said.contains("wrote out") && error.contains("the artifact is in out, but not published"), "{said}{error}");
    let made = || std::fs::metadata(folder.path().join("out/config.json")).unwrap().modified().unwrap();
    let before = made();
    let (code, said, error) = flags("127.0.0.1:1");
    assert_eq!(code, Some(1), "{error}");
    assert!(said.contains("out is made already") && !said.contains("wrote out"), "{said}");

    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let registry = server.local_addr().unwrap().to_string();
    std::thread::spawn(move || server.incoming().for_each(|stream| registry_of_a_few_lines(stream.unwrap())));
    let (code, said, error) = flags(&registry);
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.contains("out is made already") && made() == before, "{said}");
    let words: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("words")).unwrap()).unwrap();
    let address = words["result"]["published"].as_str().unwrap();
    assert!(address.starts_with(&format!("oci://{registry}/m/tiny@sha256:")), "{words}");
    assert!(
        address.ends_with(words["result"]["digest"].as_str().unwrap()) && words["result"]["accepted"] == true,
        "{words}"
    );
    assert!(said.lines().last().unwrap().starts_with("Test accuracy: 0."), "{said}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("out.")), "{left:?}");
}

/// Has everything, and takes a manifest; each answer ends its connection.
fn registry_of_a_few_lines(stream: std::net::TcpStream) {
    use std::io::{BufRead as _, Read as _, Write as _};
    let mut reader = std::io::BufReader::new(&stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let status = if first.starts_with("PUT") { "201 Created\r\nlocation: /v2/m/tiny/manifests/1" } else { "200 OK" };
    (&stream)
        .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes())
        .unwrap();
}

/// All forms: what is a network of its own is opened as one, and what fails is told of, and is no part of the artifact.
#[test]
fn a_trained_model_is_compressed_anew_beside_its_numbers_before() {
    let folder = folder("30%", "100%");
    let output = train(folder.path(), &["--output", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let trained = std::fs::read(folder.path().join("out/weights/f32/head.safetensors")).unwrap();
    let compress = |forms: &str, drop: &str| {
        let manifest = MANIFEST.replace("FLOOR", "30%").replace("variants: [f16, int8]", forms).replace("DROP", drop);
        std::fs::write(folder.path().join("again.yaml"), manifest).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
        let output = command.current_dir(folder.path()).args(["compress", "out", "again.yaml", "--data", "."]).output();
        output.unwrap()
    };
    let forms = "variants: [f16, int8, pruned, pruned-int8, distilled, distilled-int8], prune: {share: 25%, epochs: 1},
             distill: {epochs: 2, layers: [{maxPool2d: {size: 4}}, {flatten: {}}, {dense: {units: 8, activation: relu}}, {dense: {units: 10, activation: softmax}}]}";
    let output = compress(forms, "100%");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    let names = ["f32", "f16", "int8", "pruned", "pruned-int8", "distilled", "distilled-int8"];
    assert_eq!(std::fs::read(folder.path().join("out/weights/f32/head.safetensors")).unwrap(), trained);
    let artifact = Artifact::open(&folder.path().join("out")).unwrap();
    columns(&said, &artifact);
    assert_eq!(artifact.variants().iter().map(|variant| variant.name.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(artifact.evaluation().unwrap().test_reads, 2, "the run's own, and this one");
    let parameters = |name: &str| artifact.variant(name).unwrap().network.graph().parameter_count();
    assert_eq!(parameters("f32"), 196 * 16 + 16 + 16 * 10 + 10);
    assert_eq!((parameters("pruned"), parameters("pruned-int8")), (196 * 12 + 12 + 12 * 10 + 10, parameters("pruned")));
    assert_eq!(
        (parameters("distilled"), parameters("distilled-int8")),
        (49 * 8 + 8 + 8 * 10 + 10, parameters("distilled"))
    );
    let bytes: Vec<u64> = artifact.variants().iter().map(|variant| variant.bytes).collect();
    assert!(bytes[2] < bytes[1] && bytes[1] < bytes[0] && bytes[3] < bytes[0] && bytes[4] < bytes[3], "{bytes:?}");

    // Nobody loses nothing with so few samples.
    let output = compress(forms, "0%");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    let distilled = said.lines().find(|line| line.starts_with("distilled ")).unwrap();
    assert!(distilled.ends_with("points worse, more than 0.00: left out"), "{distilled}");
    let artifact = Artifact::open(&folder.path().join("out")).unwrap();
    assert!(!artifact.variants().iter().any(|variant| variant.name == "distilled"));
    assert!(!artifact.evaluation().unwrap().variants.contains_key("distilled"));

    let another = MANIFEST.replace("FLOOR", "30%").replace("DROP", "1%").replace("units: 16", "units: 17");
    std::fs::write(folder.path().join("again.yaml"), another).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce-trainer"));
    command.current_dir(folder.path()).args(["compress", "out", "again.yaml", "--data", "."]);
    let refused = text(&command.output().unwrap().stderr);
    assert!(
        refused.contains("out is not what again.yaml describes: name the manifest that it was trained by"),
        "{refused}"
    );
}

/// Size, latency and accuracy of each variant as the artifact has them, each beside those of the trained network.
fn columns(said: &str, artifact: &Artifact) {
    let titles = ["variant", "bytes", "\u{d7}", "time", "\u{d7}", "accuracy", "points", "verdict"];
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let header = rows.iter().position(|row| *row == titles);
    let rows = &rows[header.unwrap_or_else(|| panic!("no table in {said}")) + 1..];
    let value = |name: &str| artifact.evaluation().unwrap().variants[name].value;
    let micros = |row: &[&str]| row[3].parse::<f64>().unwrap();
    for (variant, row) in artifact.variants().iter().zip(rows) {
        let share = variant.bytes as f64 / artifact.variants()[0].bytes as f64;
        let accuracy = value(&variant.name);
        let points = (accuracy - value("f32")) * 100.0;
        let [size, smaller] = [variant.bytes.to_string(), format!("{share:.2}")];
        assert_eq!(row[..3], [&variant.name, &size, &smaller], "{said}");
        // Both times are rounded.
        let [low, high] = [-0.05, 0.05].map(|by| (micros(row) + by) / (micros(&rows[0]) - by));
        let slower: f64 = row[5].parse().unwrap();
        assert!(micros(row) > 0.0 && row[4] == "µs" && slower >= low - 0.006 && slower <= high + 0.006, "{said}");
        assert_eq!(row[6..8], [format!("{accuracy:.4}"), format!("{points:+.2}")], "{said}");
        assert!(row[8].starts_with("passed"), "{said}");
    }
    assert_eq!(rows.len(), artifact.variants().len(), "{said}");
}

/// A form that cannot be made is told of as one that was not good enough, to people and to programs.
#[test]
fn a_form_that_cannot_be_made_costs_no_other() {
    let folder = folder("10%", "20%");
    let file = folder.path().join("training.yaml");
    let typed = std::fs::read_to_string(&file).unwrap();
    let layers = "layers: [{maxPool2d: {}}, {flatten: {}}, {dense: {units: 10, activation: softmax}}]";
    let from = typed.find("layers: ").unwrap();
    let to = typed.find("\n  preprocess").unwrap();
    let typed = typed.replace(&typed[from..to], layers).replace("[f16, int8]", "[pruned, f16]");
    std::fs::write(&file, typed).unwrap();
    let output = train(folder.path(), &["--report", "report.json", "--result", "words"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    let why = "every layer is read by a sum, or by nobody: none can lose channels or units: left out";
    assert!(said.contains(&format!("pruned  {why}")), "{said}");
    let words: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("words")).unwrap()).unwrap();
    let verdicts = words["result"]["verdicts"].as_array().unwrap();
    let told: Vec<_> = verdicts.iter().map(|verdict| (&verdict["variant"], &verdict["passed"])).collect();
    assert_eq!(told, [(&"f32".into(), &true.into()), (&"f16".into(), &true.into()), (&"pruned".into(), &false.into())]);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.contains(why), "{page}");
}
