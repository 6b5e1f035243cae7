//! Networks with drawn weights, whose values stay in range from layer to layer, as those of a trained network do.

use anyhow::Result;
use candle_core::{Device, Tensor};
use sconce_model::architecture::Architecture;
use sconce_model::graph::{Node, Op};
use sconce_model::network::{Network, generator, unit};
use std::sync::Arc;

/// Inputs that are drawn: ranges are found on them, answers compared, and the first of them timed.
pub const ROWS: usize = 8;

const SEED: u64 = 7;

/// With inputs in ±1, `(ROWS, ..input)`.
pub fn network(typed: &str) -> Result<(Network, Tensor)> {
    let graph = serde_json::from_str::<Architecture>(typed)?.graph()?;
    let network = Network::initialise(Arc::new(graph), SEED)?;
    // Biases begin as zeros, and norms as nothing, which would hide one that is left out.
    for parameter in network.graph().parameters().filter(|parameter| !parameter.is_matrix()) {
        let least = if parameter.name.ends_with(".weight") { 0.5 } else { -0.5 };
        network.variables()[&parameter.name].set(&uniform(&parameter.shape, &parameter.name, least, least + 1.0)?)?;
    }
    let shape: Vec<usize> = std::iter::once(ROWS).chain(network.graph().input.iter().copied()).collect();
    let xs = uniform(&shape, "input", -1.0, 1.0)?;
    network.infer_through(&xs, |node, _, xs| {
        if matches!(node.op, Op::BatchNorm { .. }) {
            gather(&network, node, &xs)?;
        }
        Ok(xs)
    })?;
    Ok((network, xs))
}

/// A norm takes the statistics of what it reads: `(batch, channels, height, width)`.
fn gather(network: &Network, node: &Node, xs: &Tensor) -> candle_core::Result<()> {
    let set = |end: &str, values: Tensor| network.variables()[&format!("{}.{end}", node.name)].set(&values);
    let channels = xs.transpose(0, 1)?.flatten_from(1)?;
    set("running_mean", channels.mean(1)?)?;
    set("running_var", channels.var(1)?)
}

fn uniform(shape: &[usize], name: &str, least: f32, most: f32) -> candle_core::Result<Tensor> {
    let mut generator = generator(SEED, name);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| least + (most - least) * unit(&mut generator)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}
