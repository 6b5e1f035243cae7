//! First weights as PyTorch draws them; Keras' are the network's own.

use candle_core::{Device, Result, Tensor};
use sconce_model::graph::{Graph, Init as Drawn, Node, Op};
use sconce_model::network::{Network, generator, unit};

/// Weights and biases of layers that multiply, drawn anew: uniform in ±1/√inputs, those of a recurrent layer in ±1/√units.
///
/// # Errors
/// None but candle's own.
pub fn as_torch(network: &Network, seed: u64) -> Result<()> {
    let graph: &Graph = network.graph();
    for node in &graph.nodes {
        let Some(limit) = limit(node) else { continue };
        for parameter in &node.parameters {
            let mut generator = generator(seed, &format!("torch {}", parameter.name));
            let count = parameter.shape.iter().product();
            let drawn: Vec<f32> = (0..count).map(|_| (unit(&mut generator) * 2.0 - 1.0) * limit).collect();
            let tensor = Tensor::from_vec(drawn, parameter.shape.as_slice(), &Device::Cpu)?;
            network.variables()[&parameter.name].set(&tensor)?;
        }
    }
    Ok(())
}

/// None of layers that only shift and scale.
fn limit(node: &Node) -> Option<f32> {
    if let Op::Recurrent(recurrent) = &node.op {
        return Some(1.0 / (recurrent.units as f32).sqrt());
    }
    let weight = node.matrices().find(|parameter| matches!(parameter.init, Drawn::GlorotUniform { .. }))?;
    Some(1.0 / (weight.shape[1..].iter().product::<usize>() as f32).sqrt())
}
