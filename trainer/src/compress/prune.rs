//! Structured pruning: whole channels and units leave, and what is left is a smaller network of its own, as typed.
//!
//! A layer can lose outputs if a chain leads from it to one layer that reads them: a sum would need the same ones of each side.

use candle_core::{Device, Result, Tensor};
use sconce_model::architecture::{Architecture, Kind, Layer};
use sconce_model::graph::{Graph, Node, Op, Recurrent};
use sconce_model::network::Network;
use sconce_model::ops::values;
use std::collections::BTreeMap;
use std::sync::Arc;

type Weights = BTreeMap<String, Tensor>;

/// What leads from a layer to the one that reads it.
struct Chain<'a> {
    /// Norms and depthwise convolutions, which have something for each channel.
    between: Vec<&'a Node>,
    reader: &'a Node,
    /// Values of one channel that lie side by side, once an image is flattened.
    block: usize,
}

/// The network without the weakest `share` of the outputs of each layer that can lose some; none if no layer can.
///
/// # Errors
/// None but candle's own.
pub fn prune(architecture: &Architecture, network: &Network, share: f64) -> Result<Option<(Architecture, Network)>> {
    let graph = network.graph();
    let mut smaller = architecture.clone();
    let mut weights: Weights =
        network.variables().iter().map(|(name, weight)| (name.clone(), weight.as_detached_tensor())).collect();
    let mut cut = false;
    for (layer, name) in smaller.layers.iter_mut().zip(names(&architecture.layers)) {
        let Some(node) = graph.nodes.iter().position(|node| node.name == name) else { continue };
        let Some((units, chain)) = size(layer).zip(chain(graph, node)) else { continue };
        let node = &graph.nodes[node];
        let left = *units - (*units as f64 * share) as usize;
        if left == *units || left == 0 {
            continue;
        }
        let kept = strongest(&importance(network, node, &chain)?, left);
        take_outputs(&mut weights, node, &kept)?;
        for between in &chain.between {
            take(&mut weights, between, |_| true, &kept, 0)?;
        }
        let inputs: Vec<u32> = kept.iter().flat_map(|unit| spread(*unit, chain.block)).collect();
        take(&mut weights, chain.reader, reads_input, &inputs, 1)?;
        *units = left;
        cut = true;
    }
    if !cut {
        return Ok(None);
    }
    let graph = Arc::new(smaller.graph().map_err(candle_core::Error::wrap)?);
    let network = Network::load(graph, &weights).map_err(candle_core::Error::wrap)?;
    Ok(Some((smaller, network)))
}

/// The names that layers have if they are given none.
fn names(layers: &[Layer]) -> Vec<String> {
    let mut numbers = BTreeMap::<&str, usize>::new();
    let name = |layer: &Layer| {
        let stem = layer.kind.stem();
        let number = numbers.entry(stem).or_default();
        *number += 1;
        layer.name.clone().unwrap_or_else(|| format!("{stem}_{number}"))
    };
    layers.iter().map(name).collect()
}

/// How many outputs a layer has, if it says so itself.
fn size(layer: &mut Layer) -> Option<&mut usize> {
    match &mut layer.kind {
        Kind::Conv2d(conv) if conv.groups == 1 => Some(&mut conv.filters),
        Kind::Dense(dense) => Some(&mut dense.units),
        Kind::Rnn(typed) | Kind::Gru(typed) | Kind::Lstm(typed) if typed.layers == 1 && !typed.bidirectional => {
            Some(&mut typed.units)
        }
        _ => None,
    }
}

/// From a node, as long as only one reads what it gives.
fn chain(graph: &Graph, from: usize) -> Option<Chain<'_>> {
    let readers = graph.readers();
    let (mut at, mut between, mut block) = (from, Vec::new(), 1);
    loop {
        let &[reader] = &readers[at][..] else { return None };
        let before = &graph.nodes[at].shape;
        let node = &graph.nodes[reader];
        match &node.op {
            // Of a convolution in groups each weight reads a part of the channels.
            Op::Conv2d { groups: 2.., .. } => return None,
            Op::Conv2d { .. } | Op::Conv1d { .. } | Op::Dense { .. } | Op::Recurrent(_) => {
                return Some(Chain { between, reader: node, block });
            }
            Op::BatchNorm { .. } | Op::DepthwiseConv2d { .. } if block == 1 => between.push(node),
            // Of a sequence, the features come last: there is no block of each.
            Op::Flatten if before.len() == 3 => block = before[1] * before[2],
            Op::Flatten if before.len() == 1 => {}
            Op::MaxPool2d { .. }
            | Op::AvgPool2d { .. }
            | Op::GlobalAvgPool
            | Op::Activation(_)
            | Op::Dropout { .. } => {}
            _ => return None,
        }
        at = reader;
    }
}

/// How much each output says: its weights without sign, times what a norm makes of it.
fn importance(network: &Network, node: &Node, chain: &Chain<'_>) -> Result<Vec<f64>> {
    let of = |name: &str| values(&network.variables()[name]);
    let units = units(node);
    let mut sums = vec![0.0; units];
    for matrix in node.matrices() {
        let values = of(&matrix.name)?;
        for (row, values) in values.chunks_exact(values.len() / matrix.shape[0]).enumerate() {
            // Gates lie one after the other.
            sums[row % units] += values.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        }
    }
    for norm in chain.between.iter().filter(|node| matches!(node.op, Op::BatchNorm { .. })) {
        let (scales, variances) = (of(&norm.weight())?, of(&format!("{}.running_var", norm.name))?);
        for ((sum, scale), variance) in sums.iter_mut().zip(scales).zip(variances) {
            *sum *= f64::from(scale.abs()) / f64::from(variance).max(1e-9).sqrt();
        }
    }
    Ok(sums)
}

/// The largest ones, in their order; the first among equals.
fn strongest(importance: &[f64], count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..importance.len() as u32).collect();
    order.sort_by(|a, b| importance[*b as usize].total_cmp(&importance[*a as usize]).then(a.cmp(b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

fn units(node: &Node) -> usize {
    match &node.op {
        Op::Recurrent(recurrent) => recurrent.units,
        _ => node.matrices().next().map_or(0, |matrix| matrix.shape[0]),
    }
}

/// What is left of a layer that gives fewer outputs.
fn take_outputs(weights: &mut Weights, node: &Node, kept: &[u32]) -> Result<()> {
    let Op::Recurrent(Recurrent { cell, units, .. }) = node.op else { return take(weights, node, |_| true, kept, 0) };
    let of_gate = |gate: usize| kept.iter().map(move |unit| (gate * units) as u32 + unit);
    let rows: Vec<u32> = (0..cell.gates()).flat_map(of_gate).collect();
    take(weights, node, |_| true, &rows, 0)?;
    // A state is read by its own layer.
    take(weights, node, |name| name.contains(".weight_hh"), kept, 1)
}

/// Weights that are multiplied with what a layer reads, rather than with its state.
fn reads_input(name: &str) -> bool {
    name.ends_with(".weight") || name.contains(".weight_ih_l0")
}

/// Keeps some places of an axis, of those parameters of a node that are meant.
fn take(weights: &mut Weights, node: &Node, meant: impl Fn(&str) -> bool, kept: &[u32], axis: usize) -> Result<()> {
    let kept = Tensor::from_slice(kept, kept.len(), &Device::Cpu)?;
    for parameter in node.parameters.iter().filter(|parameter| meant(&parameter.name)) {
        if let Some(weight) = weights.get_mut(&parameter.name) {
            *weight = weight.index_select(&kept, axis)?;
        }
    }
    Ok(())
}

fn spread(unit: u32, block: usize) -> impl Iterator<Item = u32> {
    (0..block as u32).map(move |place| unit * block as u32 + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network whose biases and statistics are not those of its first day, and where `dead` outputs of some nodes are masked:
    /// all that makes them is zero. Without them, it says the same.
    fn check(typed: serde_json::Value, dead: &[(&str, usize, &[usize])], left: usize) {
        let architecture: Architecture = serde_json::from_value(typed).unwrap();
        let graph = Arc::new(architecture.graph().unwrap());
        let network = Network::initialise(graph.clone(), 3).unwrap();
        for node in &graph.nodes {
            let masked = dead.iter().find(|(name, ..)| *name == node.name);
            for parameter in &node.parameters {
                let variable = &network.variables()[&parameter.name];
                let mut all = values(variable).unwrap();
                if !parameter.is_matrix() {
                    all.iter_mut().enumerate().for_each(|(at, x)| *x += 0.1 + 0.05 * (at % 7) as f32);
                }
                let row = all.len() / variable.dims()[0];
                for (at, row) in all.chunks_exact_mut(row).enumerate() {
                    let gone = masked.is_some_and(|(_, units, dead)| dead.contains(&(at % units)));
                    // A variance of zero would be none.
                    if gone && !parameter.name.ends_with("running_var") {
                        row.fill(0.0);
                    }
                }
                variable.set(&Tensor::from_vec(all, variable.shape(), &Device::Cpu).unwrap()).unwrap();
            }
        }
        let (smaller, pruned) = prune(&architecture, &network, 0.5).unwrap().unwrap();
        assert_eq!(pruned.graph().parameter_count(), left);
        assert_eq!(&smaller.graph().unwrap(), &**pruned.graph());
        let shape: Vec<usize> = [2].into_iter().chain(graph.input.iter().copied()).collect();
        let count = shape.iter().product::<usize>();
        let xs: Vec<f32> = (0..count).map(|x| (x * 7 % 11) as f32 / 11.0).collect();
        let xs = Tensor::from_vec(xs, shape, &Device::Cpu).unwrap();
        let [whole, pruned] = [&network, &pruned].map(|network| values(&network.infer(&xs).unwrap()).unwrap());
        for (whole, pruned) in whole.iter().zip(&pruned) {
            assert!((whole - pruned).abs() < 1e-5, "{whole} {pruned}");
        }
    }

    #[test]
    fn channels_leave_through_pools_and_flattening() {
        let typed = serde_json::json!({"input": {"shape": [1, 6, 6]}, "layers": [
            {"conv2d": {"filters": 4, "kernel": 3, "activation": "relu"}}, {"maxPool2d": {}}, {"flatten": {}},
            {"dense": {"units": 4, "activation": "relu"}}, {"dense": {"units": 3, "activation": "softmax"}}]});
        let dead: [(&str, usize, &[usize]); 2] = [("conv2d_1", 4, &[0, 2]), ("dense_1", 4, &[1, 3])];
        check(typed, &dead, (2 * 9 + 2) + (8 * 2 + 2) + (2 * 3 + 3));
    }

    /// The norm and the depthwise convolution between two layers have something for each channel; the weakest are those that the
    /// norm makes small, too.
    #[test]
    fn channels_leave_the_norms_and_depthwise_convolutions_that_they_pass() {
        let typed = serde_json::json!({"input": {"shape": [2, 6, 6]}, "layers": [
            {"conv2d": {"filters": 4, "kernel": 1, "useBias": false}, "name": "wide"},
            {"batchNorm": {}, "name": "norm"}, {"activation": "relu"},
            {"depthwiseConv2d": {"kernel": 3}, "name": "each"},
            {"conv2d": {"filters": 2, "kernel": 1}, "name": "narrow"}, {"globalAvgPool": {}},
            {"dense": {"units": 2, "activation": "softmax"}}]});
        let dead: [(&str, usize, &[usize]); 3] = [("norm", 4, &[0, 3]), ("each", 4, &[0, 3]), ("narrow", 2, &[1])];
        check(typed, &dead, 2 * 2 + 2 * 2 + (2 * 9 + 2) + (2 + 1) + (2 + 2));
    }

    #[test]
    fn units_leave_all_their_gates_and_their_own_state() {
        let typed = serde_json::json!({"input": {"shape": [5, 3]}, "layers": [
            {"gru": {"units": 4}}, {"dense": {"units": 2, "activation": "softmax"}}]});
        // A state that begins at zero, and is drawn towards zero, stays there.
        check(typed, &[("gru_1", 4, &[1, 2])], 6 * (3 + 2 + 2) + 2 * 2 + 2);
    }

    #[test]
    fn what_a_sum_reads_stays() {
        let typed = serde_json::json!({"input": {"shape": [2, 4, 4]}, "layers": [
            {"conv2d": {"filters": 2, "kernel": 3, "padding": 1}, "name": "a"}, {"add": {}, "from": ["a", "input"]},
            {"flatten": {}}, {"dense": {"units": 2, "activation": "softmax"}}]});
        let architecture: Architecture = serde_json::from_value(typed).unwrap();
        let network = Network::initialise(Arc::new(architecture.graph().unwrap()), 3).unwrap();
        assert!(prune(&architecture, &network, 0.5).unwrap().is_none());
    }
}
