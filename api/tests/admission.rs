//! What the API server takes and what it refuses, by the definitions alone. Each file of `admission/` is a case: one
//! object, or two where the second replaces the first. A refused one says in its first line which words the answer has.
//! Here the cases meet the schema in process; on a cluster the same files meet the API server.

#![allow(clippy::unwrap_used)]

use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

struct Case {
    file: String,
    refused: Option<String>,
    documents: Vec<Value>,
}

fn cases(folder: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admission").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            Case {
                refused: text.lines().next().and_then(|line| line.strip_prefix("# refused: ")).map(str::to_owned),
                documents: text.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect(),
                file: file.file_name().unwrap().to_str().unwrap().to_owned(),
            }
        })
        .collect()
}

fn schemas() -> BTreeMap<String, Value> {
    sconce_api::crds()
        .iter()
        .map(|crd| {
            let crd = serde_json::to_value(crd).unwrap();
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
            (kind, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
        })
        .collect()
}

/// All that is wrong with the object, in the API server's words.
fn errors(schemas: &BTreeMap<String, Value>, object: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = &schemas[object["kind"].as_str().unwrap()];
    let complete = |object: &Value| {
        let mut object = object.clone();
        fill_defaults(schema, &mut object);
        object
    };
    let object = complete(object);
    let mut found = Vec::new();
    structure(schema, &object, "", &mut found);
    if found.is_empty()
        && let Err(errors) = kube_cel::Validator::new().validate(schema, &object, old.map(complete).as_ref())
    {
        found.push(errors.to_string());
    }
    found
}

fn fill_defaults(schema: &Value, value: &mut Value) {
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else { return };
    let Some(object) = value.as_object_mut() else { return };
    for (name, field) in fields {
        if let Some(default) = field.get("default") {
            object.entry(name).or_insert_with(|| default.clone());
        }
        if let Some(value) = object.get_mut(name) {
            fill_defaults(field, value);
        }
    }
}

fn structure(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let int_or_string = schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = schema.get("type").and_then(Value::as_str);
    let is_number = wanted == Some("number") && got == "integer";
    if wanted.is_some_and(|wanted| wanted != got) && !is_number
        || int_or_string && !["integer", "string"].contains(&got)
    {
        let wanted = wanted.unwrap_or("integer or string");
        return found.push(format!("{path} in body must be of type {wanted}: \"{got}\""));
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|values| !values.contains(value)) {
        found.push(format!("{path}: Unsupported value: {value}"));
    }
    match value {
        Value::String(text) => {
            let limit = |key: &str| schema.get(key).and_then(Value::as_u64).map(|limit| limit as usize);
            if limit("maxLength").is_some_and(|max| text.chars().count() > max) {
                found.push(format!("{path}: Too long"));
            }
            if limit("minLength").is_some_and(|min| text.chars().count() < min) {
                found.push(format!("{path} in body should be at least 1 chars long"));
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && !Regex::new(pattern).unwrap().is_match(text)
            {
                found.push(format!("{path} in body should match '{pattern}'"));
            }
        }
        Value::Number(number) => {
            let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
            let number = number.as_f64().unwrap();
            if let Some(min) = bound("minimum").filter(|min| number < *min) {
                found.push(format!("{path} in body should be greater than or equal to {min}"));
            }
            if let Some(max) = bound("maximum").filter(|max| number > *max) {
                found.push(format!("{path} in body should be less than or equal to {max}"));
            }
        }
        Value::Array(items) => {
            if schema.get("maxItems").and_then(Value::as_u64).is_some_and(|max| items.len() as u64 > max) {
                found.push(format!("{path}: Too many"));
            }
            if schema.get("minItems").and_then(Value::as_u64).is_some_and(|min| (items.len() as u64) < min) {
                found.push(format!("{path} in body should have at least"));
            }
            for key in schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten() {
                let key = key.as_str().unwrap();
                let is_twice = |index: usize| items[..index].iter().any(|before| before[key] == items[index][key]);
                let twice = (0..items.len()).filter(|index| is_twice(*index));
                // In the words of server-side apply.
                let told = |index: usize| format!(".{path}: duplicate entries for key [{key}={}]", items[index][key]);
                found.extend(twice.map(told));
            }
            for (index, item) in items.iter().enumerate().filter(|_| !open) {
                structure(&schema["items"], item, &format!("{path}[{index}]"), found);
            }
        }
        Value::Object(fields) => {
            if schema.get("maxProperties").and_then(Value::as_u64).is_some_and(|max| fields.len() as u64 > max) {
                found.push(format!("{path} in body should have at most"));
            }
            if schema.get("minProperties").and_then(Value::as_u64).is_some_and(|min| (fields.len() as u64) < min) {
                found.push(format!("{path} in body should have at least"));
            }
            let alternatives = schema.get("oneOf").and_then(Value::as_array);
            let holds = |one: &&Value| fields.contains_key(one["required"][0].as_str().unwrap());
            if alternatives.is_some_and(|all| all.iter().filter(holds).count() != 1) {
                found.push(format!("{path} in body must validate one and only one schema (oneOf)"));
            }
            for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                if !fields.contains_key(name.as_str().unwrap()) {
                    found.push(
                        format!("{path}.{}: Required value", name.as_str().unwrap()).trim_start_matches('.').into(),
                    );
                }
            }
            for (name, value) in fields {
                if path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
                    continue;
                }
                let path = format!("{path}.{name}");
                let path = path.trim_start_matches('.');
                match schema
                    .get("properties")
                    .and_then(|fields| fields.get(name))
                    .or(schema.get("additionalProperties"))
                {
                    Some(schema) => structure(schema, value, path, found),
                    None if open => {}
                    // By `fieldValidation=Strict`, which kubectl asks for.
                    None => found.push(format!("unknown field \"{path}\"")),
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[test]
fn accepted_cases_are_accepted() {
    let schemas = schemas();
    for case in cases("accepted") {
        let mut old = None;
        for document in &case.documents {
            assert_eq!(errors(&schemas, document, old), Vec::<String>::new(), "{}", case.file);
            old = Some(document);
        }
    }
}

#[test]
fn refused_cases_are_refused_with_their_words() {
    let schemas = schemas();
    for case in cases("refused") {
        let words = case.refused.unwrap_or_else(|| panic!("{}: no `# refused: WORDS`", case.file));
        let (last, before) = case.documents.split_last().unwrap();
        for document in before {
            assert_eq!(errors(&schemas, document, None), Vec::<String>::new(), "{}: the first is to pass", case.file);
        }
        let errors = errors(&schemas, last, before.first());
        assert!(errors.iter().any(|error| error.contains(&words)), "{}: {words:?} is not in {errors:?}", case.file);
    }
}

/// What the API server takes must be readable by every room.
#[test]
fn accepted_cases_become_types() {
    for case in cases("accepted") {
        for document in case.documents {
            let kind = document["kind"].as_str().unwrap().to_owned();
            let result = match kind.as_str() {
                "EdgeFleet" => serde_json::from_value::<sconce_api::EdgeFleet>(document).map(drop),
                "EdgeModel" => serde_json::from_value::<sconce_api::EdgeModel>(document).map(drop),
                "EdgeSite" => serde_json::from_value::<sconce_api::EdgeSite>(document).map(drop),
                "EdgeNode" => serde_json::from_value::<sconce_api::EdgeNode>(document).map(drop),
                "EdgeModelVersion" => serde_json::from_value::<sconce_api::EdgeModelVersion>(document).map(drop),
                "EdgePlacement" => serde_json::from_value::<sconce_api::EdgePlacement>(document).map(drop),
                "EdgeTraining" => serde_json::from_value::<sconce_api::EdgeTraining>(document).map(drop),
                "EdgeDataset" => serde_json::from_value::<sconce_api::EdgeDataset>(document).map(drop),
                other => panic!("{}: kind {other}", case.file),
            };
            assert!(result.is_ok(), "{}: {result:?}", case.file);
        }
    }
}
