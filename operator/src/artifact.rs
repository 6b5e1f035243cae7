//! What an artifact says of itself: `config.json`, `variants.json`, `evaluation.json`. Pure; bytes in, facts out.

use sconce_api::{AccuracyInterval, ArtifactFacts, Layer as Typed, Percent, Reason, TensorFacts, VariantFacts};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a layer says beside its kind.
const BESIDE: &[&str] = &["name", "from"];
/// The protocol's own bytes around one request or answer: names, shapes, headers.
const OVERHEAD: i64 = 100;
const FILEPATH: &str = "org.cncf.model.filepath";

pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// `oci://HOST/REPOSITORY`.
    pub repository: String,
    pub digest: String,
    pub facts: ArtifactFacts,
    pub variants: Vec<VariantFacts>,
}

/// Why an artifact cannot be served, in a sentence with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
}

impl Failure {
    fn unknown(message: impl Into<String>) -> Self {
        Self { reason: Reason::UnknownArchitecture, message: message.into() }
    }

    pub fn at(self, uri: &str) -> Self {
        Self { message: format!("{uri}: {}", self.message), ..self }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub digest: String,
    pub size: u64,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The manifest's layers by the path of the file that each holds.
///
/// # Errors
/// [`Failure`] if it is no manifest of files.
pub fn layers(manifest: &[u8]) -> Result<BTreeMap<String, Layer>, Failure> {
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| Failure::unknown(format!("the manifest cannot be read ({error}); publish the model again")))?;
    let file = |layer: Descriptor| {
        let path = layer.annotations.get(FILEPATH)?.clone();
        Some((path, Layer { digest: layer.digest, size: layer.size }))
    };
    Ok(manifest.layers.into_iter().filter_map(file).collect())
}

#[derive(Deserialize)]
struct Config {
    schema: u32,
    inputs: Vec<TensorFacts>,
    outputs: Vec<TensorFacts>,
    architecture: Architecture,
}

#[derive(Deserialize)]
struct Architecture {
    input: Input,
    layers: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    /// Steps of the longest sequence.
    #[serde(default = "max_length")]
    max_length: u32,
}

fn max_length() -> u32 {
    512
}

#[derive(Deserialize)]
struct Variants {
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variant {
    name: String,
    bytes: i64,
    memory_bytes: i64,
    #[serde(default)]
    scratch_bytes: Option<i64>,
    flops: i64,
    #[serde(default)]
    reference: Option<Reference>,
}

/// What the variant said of held-out samples.
#[derive(Deserialize)]
struct Reference {
    confidence: Counts,
}

#[derive(Deserialize)]
struct Counts {
    counts: Vec<i64>,
}

#[derive(Deserialize, Default)]
struct Evaluation {
    dataset: Option<Dataset>,
    #[serde(default)]
    variants: BTreeMap<String, Score>,
}

#[derive(Deserialize)]
struct Dataset {
    n: i64,
}

#[derive(Deserialize)]
struct Score {
    metric: String,
    value: f64,
    wilson95: Option<(f64, f64)>,
}

/// # Errors
/// [`Failure`] if a file is missing or says something that this version does not know.
pub fn read(repository: String, digest: String, files: &Files) -> Result<Artifact, Failure> {
    let config: Config = required(files, "config.json")?;
    if config.schema != 1 {
        let schema = config.schema;
        return Err(Failure::unknown(format!("config.json has schema {schema}, and 1 is known; update Sconce")));
    }
    let variants: Variants = required(files, "variants.json")?;
    if variants.variants.is_empty() || variants.variants.len() > 8 {
        return Err(Failure::unknown("variants.json must list between 1 and 8 variants"));
    }
    let evaluation: Evaluation = match files.get("evaluation.json") {
        Some(bytes) => parse("evaluation.json", bytes)?,
        None => Evaluation::default(),
    };
    let facts = ArtifactFacts {
        architecture: kinds(&config.architecture)?,
        request_bytes: message_bytes(&config.inputs, config.architecture.input.max_length)?,
        response_bytes: message_bytes(&config.outputs, config.architecture.input.max_length)?,
        inputs: config.inputs,
        outputs: config.outputs,
    };
    let variants = variants.variants.into_iter().map(|variant| evaluated(variant, &evaluation)).collect();
    Ok(Artifact { repository, digest, facts, variants })
}

fn required<T: serde::de::DeserializeOwned>(files: &Files, name: &str) -> Result<T, Failure> {
    let missing = || {
        Failure::unknown(format!("the artifact has no {name}: it is no model of ours; publish it with sconce-trainer"))
    };
    parse(name, files.get(name).ok_or_else(missing)?)
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::unknown(format!("{name} cannot be read ({error}); publish the model again")))
}

/// `conv2d,maxPool2d,flatten,dense,dense`.
fn kinds(architecture: &Architecture) -> Result<String, Failure> {
    let kind = |(index, layer): (usize, &Map<String, Value>)| {
        let found: Vec<_> = layer.keys().filter(|key| !BESIDE.contains(&key.as_str())).collect();
        match found.as_slice() {
            [kind] if Typed::KINDS.contains(&kind.as_str()) => Ok(kind.to_string()),
            [kind] => Err(Failure::unknown(format!(
                "layer {index} is a {kind}, which this version does not know; it knows {}",
                Typed::KINDS.join(", ")
            ))),
            _ => Err(Failure::unknown(format!("layer {index} must have one kind"))),
        }
    };
    let kinds: Vec<String> = architecture.layers.iter().enumerate().map(kind).collect::<Result<_, _>>()?;
    let mut kinds = kinds.join(",");
    kinds.truncate(512);
    Ok(kinds)
}

/// Bytes of one request. A dimension of -1 in front is the batch, and one request has one row; another is the time, of which the
/// longest sequence has `max_length` steps.
fn message_bytes(tensors: &[TensorFacts], max_length: u32) -> Result<i64, Failure> {
    let size = |(index, dimension): (usize, &i64)| match (index, *dimension) {
        (0, ..0) => 1,
        (_, ..0) => i64::from(max_length),
        (_, size) => size,
    };
    tensors.iter().try_fold(OVERHEAD, |total, tensor| {
        let elements = tensor.shape.iter().enumerate().map(size).try_fold(1, i64::checked_mul);
        let bytes = elements.and_then(|elements| elements.checked_mul(element_bytes(&tensor.datatype)?));
        bytes.and_then(|bytes| total.checked_add(bytes)).ok_or_else(|| {
            Failure::unknown(format!(
                "tensor {} has datatype {} and shape {:?}",
                tensor.name, tensor.datatype, tensor.shape
            ))
        })
    })
}

fn element_bytes(datatype: &str) -> Option<i64> {
    Some(match datatype {
        "BOOL" | "UINT8" | "INT8" => 1,
        "UINT16" | "INT16" | "FP16" | "BF16" => 2,
        "UINT32" | "INT32" | "FP32" => 4,
        "UINT64" | "INT64" | "FP64" => 8,
        _ => return None,
    })
}

fn evaluated(variant: Variant, evaluation: &Evaluation) -> VariantFacts {
    let score = evaluation.variants.get(&variant.name);
    let interval = score.and_then(|score| score.wilson95);
    VariantFacts {
        name: variant.name,
        bytes: variant.bytes,
        memory: variant.memory_bytes,
        scratch: variant.scratch_bytes,
        flops: variant.flops,
        metric: score.map(|score| score.metric.clone()),
        accuracy: score.map(|score| percent(score.value)),
        interval: interval.map(|(low, high)| AccuracyInterval { low: percent(low), high: percent(high) }),
        samples: score.and(evaluation.dataset.as_ref()).map(|dataset| dataset.n),
        reference: variant
            .reference
            .map(|reference| reference.confidence.counts.iter().copied().fold(0, i64::saturating_add)),
    }
}

/// A share of one as a percentage with two decimals, rounded down: a floor is kept, not nearly kept.
pub(crate) fn percent(share: f64) -> Percent {
    let hundredths = (share.clamp(0.0, 1.0) * 10_000.0 + 1e-6).floor() as u64;
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    Percent(format!("{}%", text.trim_end_matches('0').trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn files(layers: Value) -> Files {
        let config = json!({"schema": 1, "task": "image-classification", "labels": ["0", "1"],
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
            "architecture": {"input": {"shape": [1, 28, 28]}, "layers": layers}});
        let variants = json!({"variants": [{"name": "f32", "files": ["f32.safetensors"], "bytes": 2_800_000, "memoryBytes": 9_000_000, "flops": 1_700_000,
            "reference": {"answers": 500, "seconds": 600, "classes": {"counts": [6000, 4000], "limit": 0.1}, "confidence": {"counts": [1000, 9000], "limit": 0.1}}}]});
        let evaluation = json!({"dataset": {"n": 10_000}, "variants": {"f32": {"metric": "accuracy", "value": 0.9846, "wilson95": [0.98199, 0.9868]}}});
        [("config.json", config), ("variants.json", variants), ("evaluation.json", evaluation)]
            .map(|(name, value)| (name.to_owned(), value.to_string().into_bytes()))
            .into()
    }

    #[test]
    fn an_artifact_says_what_it_is() {
        let layers = json!([{"conv2d": {"filters": 8}}, {"flatten": {}}, {"dense": {"units": 10}, "name": "head", "from": "flatten_1"}]);
        let artifact = read("oci://r/m".into(), "sha256:00".into(), &files(layers)).unwrap();
        assert_eq!(artifact.facts.architecture, "conv2d,flatten,dense");
        assert_eq!(artifact.facts.request_bytes, 28 * 28 * 4 + 100);
        assert_eq!(artifact.facts.response_bytes, 140);
        let expected = VariantFacts {
            name: "f32".into(),
            bytes: 2_800_000,
            memory: 9_000_000,
            scratch: None,
            flops: 1_700_000,
            metric: Some("accuracy".into()),
            accuracy: Some("98.46%".into()),
            interval: Some(AccuracyInterval { low: "98.19%".into(), high: "98.68%".into() }),
            samples: Some(10_000),
            reference: Some(10_000),
        };
        assert_eq!(artifact.variants, [expected]);
    }

    #[test]
    fn every_layer_that_may_be_typed_is_read() {
        assert!(Typed::KINDS.contains(&"layerNorm") && Typed::KINDS.contains(&"upsample2d"));
        for kind in Typed::KINDS {
            let artifact = read(String::new(), String::new(), &files(json!([{*kind: {}}])));
            assert_eq!(artifact.unwrap().facts.architecture, *kind);
        }
    }

    #[test]
    fn a_request_is_as_long_as_the_longest_sequence() {
        let check = |input: Value, expected: i64| {
            let mut files = files(json!([{"lstm": {"units": 8}}]));
            let mut config: Value = serde_json::from_slice(&files["config.json"]).unwrap();
            config["inputs"][0]["shape"] = json!([-1, -1, 64]);
            config["architecture"]["input"] = input;
            files.insert("config.json".into(), config.to_string().into_bytes());
            assert_eq!(read(String::new(), String::new(), &files).unwrap().facts.request_bytes, expected);
        };
        check(json!({"shape": [-1, 64], "maxLength": 512}), 4 * 512 * 64 + OVERHEAD);
        check(json!({"shape": [-1, 64]}), 4 * 512 * 64 + OVERHEAD);
        check(json!({"shape": [-1, 64], "maxLength": 30}), 4 * 30 * 64 + OVERHEAD);
    }

    /// Artifacts of before do not say it.
    #[test]
    fn what_a_row_takes_is_read_where_it_is_said() {
        let mut files = files(json!([{"flatten": {}}]));
        let scratch = |files: &Files| read(String::new(), String::new(), files).unwrap().variants[0].scratch;
        assert_eq!(scratch(&files), None);
        let mut variants: Value = serde_json::from_slice(&files["variants.json"]).unwrap();
        variants["variants"][0]["scratchBytes"] = json!(40_000);
        files.insert("variants.json".into(), variants.to_string().into_bytes());
        assert_eq!(scratch(&files), Some(40_000));
    }

    #[test]
    fn an_unknown_layer_is_named() {
        let failure = read(String::new(), String::new(), &files(json!([{"attention": {}}]))).unwrap_err();
        assert_eq!(failure.reason, Reason::UnknownArchitecture);
        assert!(failure.message.contains("layer 0 is a attention"), "{failure}");
    }

    #[test]
    fn what_is_no_model_of_ours_is_said_so() {
        let failure = read(String::new(), String::new(), &Files::new()).unwrap_err();
        assert!(failure.message.contains("no config.json"), "{failure}");
    }

    #[test]
    fn layers_are_found_by_their_path() {
        let manifest = json!({"schemaVersion": 2, "config": {"digest": "sha256:aa", "size": 2}, "layers": [
            {"mediaType": "x", "digest": "sha256:bb", "size": 7, "annotations": {FILEPATH: "config.json"}},
            {"mediaType": "x", "digest": "sha256:cc", "size": 9}]});
        let expected = BTreeMap::from([("config.json".to_owned(), Layer { digest: "sha256:bb".into(), size: 7 })]);
        assert_eq!(layers(manifest.to_string().as_bytes()).unwrap(), expected);
    }
}
