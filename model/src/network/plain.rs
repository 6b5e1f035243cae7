//! The reference of each layer, on plain operations of candle. Images are `(batch, channels, height, width)`, sequences
//! `(batch, time, features)`.

use super::Before;
use super::lengths::filled;
use crate::architecture::Activation;
use crate::graph::{Cell, Pad, Recurrent};
use crate::ops::{LEAK, SPREAD};
use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::sigmoid;

/// Softmax is left out: training works on logits, and [`super::Network::infer`] puts it back.
pub(super) fn activate(xs: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::None | Activation::Softmax => Ok(xs.clone()),
        Activation::Relu => xs.relu(),
        Activation::Relu6 => xs.relu()?.minimum(6.0),
        Activation::LeakyRelu => xs.maximum(&(xs * f64::from(LEAK))?),
        Activation::HardSwish => xs * ((xs + 3.0)?.clamp(0.0, 6.0)? / 6.0)?,
        Activation::Silu => xs * sigmoid(xs)?,
        Activation::Tanh => xs.tanh(),
        Activation::Sigmoid => sigmoid(xs),
    }
}

/// `weight` is `(filters, channels / groups, kernel height, kernel width)`.
pub(super) fn conv2d(
    xs: &Tensor,
    weight: &Tensor,
    (stride, dilation): ((usize, usize), (usize, usize)),
    pad: Pad,
    groups: usize,
) -> Result<Tensor> {
    // candle pads both sides alike, and strides and dilates both axes alike: the rest is done around it.
    let xs = padded(xs, pad, 0.0)?;
    let weight = &if dilation.0 == dilation.1 { weight.clone() } else { dilated(weight, dilation)? };
    let dilation = if dilation.0 == dilation.1 { dilation.0 } else { 1 };
    if stride.0 == stride.1 {
        return xs.conv2d(weight, 0, stride.0, dilation, groups);
    }
    let ys = xs.conv2d(weight, 0, 1, dilation, groups)?;
    let every = |ys: &Tensor, axis: usize, stride: usize| {
        let kept: Vec<u32> = (0..ys.dim(axis)? as u32).step_by(stride).collect();
        ys.index_select(&Tensor::new(kept, ys.device())?, axis)
    };
    every(&every(&ys, 2, stride.0)?, 3, stride.1)
}

/// `weight` is `(filters, features, kernel)`.
pub(super) fn conv1d(
    xs: &Tensor,
    weight: &Tensor,
    stride: usize,
    pad: (usize, usize),
    dilation: usize,
) -> Result<Tensor> {
    let xs = xs.transpose(1, 2)?.pad_with_zeros(2, pad.0, pad.1)?;
    xs.conv1d(weight, 0, stride, dilation, 1)?.transpose(1, 2)?.contiguous()
}

pub(super) fn max_pool2d(xs: &Tensor, size: (usize, usize), stride: (usize, usize), pad: Pad) -> Result<Tensor> {
    padded(xs, pad, f64::NEG_INFINITY)?.max_pool2d_with_stride(size, stride)
}

/// The mean of what lies inside the image.
pub(super) fn avg_pool2d(xs: &Tensor, size: (usize, usize), stride: (usize, usize), pad: Pad) -> Result<Tensor> {
    let mean = |xs: &Tensor| padded(xs, pad, 0.0)?.avg_pool2d_with_stride(size, stride);
    let share_inside = mean(&xs.narrow(0, 0, 1)?.narrow(1, 0, 1)?.ones_like()?)?;
    mean(xs)?.broadcast_div(&share_inside)
}

/// The mean over height and width, or over the valid steps.
pub(super) fn mean(xs: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
    match (xs.rank(), lengths) {
        (3, Some(lengths)) => {
            let counts: Vec<f32> = lengths.iter().map(|length| *length as f32).collect();
            let counts = Tensor::from_vec(counts, (lengths.len(), 1), xs.device())?.to_dtype(xs.dtype())?;
            filled(xs, Some(lengths), 0.0)?.sum(1)?.broadcast_div(&counts)
        }
        (3, None) => xs.mean(1),
        _ => xs.mean((2, 3)),
    }
}

/// The means, then the deviations.
pub(super) fn statistics(xs: &Tensor, lengths: Option<&[usize]>) -> Result<Tensor> {
    let means = mean(xs, lengths)?;
    let beside = if xs.rank() == 3 { means.unsqueeze(1)? } else { means.unsqueeze(2)?.unsqueeze(3)? };
    let variance = mean(&xs.broadcast_sub(&beside)?.sqr()?, lengths)?;
    Tensor::cat(&[means, (variance + f64::from(SPREAD))?.sqrt()?], 1)
}

/// Over the last axis, row by row.
pub(super) fn layer_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Tensor> {
    let centred = xs.broadcast_sub(&xs.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + f64::from(epsilon))?.sqrt()?;
    centred.broadcast_div(&deviation)?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// The rows of `weight` that `ids`, whole numbers `(batch, time)`, name.
pub(super) fn embedding(ids: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (batch, time) = ids.dims2()?;
    let rows = weight.index_select(&ids.to_dtype(DType::U32)?.flatten_all()?, 0)?;
    rows.reshape((batch, time, ()))
}

/// The state after the last step that is read.
pub(super) fn last(states: &Tensor, reverse: bool, lengths: Option<&[usize]>) -> Result<Tensor> {
    let (batch, time, _) = states.dims3()?;
    let of = |sample: usize| {
        let step = if reverse { 0 } else { lengths.map_or(time, |lengths| lengths[sample]) - 1 };
        states.narrow(0, sample, 1)?.narrow(1, step, 1)?.squeeze(1)
    };
    Tensor::cat(&(0..batch).map(of).collect::<Result<Vec<_>>>()?, 0)
}

/// `weight`, `bias`, `mean` and `variance` are `(channels)`: those of an image, or the last axis.
pub(super) fn batch_norm(xs: &Tensor, [weight, bias, mean, variance]: [&Tensor; 4], epsilon: f32) -> Result<Tensor> {
    let per_channel = |values: &Tensor| if xs.rank() == 4 { values.reshape(((), 1, 1)) } else { Ok(values.clone()) };
    let deviation = (variance + f64::from(epsilon))?.sqrt()?;
    let standard = xs.broadcast_sub(&per_channel(mean)?)?.broadcast_div(&per_channel(&deviation)?)?;
    standard.broadcast_mul(&per_channel(weight)?)?.broadcast_add(&per_channel(bias)?)
}

/// `xs · Wᵀ + b` over the last axis.
pub(super) fn dense(xs: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    xs.broadcast_matmul(&weight.t()?)?.broadcast_add(bias)
}

/// `(batch, 2)`: of each row of `xs` and `ys` how likely it is normal and how likely an anomaly, with their mean square `e` apart:
/// `threshold / (threshold + e)`, and the rest of one.
pub(super) fn anomaly(ys: &Tensor, xs: &Tensor, threshold: &Tensor) -> Result<Tensor> {
    let errors = (ys - xs)?.sqr()?.flatten_from(1)?.mean(1)?;
    let normal = errors.broadcast_add(threshold)?.recip()?.broadcast_mul(threshold)?;
    Tensor::stack(&[&normal, &(1.0 - &normal)?], 1)
}

/// One direction of a recurrent layer: `xs` is `(batch, time, features)`; returns the states of all steps,
/// `(batch, time, units)`. The weights are those of the input and of the state, each with its bias; the state is read as
/// `before` makes it.
pub(super) fn recurrent(
    xs: &Tensor,
    recurrent: &Recurrent,
    [weight_ih, weight_hh, bias_ih, bias_hh]: [&Tensor; 4],
    (reverse, lengths): (bool, Option<&[usize]>),
    before: &mut Before<'_>,
) -> Result<Tensor> {
    let (batch, time, _) = xs.dims3()?;
    let units = weight_hh.dim(1)?;
    let projected = dense(xs, weight_ih, bias_ih)?;
    let mut state = Tensor::zeros((batch, units), xs.dtype(), xs.device())?;
    let mut memory = state.clone();
    let mut states = Vec::with_capacity(time);
    for step in 0..time {
        let step = if reverse { time - 1 - step } else { step };
        let input = projected.narrow(1, step, 1)?.squeeze(1)?;
        let of_state = dense(&before(state.clone())?, weight_hh, bias_hh)?;
        let of = |gates: &Tensor, gate: usize| gates.narrow(D::Minus1, gate * units, units);
        let both = |gate: usize| of(&input, gate)? + of(&of_state, gate)?;
        state = match recurrent.cell {
            Cell::Rnn => activate(&both(0)?, recurrent.activation)?,
            Cell::Gru => {
                let (reset, update) = (sigmoid(&both(0)?)?, sigmoid(&both(1)?)?);
                let new = (of(&input, 2)? + (reset * of(&of_state, 2)?)?)?.tanh()?;
                (&new + (update * (&state - &new)?)?)?
            }
            Cell::Lstm => {
                let (input, forget, output) = (sigmoid(&both(0)?)?, sigmoid(&both(1)?)?, sigmoid(&both(3)?)?);
                memory = ((forget * &memory)? + (input * both(2)?.tanh()?)?)?;
                (output * memory.tanh()?)?
            }
        };
        if let Some(lengths) = lengths {
            let valid: Vec<f32> = lengths.iter().map(|length| f32::from(step < *length)).collect();
            let valid = Tensor::from_vec(valid, (batch, 1), xs.device())?.to_dtype(xs.dtype())?;
            (state, memory) = (state.broadcast_mul(&valid)?, memory.broadcast_mul(&valid)?);
        }
        states.push(state.clone());
    }
    if reverse {
        states.reverse();
    }
    Tensor::stack(&states, 1)
}

/// With zeros in the holes.
fn dilated(weight: &Tensor, dilation: (usize, usize)) -> Result<Tensor> {
    let (filters, channels, height, width) = weight.dims4()?;
    let rows = weight.reshape((filters, channels, height, 1, width, 1))?;
    let rows = rows.pad_with_zeros(3, 0, dilation.0 - 1)?.pad_with_zeros(5, 0, dilation.1 - 1)?;
    let spread = rows.reshape((filters, channels, height * dilation.0, width * dilation.1))?;
    let (height, width) = (dilation.0 * (height - 1) + 1, dilation.1 * (width - 1) + 1);
    spread.narrow(2, 0, height)?.narrow(3, 0, width)?.contiguous()
}

fn padded(xs: &Tensor, pad: Pad, with: f64) -> Result<Tensor> {
    let beside = |xs: &Tensor, axis: usize, count: usize| {
        let mut shape = xs.dims().to_vec();
        shape[axis] = count;
        Tensor::full(with as f32, shape, xs.device())?.to_dtype(xs.dtype())
    };
    let mut xs = xs.clone();
    for (axis, before, after) in [(2, pad.top, pad.bottom), (3, pad.left, pad.right)] {
        if before + after > 0 {
            xs = Tensor::cat(&[&beside(&xs, axis, before)?, &xs, &beside(&xs, axis, after)?], axis)?;
        }
    }
    Ok(xs)
}
