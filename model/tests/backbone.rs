//! What makes features of an input: by which name, and where there is nothing of the kind.

#![allow(clippy::unwrap_used, reason = "in tests")]

use candle_core::{Device, Tensor};
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::artifact::testing::{write_drawn, write_tiny, write_update};
use sconce_model::artifact::{Artifact, Backbone, CONFIG};
use sconce_model::ops::values;
use sconce_model::variant::{F16, F32, INT8};
use serde_json::json;
use std::path::Path;

fn of(folder: &Path, variant: &str) -> Option<Backbone> {
    let artifact = Artifact::open(folder).unwrap();
    artifact.backbone(&artifact.variant(variant).unwrap()).unwrap()
}

#[test]
fn a_backbone_has_a_name_that_no_head_changes_and_every_form_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let [base, update, other] = ["base", "update", "other"].map(|name| folder.path().join(name));
    write_tiny(&base, 7).unwrap();
    write_update(&update, &base, 8).unwrap();
    write_tiny(&other, 8).unwrap();
    let digests: Vec<_> =
        [F32, F16, INT8].map(|variant| [&base, &update, &other].map(|from| of(from, variant).unwrap().digest)).into();
    for [base, update, other] in &digests {
        assert!(base == update && base != other && base.starts_with("sha256:"), "{base} {update} {other}");
    }
    assert!(digests[0][0] != digests[1][0] && digests[1][0] != digests[2][0] && digests[2][0] != digests[0][0]);
    // What is made of raw material before is a part of it.
    let file = base.join("preprocess.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("0.0039", "0.0038")).unwrap();
    assert_ne!(of(&base, F32).unwrap().digest, digests[0][0]);
}

#[test]
fn features_are_what_the_head_would_have_read() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny(folder.path(), 7).unwrap();
    let network = Artifact::open(folder.path()).unwrap().variant(F32).unwrap().network;
    let (reference, _) = network.split("dense_1").unwrap();
    let xs: Vec<f32> = (0..128).map(|at| (at * 7 % 11) as f32 / 11.0).collect();
    let xs = Tensor::from_vec(xs, (2, 1, 8, 8), &Device::Cpu).unwrap();
    let expected = values(&reference.infer(&xs).unwrap()).unwrap();
    let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &Threads::one() };
    for (variant, most) in [(F32, 1e-5), (F16, 1e-2), (INT8, 0.2)] {
        let plan = of(folder.path(), variant).unwrap().plan().unwrap();
        assert_eq!(plan.output(), [36]);
        let made = plan.infer(cpu, &[&xs], &mut plan.scratch(2)).unwrap().remove(0);
        let made = values(&made).unwrap();
        let far = made.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(made.len() == 72 && far < most && made.iter().any(|value| *value > 0.1), "{variant}: {far}");
    }
}

#[test]
fn what_would_give_the_input_itself_or_less_than_the_head_reads_is_no_backbone() {
    let layers = json!([{"flatten": {}, "name": "flat"}, {"dense": {"units": 16}, "name": "a"},
        {"add": {}, "from": ["flat", "a"], "name": "sum"}, {"dense": {"units": 16}, "name": "b"},
        {"dense": {"units": 3, "activation": "softmax"}}]);
    let folder = tempfile::tempdir().unwrap();
    write_drawn(folder.path(), json!({"input": {"shape": [1, 4, 4]}, "layers": layers}), 3).unwrap();
    let file = folder.path().join(CONFIG);
    let written = std::fs::read_to_string(&file).unwrap();
    let is_one = |head: &str| {
        std::fs::write(&file, written.replace("\"head\": \"dense_3\"", &format!("\"head\": \"{head}\""))).unwrap();
        of(folder.path(), F32).is_some()
    };
    assert_eq!(["dense_3", "b", "sum", "a", "flat"].map(is_one), [true, false, false, false, false]);
}

/// That some layer before the head multiplies was enough: features held the input beside what that layer had made.
#[test]
fn no_way_leads_an_input_past_all_that_multiplies() {
    let is_one = |joint: serde_json::Value, from: [&str; 2], between: &[serde_json::Value]| {
        let mut joint = joint;
        joint["from"] = json!(from);
        let first = [json!({"flatten": {}, "name": "flat"}), json!({"dense": {"units": 16}, "name": "a"})];
        let other = json!({"dense": {"units": 16}, "name": "b", "from": "flat"});
        let beside = from.contains(&"b").then_some(&other).into_iter().chain([&joint]);
        let head = json!({"dense": {"units": 3, "activation": "softmax"}});
        let layers: Vec<_> = first.iter().chain(beside).chain(between).chain([&head]).collect();
        let folder = tempfile::tempdir().unwrap();
        write_drawn(folder.path(), json!({"input": {"shape": [1, 4, 4]}, "layers": layers}), 3).unwrap();
        of(folder.path(), F32).is_some()
    };
    let plain = [json!({"activation": "relu"}), json!({"layerNorm": {}})];
    for joint in [json!({"concat": {"axis": 0}}), json!({"add": {}})] {
        assert!(!is_one(joint.clone(), ["flat", "a"], &[]), "{joint}: one way is bare");
        assert!(!is_one(joint.clone(), ["a", "flat"], &plain), "{joint}: nothing after it multiplies");
        assert!(is_one(joint.clone(), ["a", "b"], &plain), "{joint}: both ways multiply");
        assert!(
            is_one(joint.clone(), ["flat", "a"], &[json!({"dense": {"units": 4}})]),
            "{joint}: one multiplies after it"
        );
    }
}
