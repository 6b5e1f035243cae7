//! Weights as the kernels take them: in their order, in the plan's arithmetic, with the norm behind them folded in.

use super::fuse::{Fused, Norm};
use super::{Depthwise, Product, Weights};
use crate::architecture::Activation;
use crate::graph::Node;
use crate::network::Network;
use crate::ops::values;
use crate::variant::{Arithmetic, Scales};
use candle_core::Result;
use sconce_kernels::pack::{self, Packed, PackedI8};
use sconce_kernels::rows::{AMPLE, Taps};
use sconce_kernels::{Activation as Epilogue, Image, Window};

/// From here on a number is infinite as f16.
const BEYOND_F16: f32 = 65_520.0;

pub(super) struct Packer<'a> {
    pub network: &'a Network,
    pub arithmetic: &'a Arithmetic,
}

impl Packer<'_> {
    /// Weights `(outputs, inputs)` that stand alone.
    pub(super) fn dense(&self, outputs: usize, weights: Vec<f32>, bias: Vec<f32>) -> Product {
        let depth = weights.len() / outputs;
        let packed = self.pack(outputs, depth, |output, k| weights[output * depth + k]);
        let weights = Weights::Float { packed, padding: Vec::new() };
        Product { taps: None, weights, bias: Some(bias), activation: Epilogue::None }
    }

    pub(super) fn depthwise(&self, node: &Node, image: Image, window: Window, fused: &Fused) -> Result<Depthwise> {
        let given = values(self.network.weight(node)?)?;
        let area = window.kernel[0] * window.kernel[1];
        // From (channels, 1, height, width) to (height, width, channels).
        let weight = |at: usize| {
            let (tap, channel) = (at / image.channels, at % image.channels);
            let scale = fused.norm.as_ref().map_or(1.0, |norm| norm.scale[channel]);
            given[channel * area + tap] * scale
        };
        let weights = (0..given.len()).map(weight).collect();
        let activation = in_epilogue(fused.activation).unwrap_or_default();
        Ok(Depthwise { window, image, weights, bias: self.bias(node, fused.norm.as_ref())?, activation })
    }

    /// The node's weights, packed: weight `k` of an output is the graph's `column(k)`.
    pub(super) fn product(
        &self,
        node: &Node,
        taps: Option<Taps>,
        depth: usize,
        column: impl Fn(usize) -> usize,
        fused: &Fused,
    ) -> Result<Product> {
        let given = values(self.network.weight(node)?)?;
        let outputs = given.len() / depth;
        let norm = fused.norm.as_ref();
        let factor = |output: usize| norm.map_or(1.0, |norm| norm.scale[output]);
        let (runs, run) = taps.as_ref().map_or((1, depth), |taps| (taps.taps(), taps.depth()));
        let scales = match self.arithmetic {
            Arithmetic::I8(quantisation) => quantisation.0.get(&node.name),
            Arithmetic::F32 | Arithmetic::F16 => None,
        };
        let weights = match scales {
            Some(Scales { input, weights }) => {
                // A norm behind bytes changes their scale, and no byte.
                let scales: Vec<f32> = (0..outputs).map(|output| weights[output] * factor(output)).collect();
                let byte = |output, k| pack::byte(given[output * depth + column(k)], weights[output]);
                let packed = PackedI8::new(&scales, runs, run, byte);
                Weights::Bytes { packed, padding: vec![input.zero_point; run + AMPLE], input: *input }
            }
            None => {
                let weight = |output: usize, k: usize| given[output * depth + column(k)] * factor(output);
                Weights::Float { packed: self.pack(outputs, depth, weight), padding: vec![0.0; run] }
            }
        };
        let activation = in_epilogue(fused.activation).unwrap_or_default();
        Ok(Product { taps, weights, bias: self.bias(node, norm)?, activation })
    }

    /// As the arithmetic has weights, unless a norm made one too large for it.
    fn pack(&self, outputs: usize, depth: usize, weight: impl Fn(usize, usize) -> f32) -> Packed {
        let fits = || (0..outputs).all(|output| (0..depth).all(|k| weight(output, k).abs() < BEYOND_F16));
        match self.arithmetic {
            Arithmetic::F16 if fits() => Packed::f16(outputs, depth, weight),
            Arithmetic::F16 | Arithmetic::F32 | Arithmetic::I8(_) => Packed::f32(outputs, depth, weight),
        }
    }

    fn bias(&self, node: &Node, norm: Option<&Norm>) -> Result<Option<Vec<f32>>> {
        let bias = self.network.variables().get(&format!("{}.bias", node.name));
        let bias = bias.map(|bias| values(bias)).transpose()?;
        Ok(match (bias, norm) {
            (Some(bias), Some(Norm { scale, shift })) => Some(
                bias.iter().zip(scale.iter().zip(shift)).map(|(bias, (scale, shift))| bias * scale + shift).collect(),
            ),
            (None, Some(norm)) => Some(norm.shift.clone()),
            (bias, None) => bias,
        })
    }
}

/// What a product can do as it stores its sums: no pass of its own.
pub(super) fn in_epilogue(activation: Activation) -> Option<Epilogue> {
    match activation {
        Activation::None | Activation::Softmax => Some(Epilogue::None),
        Activation::Relu => Some(Epilogue::Relu),
        Activation::Relu6 => Some(Epilogue::Relu6),
        Activation::Tanh | Activation::Sigmoid => None,
    }
}
