//! Weights as the kernels take them: in their order, in the plan's arithmetic, with the norm behind them folded in.

use super::fuse::{Fused, Norm};
use super::{Depthwise, Kernels, Product, Weights};
use crate::architecture::Activation;
use crate::graph::Node;
use crate::network::Network;
use crate::ops::values;
use crate::variant::Arithmetic;
use candle_core::Result;
use sconce_kernels::depthwise::DepthwiseI8;
use sconce_kernels::gru::Gru;
use sconce_kernels::half::is_f16;
use sconce_kernels::pack::{self, Packed, PackedI8};
use sconce_kernels::quantise::Scaling;
use sconce_kernels::rows::{AMPLE, Taps};
use sconce_kernels::winograd::Winograd;
use sconce_kernels::{Activation as Epilogue, Aligned, Image, Window};
use std::sync::Arc;

/// From here on a number is infinite as f16.
const BEYOND_F16: f32 = 65_520.0;

pub(super) struct Packer<'a> {
    pub network: &'a Network,
    pub arithmetic: &'a Arithmetic,
}

impl Packer<'_> {
    /// What bytes stand for that the node reads; none if it is computed as f32.
    pub(super) fn input(&self, node: &Node) -> Option<Scaling> {
        match self.arithmetic {
            Arithmetic::I8(quantisation) => quantisation.inputs.get(&node.name).copied(),
            Arithmetic::F32 | Arithmetic::F16 => None,
        }
    }

    /// The node's weights `(outputs, inputs)` of these names, one below the other, with their biases: a product that stands alone,
    /// of bytes if it is known what those of the input stand for.
    pub(super) fn dense(&self, node: &Node, ends: &[String], input: Option<Scaling>) -> Result<Product> {
        let (mut given, mut bias, mut scales) = (Vec::new(), Vec::new(), Vec::new());
        for end in ends {
            given.extend(values(self.network.of(node, &format!("weight_{end}"))?)?);
            bias.extend(values(self.network.of(node, &format!("bias_{end}"))?)?);
            scales.extend(self.scales(&format!("{}.weight_{end}", node.name)));
        }
        let depth = given.len() / bias.len();
        let bytes = input.map(|input| (input, &scales[..]));
        let weights = self.weights(bias.len(), (1, depth), |output, k| given[output * depth + k], |_| 1.0, bytes);
        Ok(Product { taps: None, over: None, weights, bias: Some(bias), activation: Epilogue::None, pooled: None })
    }

    /// The weights of a GRU's state of this end, with their biases: for one pass over products and gates.
    pub(super) fn gru(&self, node: &Node, end: &str) -> Result<Product> {
        let given = values(self.network.of(node, &format!("weight_{end}"))?)?;
        let bias = values(self.network.of(node, &format!("bias_{end}"))?)?;
        let depth = given.len() / bias.len();
        let weight = |output: usize, k: usize| given[output * depth + k];
        let halved = self.halves(bias.len(), depth, weight);
        let weights = Weights::Gru(Arc::new(Gru::new(depth, halved, weight, &bias)));
        Ok(Product { taps: None, over: None, weights, bias: None, activation: Epilogue::None, pooled: None })
    }

    pub(super) fn depthwise(&self, node: &Node, image: Image, window: Window, fused: &Fused) -> Result<Depthwise> {
        let given = values(self.network.weight(node)?)?;
        let area = window.kernel[0] * window.kernel[1];
        let factor = |channel: usize| fused.norm.as_ref().map_or(1.0, |norm| norm.scale[channel]);
        // From (channels, 1, height, width) to (height, width, channels).
        let weight = |tap: usize, channel: usize| given[channel * area + tap];
        let weights = match self.input(node) {
            None => {
                let numbers = |at: usize| {
                    let (tap, channel) = (at / image.channels, at % image.channels);
                    weight(tap, channel) * factor(channel)
                };
                Kernels::Floats(Aligned::from(&(0..given.len()).map(numbers).collect::<Vec<_>>()[..]))
            }
            Some(input) => {
                let of_weights = self.scales(&node.weight());
                let scales: Vec<f32> =
                    of_weights.iter().enumerate().map(|(channel, scale)| scale * factor(channel)).collect();
                let byte = |tap, channel| pack::byte(weight(tap, channel), of_weights[channel]);
                Kernels::Bytes(DepthwiseI8::new(input, window.kernel, &scales, byte))
            }
        };
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
        let runs = taps.as_ref().map_or((1, depth), |taps| (taps.taps(), taps.depth()));
        let bytes = self.input(node).map(|input| (input, self.scales(&node.weight())));
        // Once, for it divides.
        let columns: Vec<usize> = (0..depth).map(column).collect();
        let weights = self.weights(outputs, runs, |output, k| given[output * depth + columns[k]], factor, bytes);
        let activation = in_epilogue(fused.activation).unwrap_or_default();
        Ok(Product { taps, over: None, weights, bias: self.bias(node, norm)?, activation, pooled: None })
    }

    /// A convolution in tiles, if that is faster: of `f32`, for the weights of tiles are more than those of a file.
    pub(super) fn tiles(
        &self,
        node: &Node,
        image: Image,
        window: Window,
        column: impl Fn(usize) -> usize,
        fused: &Fused,
    ) -> Result<Option<Product>> {
        let given = values(self.network.weight(node)?)?;
        let depth = window.kernel[0] * window.kernel[1] * image.channels;
        let outputs = given.len() / depth;
        let is_f32 = !matches!(self.arithmetic, Arithmetic::F16) && self.input(node).is_none();
        if !is_f32 || !Winograd::suits(1, image, &window, outputs) {
            return Ok(None);
        }
        let norm = fused.norm.as_ref();
        let factor = |output: usize| norm.map_or(1.0, |norm| norm.scale[output]);
        let weight = |output, k| given[output * depth + column(k)] * factor(output);
        let weights = Weights::Tiles(Arc::new(Winograd::new(image, window, outputs, weight)));
        let activation = in_epilogue(fused.activation).unwrap_or_default();
        Ok(Some(Product { taps: None, over: None, weights, bias: self.bias(node, norm)?, activation, pooled: None }))
    }

    /// Of a weight that is bytes.
    fn scales(&self, name: &str) -> &[f32] {
        match self.arithmetic {
            Arithmetic::I8(quantisation) => quantisation.weights.get(name).map_or(&[], |scales| scales),
            Arithmetic::F32 | Arithmetic::F16 => &[],
        }
    }

    /// Weights of rows of so many `runs` of a length, each times the factor of its output. `bytes` says what those of the input
    /// stand for, and has the scales of `weight`.
    fn weights(
        &self,
        outputs: usize,
        (runs, run): (usize, usize),
        weight: impl Fn(usize, usize) -> f32,
        factor: impl Fn(usize) -> f32,
        bytes: Option<(Scaling, &[f32])>,
    ) -> Weights {
        let Some((input, of_outputs)) = bytes else {
            let packed = self.pack(outputs, runs * run, |output, k| weight(output, k) * factor(output));
            return Weights::Float { packed: Arc::new(packed), padding: vec![0.0; run] };
        };
        // A norm behind bytes changes their scale, and no byte.
        let scales: Vec<f32> = (0..outputs).map(|output| of_outputs[output] * factor(output)).collect();
        let byte = |output, k| pack::byte(weight(output, k), of_outputs[output]);
        let packed = Arc::new(PackedI8::new(&scales, runs, run, byte));
        Weights::Bytes { packed, padding: vec![input.zero_point; run + AMPLE], input }
    }

    /// As f16, where the arithmetic has it.
    fn pack(&self, outputs: usize, depth: usize, weight: impl Fn(usize, usize) -> f32) -> Packed {
        let pack = if self.halves(outputs, depth, &weight) { Packed::f16 } else { Packed::f32 };
        pack(outputs, depth, weight)
    }

    /// Whether weights shall be f16, and can: a norm may have made one too large. Beside bytes they are where that rounds none.
    fn halves(&self, outputs: usize, depth: usize, weight: impl Fn(usize, usize) -> f32) -> bool {
        let can = |weight: f32| match self.arithmetic {
            Arithmetic::F32 => false,
            Arithmetic::F16 => weight.abs() < BEYOND_F16,
            Arithmetic::I8(_) => is_f16(weight),
        };
        (0..outputs).all(|output| (0..depth).all(|k| can(weight(output, k))))
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
        Activation::LeakyRelu | Activation::HardSwish | Activation::Silu | Activation::Tanh | Activation::Sigmoid => {
            None
        }
    }
}
