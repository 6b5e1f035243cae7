//! `ys = xs · Wᵀ + b`, optionally rectified.

use super::{computed, through_relu};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

/// `xs` is `(batch, in)`, `weight` `(out, in)`, `bias` `(out)`; returns `(batch, out)`.
///
/// The product is computed once, outside the graph of gradients; the operation carries it, with a backward pass that makes the
/// weight's gradient in the weight's own layout. `wants_dx` is false where `xs` is data.
pub fn dense(xs: &Tensor, weight: &Tensor, bias: &Tensor, relu: bool, wants_dx: bool) -> Result<Tensor> {
    let ys = xs.detach().matmul(&weight.detach().t()?)?.broadcast_add(&bias.detach())?;
    let ys = if relu { ys.relu()? } else { ys };
    xs.apply_op3(weight, bias, Dense { ys, relu, wants_dx })
}

struct Dense {
    ys: Tensor,
    relu: bool,
    wants_dx: bool,
}

impl CustomOp3 for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        computed(&self.ys)
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        ys: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = if self.relu { through_relu(gradient, ys)? } else { gradient.contiguous()? };
        let dx = if self.wants_dx { Some(gradient.matmul(&weight.detach())?) } else { None };
        Ok((dx, Some(gradient.t()?.matmul(&xs.detach())?), Some(gradient.sum(0)?)))
    }
}
