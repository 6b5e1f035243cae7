//! Sequences of different lengths in one batch: how many steps of each are valid, layer by layer.

use crate::graph::Node;
use candle_core::{DType, Device, Result, Tensor};

/// Checked: one for each of the batch, at least 1 and at most `time`.
pub(super) fn read(lengths: &Tensor, xs: &Tensor, input: &[usize]) -> Result<Vec<usize>> {
    let (1 | 2, &[batch, time, ..]) = (input.len(), xs.dims()) else {
        candle_core::bail!("lengths are of sequences, the network reads {input:?}")
    };
    let lengths: Vec<u32> = lengths.to_dtype(DType::U32)?.to_vec1()?;
    if lengths.len() != batch {
        candle_core::bail!("{} lengths for {batch} sequences", lengths.len())
    }
    if let Some(wrong) = lengths.iter().find(|length| !(1..=time).contains(&(**length as usize))) {
        candle_core::bail!("length {wrong}; need 1 to {time}, the steps of a sequence")
    }
    Ok(lengths.into_iter().map(|length| length as usize).collect())
}

/// Of what the node gives, by those of what it reads; none where there is no time any more.
pub(super) fn after(node: &Node, lengths: Option<&[usize]>) -> Option<Vec<usize>> {
    let lengths = lengths?;
    let is_sequence = node.keeps_time() && node.shape.len() == 2;
    is_sequence
        .then(|| lengths.iter().map(|length| node.steps_after(*length).unwrap_or(1).min(node.shape[0])).collect())
}

/// `xs` is `(batch, time, features)`; what comes after the valid steps is `filling`, so that no window sees it.
pub(super) fn filled(xs: &Tensor, lengths: Option<&[usize]>, filling: f32) -> Result<Tensor> {
    let Some(lengths) = lengths else { return Ok(xs.clone()) };
    let (batch, time, _) = xs.dims3()?;
    let valid: Vec<u8> =
        lengths.iter().flat_map(|&length| (0..time).map(move |step| u8::from(step < length))).collect();
    let valid = Tensor::from_vec(valid, (batch, time, 1), &Device::Cpu)?.broadcast_as(xs.shape())?;
    let filling = Tensor::full(filling, (), &Device::Cpu)?.to_dtype(xs.dtype())?.broadcast_as(xs.shape())?;
    valid.where_cond(xs, &filling)
}
