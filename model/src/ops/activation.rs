//! Activations. The slope of a rectifier at its bends is the lower side's, as in PyTorch; candle's is the upper's.

use super::record::{elements, like, record};
use crate::architecture::Activation;
use crate::architecture::Activation::{HardSwish, LeakyRelu, None, Relu, Relu6, Sigmoid, Silu, Softmax, Tanh};
use candle_core::{Result, Tensor};
use sconce_kernels::IsaToken;
use sconce_kernels::gates::{Function, map};
use sconce_kernels::wide;
use std::borrow::Cow;
use std::sync::OnceLock;

/// What is left of a value below zero, as in PyTorch.
pub const LEAK: f32 = 0.01;

/// Whether its slope is told by what it gave, so that the operation before it can apply it at once.
pub(super) fn is_rectifier(activation: Activation) -> bool {
    matches!(activation, None | Relu | Relu6 | LeakyRelu)
}

/// `activation` of each value; a softmax is left out, for training works on logits.
pub fn activate(xs: &Tensor, activation: Activation) -> Result<Tensor> {
    if matches!(activation, None | Softmax) {
        return Ok(xs.clone());
    }
    let xs = xs.contiguous()?;
    let mut ys = elements(&xs)?.to_vec();
    apply(activation, &mut ys)?;
    record("activation", [&xs], ys, xs.shape(), move |[xs], ys, gradient| {
        let (of_xs, of_ys, gradient) = (elements(xs)?, elements(ys)?, elements(gradient)?);
        let values = of_xs.iter().zip(of_ys.iter()).zip(gradient.iter());
        Ok([like(values.map(|((&x, &y), &g)| g * slope(activation, x, y)).collect(), xs)?])
    })
}

/// In place. A NaN stays one.
pub(crate) fn apply(activation: Activation, ys: &mut [f32]) -> Result<()> {
    match activation {
        None | Softmax => {}
        Relu => wide(isa()?, rectify, ys),
        Relu6 => ys.iter_mut().for_each(|y| *y = y.clamp(0.0, 6.0)),
        LeakyRelu => ys.iter_mut().for_each(|y| *y = if *y < 0.0 { LEAK * *y } else { *y }),
        HardSwish => ys.iter_mut().for_each(|y| *y *= (*y + 3.0).clamp(0.0, 6.0) / 6.0),
        Sigmoid => map(isa()?, Function::Sigmoid, ys),
        Tanh => map(isa()?, Function::Tanh, ys),
        Silu => {
            let mut gates = ys.to_vec();
            map(isa()?, Function::Sigmoid, &mut gates);
            ys.iter_mut().zip(gates).for_each(|(y, gate)| *y *= gate);
        }
    }
    Ok(())
}

#[inline(always)]
fn rectify(ys: &mut [f32]) {
    // Not `max`, which would hide a NaN.
    ys.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
}

/// Of the output `y` by the input `x`; a rectifier's needs the output alone.
#[inline(always)]
fn slope(activation: Activation, x: f32, y: f32) -> f32 {
    match activation {
        None | Softmax => 1.0,
        Relu => f32::from(y > 0.0),
        Relu6 => f32::from(y > 0.0 && y < 6.0),
        LeakyRelu => {
            if y > 0.0 {
                1.0
            } else {
                LEAK
            }
        }
        HardSwish if x <= -3.0 => 0.0,
        HardSwish if x >= 3.0 => 1.0,
        HardSwish => x / 3.0 + 0.5,
        Sigmoid => y * (1.0 - y),
        Tanh => 1.0 - y * y,
        Silu => {
            let gate = 1.0 / (1.0 + (-x).exp());
            gate * (1.0 + x * (1.0 - gate))
        }
    }
}

/// Of a function whose slope its output tells: a rectifier, sigmoid or tanh.
pub(super) fn slope_of_output(activation: Activation, y: f32) -> f32 {
    slope(activation, 0.0, y)
}

/// The gradient before a rectifier, given that behind it.
pub(super) fn through<'a>(activation: Activation, gradient: &'a [f32], ys: &[f32]) -> Result<Cow<'a, [f32]>> {
    Ok(match activation {
        None => gradient.into(),
        Relu => wide(isa()?, where_positive, (gradient, ys)).into(),
        _ => gradient.iter().zip(ys).map(|(g, y)| g * slope(activation, 0.0, *y)).collect(),
    })
}

/// Bits, not a branch: which of them is positive is chance.
#[inline(always)]
fn where_positive((gradient, ys): (&[f32], &[f32])) -> Vec<f32> {
    let keep = |y: f32| u32::from(y > 0.0).wrapping_neg();
    gradient.iter().zip(ys).map(|(g, y)| f32::from_bits(g.to_bits() & keep(*y))).collect()
}

/// What functions are computed with: found out once.
pub(super) fn isa() -> Result<IsaToken> {
    static ISA: OnceLock<IsaToken> = OnceLock::new();
    if let Some(isa) = ISA.get() {
        return Ok(*isa);
    }
    let isa = IsaToken::detect().map_err(candle_core::Error::wrap)?;
    Ok(*ISA.get_or_init(|| isa))
}
