//! The same weights after some steps, to the bit, however many threads the libraries beneath may use.

#![allow(clippy::unwrap_used, reason = "in tests")]

use candle_core::{Device, Tensor};
use sconce_model::architecture::Architecture;
use sconce_model::digest::sha256;
use sconce_model::network::{Mode, Network, Training, generator, unit};
use sconce_model::ops::{Adam, Loss, Targets, values};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

/// In the environment of the process that trains.
const TRAINS: &str = "SCONCE_TEST_TRAINS";

/// Large enough that a product is worth sharing.
fn networks() -> [Value; 3] {
    [
        json!({"input": {"shape": [3, 20, 20]}, "layers": [
            {"conv2d": {"filters": 32, "kernel": 3, "padding": 1, "batchNorm": true, "activation": "relu"}},
            {"residual": {"filters": 48, "stride": 2}}, {"residual": {"filters": 48, "block": "inverted"}},
            {"upsample2d": {}}, {"maxPool2d": {"size": 3, "stride": 2, "padding": 1}}, {"avgPool2d": {}},
            {"globalAvgPool": {}}, {"dropout": {"rate": 0.2}}, {"dense": {"units": 200, "activation": "silu"}},
            {"dense": {"units": 7, "activation": "softmax"}}]}),
        json!({"input": {"shape": [30, 40]}, "layers": [
            {"conv1d": {"filters": 64, "kernel": 5, "padding": "same", "batchNorm": true, "activation": "relu"}},
            {"gru": {"units": 64, "layers": 2, "bidirectional": true, "dropout": 0.1, "returnSequences": true}},
            {"lstm": {"units": 48, "returnSequences": true}}, {"layerNorm": {}}, {"statsPool": {}},
            {"dense": {"units": 7, "activation": "softmax"}}]}),
        json!({"input": {"shape": [784]}, "layers": [
            {"dense": {"units": 512, "activation": "relu"}}, {"batchNorm": {}}, {"dense": {"units": 7, "activation": "softmax"}}]}),
    ]
}

fn trained(typed: Value) -> candle_core::Result<String> {
    let graph = serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap();
    let network = Network::initialise(Arc::new(graph), 7)?;
    let shape: Vec<usize> = std::iter::once(24).chain(network.graph().input.iter().copied()).collect();
    let mut generator = generator(7, "xs");
    let xs: Vec<f32> = (0..shape.iter().product()).map(|_| unit(&mut generator) * 2.0 - 1.0).collect();
    let (xs, labels) = (Tensor::from_vec(xs, shape, &Device::Cpu)?, (0..24).map(|row| row % 7).collect::<Vec<u32>>());
    let mut optimisers: Vec<Adam> = network.weights().map(|(_, variable)| Adam::new(variable, 0.003)).collect();
    for step in 1..=4 {
        let training = Training { seed: 7, epoch: 1, step, frozen: &BTreeSet::new() };
        let logits = network.forward_t(&xs, None, Mode::Train(training))?;
        let gradients = Loss::cross_entropy().mean(&logits, Targets::Labels(&labels))?.backward()?;
        for ((_, variable), adam) in network.weights().zip(&mut optimisers) {
            adam.step(variable, gradients.get(variable.as_tensor()).unwrap())?;
        }
    }
    let mut bytes = Vec::new();
    for variable in network.variables().values() {
        bytes.extend(values(variable.as_tensor())?.into_iter().flat_map(f32::to_le_bytes));
    }
    Ok(sha256(&bytes))
}

#[test]
fn training_gives_the_same_bits_on_one_thread_and_on_two() {
    const NAME: &str = "training_gives_the_same_bits_on_one_thread_and_on_two";
    if std::env::var_os(TRAINS).is_some() {
        networks().into_iter().for_each(|typed| println!("trained {}", trained(typed).unwrap()));
        return;
    }
    let on = |threads: &str| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME, "--nocapture"]).env(TRAINS, "1").env("RAYON_NUM_THREADS", threads);
        let done = child.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let said = String::from_utf8(done.stdout).unwrap();
        said.lines().filter_map(|line| Some(line.split_once("trained ")?.1.to_owned())).collect::<Vec<_>>()
    };
    let one = on("1");
    assert_eq!(one.len(), 3, "{one:?}");
    assert_eq!(one, on("2"));
}
