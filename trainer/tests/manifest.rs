//! One manifest for a laptop and for a cluster: what the custom resource takes, the trainer reads.

#![allow(clippy::unwrap_used, reason = "in tests")]

use sconce_model::architecture::Kind;
use sconce_trainer::manifest;
use serde_json::Value;
use std::path::{Path, PathBuf};

const EXAMPLES: [&str; 4] = [
    "examples/digits/training.yaml",
    "e2e/training.yaml",
    "trainer/examples/mnist/training.yaml",
    "trainer/examples/mnist/seed.yaml",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The schema of `spec`, as the cluster has it.
fn schema() -> Value {
    let text = std::fs::read_to_string(root().join("crds/edgetrainings.yaml")).unwrap();
    let definition: Value = serde_saphyr::from_str(&text).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

#[test]
fn every_kind_of_layer_may_be_typed_in_a_cluster() {
    let schema = schema();
    let layer = &schema["properties"]["architecture"]["properties"]["layers"]["items"]["properties"];
    let unknown: Vec<_> = Kind::KEYS.iter().filter(|kind| layer.get(**kind).is_none()).collect();
    assert!(unknown.is_empty(), "api/src/recipe.rs lacks {unknown:?}");
}

#[test]
fn every_task_and_loss_may_be_typed_in_a_cluster_and_no_other() {
    use sconce_model::architecture::{OutputLoss, Task};
    /// The words of an enum: whoever says none of them is told them all.
    fn words<T: serde::de::DeserializeOwned>() -> Vec<String> {
        let told = serde_json::from_str::<T>("\"\"").err().unwrap().to_string();
        told.split('`').skip(3).step_by(2).map(Into::into).collect()
    }
    let output = schema()["properties"]["architecture"]["properties"]["output"]["properties"].take();
    assert_eq!(output["task"]["enum"], serde_json::json!(words::<Task>()));
    assert_eq!(output["loss"]["enum"], serde_json::json!(words::<OutputLoss>()));
}

/// The API server's own judgement is a table of files, beside which the in-process rules stand: each accepted recipe is one
/// that can be read, too.
#[test]
fn accepted_recipes_and_the_examples_are_read() {
    let accepted = std::fs::read_dir(root().join("api/tests/admission/accepted")).unwrap();
    let accepted = accepted.map(|entry| entry.unwrap().path());
    let recipes = accepted.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with("training-"));
    let examples = EXAMPLES.map(|file| root().join(file));
    let mut read = 0;
    for file in recipes.chain(examples) {
        // What is collected under a name, the operator looks up: the trainer is told an address.
        let is_for_us = |document: &&str| !document.contains("dataset: {ref:");
        for document in std::fs::read_to_string(&file).unwrap().split("\n---\n").filter(is_for_us) {
            let copy = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(copy.path(), document).unwrap();
            manifest::read(copy.path()).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            read += 1;
        }
    }
    assert!(read >= 5, "only {read} recipes");
}

/// And the other way round: what stands in an example, the cluster's schema has a place for.
#[test]
fn the_examples_name_only_fields_that_a_cluster_knows() {
    let schema = schema();
    for file in EXAMPLES {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let manifest: Value = serde_saphyr::from_str(&text).unwrap();
        let mut unknown = Vec::new();
        compare(&schema, &manifest["spec"], "spec", &mut unknown);
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

fn compare(schema: &Value, value: &Value, path: &str, unknown: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match schema["properties"].get(name) {
                    Some(schema) => compare(schema, value, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(at, item)| compare(&schema["items"], item, &format!("{path}[{at}]"), unknown));
        }
        _ => {}
    }
}
