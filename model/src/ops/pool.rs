//! Max-pooling. Its gradient goes to the first maximum of each window, whole: candle's divides it by the window's area.

use super::slice;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use std::sync::OnceLock;

/// `xs` is `(batch, channels, height, width)`; windows do not reach over the border.
pub fn max_pool2d(xs: &Tensor, size: (usize, usize), stride: (usize, usize)) -> Result<Tensor> {
    xs.contiguous()?.apply_op1(MaxPool { size, stride, winners: OnceLock::new() })
}

struct MaxPool {
    size: (usize, usize),
    stride: (usize, usize),
    /// Index of each window's maximum in `xs`, kept for the backward pass.
    winners: OnceLock<Vec<u32>>,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let xs = slice(storage, layout)?;
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let out = ((height - self.size.0) / self.stride.0 + 1, (width - self.size.1) / self.stride.1 + 1);
        let count = batch * channels * out.0 * out.1;
        let (mut ys, mut winners) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for plane in 0..batch * channels {
            for oy in 0..out.0 {
                for ox in 0..out.1 {
                    let first = (plane * height + oy * self.stride.0) * width + ox * self.stride.1;
                    let mut best = first;
                    for row in 0..self.size.0 {
                        for index in first + row * width..first + row * width + self.size.1 {
                            if xs[index] > xs[best] {
                                best = index;
                            }
                        }
                    }
                    ys.push(xs[best]);
                    winners.push(best as u32);
                }
            }
        }
        self.winners.set(winners).ok();
        Ok((CpuStorage::F32(ys), (batch, channels, out.0, out.1).into()))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Some(winners) = self.winners.get() else { candle_core::bail!("max-pool2d: backward before forward") };
        let mut dx = vec![0.0_f32; xs.elem_count()];
        for (&winner, g) in winners.iter().zip(gradient.flatten_all()?.to_vec1::<f32>()?) {
            dx[winner as usize] += g;
        }
        Tensor::from_vec(dx, xs.shape(), &Device::Cpu).map(Some)
    }
}
