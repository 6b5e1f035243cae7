//! The convolution as a product: every patch of the image becomes a column.

use super::Geometry;
use crate::ops::{computed, lend, through_relu};
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};

pub(super) fn conv2d(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    relu: bool,
    wants_dx: bool,
) -> Result<Tensor> {
    let (batch, filters) = (xs.dim(0)?, weight.dim(0)?);
    let patches = lend(xs, |xs| geometry.patches(xs, batch))?;
    let rows = weight.detach().reshape((1, filters, geometry.patch()))?;
    let ys = rows.broadcast_matmul(&patches)?.broadcast_add(&bias.detach().reshape((1, filters, 1))?)?;
    let ys = if relu { ys.relu()? } else { ys }.reshape((batch, filters, geometry.out.0, geometry.out.1))?;
    xs.apply_op3(weight, bias, Conv { geometry, patches, ys, relu, wants_dx })
}

impl Geometry {
    /// `(batch, patch, plane)`.
    fn patches(&self, xs: &[f32], batch: usize) -> Result<Tensor> {
        let (patch, plane, stride) = (self.patch(), self.plane(), self.window.stride.1);
        let mut patches = vec![0.0; batch * patch * plane];
        for (patches, xs) in patches.chunks_exact_mut(patch * plane).zip(xs.chunks_exact(self.image())) {
            self.runs(|element, to, from, count| {
                let to = &mut patches[element * plane + to..][..count];
                to.iter_mut().zip(xs[from..].iter().step_by(stride)).for_each(|(patch, x)| *patch = *x);
            });
        }
        Tensor::from_vec(patches, (batch, patch, plane), &Device::Cpu)
    }

    /// The adjoint of [`Self::patches`]: every element of a patch is added where it came from.
    fn images(&self, patches: &[f32], batch: usize) -> Result<Tensor> {
        let (patch, plane, stride) = (self.patch(), self.plane(), self.window.stride.1);
        let mut xs = vec![0.0; batch * self.image()];
        for (xs, patches) in xs.chunks_exact_mut(self.image()).zip(patches.chunks_exact(patch * plane)) {
            self.runs(|element, from, to, count| {
                let from = &patches[element * plane + from..][..count];
                xs[to..].iter_mut().step_by(stride).zip(from).for_each(|(x, patch)| *x += patch);
            });
        }
        Tensor::from_vec(xs, (batch, self.channels, self.size.0, self.size.1), &Device::Cpu)
    }
}

struct Conv {
    geometry: Geometry,
    patches: Tensor,
    /// Computed on the way.
    ys: Tensor,
    relu: bool,
    wants_dx: bool,
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv2d"
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
        _: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        ys: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = if self.relu { through_relu(gradient, ys)? } else { gradient.contiguous()? };
        let (batch, filters, height, width) = gradient.dims4()?;
        let gradient = gradient.reshape((batch, filters, height * width))?;
        let dw = gradient.matmul(&self.patches.transpose(1, 2)?)?.sum(0)?.reshape(weight.shape())?;
        let db = gradient.sum((0, 2))?;
        let dx = if self.wants_dx {
            let columns = weight.detach().reshape((1, filters, self.geometry.patch()))?.transpose(1, 2)?;
            let patches = columns.broadcast_matmul(&gradient)?;
            Some(lend(&patches, |patches| self.geometry.images(patches, batch))?)
        } else {
            None
        };
        Ok((dx, Some(dw), Some(db)))
    }
}
