use super::*;
use crate::network::{Mode, Training};
use crate::variant::{F16, F32, INT8};
use candle_core::{Device, Tensor};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeSet;
use tempfile::TempDir;

const WEIGHTS: &str = "weights/f32/head.safetensors";

fn tiny() -> TempDir {
    let folder = TempDir::new().unwrap();
    testing::write_tiny(folder.path(), 7).unwrap();
    folder
}

#[test]
fn what_is_written_is_read_and_answers_alike() {
    let folder = tiny();
    let artifact = Artifact::open(folder.path()).unwrap();
    let network = artifact.variant(F32).unwrap().network;
    let drawn = Network::initialise(artifact.graph().clone(), 7).unwrap();
    let xs = Tensor::rand(0f32, 1.0, (2, 1, 8, 8), &Device::Cpu).unwrap();
    let (loaded, drawn) = (network.infer(&xs).unwrap(), drawn.infer(&xs).unwrap());
    assert_eq!(loaded.to_vec2::<f32>().unwrap(), drawn.to_vec2::<f32>().unwrap());
    for row in loaded.to_vec2::<f32>().unwrap() {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "probabilities: {row:?}");
    }
    assert_eq!(artifact.config().inputs[0].shape, [-1, 1, 8, 8]);
}

#[test]
fn training_and_reference_say_the_same() {
    let folder = tiny();
    let network = Artifact::open(folder.path()).unwrap().variant(F32).unwrap().network;
    let xs = Tensor::rand(-1f32, 1.0, (3, 1, 8, 8), &Device::Cpu).unwrap();
    let training = Training { seed: 0, epoch: 1, step: 1, frozen: &BTreeSet::new() };
    let said = |mode| network.forward_t(&xs, None, mode).unwrap().to_vec2::<f32>().unwrap();
    let (trained, reference) = (said(Mode::Train(training)), said(Mode::Eval));
    for (a, b) in trained.iter().flatten().zip(reference.iter().flatten()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

/// Artifacts of before do not say it.
#[test]
fn a_variant_says_what_each_row_of_a_batch_takes() {
    let folder = tiny();
    let artifact = Artifact::open(folder.path()).unwrap();
    for entry in artifact.variants() {
        let scratch = artifact.variant(&entry.name).unwrap().plan().unwrap().scratch_bytes() as u64;
        assert!(scratch > 0 && entry.memory_bytes > 16 * scratch, "{entry:?}");
        assert_eq!(entry.scratch_bytes, Some(scratch));
    }
    let mut variants: serde_json::Value = read_json(folder.path(), VARIANTS).unwrap();
    variants["variants"][0].as_object_mut().unwrap().remove("scratchBytes").unwrap();
    write_json(folder.path(), VARIANTS, &variants).unwrap();
    assert_eq!(Artifact::open(folder.path()).unwrap().variants()[0].scratch_bytes, None);
}

/// An artifact of before there were parts.
#[test]
fn weights_in_one_file_are_read_alike() {
    let folder = tiny();
    let values = |artifact: &Artifact| {
        let network = artifact.variant(INT8).unwrap().network;
        let of = |variable: &Tensor| variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        network.variables().iter().map(|(name, variable)| (name.clone(), of(variable))).collect::<BTreeMap<_, _>>()
    };
    let before = values(&Artifact::open(folder.path()).unwrap());
    let [backbone, head] = ["backbone", "head"].map(|part| format!("weights/int8/{part}.safetensors"));
    let [first, second] = [&backbone, &head].map(|file| std::fs::read(folder.path().join(file)).unwrap());
    let parts = [&first, &second].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    let all = parts.iter().flat_map(safetensors::SafeTensors::tensors);
    let whole = safetensors::serialize(all, None).unwrap();
    std::fs::write(folder.path().join("weights/int8/model.safetensors"), whole).unwrap();
    [backbone, head].iter().for_each(|file| std::fs::remove_file(folder.path().join(file)).unwrap());
    let mut variants: serde_json::Value = read_json(folder.path(), VARIANTS).unwrap();
    variants["variants"][2]["files"] = serde_json::json!(["weights/int8/model.safetensors"]);
    write_json(folder.path(), VARIANTS, &variants).unwrap();
    let mut config: serde_json::Value = read_json(folder.path(), CONFIG).unwrap();
    assert_eq!(config.as_object_mut().unwrap().remove("head"), Some("dense_1".into()));
    write_json(folder.path(), CONFIG, &config).unwrap();
    let artifact = Artifact::open(folder.path()).unwrap();
    assert_eq!((values(&artifact), artifact.head()), (before, Some("dense_1")));
}

#[test]
fn same_content_has_the_same_bytes() {
    assert_eq!(files(tiny().path()).unwrap(), files(tiny().path()).unwrap());
    let folder = tiny();
    std::fs::write(folder.path().join("notes.txt"), "not part of it").unwrap();
    let paths: Vec<_> = files(folder.path()).unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(
        paths,
        [
            "config.json",
            "evaluation.json",
            "preprocess.json",
            "variants.json",
            "weights/f16/backbone.safetensors",
            "weights/f16/head.safetensors",
            "weights/f32/backbone.safetensors",
            "weights/f32/head.safetensors",
            "weights/int8/backbone.safetensors",
            "weights/int8/head.safetensors"
        ]
    );
}

/// Norms, kernels of single channels and gates are stored as the network that was evaluated has them.
#[test]
fn weights_of_every_kind_come_back_as_they_were_rounded() {
    let check = |input: serde_json::Value, layers: serde_json::Value| {
        let typed = serde_json::json!({"input": {"shape": input}, "layers": layers});
        let graph = serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap();
        let network = Network::initialise(std::sync::Arc::new(graph), 7).unwrap();
        for (name, variable) in network.variables().iter().filter(|(_, variable)| variable.rank() == 1) {
            let values = Tensor::rand(0.1f32, 0.9, variable.shape(), &Device::Cpu).unwrap();
            variable.set(&values).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let scaling = |node: &crate::graph::Node| (node.name.clone(), Scaling { scale: 0.02, zero_point: 100 });
        let inputs = quantisable(network.graph()).map(scaling).collect();
        let smaller = [Variant::f16(&network).unwrap(), Variant::int8(&network, &inputs).unwrap()];
        for variant in smaller.into_iter().chain([Variant::f32(network)]) {
            let mut stored = weights::Stored::default();
            for (file, bytes) in weights::encode(&variant, None).unwrap() {
                stored.read(&file, &bytes).unwrap();
            }
            let stored = stored.dequantise().unwrap().tensors;
            let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let got: Vec<_> = stored.iter().map(|(name, tensor)| (name.clone(), flat(tensor))).collect();
            let expected = variant.network.variables().iter();
            let expected: Vec<_> = expected.map(|(name, variable)| (name.clone(), flat(variable))).collect();
            assert_eq!(got, expected, "{}", variant.name);
        }
    };
    check(
        serde_json::json!([2, 6, 6]),
        serde_json::json!([{"residual": {"filters": 4, "block": "inverted"}}, {"flatten": {}}, {"dense": {"units": 3}}]),
    );
    check(
        serde_json::json!([6, 2]),
        serde_json::json!([{"conv1d": {"filters": 3, "kernel": 3}}, {"batchNorm": {}}, {"lstm": {"units": 4}}, {"dense": {"units": 3}}]),
    );
}

/// From anywhere: one that is no error, or names in another order, would turn what is served around.
#[test]
fn of_anomalies_the_threshold_is_above_zero_and_the_names_are_known() {
    let folder = TempDir::new().unwrap();
    let layers = serde_json::json!([{"dense": {"units": 3, "activation": "relu"}}, {"dense": {"units": 4}}]);
    let typed = serde_json::json!({"input": {"shape": [4]}, "layers": layers, "output": {"task": "anomaly"}});
    testing::write_drawn(folder.path(), typed, 7).unwrap();
    let artifact = Artifact::open(folder.path()).unwrap();
    assert_eq!(artifact.config().labels, ["normal", "anomaly"]);
    let path = folder.path().join(WEIGHTS);
    let whole = std::fs::read(&path).unwrap();
    let is_one = |bytes: &[u8]| bytes == 1.0_f32.to_le_bytes();
    let at = whole.windows(4).rposition(is_one).unwrap();
    for (got, told) in [(0.0_f32, "0"), (-1.0, "-1"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut other = whole.clone();
        other[at..at + 4].copy_from_slice(&got.to_le_bytes());
        std::fs::write(&path, other).unwrap();
        let expected =
            format!("{WEIGHTS} is broken: anomaly.threshold is {told}; need above 0; fetch the artifact again");
        assert_eq!(artifact.variant(F32).map(drop).unwrap_err().to_string(), expected);
    }
    let file = folder.path().join(CONFIG);
    let text = std::fs::read_to_string(&file).unwrap();
    for labels in [serde_json::json!(["anomaly", "normal"]), serde_json::json!([])] {
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["labels"] = labels;
        std::fs::write(&file, config.to_string()).unwrap();
        let error = Artifact::open(folder.path()).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("config.json is broken: task and labels are not those of"), "{error}");
    }
}

#[test]
fn what_is_typed_of_the_output_is_what_the_version_says() {
    let write = |activation: &str, output: serde_json::Value| {
        let folder = TempDir::new().unwrap();
        let layers = serde_json::json!([{"flatten": {}}, {"dense": {"units": 5}}, {"dense": {"units": 3, "activation": activation}}]);
        let typed = serde_json::json!({"input": {"shape": [1, 4, 4]}, "layers": layers, "output": output});
        testing::write_drawn(folder.path(), typed, 7).unwrap();
        folder
    };
    let check = |activation: &str, output: serde_json::Value, task: &str, labels: [&str; 3]| {
        let folder = write(activation, output);
        let artifact = Artifact::open(folder.path()).unwrap();
        let Config { task: got, labels: names, .. } = artifact.config();
        assert_eq!((got.as_str(), &names[..]), (task, &labels.map(String::from)[..]));
        let xs = Tensor::zeros((2, 1, 4, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(artifact.variant(F32).unwrap().network.infer(&xs).unwrap().dims(), [2, 3]);
    };
    let named = serde_json::json!({"labels": ["cat", "dog", "neither"]});
    check("softmax", named.clone(), "classification", ["cat", "dog", "neither"]);
    check("sigmoid", serde_json::json!({}), "multilabel", ["a", "b", "c"]);
    check("none", serde_json::json!({"task": "count"}), "count", ["a", "b", "c"]);
    for (from, to) in [("\"task\": \"classification\"", "\"task\": \"anomaly\""), ("\"cat\"", "\"dog\"")] {
        let folder = write("softmax", named.clone());
        let file = folder.path().join(CONFIG);
        let text = std::fs::read_to_string(&file).unwrap();
        // The last one: labels stand after the architecture, and the task does.
        let at = text.rfind(from).unwrap();
        std::fs::write(&file, [&text[..at], to, &text[at + from.len()..]].concat()).unwrap();
        assert_eq!(
            Artifact::open(folder.path()).map(drop).unwrap_err().to_string(),
            "config.json is broken: task and labels are not those of the architecture's output; fetch the artifact again"
        );
    }
}

/// A version of before its architecture could say what it is for: a network without softmax, called a classification.
#[test]
fn what_was_called_a_classification_is_served_as_before() {
    let folder = TempDir::new().unwrap();
    let layers = serde_json::json!([{"flatten": {}}, {"dense": {"units": 5}}, {"dense": {"units": 3}}]);
    testing::write_drawn(folder.path(), serde_json::json!({"input": {"shape": [1, 4, 4]}, "layers": layers}), 7)
        .unwrap();
    let file = folder.path().join(CONFIG);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"task\": \"regression\"") && !text.contains("\"output\": {"), "{text}");
    std::fs::write(&file, text.replace("regression", "classification")).unwrap();
    assert_eq!(Artifact::open(folder.path()).unwrap().config().task, "classification");
}

/// Each fault is named with its file and what to do.
#[test]
fn broken_artifacts_say_what_is_broken() {
    let check = |spoil: &dyn Fn(&Path), expected: &str| {
        let folder = tiny();
        spoil(folder.path());
        let error =
            Artifact::open(folder.path()).and_then(|artifact| artifact.variant(F32).map(drop)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let edit = |file: &'static str, from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(folder.join(file), text.replace(from, to)).unwrap();
        }
    };
    check(
        &|folder| std::fs::remove_file(folder.join(CONFIG)).unwrap(),
        "config.json is missing: fetch the artifact again",
    );
    check(
        &edit(CONFIG, "\"schema\": 1", "\"schema\": 2"),
        "config.json: schema 2; this build knows 1: use a newer build",
    );
    check(
        &edit(CONFIG, "\"maxPool2d\"", "\"attention\""),
        "unknown architecture: unknown kind \"attention\"; known are conv2d",
    );
    let folder = tiny();
    edit(CONFIG, "\"c\"", "\"c\", \"d\"")(folder.path());
    assert_eq!(
        Artifact::open(folder.path()).map(drop).unwrap_err().to_string(),
        "unknown architecture: output: 3 units, 4 labels; use a newer build, or train again with layers that this one knows"
    );
    check(
        &edit(CONFIG, "\"filters\": 4", "\"filters\": 5"),
        "tensor \"conv2d_1.weight\" is F32 [4, 1, 3, 3], the architecture needs F32 [5, 1, 3, 3]",
    );
    check(
        &edit(CONFIG, "FP32", "FP16"),
        "config.json is broken: inputs are not the architecture's: one of FP32 [-1, 1, 8, 8]",
    );
    check(&edit(PREPROCESS, "\"version\": 1", "\"version\": 3"), "preprocess.json: schema 3; this build knows 1");
    check(&edit(EVALUATION, "\"schema\": 1", "\"schema\": 3"), "evaluation.json: schema 3; this build knows 1");
    check(
        &edit(VARIANTS, "weights/f32/", "weights/../../"),
        "variants.json is broken: \"weights/../../backbone.safetensors\" is no path inside the artifact",
    );
    check(
        &edit(VARIANTS, "\"name\": \"f32\"", "\"name\": \"f64\""),
        "no variant \"f32\"; the artifact has f64, f16, int8",
    );
    check(
        &edit(VARIANTS, "\"arithmetic\": \"f32\"", "\"arithmetic\": \"f8\""),
        "variant \"f32\" is computed by f8, which this build does not know: use a newer build",
    );
    // A variant may be a network of its own.
    check(
        &edit(
            VARIANTS,
            "\"arithmetic\": \"f32\"",
            "\"arithmetic\": \"f32\", \"architecture\": {\"input\": {\"shape\": [1, 8, 8]}, \"layers\": [{\"flatten\": {}}, {\"dense\": {\"units\": 4, \"activation\": \"softmax\"}}]}",
        ),
        "variants.json is broken: \"f32\" reads or says something else than the version",
    );
    check(
        &edit(
            VARIANTS,
            "\"arithmetic\": \"f32\"",
            "\"arithmetic\": \"f32\", \"architecture\": {\"input\": {\"shape\": [1, 8, 8]}, \"layers\": [{\"flatten\": {}}, {\"dense\": {\"units\": 3, \"activation\": \"softmax\"}}]}",
        ),
        "\"dense_1.weight\"",
    );
    check(
        &edit(VARIANTS, "\"arithmetic\": \"f32\"", "\"arithmetic\": \"f32\", \"architecture\": {\"layers\": []}"),
        "unknown architecture: variant \"f32\": ",
    );
    check(
        &|folder| {
            let bytes = std::fs::read(folder.join(WEIGHTS)).unwrap();
            std::fs::write(folder.join(WEIGHTS), &bytes[..bytes.len() / 2]).unwrap();
        },
        "weights/f32/head.safetensors is broken",
    );
}

/// What is evaluated in training is, to the bit, what is served.
#[test]
fn each_variant_is_read_as_it_was_written() {
    let folder = tiny();
    let artifact = Artifact::open(folder.path()).unwrap();
    let trained = artifact.variant(F32).unwrap();
    let int8 = artifact.variant(INT8).unwrap();
    let Arithmetic::I8(Quantisation { inputs, .. }) = &int8.arithmetic else { panic!("{:?}", int8.arithmetic) };
    assert_eq!(inputs.keys().collect::<Vec<_>>(), ["conv2d_1"], "the last layer's products stay f32");
    let again = [Variant::f16(&trained.network).unwrap(), Variant::int8(&trained.network, inputs).unwrap()];
    for (read, written) in [&artifact.variant(F16).unwrap(), &int8].into_iter().zip(&again) {
        assert_eq!(read.arithmetic, written.arithmetic);
        for (name, variable) in read.network.variables() {
            let values = |variable: &Tensor| variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(variable), values(&written.network.variables()[name]), "{name} of {}", read.name);
        }
    }
    let bytes: Vec<u64> = artifact.variants().iter().map(|variant| variant.bytes).collect();
    assert!(bytes[1] < bytes[0] && bytes[2] < bytes[0], "{bytes:?}");
}

#[test]
fn broken_bytes_of_weights_are_refused() {
    let check = |spoil: &dyn Fn(&Path), expected: &str| {
        let folder = tiny();
        spoil(folder.path());
        let artifact = Artifact::open(folder.path()).unwrap();
        let error = artifact.variant(INT8).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    // Keys and values of the same length, so that the offsets in the file stay right.
    let file = "weights/int8/backbone.safetensors";
    let edit = |from: &'static [u8], to: &'static [u8]| {
        move |folder: &Path| {
            let mut bytes = std::fs::read(folder.join(file)).unwrap();
            let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to);
            std::fs::write(folder.join(file), bytes).unwrap();
        }
    };
    check(
        &edit(b"conv2d_1.weight_scale", b"conv2d_1.weight_stale"),
        "needs 4 scales above 0 in \"conv2d_1.weight_scale\"",
    );
    check(&edit(b"\"I8\"", b"\"U8\""), "tensor \"conv2d_1.weight\" is U8; known are F32, F16 and I8");
    check(
        &|folder| {
            let mut bytes = std::fs::read(folder.join(file)).unwrap();
            *bytes.last_mut().unwrap() = 0x80;
            std::fs::write(folder.join(file), bytes).unwrap();
        },
        "tensor \"conv2d_1.weight\" holds -128; bytes of weights are -127 to 127",
    );
    let described = |from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let text = std::fs::read_to_string(folder.join(VARIANTS)).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(folder.join(VARIANTS), text.replace(from, to)).unwrap();
        }
    };
    check(&described("\"conv2d_1\"", "\"conv2d_7\""), "\"conv2d_7\" needs both bytes as weights and activations");
    check(
        &described("\"scale\": 0.0", "\"scale\": -0.0"),
        "quantisation.activations.conv2d_1: scale -0.02; need above 0",
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was done to a file, the version is refused with a sentence, or is served: nothing panics.
    #[test]
    fn spoilt_files_are_refused_or_sound(
        file in prop::sample::select(vec![CONFIG, PREPROCESS, VARIANTS, EVALUATION, WEIGHTS, "weights/int8/backbone.safetensors"]),
        spoils in prop::collection::vec((any::<Index>(), prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:0918-e.".to_vec())]), 1..6),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let folder = tiny();
        let path = folder.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        // What describes is at the beginning, and values of weights fit whatever they are.
        let begin = bytes.len().min(4096);
        for (at, value) in spoils {
            bytes[at.index(begin)] = value;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        std::fs::write(&path, bytes).unwrap();
        let told = Artifact::open(folder.path()).and_then(|artifact| {
            for variant in [F32, F16, INT8] {
                let shape: Vec<usize> = std::iter::once(1).chain(artifact.graph().input.iter().copied()).collect();
                let read = artifact.variant(variant)?;
                if shape.iter().product::<usize>() < 1 << 16 {
                    let xs = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
                    read.network.infer(&xs).map_err(|source| ArtifactError::Network { source })?;
                    read.plan().map_err(|source| ArtifactError::Network { source })?;
                }
            }
            Ok(())
        });
        if let Err(error) = told {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
