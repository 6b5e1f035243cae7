//! Layers in training: by operations of ours, which know their gradients.

use super::lengths::{after, filled};
use super::{Network, Training, generator, unit};
use crate::architecture::Activation;
use crate::graph::{Node, Op, Recurrent};
use crate::ops::{self, Pooling, Reading, Statistics, Summary, Valid, Window};
use candle_core::{D, Result, Tensor};

impl Network {
    pub(super) fn train(
        &self,
        node: &Node,
        inputs: &[Tensor],
        lengths: Option<&[usize]>,
        training: &Training<'_>,
    ) -> Result<Tensor> {
        let (xs, activation) = (&inputs[0], self.inner(node));
        let learned = |end: &str| self.learned(node, end, training);
        let bias = || match self.has(node, "bias") {
            true => learned("bias"),
            false => self.bias(node),
        };
        match &node.op {
            &Op::Conv2d { kernel, stride, pad, dilation, groups, .. } => {
                let window = Window { kernel, stride, pad, dilation, groups };
                ops::conv2d(xs, &learned("weight")?, &bias()?, window, activation)
            }
            &Op::DepthwiseConv2d { kernel, stride, pad, .. } => {
                let window = Window { kernel, stride, pad, dilation: (1, 1), groups: xs.dim(1)? };
                ops::conv2d(xs, &learned("weight")?, &bias()?, window, activation)
            }
            &Op::Conv1d { kernel, stride, pad, dilation, .. } => {
                let window = Window {
                    kernel: (1, kernel),
                    stride: (1, stride),
                    pad: ops::along(pad),
                    dilation: (1, dilation),
                    groups: 1,
                };
                let xs = as_lines(&filled(xs, lengths, 0.0)?)?;
                let ys = ops::conv2d(&xs, &learned("weight")?.unsqueeze(2)?, &bias()?, window, activation)?;
                as_sequence(&ys)
            }
            &Op::MaxPool1d { size, stride, pad } => {
                let pooling = Pooling { size: (1, size), stride: (1, stride), pad: ops::along(pad) };
                let ys = ops::max_pool2d(&as_lines(&filled(xs, lengths, f32::NEG_INFINITY)?)?, pooling)?;
                filled(&as_sequence(&ys)?, after(node, lengths).as_deref(), 0.0)
            }
            &Op::MaxPool2d { size, stride, pad } => ops::max_pool2d(xs, Pooling { size, stride, pad }),
            &Op::AvgPool2d { size, stride, pad } => ops::avg_pool2d(xs, Pooling { size, stride, pad }),
            Op::GlobalAvgPool => ops::summarise(xs, Summary::Mean, lengths),
            Op::GlobalMaxPool => ops::summarise(xs, Summary::Max, lengths),
            Op::StatsPool => ops::summarise(xs, Summary::Statistics, lengths),
            &Op::BatchNorm { epsilon, momentum, .. } => {
                let weights = [&learned("weight")?, &learned("bias")?];
                let is_frozen = training.frozen.contains(&node.name);
                let valid = Valid::steps(lengths.filter(|_| xs.rank() == 3), xs.dim(1)?);
                let statistics = match is_frozen {
                    true => self.gathered(node)?,
                    false => {
                        let statistics = ops::statistics(xs, &valid)?;
                        self.gather(node, &statistics, momentum)?;
                        statistics
                    }
                };
                ops::batch_norm(xs, weights, statistics, !is_frozen, epsilon, activation, valid)
            }
            &Op::LayerNorm { epsilon } => ops::layer_norm(xs, &learned("weight")?, &learned("bias")?, epsilon),
            Op::Dense { .. } => ops::dense(xs, &learned("weight")?, &bias()?, activation),
            Op::Dropout { .. } if training.frozen.contains(&node.name) => Ok(xs.clone()),
            &Op::Dropout { rate } => dropped(xs, rate, &node.name, training),
            Op::Recurrent(recurrent) => self.train_recurrent(node, recurrent, xs, lengths, training),
            Op::Embedding { padding } => ops::embedding(xs, &learned("weight")?, Some(*padding)),
            Op::Add { .. } => ops::add(inputs, activation),
            Op::Concat { axis } => Tensor::cat(inputs, axis + 1),
            &Op::Upsample2d { factor } => ops::upsample2d(xs, factor),
            Op::Flatten => xs.flatten_from(1),
            Op::Reshape => xs.reshape([&[xs.dim(0)?], &node.shape[..]].concat()),
            Op::Activation(_) => ops::activate(xs, activation),
            Op::Anomaly => Ok(xs.clone()),
        }
    }

    fn train_recurrent(
        &self,
        node: &Node,
        recurrent: &Recurrent,
        xs: &Tensor,
        lengths: Option<&[usize]>,
        training: &Training<'_>,
    ) -> Result<Tensor> {
        let (batch, time, _) = xs.dims3()?;
        let mut ys = xs.clone();
        for layer in 0..recurrent.layers {
            if layer > 0 && recurrent.dropout > 0.0 && !training.frozen.contains(&node.name) {
                ys = dropped(&ys, recurrent.dropout, &format!("{} {layer}", node.name), training)?;
            }
            let is_last = layer + 1 == recurrent.layers && !recurrent.return_sequences;
            let mut directions = Vec::with_capacity(2);
            for direction in recurrent.directions() {
                let of = |end: &str| self.learned(node, &format!("{end}_l{layer}{direction}"), training);
                // One tensor of each, for an operation reads three: the gradient of a concatenation takes them apart.
                let weight = Tensor::cat(&[of("weight_ih")?, of("weight_hh")?], 1)?;
                let bias = Tensor::cat(&[of("bias_ih")?, of("bias_hh")?], 0)?;
                let reverse = !direction.is_empty();
                let (cell, activation, lengths) =
                    (recurrent.cell, recurrent.activation, lengths.map(<[usize]>::to_vec));
                let after = match (reverse, &lengths) {
                    (true, _) => vec![0; batch],
                    (false, None) => vec![time - 1; batch],
                    (false, Some(lengths)) => lengths.iter().map(|length| length - 1).collect(),
                };
                let states = ops::recurrent(&ys, &weight, &bias, Reading { cell, activation, reverse, lengths })?;
                directions.push(if is_last { ops::pick(&states, after)? } else { states });
            }
            ys = match &directions[..] {
                [one] => one.clone(),
                both => Tensor::cat(both, D::Minus1)?,
            };
        }
        Ok(ys)
    }

    /// A weight, for its gradient; without one if its layer is frozen.
    fn learned(&self, node: &Node, end: &str, training: &Training<'_>) -> Result<Tensor> {
        let weight = self.of(node, end)?;
        Ok(if training.frozen.contains(&node.name) { weight.detach() } else { weight.clone() })
    }

    fn gathered(&self, node: &Node) -> Result<Statistics> {
        let (mean, variance) =
            (ops::values(self.of(node, "running_mean")?)?, ops::values(self.of(node, "running_var")?)?);
        Ok(Statistics { mean, variance, count: 1 })
    }

    /// Moves the running statistics towards those of the batch. The variance is that of all samples, as far as these tell.
    fn gather(&self, node: &Node, statistics: &Statistics, momentum: f32) -> Result<()> {
        let Statistics { mean, variance, count } = statistics;
        // One sample does not tell how far samples are apart.
        if *count < 2 {
            return Ok(());
        }
        let spread = *count as f32 / (count.saturating_sub(1).max(1)) as f32;
        let of_all = variance.iter().map(|variance| variance * spread).collect();
        for (end, values) in [("running_mean", mean.clone()), ("running_var", of_all)] {
            let Some(running) = self.variables.get(&format!("{}.{end}", node.name)) else { continue };
            let moved = ops::values(running)?.into_iter().zip(values).map(|(old, new)| old + momentum * (new - old));
            running.set(&Tensor::from_vec(moved.collect(), running.shape(), running.device())?)?;
        }
        Ok(())
    }
}

/// Zeros a share of the values, and scales the others so that their sum stays about what it was.
fn dropped(xs: &Tensor, rate: f32, name: &str, training: &Training<'_>) -> Result<Tensor> {
    let Training { seed, epoch, step, .. } = training;
    let (keep, generator) = (1.0 - rate, &mut generator(*seed, &format!("dropout {epoch} {step} {name}")));
    let mask: Vec<f32> =
        (0..xs.elem_count()).map(|_| if unit(generator) < keep { keep.recip() } else { 0.0 }).collect();
    xs * Tensor::from_vec(mask, xs.shape(), xs.device())?
}

/// A sequence as an image of one line, whose channels are the features.
fn as_lines(xs: &Tensor) -> Result<Tensor> {
    xs.transpose(1, 2)?.unsqueeze(2)
}

fn as_sequence(ys: &Tensor) -> Result<Tensor> {
    ys.squeeze(2)?.transpose(1, 2)?.contiguous()
}

impl Network {
    /// What the node applies inside the network: a closing softmax or sigmoid is left to the loss, or to the answer.
    pub(super) fn inner(&self, node: &Node) -> Activation {
        let is_last = self.graph.nodes.last().is_some_and(|last| last.name == node.name);
        if is_last && self.graph.closing() != Activation::None { Activation::None } else { node.op.activation() }
    }
}
