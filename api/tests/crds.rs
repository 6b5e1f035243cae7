//! `crds/` is what the types say. `SCONCE_UPDATE=1 cargo test --release -p sconce-api` writes it anew.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::Path;

const HEADER: &str =
    "# Generated from api/src: do not edit. `SCONCE_UPDATE=1 cargo test --release -p sconce-api` writes it anew.\n";

fn crds() -> Vec<(String, Value)> {
    let crds = sconce_api::crds();
    crds.iter().map(|crd| (crd.spec.names.plural.clone(), serde_json::to_value(crd).unwrap())).collect()
}

#[test]
fn shipped_files_are_what_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
    let mut stale = Vec::new();
    for (plural, crd) in crds() {
        let file = folder.join(format!("{plural}.yaml"));
        let text = format!("{HEADER}{}", serde_saphyr::to_string(&crd).unwrap());
        if std::fs::read_to_string(&file).unwrap_or_default() == text {
            continue;
        }
        if std::env::var_os("SCONCE_UPDATE").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, text).unwrap();
        } else {
            stale.push(format!("crds/{plural}.yaml"));
        }
    }
    assert!(stale.is_empty(), "stale: {stale:?}; run SCONCE_UPDATE=1 cargo test --release -p sconce-api");
    let mut shipped: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    shipped.sort();
    let mut wanted: Vec<_> = crds().into_iter().map(|(plural, _)| format!("{plural}.yaml")).collect();
    wanted.sort();
    assert_eq!(shipped, wanted);
}

#[test]
fn shipped_files_parse_as_they_were_meant() {
    for (plural, crd) in crds() {
        let text = serde_saphyr::to_string(&crd).unwrap();
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), crd, "{plural}");
    }
}

/// The rules that every field keeps, so that the API server takes the definition, prices its CEL rules and does not
/// show differences that nobody made.
#[test]
fn every_field_keeps_the_rules() {
    let mut broken = Vec::new();
    for (plural, crd) in crds() {
        check(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &plural, &mut broken);
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn check(schema: &Value, path: &str, broken: &mut Vec<String>) {
    let mut say = |what: &str| broken.push(format!("{path}: {what}"));
    let has = |key: &str| schema.get(key).is_some();
    if has("nullable") {
        say("nullable");
    }
    if let Some(format) = schema.get("format").and_then(Value::as_str)
        && !["int32", "int64", "date-time"].contains(&format)
    {
        say(&format!("format {format}, which the API server does not know"));
    }
    if schema.get("description").and_then(Value::as_str).is_some_and(|text| text.chars().count() > 300) {
        say("a description of more than 300 characters");
    }
    if schema.get("default").is_some_and(Value::is_object) {
        say("a default on a block, where presence is the choice");
    }
    let root = !path.contains('.');
    match schema.get("type").and_then(Value::as_str) {
        Some("string") if !has("maxLength") && !has("enum") && !has("format") => say("a string without maxLength"),
        // Hyper-parameters are never compared.
        Some("number") if path.contains(".fit.") && has("minimum") && has("maximum") => {}
        Some("number") => say("a float"),
        // Its content is judged by who reads it.
        _ if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) => {}
        Some("array") => {
            if !has("maxItems") {
                say("a list without maxItems");
            }
            if schema["items"]["properties"]
                .as_object()
                .is_some_and(|fields| fields.values().any(|f| f.get("default").is_some()))
            {
                say("a default inside a list item");
            }
            check(&schema["items"], &format!("{path}[]"), broken);
        }
        Some("object") => {
            if let Some(values) = schema.get("additionalProperties") {
                if !has("maxProperties") {
                    say("a map without maxProperties");
                }
                check(values, &format!("{path}{{}}"), broken);
            }
            for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if !(root && name == "metadata") {
                    check(field, &format!("{path}.{name}"), broken);
                }
            }
        }
        Some(_) => {}
        None if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) => {
            if !has("pattern") || !has("maxLength") {
                say("an amount without pattern and maxLength");
            }
        }
        None => say("no type"),
    }
}

#[test]
fn every_kind_reports_its_status_in_the_common_shape() {
    for (plural, crd) in crds() {
        let version = &crd["spec"]["versions"][0];
        let status = &version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
        assert_eq!(version["subresources"]["status"], serde_json::json!({}), "{plural}");
        assert_eq!(status["observedGeneration"]["type"], "integer", "{plural}");
        assert_eq!(status["conditions"]["x-kubernetes-list-map-keys"], serde_json::json!(["type"]), "{plural}");
        assert_eq!(crd["spec"]["names"]["categories"], serde_json::json!(["sconce"]), "{plural}");
    }
}
