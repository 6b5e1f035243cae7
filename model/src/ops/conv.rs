//! Two-dimensional convolution as a product over patches, optionally rectified.

use super::{forwarded, slice, through_relu};
use crate::graph::Pad;
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};

/// Geometry of a convolution; sizes are `(height, width)`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub pad: Pad,
}

/// `xs` is `(batch, channels, height, width)`, `weight` `(filters, channels, kh, kw)`, `bias` `(filters)`.
///
/// `wants_dx` is false where `xs` is data: its gradient is then never computed.
pub fn conv2d(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    window: Window,
    relu: bool,
    wants_dx: bool,
) -> Result<Tensor> {
    let (batch, channels, height, width) = xs.dims4()?;
    let filters = weight.dim(0)?;
    let geometry = Geometry::new(channels, (height, width), window);
    let patches = {
        let xs = xs.detach().contiguous()?;
        let (storage, layout) = xs.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("conv2d of ours runs on the CPU only")
        };
        geometry.patches(slice(storage, layout)?, batch)?
    };
    let rows = weight.detach().reshape((1, filters, geometry.patch()))?;
    let bias_of_filters = bias.detach().reshape((1, filters, 1))?;
    let ys = rows.broadcast_matmul(&patches)?.broadcast_add(&bias_of_filters)?;
    let ys = if relu { ys.relu()? } else { ys }.reshape((batch, filters, geometry.out.0, geometry.out.1))?;
    xs.contiguous()?.apply_op3(weight, bias, Conv { geometry, patches, ys, relu, wants_dx })
}

#[derive(Clone, Copy)]
struct Geometry {
    channels: usize,
    size: (usize, usize),
    out: (usize, usize),
    window: Window,
}

impl Geometry {
    fn new(channels: usize, size: (usize, usize), window: Window) -> Self {
        let Window { kernel, stride, pad } = window;
        // The graph has been checked: the kernel fits.
        let out = (
            (size.0 + pad.top + pad.bottom - kernel.0) / stride.0 + 1,
            (size.1 + pad.left + pad.right - kernel.1) / stride.1 + 1,
        );
        Self { channels, size, out, window }
    }

    /// Elements of one patch.
    fn patch(&self) -> usize {
        self.channels * self.window.kernel.0 * self.window.kernel.1
    }

    /// Calls `each(index in the patches, index in the image)` for every element that is not padding, of one image.
    fn walk(&self, mut each: impl FnMut(usize, usize)) {
        let Window { kernel, stride, pad } = self.window;
        let (height, width) = self.size;
        let mut row = 0;
        for channel in 0..self.channels {
            for ky in 0..kernel.0 {
                for kx in 0..kernel.1 {
                    for oy in 0..self.out.0 {
                        let y = (oy * stride.0 + ky).wrapping_sub(pad.top);
                        if y >= height {
                            continue;
                        }
                        let (to, from) = (row + oy * self.out.1, (channel * height + y) * width);
                        for ox in 0..self.out.1 {
                            let x = (ox * stride.1 + kx).wrapping_sub(pad.left);
                            if x < width {
                                each(to + ox, from + x);
                            }
                        }
                    }
                    row += self.out.0 * self.out.1;
                }
            }
        }
    }

    /// `(batch, patch, out)`.
    fn patches(&self, xs: &[f32], batch: usize) -> Result<Tensor> {
        let (patch, out, image) = (self.patch(), self.out.0 * self.out.1, self.channels * self.size.0 * self.size.1);
        let mut patches = vec![0.0; batch * patch * out];
        for (patches, xs) in patches.chunks_exact_mut(patch * out).zip(xs.chunks_exact(image)) {
            self.walk(|to, from| patches[to] = xs[from]);
        }
        Tensor::from_vec(patches, (batch, patch, out), &Device::Cpu)
    }

    /// The adjoint of [`Self::patches`]: every element of a patch is added where it came from.
    fn images(&self, patches: &[f32], batch: usize) -> Result<Tensor> {
        let (patch, out, image) = (self.patch(), self.out.0 * self.out.1, self.channels * self.size.0 * self.size.1);
        let mut xs = vec![0.0; batch * image];
        for (xs, patches) in xs.chunks_exact_mut(image).zip(patches.chunks_exact(patch * out)) {
            self.walk(|from, to| xs[to] += patches[from]);
        }
        Tensor::from_vec(xs, (batch, self.channels, self.size.0, self.size.1), &Device::Cpu)
    }
}

struct Conv {
    geometry: Geometry,
    patches: Tensor,
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
        forwarded(&self.ys)
    }

    fn bwd(
        &self,
        _: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = if self.relu { through_relu(gradient, &self.ys)? } else { gradient.contiguous()? };
        let (batch, filters, height, width) = gradient.dims4()?;
        let gradient = gradient.reshape((batch, filters, height * width))?;
        let dw = gradient.matmul(&self.patches.transpose(1, 2)?)?.sum(0)?.reshape(weight.shape())?;
        let db = gradient.sum((0, 2))?;
        let dx = if self.wants_dx {
            let columns = weight.detach().reshape((1, filters, self.geometry.patch()))?.transpose(1, 2)?;
            let patches: Vec<f32> = columns.broadcast_matmul(&gradient)?.flatten_all()?.to_vec1()?;
            Some(self.geometry.images(&patches, batch)?)
        } else {
            None
        };
        Ok((dx, Some(dw), Some(db)))
    }
}
