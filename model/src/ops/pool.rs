//! Max-pooling. Its gradient goes to the first maximum of each window, whole: candle's divides it by the window's area.

use super::{lend, slice};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use std::sync::OnceLock;

/// `xs` is `(batch, channels, height, width)`; windows do not reach over the border.
pub fn max_pool2d(xs: &Tensor, size: (usize, usize), stride: (usize, usize)) -> Result<Tensor> {
    xs.contiguous()?.apply_op1(MaxPool { size, stride, winners: OnceLock::new() })
}

struct MaxPool {
    size: (usize, usize),
    stride: (usize, usize),
    /// Index of each window's maximum in its plane, kept for the backward pass.
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
        let (mut ys, mut winners) = (vec![f32::NEG_INFINITY; count], vec![0_u32; count]);
        let outputs = ys.chunks_exact_mut(out.0 * out.1).zip(winners.chunks_exact_mut(out.0 * out.1));
        for (plane, (ys, winners)) in xs.chunks_exact(height * width).zip(outputs) {
            let rows = ys.chunks_exact_mut(out.1).zip(winners.chunks_exact_mut(out.1));
            for (oy, (ys, winners)) in rows.enumerate() {
                let top = oy * self.stride.0 * width;
                if (self.size, self.stride) == ((2, 2), (2, 2)) {
                    halve(plane, top, width, ys, winners);
                } else {
                    self.row(plane, top, width, ys, winners);
                }
            }
        }
        self.winners.set(winners).ok();
        Ok((CpuStorage::F32(ys), (batch, channels, out.0, out.1).into()))
    }

    fn bwd(&self, xs: &Tensor, ys: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Some(winners) = self.winners.get() else { candle_core::bail!("max-pool2d: backward before forward") };
        let (_, _, height, width) = xs.dims4()?;
        let (_, _, out_height, out_width) = ys.dims4()?;
        let window = out_height * out_width;
        let mut dx = vec![0.0_f32; xs.elem_count()];
        lend(gradient, |gradient| {
            let planes = gradient.chunks_exact(window).zip(winners.chunks_exact(window));
            for (dx, (gradient, winners)) in dx.chunks_exact_mut(height * width).zip(planes) {
                for (&g, &winner) in gradient.iter().zip(winners) {
                    dx[winner as usize] += g;
                }
            }
            Ok(())
        })?;
        Tensor::from_vec(dx, xs.shape(), &Device::Cpu).map(Some)
    }
}

impl MaxPool {
    /// One row of outputs, whose windows begin at `top` of the plane.
    fn row(&self, plane: &[f32], top: usize, width: usize, ys: &mut [f32], winners: &mut [u32]) {
        for (ox, (y, winner)) in ys.iter_mut().zip(winners).enumerate() {
            let first = top + ox * self.stride.1;
            let rows = (0..self.size.0).map(|ky| first + ky * width);
            let window = rows.flat_map(|start| (start..start + self.size.1).map(|at| (plane[at], at as u32)));
            (*y, *winner) = window.reduce(larger).unwrap_or((f32::NEG_INFINITY, first as u32));
        }
    }
}

/// [`MaxPool::row`] as most networks have it: windows of 2×2, side by side.
fn halve(plane: &[f32], top: usize, width: usize, ys: &mut [f32], winners: &mut [u32]) {
    let (upper, lower) = plane[top..top + 2 * width].split_at(width);
    let windows = upper.chunks_exact(2).zip(lower.chunks_exact(2));
    for ((upper, lower), (at, (y, winner))) in windows.zip((top..).step_by(2).zip(ys.iter_mut().zip(winners))) {
        let above = larger((upper[0], at as u32), (upper[1], at as u32 + 1));
        let below = (at + width) as u32;
        (*y, *winner) = larger(larger(above, (lower[0], below)), (lower[1], below + 1));
    }
}

/// The first among equals; a NaN wins, and stays.
fn larger(best: (f32, u32), other: (f32, u32)) -> (f32, u32) {
    if other.0 > best.0 || other.0.is_nan() { other } else { best }
}
