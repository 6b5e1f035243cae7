//! A plan's call takes no memory but what its answer lies in: all else lies in the buffers that were made before.

#![allow(clippy::unwrap_used, reason = "in tests")]

use allocation_counter::{AllocationInfo, measure};
use candle_core::{DType, Device, Tensor};
use sconce_kernels::quantise::Scaling;
use sconce_kernels::{Cpu, IsaToken, Threads};
use sconce_model::architecture::Architecture;
use sconce_model::network::Network;
use sconce_model::plan::Plan;
use sconce_model::preprocess::{Image, Preprocess};
use sconce_model::variant::{Arithmetic, Variant};
use std::collections::BTreeMap;
use std::sync::Arc;

fn network(typed: &str) -> Network {
    let graph = serde_json::from_str::<Architecture>(typed).unwrap().graph().unwrap();
    Network::initialise(Arc::new(graph), 7).unwrap()
}

/// All nodes read ±1: what they say does not matter here.
fn int8(network: &Network) -> Plan {
    let of = |name: &String| (name.clone(), Scaling::of_range(-1.0, 1.0).unwrap());
    let ranges: BTreeMap<_, _> = network.graph().nodes.iter().map(|node| of(&node.name)).collect();
    Variant::int8(network, &ranges).unwrap().plan().unwrap()
}

/// Of this thread; the kernels have no other here.
fn call(plan: &Plan, requests: &[&Tensor]) -> AllocationInfo {
    let (isa, threads) = (IsaToken::detect().unwrap(), Threads::one());
    let rows = requests.iter().map(|xs| xs.dims()[0]).sum();
    let mut scratch = plan.scratch(rows);
    let mut infer = || drop(plan.infer(Cpu { isa, threads: &threads }, requests, &mut scratch).unwrap());
    infer();
    measure(infer)
}

/// Answers of these shapes, and nothing else.
fn answers(plan: &Plan, requests: &[&Tensor]) -> AllocationInfo {
    let size = plan.output().iter().product::<usize>();
    let values = vec![0.0_f32; size * requests.iter().map(|xs| xs.dims()[0]).sum::<usize>()];
    measure(|| {
        let answer = |xs: &&Tensor| {
            let shape: Vec<usize> = std::iter::once(xs.dims()[0]).chain(plan.output().iter().copied()).collect();
            Tensor::from_slice(&values[..xs.dims()[0] * size], shape, &Device::Cpu)
        };
        drop(requests.iter().map(answer).collect::<Result<Vec<_>, _>>().unwrap());
    })
}

fn check(name: &str, typed: &str) {
    let network = network(typed);
    let xs = |rows: usize| {
        let shape: Vec<usize> = std::iter::once(rows).chain(network.graph().input.iter().copied()).collect();
        Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
    };
    let (one, four) = (xs(1), xs(4));
    let plans = [
        ("f32", Plan::compile(&network, &Arithmetic::F32).unwrap()),
        ("f16", Variant::f16(&network).unwrap().plan().unwrap()),
        ("int8", int8(&network)),
    ];
    for (variant, plan) in &plans {
        for requests in [&[&one][..], &[&four, &one]] {
            let expected = answers(plan, requests);
            let what = format!("{name} in {variant}, {} requests", requests.len());
            assert_eq!(call(plan, requests), expected, "{what}: left is what a call takes");
        }
    }
}

#[test]
fn what_counts_sees_what_is_taken() {
    let plan = Plan::compile(&network(include_str!("../zoo/seed_cnn.json")), &Arithmetic::F32).unwrap();
    let made = measure(|| drop(plan.scratch(1)));
    assert!(made.bytes_total >= plan.scratch_bytes() as u64, "{made:?}");
}

/// On the way lay an image of its width and the new height, of 16 bytes a pixel: of one small file gigabytes.
#[test]
fn a_wide_image_is_resized_by_rows() {
    let steps = serde_json::json!([{"resize": {"size": [224, 224], "fit": "stretch"}}]);
    let preprocess = serde_json::json!({"version": 1, "input": "image", "steps": steps});
    let preprocess: Preprocess = serde_json::from_value(preprocess).unwrap();
    let wide = Image::grey(&vec![7; 2 * 65_535], 2, 65_535).unwrap();
    let taken = measure(|| drop(preprocess.apply(wide).unwrap()));
    assert!(taken.bytes_max < 4 << 20, "{taken:?}");
}

#[test]
fn call_of_the_seed_network_takes_what_its_answer_takes() {
    check("seed_cnn", include_str!("../zoo/seed_cnn.json"));
}

#[test]
fn call_of_a_recurrent_network_takes_what_its_answer_takes() {
    check("gru", include_str!("../zoo/gru.json"));
}

#[test]
fn call_of_a_mobile_network_takes_what_its_answer_takes() {
    check("mobilenet_v2", include_str!("../zoo/mobilenet_v2.json"));
}
