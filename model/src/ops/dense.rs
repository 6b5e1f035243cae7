//! `ys = xs · Wᵀ + b`, optionally rectified.

use super::{forwarded, through_relu};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

/// `xs` is `(batch, in)`, `weight` `(out, in)`, `bias` `(out)`; returns `(batch, out)`.
///
/// The product is computed once, outside the graph of gradients; the operation carries it, with a backward pass that makes the
/// weight's gradient in the weight's own layout.
pub fn dense(xs: &Tensor, weight: &Tensor, bias: &Tensor, relu: bool) -> Result<Tensor> {
    let ys = xs.detach().matmul(&weight.detach().t()?)?.broadcast_add(&bias.detach())?;
    let ys = if relu { ys.relu()? } else { ys };
    xs.apply_op3(weight, bias, Dense { ys, relu })
}

struct Dense {
    ys: Tensor,
    relu: bool,
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
        forwarded(&self.ys)
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = if self.relu { through_relu(gradient, &self.ys)? } else { gradient.contiguous()? };
        let (xs, weight) = (xs.detach(), weight.detach());
        Ok((Some(gradient.matmul(&weight)?), Some(gradient.t()?.matmul(&xs)?), Some(gradient.sum(0)?)))
    }
}
