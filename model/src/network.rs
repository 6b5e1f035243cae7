//! A graph with weights: one interpreter, read as reference, in training and in serving.

mod draw;
mod plain;

pub use draw::{generator, unit};

use crate::architecture::Activation;
use crate::graph::{Graph, Node, Op, Parameter, Recurrent, Role, Source};
use crate::ops;
use candle_core::{D, DType, Device, Result, Tensor, Var};
use plain::activate;
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
    /// The graph's nodes, by name, that stay as they are: their weights get no gradient, their batch norms do as in evaluation.
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

    /// What passes by is gathered in, in the order of names: the means and variances of batch norms.
    pub fn statistics(&self) -> impl Iterator<Item = (&String, &Var)> {
        self.of_role(Role::Statistic)
    }

    fn of_role(&self, role: Role) -> impl Iterator<Item = (&String, &Var)> {
        let parameters = self.graph.parameters().filter(move |parameter| parameter.role == role);
        let names: BTreeSet<&String> = parameters.map(|parameter| &parameter.name).collect();
        self.variables.iter().filter(move |(name, _)| names.contains(name))
    }

    /// `xs` is `(batch, ..input)`; returns the output before a final softmax: logits `(batch, classes)` of a classification.
    /// `lengths` is `(batch)`, how many steps of each sequence are valid; what comes after them changes nothing.
    ///
    /// # Errors
    /// [`crate::graph::Untrainable`] in training if a layer has no gradient of ours.
    pub fn forward_t(&self, xs: &Tensor, lengths: Option<&Tensor>, mode: Mode<'_>) -> Result<Tensor> {
        if lengths.is_some() {
            candle_core::bail!("sequences of different lengths are not read yet")
        }
        match mode {
            Mode::Train(training) => {
                self.graph.trainable().map_err(candle_core::Error::wrap)?;
                self.walk(xs, |node, inputs| self.train(node, &inputs[0], &training))
            }
            Mode::Eval => self.walk(xs, |node, inputs| self.eval(node, inputs, &mut Ok)),
        }
    }

    /// `xs` is `(batch, ..input)`; returns what the last layer says: probabilities `(batch, classes)` of a classification.
    pub fn infer(&self, xs: &Tensor) -> Result<Tensor> {
        self.finish(self.forward_t(xs, None, Mode::Eval)?)
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
        let ys = self.walk(xs, |node, inputs| {
            let input = |xs: &Tensor| before(node, Read::Input, xs.clone());
            let inputs: Vec<Tensor> = inputs.iter().map(input).collect::<Result<_>>()?;
            self.eval(node, &inputs, &mut |state| before(node, Read::State, state))
        })?;
        self.finish(ys)
    }

    /// Nodes in their order, each with what it reads; returns what the last one gives.
    fn walk(&self, xs: &Tensor, mut step: impl FnMut(&Node, &[Tensor]) -> Result<Tensor>) -> Result<Tensor> {
        let mut outputs: Vec<Tensor> = Vec::with_capacity(self.graph.nodes.len());
        for node in &self.graph.nodes {
            let read = |source: &Source| match source {
                Source::Input => xs.clone(),
                Source::Node(index) => outputs[*index].clone(),
            };
            let inputs: Vec<Tensor> = node.inputs.iter().map(read).collect();
            outputs.push(step(node, &inputs)?);
        }
        Ok(outputs.pop().unwrap_or_else(|| xs.clone()))
    }

    /// Puts the final softmax back.
    fn finish(&self, ys: Tensor) -> Result<Tensor> {
        if self.graph.classifies() { candle_nn::ops::softmax(&ys, D::Minus1) } else { Ok(ys) }
    }

    /// By operations of ours, which know their gradients.
    fn train(&self, node: &Node, xs: &Tensor, training: &Training<'_>) -> Result<Tensor> {
        let wants_dx = xs.track_op();
        let relu = |activation: Activation| activation == Activation::Relu;
        match &node.op {
            Op::Conv2d { kernel, stride, pad, activation } => {
                let window = ops::Window { kernel: *kernel, stride: *stride, pad: *pad };
                let (weight, bias) = (self.weight(node)?, self.bias(node)?);
                let ys = ops::conv2d(xs, weight, &bias, window, relu(*activation), wants_dx)?;
                activate_rest(&ys, *activation)
            }
            Op::MaxPool2d { size, stride, .. } => ops::max_pool2d(xs, *size, *stride),
            Op::Dense { activation } => {
                let (weight, bias) = (self.weight(node)?, self.bias(node)?);
                activate_rest(&ops::dense(xs, weight, &bias, relu(*activation), wants_dx)?, *activation)
            }
            Op::Dropout { rate } => {
                let keep = 1.0 - rate;
                let Training { seed, epoch, step, .. } = training;
                let generator = &mut generator(*seed, &format!("dropout {epoch} {step} {}", node.name));
                let mask: Vec<f32> =
                    (0..xs.elem_count()).map(|_| if unit(generator) < keep { keep.recip() } else { 0.0 }).collect();
                xs * Tensor::from_vec(mask, xs.shape(), xs.device())?
            }
            // These are the same in evaluation; all others have been refused.
            _ => self.eval(node, std::slice::from_ref(xs), &mut Ok),
        }
    }

    /// By plain operations of candle. A recurrent layer reads what `before` makes of its states.
    fn eval(&self, node: &Node, inputs: &[Tensor], before: &mut Before<'_>) -> Result<Tensor> {
        let xs = &inputs[0];
        let ys = match &node.op {
            Op::Conv2d { stride, pad, .. } => {
                let ys = plain::conv2d(xs, &self.weight(node)?.detach(), *stride, *pad, 1)?;
                ys.broadcast_add(&self.bias(node)?.detach().reshape(((), 1, 1))?)?
            }
            Op::DepthwiseConv2d { stride, pad, .. } => {
                let ys = plain::conv2d(xs, &self.weight(node)?.detach(), *stride, *pad, node.shape[0])?;
                ys.broadcast_add(&self.bias(node)?.detach().reshape(((), 1, 1))?)?
            }
            Op::Conv1d { stride, pad, .. } => {
                let ys = plain::conv1d(xs, &self.weight(node)?.detach(), *stride, *pad)?;
                ys.broadcast_add(&self.bias(node)?.detach())?
            }
            Op::MaxPool2d { size, stride, pad } => plain::max_pool2d(xs, *size, *stride, *pad)?,
            Op::AvgPool2d { size, stride, pad } => plain::avg_pool2d(xs, *size, *stride, *pad)?,
            Op::GlobalAvgPool => plain::global_avg_pool(xs)?,
            Op::BatchNorm { epsilon, .. } => {
                let of = |end: &str| self.of(node, end).map(Tensor::detach);
                let (weight, bias) = (of("weight")?, of("bias")?);
                let (mean, variance) = (of("running_mean")?, of("running_var")?);
                plain::batch_norm(xs, [&weight, &bias, &mean, &variance], *epsilon)?
            }
            Op::Flatten => xs.flatten_from(1)?,
            Op::Dense { .. } => plain::dense(xs, &self.weight(node)?.detach(), &self.bias(node)?.detach())?,
            Op::Recurrent(recurrent) => self.recurrent(node, recurrent, xs, before)?,
            Op::Add { .. } => inputs[1..].iter().try_fold(xs.clone(), |sum, xs| sum + xs)?,
            Op::Activation(_) | Op::Dropout { .. } => xs.clone(),
        };
        activate(&ys, node.op.activation())
    }

    fn recurrent(&self, node: &Node, recurrent: &Recurrent, xs: &Tensor, before: &mut Before<'_>) -> Result<Tensor> {
        let mut ys = xs.clone();
        for layer in 0..recurrent.layers {
            if layer > 0 {
                ys = before(ys)?;
            }
            let last = layer + 1 == recurrent.layers && !recurrent.return_sequences;
            let mut directions = Vec::with_capacity(2);
            for direction in recurrent.directions() {
                let of = |end: &str| self.of(node, &format!("{end}_l{layer}{direction}")).map(Tensor::detach);
                let (weight_ih, weight_hh) = (of("weight_ih")?, of("weight_hh")?);
                let (bias_ih, bias_hh) = (of("bias_ih")?, of("bias_hh")?);
                let reverse = !direction.is_empty();
                let weights = [&weight_ih, &weight_hh, &bias_ih, &bias_hh];
                let states = plain::recurrent(&ys, recurrent.cell, weights, reverse, before)?;
                let after = if reverse { 0 } else { states.dim(1)? - 1 };
                directions.push(if last { states.narrow(1, after, 1)?.squeeze(1)? } else { states });
            }
            ys = Tensor::cat(&directions, D::Minus1)?;
        }
        Ok(ys)
    }

    pub(crate) fn weight(&self, node: &Node) -> Result<&Tensor> {
        self.of(node, "weight")
    }

    /// Zeros where the layer has no bias.
    fn bias(&self, node: &Node) -> Result<Tensor> {
        match self.variables.get(&format!("{}.bias", node.name)) {
            Some(bias) => Ok(bias.as_tensor().clone()),
            None => Tensor::zeros(self.weight(node)?.dim(0)?, DType::F32, &Device::Cpu),
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

/// What is left to do where the operation has rectified already.
fn activate_rest(xs: &Tensor, activation: Activation) -> Result<Tensor> {
    activate(xs, if activation == Activation::Relu { Activation::None } else { activation })
}

#[cfg(test)]
mod tests;
