use super::Plan;
use crate::architecture::Architecture;
use crate::graph::Node;
use crate::network::{Network, Read};
use crate::variant::{Arithmetic, Quantisation, STATE, Variant};
use candle_core::{Device, Tensor};
use sconce_kernels::quantise::Scaling;
use sconce_kernels::{Cpu, IsaToken, Threads};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

mod random;
mod time;
mod zoo;

fn network(input: &[usize], layers: &[Value], seed: u64) -> Option<Network> {
    network_of(&json!({"shape": input}), layers, seed)
}

fn network_of(input: &Value, layers: &[Value], seed: u64) -> Option<Network> {
    let architecture: Architecture =
        serde_json::from_value(json!({"input": input, "layers": layers})).expect("the language knows these");
    let network = Network::initialise(Arc::new(architecture.graph().ok()?), seed).unwrap();
    unfold(&network, seed);
    Some(network)
}

/// Biases begin as zeros, and norms as nothing, which would hide one that is left out.
fn unfold(network: &Network, seed: u64) {
    for parameter in network.graph().parameters().filter(|parameter| !parameter.is_matrix()) {
        // Some norms turn the sign; a variance is above zero.
        let (least, most) = match parameter.name.rsplit('.').next() {
            Some("weight") => (-0.5, 1.5),
            Some("running_var" | "threshold") => (0.5, 1.5),
            _ => (-0.5, 0.5),
        };
        let mut generator = crate::network::generator(seed, &parameter.name);
        let unit = |_| least + (most - least) * crate::network::unit(&mut generator);
        let values: Vec<f32> = (0..parameter.shape[0]).map(unit).collect();
        network.variables()[&parameter.name].set(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
    }
}

/// Values in ±1, from a seed.
fn inputs(network: &Network, rows: usize, seed: u64) -> Tensor {
    let shape: Vec<usize> = std::iter::once(rows).chain(network.graph().input.iter().copied()).collect();
    let mut generator = crate::network::generator(seed, "inputs");
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| crate::network::unit(&mut generator) * 2.0 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn infer(plan: &Plan, cpu: Cpu<'_>, xs: &Tensor) -> Tensor {
    plan.infer(cpu, &[xs], &mut plan.scratch(xs.dims()[0])).unwrap().remove(0)
}

fn values(xs: &Tensor) -> Vec<f32> {
    xs.flatten_all().unwrap().to_vec1().unwrap()
}

/// Activations are of the order of one; sums of up to some thousand products differ by their order alone.
fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1.0, |largest: f32, y| largest.max(y.abs()));
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() <= 2e-5 * largest,
            "{what}: value {index} is {got}, the reference has {expected}"
        );
    }
}

fn seed_network() -> Network {
    let layers = [
        json!({"conv2d": {"filters": 32, "kernel": 3, "activation": "relu"}}),
        json!({"maxPool2d": {}}),
        json!({"flatten": {}}),
        json!({"dense": {"units": 128, "activation": "relu"}}),
        json!({"dense": {"units": 10, "activation": "softmax"}}),
    ];
    network(&[1, 28, 28], &layers, 7).unwrap()
}

#[test]
fn seed_network_takes_four_passes() {
    let plan = Plan::compile(&seed_network(), &Arithmetic::F32).unwrap();
    let steps: Vec<String> = plan.steps().iter().map(ToString::to_string).collect();
    let expected = [
        "conv2d_1 + max_pool2d_1: convolution + bias + relu + max pool, 5408 values",
        "dense_1: product + bias + relu, 128 values",
        "dense_2: product + bias, 10 values",
        "dense_2: softmax, 10 values",
    ];
    assert_eq!(steps, expected);
    assert_eq!((plan.input(), plan.output()), (&[1, 28, 28][..], &[10][..]));
}

/// Of a 3×3 kernel sixteen values for nine, from as many channels on as tiles are for; of the layer before, what its file has.
#[test]
fn weights_in_tiles_are_counted_as_they_lie_in_memory() {
    let layers = [
        json!({"conv2d": {"filters": 32, "kernel": 3, "padding": "same"}}),
        json!({"conv2d": {"filters": 48, "kernel": 3, "padding": "same"}}),
        json!({"flatten": {}}),
        json!({"dense": {"units": 2}}),
    ];
    let network = network(&[1, 8, 8], &layers, 7).unwrap();
    let beyond = |arithmetic| Plan::compile(&network, arithmetic).unwrap().weight_bytes_beyond_files();
    assert_eq!(beyond(&Arithmetic::F32), (16 - 9) * 32 * 48 * 4);
    assert_eq!(beyond(&Arithmetic::F16), 0);
}

/// An image of 230,400 values is more than caches hold: a depthwise convolution that alone reads it does so as lines are made.
#[test]
fn depthwise_convolution_reads_a_large_image_as_it_is_made_where_both_are_plain() {
    let product = |activation: &str| json!({"conv2d": {"filters": 16, "kernel": 1, "activation": activation}});
    let depthwise = |padding: &str, activation: &str| json!({"depthwiseConv2d": {"kernel": 3, "padding": padding, "batchNorm": true, "activation": activation}});
    let ends = [json!({"globalAvgPool": {}}), json!({"dense": {"units": 3}})];
    let cases = [
        (product("relu6"), depthwise("same", "relu6"), &ends[..], true),
        (product("none"), depthwise("valid", "relu"), &ends, true),
        // Behind the pass, and in its middle.
        (product("relu"), depthwise("same", "hardSwish"), &ends, true),
        (product("hardSwish"), depthwise("same", "relu"), &ends, false),
        (product("relu"), depthwise("same", "none"), &[], true),
        (json!({"conv2d": {"filters": 16, "kernel": 3, "padding": "same"}}), depthwise("same", "relu"), &ends, true),
    ];
    for (first, second, ends, are_one) in cases {
        let layers: Vec<Value> = [first, second].into_iter().chain(ends.iter().cloned()).collect();
        let network = network(&[3, 120, 120], &layers, 7).unwrap();
        let xs = inputs(&network, 2, 9);
        let expected = values(&network.infer(&xs).unwrap());
        for threads in [1, 3].map(|count| Threads::new(count).unwrap()) {
            let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &threads };
            let plan = Plan::compile(&network, &Arithmetic::F32).unwrap();
            let is_one =
                plan.steps().iter().any(|step| step.nodes.len() >= 3 && step.to_string().contains(", depthwise"));
            assert_eq!(is_one, are_one, "{layers:?}");
            assert_close(&values(&infer(&plan, cpu, &xs)), &expected, &format!("{layers:?}"));
            let halved = Variant::f16(&network).unwrap().plan().unwrap();
            let largest = expected.iter().fold(0.0, |largest: f32, y| largest.max(y.abs()));
            for (got, expected) in values(&infer(&halved, cpu, &xs)).iter().zip(&expected) {
                assert!((got - expected).abs() <= 0.02 * largest, "f16: {got} {expected} {layers:?}");
            }
        }
    }
}

#[test]
fn same_row_gives_the_same_bits_in_any_batch_on_any_cpu() {
    check_bits(&seed_network());
}

fn check_bits(network: &Network) {
    let xs = inputs(network, 5, 1);
    check_bits_of(&Plan::compile(network, &Arithmetic::F32).unwrap(), &xs);
    check_bits_of(&int8(network, &xs).unwrap().plan().unwrap(), &xs);
}

fn check_bits_of(plan: &Plan, xs: &Tensor) {
    let one = Threads::one();
    let plain = Cpu { isa: IsaToken::all_present()[0], threads: &one };
    let expected: Vec<f32> =
        (0..5).flat_map(|row| values(&infer(plan, plain, &xs.narrow(0, row, 1).unwrap()))).collect();
    let two = Threads::new(2).unwrap();
    for isa in IsaToken::all_present() {
        for threads in [&one, &two] {
            // Caches so small that a batch goes through in groups, and one that holds it all.
            for cache in [1 << 12, 1 << 15, 1 << 18, 1 << 30] {
                let got = plan.infer(Cpu { isa, threads }, &[xs], &mut plan.scratch_for(5, cache)).unwrap();
                assert_eq!(values(&got[0]), expected, "{}, {} threads, {cache}", isa.name(), threads.count());
            }
        }
    }
}

/// Ranges as a calibration would find them.
fn int8(network: &Network, xs: &Tensor) -> Option<Variant> {
    let mut inputs = BTreeMap::new();
    let watch = |node: &Node, read: Read, xs: Tensor| {
        if read == Read::State {
            return Ok(xs);
        }
        let (min, max) = values(&xs).iter().fold((0.0_f32, 0.0_f32), |(min, max), x| (min.min(*x), max.max(*x)));
        inputs.insert(node.name.clone(), Scaling::of_range(min, max).unwrap());
        Ok(xs)
    };
    network.infer_through(xs, watch).unwrap();
    Variant::int8(network, &inputs).ok()
}

/// What a plan of bytes computes, on candle: inputs are rounded to what their bytes stand for.
fn rounded(variant: &Variant, xs: &Tensor) -> Tensor {
    let Arithmetic::I8(Quantisation { inputs, .. }) = &variant.arithmetic else { panic!("{:?}", variant.arithmetic) };
    let round = |node: &Node, read: Read, xs: Tensor| {
        let Some(input) = inputs.get(&node.name) else { return Ok(xs) };
        let Scaling { scale, zero_point } = if read == Read::State { STATE } else { *input };
        let zero = f32::from(zero_point);
        let round = |x: f32| (((x / scale).round_ties_even() + zero).clamp(0.0, 255.0) - zero) * scale;
        Tensor::from_vec(values(&xs).into_iter().map(round).collect(), xs.shape(), &Device::Cpu)
    };
    variant.network.infer_through(xs, round).unwrap()
}

#[test]
fn bytes_say_what_the_rounded_reference_says() {
    let network = seed_network();
    let xs = inputs(&network, 5, 1);
    let variant = int8(&network, &xs).unwrap();
    let plan = variant.plan().unwrap();
    let steps: Vec<String> = plan.steps().iter().map(ToString::to_string).collect();
    let expected = [
        "input: quantised, 784 bytes",
        "conv2d_1 + max_pool2d_1: convolution of int8 + bias + relu + max pool, 5408 bytes",
        "dense_1: product of int8 + bias + relu, 128 values",
        "dense_2: product of f16 + bias, 10 values",
        "dense_2: softmax, 10 values",
    ];
    assert_eq!(steps, expected);
    let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &Threads::one() };
    for (got, expected) in values(&infer(&plan, cpu, &xs)).iter().zip(values(&rounded(&variant, &xs))) {
        assert!((got - expected).abs() < 1e-4, "{got} {expected}");
    }
}

#[test]
fn halved_weights_are_those_of_the_rounded_network() {
    let network = seed_network();
    let halved = Variant::f16(&network).unwrap();
    let one = Threads::one();
    let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &one };
    let xs = inputs(&network, 3, 2);
    let expected = infer(&Plan::compile(&halved.network, &Arithmetic::F32).unwrap(), cpu, &xs);
    assert_eq!(values(&infer(&halved.plan().unwrap(), cpu, &xs)), values(&expected));
}

#[test]
fn requests_that_share_a_batch_get_their_own_rows() {
    let network = seed_network();
    let (plan, xs) = (Plan::compile(&network, &Arithmetic::F32).unwrap(), inputs(&network, 5, 3));
    let one = Threads::one();
    let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &one };
    let (first, second) = (xs.narrow(0, 0, 2).unwrap(), xs.narrow(0, 2, 3).unwrap());
    let answers = plan.infer(cpu, &[&first, &second], &mut plan.scratch(16)).unwrap();
    assert_eq!((answers[0].dims(), answers[1].dims()), (&[2, 10][..], &[3, 10][..]));
    let together: Vec<f32> = answers.iter().flat_map(values).collect();
    assert_eq!(together, values(&infer(&plan, cpu, &xs)));
}

#[test]
fn input_of_another_shape_is_refused() {
    let network = seed_network();
    let plan = Plan::compile(&network, &Arithmetic::F32).unwrap();
    let (one, wrong) = (Threads::one(), Tensor::zeros((2, 28, 28), candle_core::DType::F32, &Device::Cpu).unwrap());
    let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &one };
    let error = plan.infer(cpu, &[&wrong], &mut plan.scratch(2)).unwrap_err().to_string();
    assert!(error.contains("needs (batch, [1, 28, 28]), got [2, 28, 28]"), "{error}");
}
