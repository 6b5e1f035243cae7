//! Whether the custom resource definitions are there, and those of this version.

use super::{Asked, Finding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use serde_json::{Value, json};

pub fn definitions(there: &Asked<Vec<CustomResourceDefinition>>) -> Vec<Finding> {
    let about = "definitions";
    let there = match there {
        Ok(there) => there,
        Err(why) => return vec![Finding::failed(about, format!("they cannot be read: {why}"), "kubectl get crds")],
    };
    let ours = sconce_api::crds();
    let count = ours.len();
    let findings: Vec<_> = ours.iter().filter_map(|ours| definition(ours, there)).collect();
    if findings.is_empty() {
        return vec![Finding::passed(about, format!("all {count} are there, and of this version"))];
    }
    findings
}

/// What is wrong with one of them.
fn definition(ours: &CustomResourceDefinition, there: &[CustomResourceDefinition]) -> Option<Finding> {
    let (about, name) = ("definitions", ours.name_any());
    let upgrade = "helm upgrade sconce charts/sconce, of the version of this program (sconce --version)";
    let Some(theirs) = there.iter().find(|theirs| theirs.name_any() == name) else {
        return Some(Finding::failed(about, format!("{name} is not there"), "helm install sconce charts/sconce"));
    };
    let conditions = theirs.status.iter().flat_map(|status| status.conditions.iter().flatten());
    if !conditions.clone().any(|condition| condition.type_ == "Established" && condition.status == "True") {
        let next = format!("kubectl describe crd {name}");
        return Some(Finding::failed(about, format!("the API server does not serve {name} yet"), next));
    }
    let different = missing(&json!(ours.spec.versions), &json!(theirs.spec.versions), "versions")?;
    Some(Finding::failed(about, format!("{name} is another version's: {different} differs"), upgrade))
}

/// The first thing of ours that theirs lack, or have otherwise; the API server adds defaults.
fn missing(ours: &Value, theirs: &Value, path: &str) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => ours.iter().find_map(|(name, value)| {
            missing(value, theirs.get(name).unwrap_or(&Value::Null), &format!("{path}.{name}"))
        }),
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            let pairs = ours.iter().zip(theirs).enumerate();
            pairs.map(|(i, (ours, theirs))| missing(ours, theirs, &format!("{path}[{i}]"))).find_map(|path| path)
        }
        (ours, theirs) => (ours != theirs).then(|| path.to_owned()),
    }
}
