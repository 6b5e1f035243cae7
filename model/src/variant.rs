//! The forms in which a network is served: what its weights are stored as, and how its products are computed.

use crate::graph::{Graph, Node, Op, Parameter};
use crate::network::{Network, WeightsError};
use crate::ops::lend;
use crate::plan::{Plan, has_no_kernel};
use candle_core::{DType, Device, Tensor};
use sconce_kernels::depthwise::MAX_TAPS_I8;
use sconce_kernels::pack::{self, MAX_DEPTH_I8};
use sconce_kernels::quantise::Scaling;
use std::collections::BTreeMap;
use thiserror::Error;

/// The variant that training makes.
pub const F32: &str = "f32";
pub const F16: &str = "f16";
pub const INT8: &str = "int8";

/// How the products of a network are computed.
#[derive(Clone, Debug, PartialEq)]
pub enum Arithmetic {
    F32,
    /// Weights are stored as f16; sums are f32.
    F16,
    /// Weights and inputs of products are bytes, sums are whole numbers: the same bits on every instruction set.
    I8(Quantisation),
}

impl Arithmetic {
    /// As `variants.json` writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8(_) => "i8-exact",
        }
    }
}

/// What the bytes stand for, where products are computed with bytes. The others are computed as f32.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantisation {
    /// Of what a node reads, by its name.
    pub inputs: BTreeMap<String, Scaling>,
    /// Of weights, by their names. One per output: a weight is its byte, in -127..=127, times this.
    pub weights: BTreeMap<String, Vec<f32>>,
}

/// The bytes of a recurrent layer's states, which lie within ±1 whatever it reads.
pub const STATE: Scaling = Scaling { scale: 1.0 / 127.0, zero_point: 128 };

/// A network in one of its forms. Its weights are those that are served: rounded to what the form can hold.
pub struct Variant {
    /// `f32`, `f16`, `int8`.
    pub name: String,
    pub network: Network,
    pub arithmetic: Arithmetic,
}

#[derive(Debug, Error)]
pub enum VariantError {
    #[error("\"{weight}\" holds {value}, which no f16 can: the model has no f16 variant")]
    Range { weight: String, value: f32 },
    #[error("\"{weight}\" holds {value}: the model has no int8 variant")]
    NotFinite { weight: String, value: f32 },
    #[error("only the last layer computes products, and it stays f32: the model has no int8 variant")]
    NothingToQuantise,
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Variant {
    /// As it was trained.
    pub fn f32(network: Network) -> Self {
        Self { name: F32.into(), network, arithmetic: Arithmetic::F32 }
    }

    /// Each weight of a product rounded to the nearest f16; biases stay.
    ///
    /// # Errors
    /// [`VariantError::Range`] if a weight would become infinite.
    pub fn f16(network: &Network) -> Result<Self, VariantError> {
        let mut weights = tensors(network);
        for parameter in network.graph().parameters().filter(|parameter| parameter.is_matrix()) {
            let name = parameter.name.clone();
            let halved = halved(&weights[&name])?;
            if let Some(value) = first(&halved, |value| !value.is_finite())? {
                return Err(VariantError::Range { weight: name, value });
            }
            weights.insert(name, halved);
        }
        let network = Network::load(network.graph().clone(), &weights)?;
        Ok(Self { name: F16.into(), network, arithmetic: Arithmetic::F16 })
    }

    /// Weights rounded to bytes with a scale for each output, symmetric; `inputs` says how the inputs of products become bytes, by
    /// the names of the nodes. The weights of products that are not among them become f16, unless one is beyond it; the products
    /// stay f32.
    ///
    /// # Errors
    /// [`VariantError`] if a weight is not finite.
    pub fn int8(network: &Network, inputs: &BTreeMap<String, Scaling>) -> Result<Self, VariantError> {
        let mut weights = tensors(network);
        let mut quantisation = Quantisation::default();
        for node in quantisable(network.graph()) {
            let Some(input) = inputs.get(&node.name) else { continue };
            quantisation.inputs.insert(node.name.clone(), *input);
            for Parameter { name, .. } in node.matrices() {
                let (rounded, scales) = rounded(name, &weights[name])?;
                weights.insert(name.clone(), rounded);
                quantisation.weights.insert(name.clone(), scales);
            }
        }
        if quantisation.inputs.is_empty() {
            return Err(VariantError::NothingToQuantise);
        }
        let floats = network.graph().parameters().filter(|parameter| parameter.is_matrix());
        for Parameter { name, .. } in floats.filter(|parameter| !quantisation.weights.contains_key(&parameter.name)) {
            let halved = halved(&weights[name])?;
            if first(&halved, |value| !value.is_finite())?.is_none() {
                weights.insert(name.clone(), halved);
            }
        }
        let network = Network::load(network.graph().clone(), &weights)?;
        Ok(Self { name: INT8.into(), network, arithmetic: Arithmetic::I8(quantisation) })
    }

    /// What serves it, and by which it is evaluated.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn plan(&self) -> candle_core::Result<Plan> {
        Plan::compile(&self.network, &self.arithmetic)
    }
}

/// The products that may be computed with bytes: all that have a kernel but the last, whose sums are the answer.
pub fn quantisable(graph: &Graph) -> impl Iterator<Item = &Node> {
    let last = graph.nodes.iter().rposition(|node| node.matrices().next().is_some()).unwrap_or_default();
    let depth = |parameter: &Parameter| parameter.shape[1..].iter().product::<usize>();
    let fits = move |node: &Node| {
        let most = if matches!(node.op, Op::DepthwiseConv2d { .. }) { MAX_TAPS_I8 } else { MAX_DEPTH_I8 };
        node.matrices().all(|parameter| depth(parameter) <= most)
    };
    let products = graph.nodes[..last].iter().filter(|node| node.matrices().next().is_some());
    products.filter(move |node| !has_no_kernel(&node.op) && fits(node))
}

/// What is left of a weight as f16: infinite, if it was beyond it.
fn halved(weight: &Tensor) -> candle_core::Result<Tensor> {
    weight.to_dtype(DType::F16)?.to_dtype(DType::F32)
}

/// What is left of a weight as bytes, and their scales, one per output.
fn rounded(name: &str, weight: &Tensor) -> Result<(Tensor, Vec<f32>), VariantError> {
    if let Some(value) = first(weight, |value| !value.is_finite())? {
        return Err(VariantError::NotFinite { weight: name.into(), value });
    }
    let depth = weight.dims()[1..].iter().product();
    let values = weight.flatten_all()?.to_vec1::<f32>()?;
    let scales: Vec<f32> = values.chunks_exact(depth).map(|values| pack::scale(values.iter().copied())).collect();
    let rows = values.chunks_exact(depth).zip(&scales);
    let bytes: Vec<i8> =
        rows.flat_map(|(row, scale)| row.iter().map(move |value| pack::byte(*value, *scale))).collect();
    let rounded = Tensor::from_vec(dequantised(&bytes, &scales), weight.shape(), &Device::Cpu)?;
    Ok((rounded, scales))
}

/// What bytes stand for: rows of equally many for each output, which has a scale.
pub(crate) fn dequantised(bytes: &[i8], scales: &[f32]) -> Vec<f32> {
    let depth = (bytes.len() / scales.len().max(1)).max(1);
    let mut floats = Vec::with_capacity(bytes.len());
    for (row, scale) in bytes.chunks_exact(depth).zip(scales) {
        floats.extend(row.iter().map(|byte| f32::from(*byte) * scale));
    }
    floats
}

fn tensors(network: &Network) -> BTreeMap<String, Tensor> {
    network.variables().iter().map(|(name, variable)| (name.clone(), variable.as_detached_tensor())).collect()
}

fn first(tensor: &Tensor, is: impl Fn(&f32) -> bool) -> candle_core::Result<Option<f32>> {
    lend(tensor, |values| Ok(values.iter().copied().find(|value| is(value))))
}
