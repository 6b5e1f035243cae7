//! A graph with weights: one interpreter, read as reference, in training and in serving.

use crate::architecture::Activation;
use crate::graph::{Graph, Init, Node, Op, Pad, Parameter};
use crate::ops;
use candle_core::{D, DType, Device, Result, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
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

pub struct Network {
    graph: Arc<Graph>,
    /// In the order of names, so that every walk over them is the same walk.
    variables: BTreeMap<String, Var>,
}

/// What the interpreter is read for.
pub enum Mode<'a> {
    /// Operations of ours, which know their gradients; dropout draws from the generator.
    Train(&'a mut ChaCha8Rng),
    /// candle's own forward, which keeps nothing for gradients.
    Eval,
}

impl Network {
    /// Weights drawn from the seed: each from the seed and its own name, so that another layer changes no other's.
    pub fn initialise(graph: Arc<Graph>, seed: u64) -> Result<Self> {
        let variables = graph.parameters().map(|parameter| Ok((parameter.name.clone(), drawn(parameter, seed)?)));
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

    /// `xs` is `(batch, ..input)`; returns the output before a final softmax: logits `(batch, classes)` of a classification.
    pub fn forward_t(&self, xs: &Tensor, mode: &mut Mode<'_>) -> Result<Tensor> {
        let mut xs = xs.clone();
        // Before the first layer that learns, everything is data, and needs no gradient.
        let mut learns = false;
        for node in &self.graph.nodes {
            xs = self.step(node, &xs, learns, mode)?;
            learns |= !node.parameters.is_empty();
        }
        Ok(xs)
    }

    /// `xs` is `(batch, ..input)`; returns what the last layer says: probabilities `(batch, classes)` of a classification.
    pub fn infer(&self, xs: &Tensor) -> Result<Tensor> {
        self.finish(self.forward_t(xs, &mut Mode::Eval)?)
    }

    /// As [`Network::infer`], where each node reads what `before` makes of its input: to watch it, or to round it.
    ///
    /// # Errors
    /// If `xs` is of another shape, and what `before` returns.
    pub fn infer_through(
        &self,
        xs: &Tensor,
        mut before: impl FnMut(&Node, Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut ys = xs.clone();
        for node in &self.graph.nodes {
            ys = self.step(node, &before(node, ys)?, false, &mut Mode::Eval)?;
        }
        self.finish(ys)
    }

    /// Puts the final softmax back.
    fn finish(&self, ys: Tensor) -> Result<Tensor> {
        if self.graph.classifies() { candle_nn::ops::softmax(&ys, D::Minus1) } else { Ok(ys) }
    }

    fn step(&self, node: &Node, xs: &Tensor, wants_dx: bool, mode: &mut Mode<'_>) -> Result<Tensor> {
        let relu = |activation: Activation| activation == Activation::Relu;
        match (&node.op, mode) {
            (Op::Conv2d { kernel, stride, pad, activation }, Mode::Train(_)) => {
                let window = ops::Window { kernel: *kernel, stride: *stride, pad: *pad };
                let (weight, bias) = (self.weight(node)?, self.bias(node)?);
                let ys = ops::conv2d(xs, weight, &bias, window, relu(*activation), wants_dx)?;
                activate_rest(&ys, *activation)
            }
            (Op::Conv2d { stride, pad, activation, .. }, Mode::Eval) => {
                let ys = plain_conv2d(xs, &self.weight(node)?.detach(), *stride, *pad)?;
                activate(&ys.broadcast_add(&self.bias(node)?.detach().reshape((1, (), 1, 1))?)?, *activation)
            }
            (Op::MaxPool2d { size, stride }, Mode::Train(_)) => ops::max_pool2d(xs, *size, *stride),
            (Op::MaxPool2d { size, stride }, Mode::Eval) => xs.max_pool2d_with_stride(*size, *stride),
            (Op::Flatten, _) => xs.flatten_from(1),
            (Op::Dense { activation }, Mode::Train(_)) => {
                let (weight, bias) = (self.weight(node)?, self.bias(node)?);
                activate_rest(&ops::dense(xs, weight, &bias, relu(*activation), wants_dx)?, *activation)
            }
            (Op::Dense { activation }, Mode::Eval) => {
                let (weight, bias) = (self.weight(node)?.detach(), self.bias(node)?.detach());
                activate(&xs.matmul(&weight.t()?)?.broadcast_add(&bias)?, *activation)
            }
            (Op::Activation(activation), _) => activate(xs, *activation),
            (Op::Dropout { rate }, Mode::Train(generator)) => {
                let keep = 1.0 - rate;
                let mask: Vec<f32> =
                    (0..xs.elem_count()).map(|_| if unit(generator) < keep { keep.recip() } else { 0.0 }).collect();
                xs * Tensor::from_vec(mask, xs.shape(), xs.device())?
            }
            (Op::Dropout { .. }, Mode::Eval) => Ok(xs.clone()),
        }
    }

    pub(crate) fn weight(&self, node: &Node) -> Result<&Tensor> {
        self.variable(&node.weight())
    }

    /// Zeros where the layer has no bias.
    fn bias(&self, node: &Node) -> Result<Tensor> {
        match self.variables.get(&format!("{}.bias", node.name)) {
            Some(bias) => Ok(bias.as_tensor().clone()),
            None => Tensor::zeros(node.shape[0], DType::F32, &Device::Cpu),
        }
    }

    fn variable(&self, name: &str) -> Result<&Tensor> {
        match self.variables.get(name) {
            Some(variable) => Ok(variable.as_tensor()),
            None => candle_core::bail!("no weight \"{name}\""),
        }
    }
}

/// candle pads both sides alike, and strides both axes alike: the rest is done around it.
fn plain_conv2d(xs: &Tensor, weight: &Tensor, stride: (usize, usize), pad: Pad) -> Result<Tensor> {
    let xs = xs.pad_with_zeros(2, pad.top, pad.bottom)?.pad_with_zeros(3, pad.left, pad.right)?;
    if stride.0 == stride.1 {
        return xs.conv2d(weight, 0, stride.0, 1, 1);
    }
    let ys = xs.conv2d(weight, 0, 1, 1, 1)?;
    let every = |ys: &Tensor, axis: usize, stride: usize| {
        let kept: Vec<u32> = (0..ys.dim(axis)? as u32).step_by(stride).collect();
        ys.index_select(&Tensor::new(kept, ys.device())?, axis)
    };
    every(&every(&ys, 2, stride.0)?, 3, stride.1)
}

/// Softmax is left out: training works on logits, and [`Network::infer`] puts it back.
fn activate(xs: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::None | Activation::Softmax => Ok(xs.clone()),
        Activation::Relu => xs.relu(),
        Activation::Tanh => xs.tanh(),
        Activation::Sigmoid => candle_nn::ops::sigmoid(xs),
    }
}

/// What is left to do where the operation has rectified already.
fn activate_rest(xs: &Tensor, activation: Activation) -> Result<Tensor> {
    activate(xs, if activation == Activation::Relu { Activation::None } else { activation })
}

fn drawn(parameter: &Parameter, seed: u64) -> Result<Var> {
    let shape = parameter.shape.as_slice();
    match parameter.init {
        Init::Zeros => Var::zeros(shape, DType::F32, &Device::Cpu),
        Init::GlorotUniform { fan_in, fan_out } => {
            let mut generator = generator(seed, &parameter.name);
            let limit = (6.0 / (fan_in + fan_out) as f32).sqrt();
            let values: Vec<f32> =
                (0..shape.iter().product()).map(|_| (unit(&mut generator) * 2.0 - 1.0) * limit).collect();
            Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)
        }
    }
}

/// A generator for one purpose: the same seed and name give the same numbers, on every machine.
pub fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let key = Sha256::new_with_prefix(seed.to_le_bytes()).chain_update(name).finalize();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&key);
    ChaCha8Rng::from_seed(bytes)
}

/// A number in `[0, 1)`, of 24 bits: our own mapping, since libraries' may change between versions.
pub fn unit(generator: &mut ChaCha8Rng) -> f32 {
    (generator.next_u32() >> 8) as f32 / (1 << 24) as f32
}
