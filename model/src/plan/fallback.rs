//! A layer without a kernel, computed as the reference does it: by candle, with memory taken for each call.

use super::time::Steps;
use crate::architecture::Output;
use crate::graph::{Graph, Source};
use crate::network::Network;
use crate::ops::lend;
use candle_core::{Device, Result, Tensor};
use std::fmt;
use std::sync::Arc;

/// One layer with its weights.
#[derive(Clone)]
pub(super) struct Fallback {
    network: Network,
    /// Of each that it reads, without the batch.
    inputs: Vec<Vec<usize>>,
}

impl Fallback {
    pub(super) fn of(network: &Network, index: usize) -> Result<Self> {
        let graph: &Graph = network.graph();
        let mut node = graph.nodes[index].clone();
        let inputs: Vec<Vec<usize>> = node.inputs.iter().map(|source| graph.shape(*source).to_vec()).collect();
        node.inputs = vec![Source::Input; inputs.len()];
        let of_node = node
            .parameters
            .iter()
            .map(|parameter| (parameter.name.clone(), network.variables()[&parameter.name].clone()));
        let weights = of_node.map(|(name, variable)| (name, variable.as_detached_tensor())).collect();
        let alone = Graph { input: inputs[0].clone(), any_time: false, nodes: vec![node], output: Output::default() };
        let network = Network::load(Arc::new(alone), &weights).map_err(candle_core::Error::wrap)?;
        Ok(Self { network, inputs })
    }

    /// The layer for other steps, and those of what it gives; all that it reads has as many. None if a window does not fit.
    pub(super) fn at(&self, (before, steps): Steps) -> Option<(Self, Option<Steps>)> {
        let node = &self.network.graph().nodes[0];
        let after = (node.steps_after(before)?, node.steps_after(steps)?);
        let mut other = self.clone();
        other.inputs.iter_mut().for_each(|shape| shape[0] = steps);
        Some((other, node.keeps_time().then_some(after)))
    }

    pub(super) fn run(&self, rows: usize, xs: &[&[f32]], ys: &mut [f32]) -> Result<()> {
        let tensor =
            |(xs, shape): (&&[f32], &Vec<usize>)| Tensor::from_slice(xs, [&[rows], &shape[..]].concat(), &Device::Cpu);
        let inputs: Vec<Tensor> = xs.iter().zip(&self.inputs).map(tensor).collect::<Result<_>>()?;
        lend(&self.network.one(&inputs)?, |values| {
            ys.copy_from_slice(values);
            Ok(())
        })
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.network.graph().nodes)
    }
}
