//! Which layers a pass does together: a product with the norm, the sum and the activation behind it. Pure.

use crate::architecture::Activation;
use crate::graph::{Graph, Node, Op, Source};
use crate::network::Network;
use crate::ops::values;
use candle_core::Result;

/// A layer and what follows it, as far as one pass can do it: `activation(norm(layer) + residual)`.
pub(super) struct Fused {
    /// Indices of the nodes, in their order.
    pub nodes: Vec<usize>,
    pub norm: Option<Norm>,
    pub residual: Option<Source>,
    pub activation: Activation,
    /// The pool behind all of that, if nobody else reads what it pools.
    pub pool: Option<usize>,
}

/// A batch norm with its statistics: `x · scale + shift`, per channel.
pub(super) struct Norm {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

impl Norm {
    pub(super) fn of(network: &Network, node: &Node, epsilon: f32) -> Result<Self> {
        let of = |end: &str| values(network.of(node, end)?);
        let (weight, bias, mean, variance) = (of("weight")?, of("bias")?, of("running_mean")?, of("running_var")?);
        let scale: Vec<f32> = weight.iter().zip(&variance).map(|(weight, v)| weight / (v + epsilon).sqrt()).collect();
        let shift = bias.iter().zip(mean.iter().zip(&scale)).map(|(bias, (mean, scale))| bias - mean * scale).collect();
        Ok(Self { scale, shift })
    }
}

/// `readers` are those of the graph; `is_known` says whether a value is there when the layer at `index` is computed.
pub(super) fn fuse(
    network: &Network,
    readers: &[Vec<usize>],
    index: usize,
    is_known: impl Fn(Source) -> bool,
) -> Result<Fused> {
    let graph: &Graph = network.graph();
    let activation = graph.nodes[index].op.activation();
    let mut fused = Fused { nodes: vec![index], norm: None, residual: None, activation, pool: None };
    let mut last = index;
    while fused.activation == Activation::None
        && let &[next] = &readers[last][..]
    {
        let node = &graph.nodes[next];
        match &node.op {
            Op::BatchNorm { epsilon, .. } if fused.norm.is_none() && fused.residual.is_none() => {
                fused.norm = Some(Norm::of(network, node, *epsilon)?);
            }
            Op::Add { .. } if fused.residual.is_none() && node.inputs.len() == 2 => {
                let other = node.inputs.iter().copied().find(|source| *source != Source::Node(last));
                match other.filter(|other| is_known(*other)) {
                    Some(other) => fused.residual = Some(other),
                    None => break,
                }
            }
            Op::Activation(_) => {}
            _ => break,
        }
        fused.activation = node.op.activation();
        fused.nodes.push(next);
        last = next;
    }
    if let &[next] = &readers[last][..]
        && matches!(graph.nodes[next].op, Op::MaxPool2d { .. } | Op::AvgPool2d { .. })
    {
        fused.pool = Some(next);
    }
    Ok(fused)
}
