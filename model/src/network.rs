//! A graph with weights: one interpreter, read as reference, in training and in serving.

mod draw;
mod eval;
mod lengths;
mod plain;
mod split;
mod train;
mod unlearned;

pub use draw::{generator, unit};
pub use unlearned::Unlearned;

use crate::architecture::Activation;
use crate::graph::{Graph, Node, Op, Parameter, Role, Source};
use candle_core::{D, DType, Device, Result, Tensor, Var};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use thiserror::Error;

/// What can be wrong with weights: the fault, without the file, which the caller knows.
#[derive(Debug, Error)]
pub enum WeightsError {
    #[error("tensor \"{name}\" is missing")]
    Missing { name: String },
    #[error("tensor \"{name}\" is {got:?} {got_shape:?}, the architecture needs F32 {expected:?}")]
    Shape { name: String, got: DType, got_shape: Vec<usize>, expected: Vec<usize> },
    #[error("tensor \"{name}\" belongs to no layer")]
    Unknown { name: String },
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// What a node reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// What other nodes, or the input, gave.
    Input,
    /// A recurrent layer its own state, or that of the layer below it.
    State,
}

/// Its weights are shared by all who hold it, and by its clones.
#[derive(Clone)]
pub struct Network {
    graph: Arc<Graph>,
    /// In the order of names, so that every walk over them is the same walk.
    variables: BTreeMap<String, Var>,
}

/// What the interpreter is read for.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// Operations of ours, which know their gradients.
    Train(Training<'a>),
    /// candle's own forward, which keeps nothing for gradients.
    Eval,
}

/// One step of training.
#[derive(Clone, Copy, Debug)]
pub struct Training<'a> {
    /// With the epoch, the step and a layer's name, what its dropout draws from: a run that goes on draws what it would have drawn.
    pub seed: u64,
    pub epoch: usize,
    pub step: usize,
    /// The graph's nodes, by name, that stay as they are: their weights get no gradient, their batch norms and dropouts do
    /// as in evaluation.
    pub frozen: &'a BTreeSet<String>,
}

impl Network {
    /// Weights drawn from the seed: each from the seed and its own name, so that another layer changes no other's.
    pub fn initialise(graph: Arc<Graph>, seed: u64) -> Result<Self> {
        let variables = graph.parameters().map(|parameter| {
            let values = Tensor::from_vec(draw::drawn(parameter, seed), parameter.shape.as_slice(), &Device::Cpu)?;
            Ok((parameter.name.clone(), Var::from_tensor(&values)?))
        });
        Ok(Self { variables: variables.collect::<Result<_>>()?, graph: graph.clone() })
    }

    /// Weights as given, by the names that the graph has for them.
    ///
    /// # Errors
    /// [`WeightsError`] if they are not exactly those of the graph.
    pub fn load(graph: Arc<Graph>, weights: &BTreeMap<String, Tensor>) -> std::result::Result<Self, WeightsError> {
        let mut variables = BTreeMap::new();
        for Parameter { name, shape, .. } in graph.parameters() {
            let name = name.clone();
            let Some(weight) = weights.get(&name) else { return Err(WeightsError::Missing { name }) };
            if weight.dims() != shape || weight.dtype() != DType::F32 {
                let (got, got_shape, expected) = (weight.dtype(), weight.dims().to_vec(), shape.clone());
                return Err(WeightsError::Shape { name, got, got_shape, expected });
            }
            variables.insert(name, Var::from_tensor(weight)?);
        }
        let known: BTreeSet<&String> = variables.keys().collect();
        if let Some(name) = weights.keys().find(|name| !known.contains(name)) {
            return Err(WeightsError::Unknown { name: name.clone() });
        }
        Ok(Self { variables, graph })
    }

    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    pub fn variables(&self) -> &BTreeMap<String, Var> {
        &self.variables
    }

    /// What gradients move, in the order of names.
    pub fn weights(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.of_role(Role::Weight)
    }

    /// What is gathered from what passes, in the order of names: the means and variances of batch norms, the threshold of anomalies.
    pub fn statistics(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.of_role(Role::Statistic)
    }

    /// From which mean square on an input is an anomaly, if it is for that: one until somebody sets it.
    pub fn threshold(&self) -> Option<&Var> {
        let node = self.graph.nodes.iter().rfind(|node| node.op == Op::Anomaly)?;
        self.variables.get(&node.parameters.first()?.name)
    }

    fn of_role(&self, role: Role) -> impl Iterator<Item = (&String, &Var)> {
        let parameters = self.graph.parameters().filter(move |parameter| parameter.role == role);
        let names: BTreeSet<&String> = parameters.map(|parameter| &parameter.name).collect();
        self.variables.iter().filter(move |(name, _)| names.contains(name))
    }

    /// `xs` is `(batch, ..input)`; returns the output before a final softmax or sigmoid ([`Graph::closing`]): logits.
    /// `lengths` is `(batch)`, how many steps of each sequence are valid; what comes after them changes nothing.
    ///
    /// # Errors
    /// If `xs` or `lengths` do not fit the network; [`crate::graph::Untrainable`] if there is nothing to train.
    pub fn forward_t(&self, xs: &Tensor, lengths: Option<&Tensor>, mode: Mode<'_>) -> Result<Tensor> {
        let lengths = lengths.map(|lengths| lengths::read(lengths, xs, &self.graph.input)).transpose()?;
        match mode {
            Mode::Train(training) => {
                self.graph.trainable().map_err(candle_core::Error::wrap)?;
                self.walk(xs, lengths, |node, inputs, lengths| self.train(node, inputs, lengths, &training))
            }
            Mode::Eval => self.walk(xs, lengths, |node, inputs, lengths| self.eval(node, inputs, lengths, &mut Ok)),
        }
    }

    /// `xs` is `(batch, ..input)`; returns what the last layer says: probabilities `(batch, classes)` of a classification.
    pub fn infer(&self, xs: &Tensor) -> Result<Tensor> {
        self.finish(self.forward_t(xs, None, Mode::Eval)?)
    }

    /// What the only node of the graph says of its inputs, but for a softmax.
    pub(crate) fn one(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let ys = self.eval(&self.graph.nodes[0], inputs, None, &mut Ok)?;
        match self.graph.closing() {
            Activation::Softmax => Ok(ys),
            closing => plain::activate(&ys, closing),
        }
    }

    /// As [`Network::infer`], where each node reads what `before` makes of each thing it reads: to watch it, or to round it.
    ///
    /// # Errors
    /// If `xs` is of another shape, and what `before` returns.
    pub fn infer_through(
        &self,
        xs: &Tensor,
        mut before: impl FnMut(&Node, Read, Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let ys = self.walk(xs, None, |node, inputs, _| {
            let input = |xs: &Tensor| before(node, Read::Input, xs.clone());
            let inputs: Vec<Tensor> = inputs.iter().map(input).collect::<Result<_>>()?;
            self.eval(node, &inputs, None, &mut |state| before(node, Read::State, state))
        })?;
        self.finish(ys)
    }

    /// Nodes in their order, each with what it reads and how many steps of that are valid; returns what the last one gives.
    fn walk(
        &self,
        xs: &Tensor,
        lengths: Option<Vec<usize>>,
        mut step: impl FnMut(&Node, &[Tensor], Option<&[usize]>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut outputs: Vec<(Tensor, Option<Vec<usize>>)> = Vec::with_capacity(self.graph.nodes.len());
        let input = (xs.clone(), lengths);
        for node in &self.graph.nodes {
            let read = |source: &Source| match source {
                Source::Input => &input,
                Source::Node(index) => &outputs[*index],
            };
            let lengths = node.inputs.first().and_then(|source| read(source).1.clone());
            let inputs: Vec<Tensor> = node.inputs.iter().map(|source| read(source).0.clone()).collect();
            let ys = step(node, &inputs, lengths.as_deref())?;
            outputs.push((ys, lengths::after(node, lengths.as_deref())));
        }
        Ok(outputs.pop().unwrap_or(input).0)
    }

    /// Puts back what training leaves to the loss.
    fn finish(&self, ys: Tensor) -> Result<Tensor> {
        match self.graph.closing() {
            Activation::Softmax => candle_nn::ops::softmax(&ys, D::Minus1),
            closing => plain::activate(&ys, closing),
        }
    }

    pub(crate) fn weight(&self, node: &Node) -> Result<&Tensor> {
        self.of(node, "weight")
    }

    fn has(&self, node: &Node, end: &str) -> bool {
        self.variables.contains_key(&format!("{}.{end}", node.name))
    }

    /// Zeros where the layer has no bias.
    fn bias(&self, node: &Node) -> Result<Tensor> {
        match self.variables.get(&format!("{}.bias", node.name)) {
            Some(bias) => Ok(bias.as_tensor().clone()),
            None => Tensor::zeros(self.weight(node)?.dim(0)?, self.weight(node)?.dtype(), &Device::Cpu),
        }
    }

    /// The parameter of the node with this end of its name, such as `weight`.
    pub(crate) fn of(&self, node: &Node, end: &str) -> Result<&Tensor> {
        match self.variables.get(&format!("{}.{end}", node.name)) {
            Some(variable) => Ok(variable.as_tensor()),
            None => candle_core::bail!("no weight \"{}.{end}\"", node.name),
        }
    }
}

/// What becomes of a state before it is read.
type Before<'a> = dyn FnMut(Tensor) -> Result<Tensor> + 'a;

#[cfg(test)]
mod gradients;
#[cfg(test)]
mod tests;
