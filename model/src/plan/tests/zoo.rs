//! Known networks: what they take, and that they say what the reference says.

use super::{assert_close, check_bits, infer, inputs, int8, unfold, values};
use crate::architecture::{Architecture, Kind};
use crate::network::Network;
use crate::plan::Plan;
use crate::variant::{Arithmetic, Variant};
use crate::zoo;
use sconce_kernels::{Cpu, IsaToken, Threads};
use serde_json::json;
use std::sync::Arc;

fn network(architecture: &Architecture) -> Network {
    let network = Network::initialise(Arc::new(architecture.graph().unwrap()), 5).unwrap();
    unfold(&network, 5);
    network
}

/// For images of another size.
fn resized(typed: &str, side: usize) -> Architecture {
    let mut architecture = zoo::read(typed);
    architecture.input.shape[1..].fill(side as i64);
    architecture
}

#[test]
fn every_known_network_says_what_the_reference_says() {
    let whole = [zoo::SEED_CNN, zoo::RNN, zoo::GRU, zoo::LSTM, zoo::CONV1D, zoo::AUTOENCODER].map(zoo::read);
    let smaller = [resized(zoo::MOBILENET_V2, 64), resized(zoo::RESNET_18, 64)];
    let one = Threads::one();
    for mut architecture in whole.into_iter().chain(smaller) {
        // The logits: a softmax makes differences of large ones larger.
        if let Some(Kind::Dense(dense)) = architecture.layers.last_mut().map(|layer| &mut layer.kind) {
            dense.activation = crate::architecture::Activation::None;
        }
        let network = network(&architecture);
        let xs = inputs(&network, 2, 9);
        let expected = values(&network.infer(&xs).unwrap());
        let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &one };
        let plan = Plan::compile(&network, &Arithmetic::F32).unwrap();
        assert_close(&values(&infer(&plan, cpu, &xs)), &expected, &format!("{architecture:?}"));
        let halved = Variant::f16(&network).unwrap();
        let largest = expected.iter().fold(0.0, |largest: f32, y| largest.max(y.abs()));
        for (got, expected) in values(&infer(&halved.plan().unwrap(), cpu, &xs)).iter().zip(&expected) {
            assert!((got - expected).abs() <= 0.02 * largest, "f16: {got} {expected} {architecture:?}");
        }
    }
}

#[test]
fn sequences_and_blocks_give_the_same_bits_in_any_batch_on_any_cpu() {
    for typed in [zoo::RNN, zoo::GRU, zoo::LSTM, zoo::CONV1D] {
        check_bits(&network(&zoo::read(typed)));
    }
    check_bits(&network(&resized(zoo::RESNET_18, 32)));
    check_bits(&network(&resized(zoo::MOBILENET_V2, 32)));
}

/// By how far the input is from what should be it again.
#[test]
fn what_is_far_from_its_input_is_an_anomaly() {
    let plain = zoo::read(zoo::AUTOENCODER);
    let output = serde_json::from_value(json!({"task": "anomaly"})).unwrap();
    let network = network(&Architecture { output, ..plain.clone() });
    let threshold = network.threshold().unwrap().to_vec1::<f32>().unwrap()[0];
    let mut weights = network.variables().clone();
    weights.remove("anomaly.threshold").unwrap();
    let weights = weights.into_iter().map(|(name, weight)| (name, weight.into_inner())).collect();
    let again = Network::load(Arc::new(plain.graph().unwrap()), &weights).unwrap();
    let xs = inputs(&network, 3, 9);
    let (again, given) = (values(&again.infer(&xs).unwrap()), values(&xs));
    let size = given.len() / 3;
    let expected = again.chunks(size).zip(given.chunks(size)).flat_map(|(again, given)| {
        let error = again.iter().zip(given).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / size as f32;
        [threshold / (threshold + error), error / (threshold + error)]
    });
    let expected: Vec<f32> = expected.collect();
    assert_close(&values(&network.infer(&xs).unwrap()), &expected, "the reference");
    let plan = Plan::compile(&network, &Arithmetic::F32).unwrap();
    let cpu = Cpu { isa: IsaToken::detect().unwrap(), threads: &Threads::one() };
    assert_close(&values(&infer(&plan, cpu, &xs)), &expected, "the plan");
    let last = plan.steps().last().unwrap();
    assert_eq!(
        (last.to_string(), last.falls_back()),
        (format!("anomaly: anomaly from {threshold} on, 2 values"), false)
    );
    check_bits(&network);
}

/// That one row takes.
fn buffers(plan: &Plan) -> usize {
    plan.scratch(1).layout().sizes.floats.len()
}

fn steps(architecture: &Architecture) -> (Plan, Vec<String>) {
    let plan = Plan::compile(&network(architecture), &Arithmetic::F32).unwrap();
    let steps = plan.steps().iter().map(ToString::to_string).collect();
    (plan, steps)
}

#[test]
fn block_takes_a_pass_for_each_convolution_and_four_buffers() {
    let mut architecture = zoo::read(zoo::RESNET_18);
    architecture.input.shape = vec![64, 56, 56];
    architecture.layers.drain(..2);
    architecture.layers.drain(2..4);
    let (plan, steps) = steps(&architecture);
    let expected = [
        "input: channels last, 200704 values",
        "residual_1_1_conv1 + residual_1_1_conv1_bn: convolution in tiles + bias + relu, 200704 values",
        "residual_1_1_conv2 + residual_1_1_conv2_bn + residual_1_1_add: convolution in tiles + bias + residual + relu, 200704 values",
        "residual_1_2_conv1 + residual_1_2_conv1_bn: convolution in tiles + bias + relu, 200704 values",
        "residual_1_2_conv2 + residual_1_2_conv2_bn + residual_1_2_add: convolution in tiles + bias + residual + relu, 200704 values",
        "residual_2_1_shortcut + residual_2_1_shortcut_bn: convolution + bias, 100352 values",
        "residual_2_1_conv1 + residual_2_1_conv1_bn: convolution + bias + relu, 100352 values",
        "residual_2_1_conv2 + residual_2_1_conv2_bn + residual_2_1_add: convolution in tiles + bias + residual + relu, 100352 values",
        "residual_2_2_conv1 + residual_2_2_conv1_bn: convolution in tiles + bias + relu, 100352 values",
        "residual_2_2_conv2 + residual_2_2_conv2_bn + residual_2_2_add: convolution in tiles + bias + residual + relu, 100352 values",
        "global_avg_pool_1: global average, 128 values",
        "dense_1: product + bias, 1000 values",
        "dense_1: softmax, 1000 values",
    ];
    assert_eq!(steps, expected);
    // One more for what tiles work in.
    assert_eq!(buffers(&plan), 4);
}

#[test]
fn stem_pools_its_lines_from_a_ring_that_lies_among_the_buffers() {
    let mut architecture = zoo::read(zoo::RESNET_18);
    architecture.layers.drain(2..6);
    let (plan, steps) = steps(&architecture);
    assert_eq!(steps[1], "conv2d_1 + conv2d_1_bn + max_pool2d_1: convolution + bias + relu + max pool, 200704 values");
    // Four bands, each of the three lines of a window of 112 pixels of 64 channels.
    let ring = plan.steps[1].work.floats;
    assert_eq!(ring.values, 4 * 3 * 112 * 64);
    let scratch = plan.scratch(1);
    let place = scratch.layout().steps[1].work.floats.unwrap();
    assert!(scratch.layout().sizes.floats[place.buffer] >= ring.values);
    let others = scratch.layout().steps[1].reads.iter().copied().chain(scratch.layout().steps[1].writes.floats);
    assert!(others.into_iter().all(|other| other.buffer != place.buffer));
}

#[test]
fn mobile_network_takes_a_pass_for_each_convolution_or_for_two() {
    let (plan, steps) = steps(&zoo::read(zoo::MOBILENET_V2));
    // 52 convolutions, of which the first four depthwise ones read lines of large images as they are made; the input's order, the
    // pool, the dense layer, its softmax.
    assert_eq!((steps.len(), buffers(&plan)), (52, 3));
    let expected = [
        "residual_2_2_expand + residual_2_2_expand_bn + residual_2_2_depthwise + residual_2_2_depthwise_bn: \
         product + bias + relu6, depthwise convolution + bias + relu6, 451584 values",
        "residual_2_2_project + residual_2_2_project_bn + residual_2_2_add: product + bias + residual, 75264 values",
    ];
    assert_eq!(steps[5..7], expected);
    assert!(steps[10].starts_with("residual_3_2_depthwise + residual_3_2_depthwise_bn: depthwise"), "{}", steps[10]);
}

/// Of images so large that lines are read as they are made.
#[test]
fn large_images_give_what_the_reference_gives_and_the_same_bits_on_any_cpu() {
    let mut architecture = resized(zoo::MOBILENET_V2, 160);
    architecture.layers.drain(3..9);
    let network = network(&architecture);
    let plan = Plan::compile(&network, &Arithmetic::F32).unwrap();
    let expansions = plan.steps().iter().filter(|step| step.to_string().contains(", depthwise")).count();
    assert_eq!(expansions, 3);
    let xs = inputs(&network, 2, 9);
    let [one, two] = [1, 2].map(|count| Threads::new(count).unwrap());
    let of = |isa, threads| values(&infer(&plan, Cpu { isa, threads }, &xs));
    let expected = of(IsaToken::detect().unwrap(), &one);
    assert_close(&expected, &values(&network.infer(&xs).unwrap()), "large images");
    for isa in IsaToken::all_present() {
        for threads in [&one, &two] {
            assert_eq!(of(isa, threads), expected, "{}, {} threads", isa.name(), threads.count());
        }
    }
}

#[test]
fn bytes_pass_from_convolution_to_convolution() {
    let network = network(&resized(zoo::MOBILENET_V2, 32));
    let plan = int8(&network, &inputs(&network, 1, 9)).unwrap().plan().unwrap();
    let steps: Vec<String> = plan.steps().iter().map(ToString::to_string).collect();
    // Numbers are left where a sum reads them.
    let expected = [
        "residual_2_2_expand + residual_2_2_expand_bn: product of int8 + bias + relu6, 9216 bytes",
        "residual_2_2_depthwise + residual_2_2_depthwise_bn: depthwise convolution of int8 + bias + relu6, 9216 bytes",
        "residual_2_2_project + residual_2_2_project_bn + residual_2_2_add: product of int8 + bias + residual, 1536 bytes",
    ];
    assert_eq!(steps[8..11], expected);
    assert_eq!(
        steps[7],
        "residual_2_1_project + residual_2_1_project_bn: product of int8 + bias, 1536 values and bytes"
    );
}

#[test]
fn recurrent_layer_takes_two_passes_and_a_chain_two_buffers() {
    let (plan, passes) = steps(&zoo::read(zoo::GRU));
    let expected = [
        "gru_1 layer 1: product + bias, 38400 values",
        "gru_1 layer 1: 100 steps of Gru, 12800 values",
        "gru_1 layer 2: product + bias, 38400 values",
        "gru_1 layer 2: 100 steps of Gru, 128 values",
        "dense_1: product + bias, 12 values",
        "dense_1: softmax, 12 values",
    ];
    assert_eq!(passes, expected);
    let network = network(&zoo::read(zoo::GRU));
    let bytes = int8(&network, &inputs(&network, 1, 9)).unwrap().plan().unwrap();
    let expected = [
        "gru_1 layer 1: quantised, 4000 bytes",
        "gru_1 layer 1: product of int8 + bias, 38400 values",
        "gru_1 layer 1: 100 steps of Gru of int8, 12800 values",
        "gru_1 layer 2: quantised, 12800 bytes",
    ];
    assert_eq!(bytes.steps().iter().take(4).map(ToString::to_string).collect::<Vec<_>>(), expected);
    let halved = Variant::f16(&network).unwrap().plan().unwrap();
    assert_eq!(halved.steps()[1].to_string(), "gru_1 layer 1: 100 steps of Gru of f16, 12800 values");
    // One more for the states.
    assert_eq!(buffers(&plan), 3);
    for chain in [zoo::CONV1D, zoo::AUTOENCODER, zoo::SEED_CNN] {
        assert_eq!(buffers(&steps(&zoo::read(chain)).0), 2);
    }
}

#[test]
fn batch_takes_large_images_in_groups_and_many_weights_at_once() {
    let plan = steps(&zoo::read(zoo::MOBILENET_V2)).0;
    let segments = |cache: usize| plan.scratch_for(8, cache).layout().segments.clone();
    for cache in [0, 1 << 20, 1 << 30] {
        let steps: Vec<usize> = segments(cache).into_iter().flat_map(|segment| segment.steps).collect();
        assert_eq!(steps, (0..plan.steps().len()).collect::<Vec<_>>());
    }
    let group = |step: usize| segments(1 << 20).iter().find(|segment| segment.steps.contains(&step)).unwrap().group;
    // An image of 112 × 112 × 96 values, and the dense layer.
    assert_eq!((group(3), group(50)), (1, 8));
    assert!(segments(1 << 30).iter().all(|segment| segment.group == 8));
}
