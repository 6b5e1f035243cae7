//! Layers in evaluation: by plain operations of candle. What serves is held against this.

use super::lengths::{after, filled};
use super::plain::{self, activate};
use super::{Before, Network};
use crate::graph::{Node, Op, Recurrent};
use crate::ops;
use candle_core::{D, Result, Tensor};

impl Network {
    /// By plain operations of candle. A recurrent layer reads what `before` makes of its states.
    pub(super) fn eval(
        &self,
        node: &Node,
        inputs: &[Tensor],
        lengths: Option<&[usize]>,
        before: &mut Before<'_>,
    ) -> Result<Tensor> {
        let xs = &inputs[0];
        let ys = match &node.op {
            Op::Conv2d { stride, pad, dilation, groups, .. } => {
                let ys = plain::conv2d(xs, &self.weight(node)?.detach(), (*stride, *dilation), *pad, *groups)?;
                ys.broadcast_add(&self.bias(node)?.detach().reshape(((), 1, 1))?)?
            }
            Op::DepthwiseConv2d { stride, pad, .. } => {
                let ys = plain::conv2d(xs, &self.weight(node)?.detach(), (*stride, (1, 1)), *pad, node.shape[0])?;
                ys.broadcast_add(&self.bias(node)?.detach().reshape(((), 1, 1))?)?
            }
            Op::Conv1d { stride, pad, dilation, .. } => {
                let xs = &filled(xs, lengths, 0.0)?;
                let ys = plain::conv1d(xs, &self.weight(node)?.detach(), *stride, *pad, *dilation)?;
                ys.broadcast_add(&self.bias(node)?.detach())?
            }
            Op::MaxPool2d { size, stride, pad } => plain::max_pool2d(xs, *size, *stride, *pad)?,
            Op::AvgPool2d { size, stride, pad } => plain::avg_pool2d(xs, *size, *stride, *pad)?,
            Op::MaxPool1d { size, stride, pad } => {
                let lines = filled(xs, lengths, f32::NEG_INFINITY)?.transpose(1, 2)?.unsqueeze(2)?;
                let ys = plain::max_pool2d(&lines, (1, *size), (1, *stride), ops::along(*pad))?;
                let ys = ys.squeeze(2)?.transpose(1, 2)?.contiguous()?;
                // A window that sees no valid step has no largest: it is behind the end, and as finite as all else there.
                filled(&ys, after(node, lengths).as_deref(), 0.0)?
            }
            Op::GlobalAvgPool => plain::mean(xs, lengths)?,
            Op::GlobalMaxPool => match xs.rank() {
                3 => filled(xs, lengths, f32::NEG_INFINITY)?.max(1)?,
                _ => xs.flatten_from(2)?.max(2)?,
            },
            Op::StatsPool => plain::statistics(xs, lengths)?,
            Op::LayerNorm { epsilon } => {
                plain::layer_norm(xs, &self.of(node, "weight")?.detach(), &self.of(node, "bias")?.detach(), *epsilon)?
            }
            Op::Embedding { .. } => plain::embedding(xs, &self.weight(node)?.detach())?,
            Op::Concat { axis } => Tensor::cat(inputs, axis + 1)?,
            Op::Upsample2d { factor } => {
                let (_, _, height, width) = xs.dims4()?;
                xs.upsample_nearest2d(height * factor, width * factor)?
            }
            Op::Reshape => xs.reshape([&[xs.dim(0)?], &node.shape[..]].concat())?,
            Op::BatchNorm { epsilon, .. } => {
                let of = |end: &str| self.of(node, end).map(Tensor::detach);
                let (weight, bias) = (of("weight")?, of("bias")?);
                let (mean, variance) = (of("running_mean")?, of("running_var")?);
                plain::batch_norm(xs, [&weight, &bias, &mean, &variance], *epsilon)?
            }
            Op::Flatten => xs.flatten_from(1)?,
            Op::Dense { .. } => plain::dense(xs, &self.weight(node)?.detach(), &self.bias(node)?.detach())?,
            Op::Recurrent(recurrent) => self.recurrent(node, recurrent, xs, lengths, before)?,
            Op::Add { .. } => inputs[1..].iter().try_fold(xs.clone(), |sum, xs| sum + xs)?,
            Op::Anomaly => plain::anomaly(xs, &inputs[1], &self.of(node, "threshold")?.detach())?,
            Op::Activation(_) | Op::Dropout { .. } => xs.clone(),
        };
        activate(&ys, self.inner(node))
    }

    fn recurrent(
        &self,
        node: &Node,
        recurrent: &Recurrent,
        xs: &Tensor,
        lengths: Option<&[usize]>,
        before: &mut Before<'_>,
    ) -> Result<Tensor> {
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
                let states = plain::recurrent(&ys, recurrent, weights, (reverse, lengths), before)?;
                directions.push(if last { plain::last(&states, reverse, lengths)? } else { states });
            }
            ys = Tensor::cat(&directions, D::Minus1)?;
        }
        Ok(ys)
    }
}
