//! Pools of windows. A maximum's gradient goes to the first of its window, whole: candle's divides it by the window's area.

use super::activation::isa;
use super::record::{elements, like, record};
use crate::graph::Pad;
use candle_core::{Result, Tensor};
use sconce_kernels::wide;
use std::ops::Range;

/// Windows over the planes of images; padding is never the greatest, and not counted in a mean.
#[derive(Clone, Copy, Debug)]
pub struct Pooling {
    pub size: (usize, usize),
    pub stride: (usize, usize),
    pub pad: Pad,
}

impl Pooling {
    fn out(&self, height: usize, width: usize) -> (usize, usize) {
        let Self { size, stride, pad } = self;
        (
            (height + pad.top + pad.bottom - size.0) / stride.0 + 1,
            (width + pad.left + pad.right - size.1) / stride.1 + 1,
        )
    }

    fn is_of_four(&self) -> bool {
        (self.size, self.stride, self.pad) == ((2, 2), (2, 2), Pad::default())
    }
}

/// What of an axis lies in the window that begins at `at`, padding included.
fn inside(at: usize, before: usize, size: usize, extent: usize) -> Range<usize> {
    at.saturating_sub(before)..(at + size).saturating_sub(before).min(extent)
}

/// `xs` is `(batch, channels, height, width)`.
pub fn max_pool2d(xs: &Tensor, pooling: Pooling) -> Result<Tensor> {
    let (batch, channels, height, width) = xs.dims4()?;
    let xs = xs.contiguous()?;
    let out = pooling.out(height, width);
    let count = batch * channels * out.0 * out.1;
    // Index of each window's maximum in its plane, kept for the backward pass.
    let (mut ys, mut winners) = (vec![f32::NEG_INFINITY; count], vec![0_u32; count]);
    {
        let (isa, values) = (isa()?, elements(&xs)?);
        let outputs = ys.chunks_exact_mut(out.0 * out.1).zip(winners.chunks_exact_mut(out.0 * out.1));
        for (plane, (ys, winners)) in values.chunks_exact(height * width).zip(outputs) {
            if pooling.is_of_four() {
                wide(isa, halve, (plane, width, ys, winners));
                continue;
            }
            let rows = ys.chunks_exact_mut(out.1).zip(winners.chunks_exact_mut(out.1));
            for (oy, (ys, winners)) in rows.enumerate() {
                greatest(pooling, plane, (oy, height, width), ys, winners);
            }
        }
    }
    record("max-pool2d", [&xs], ys, (batch, channels, out.0, out.1), move |[xs], ys, gradient| {
        let window = ys.dim(2)? * ys.dim(3)?;
        let mut dx = vec![0.0_f32; xs.elem_count()];
        let gradient = elements(gradient)?;
        let planes = gradient.chunks_exact(window).zip(winners.chunks_exact(window));
        for (dx, (gradient, winners)) in dx.chunks_exact_mut(xs.dim(2)? * xs.dim(3)?).zip(planes) {
            for (&g, &winner) in gradient.iter().zip(winners) {
                dx[winner as usize] += g;
            }
        }
        Ok([like(dx, xs)?])
    })
}

/// One row of windows of a plane.
fn greatest(
    pooling: Pooling,
    plane: &[f32],
    (oy, height, width): (usize, usize, usize),
    ys: &mut [f32],
    winners: &mut [u32],
) {
    let rows = inside(oy * pooling.stride.0, pooling.pad.top, pooling.size.0, height);
    for (ox, (y, winner)) in ys.iter_mut().zip(winners).enumerate() {
        let columns = inside(ox * pooling.stride.1, pooling.pad.left, pooling.size.1, width);
        let window = rows.clone().flat_map(|row| columns.clone().map(move |column| row * width + column));
        let best = window.map(|at| (plane[at], at as u32)).reduce(larger);
        (*y, *winner) = best.unwrap_or((f32::NEG_INFINITY, 0));
    }
}

/// [`greatest`] of a whole plane as most networks have it: windows of 2×2, side by side.
#[inline(always)]
fn halve((plane, width, ys, winners): (&[f32], usize, &mut [f32], &mut [u32])) {
    let out = width / 2;
    let rows = ys.chunks_exact_mut(out).zip(winners.chunks_exact_mut(out));
    for (lines, (top, (ys, winners))) in plane.chunks_exact(2 * width).zip((0..).step_by(2 * width).zip(rows)) {
        let (upper, lower) = lines.split_at(width);
        let windows = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
        for ((upper, lower), (at, (y, winner))) in
            windows.zip((top as u32..).step_by(2).zip(ys.iter_mut().zip(winners)))
        {
            let above = larger((upper[0], at), (upper[1], at + 1));
            let below = at + width as u32;
            (*y, *winner) = larger(larger(above, (lower[0], below)), (lower[1], below + 1));
        }
    }
}

/// The first among equals; a NaN wins, and stays. Without a branch: which is the larger is chance.
#[inline(always)]
fn larger(best: (f32, u32), other: (f32, u32)) -> (f32, u32) {
    let is_other = (other.0 > best.0) | other.0.is_nan();
    (if is_other { other.0 } else { best.0 }, if is_other { other.1 } else { best.1 })
}

/// `xs` is `(batch, channels, height, width)`.
pub fn avg_pool2d(xs: &Tensor, pooling: Pooling) -> Result<Tensor> {
    let (batch, channels, height, width) = xs.dims4()?;
    let xs = xs.contiguous()?;
    let out = pooling.out(height, width);
    let mut ys = vec![0.0; batch * channels * out.0 * out.1];
    {
        let values = elements(&xs)?;
        for (plane, ys) in values.chunks_exact(height * width).zip(ys.chunks_exact_mut(out.0 * out.1)) {
            windows(pooling, height, width, |at, rows, columns| {
                let area = (rows.len() * columns.len()) as f32;
                ys[at] = rows.map(|row| plane[row * width..][columns.clone()].iter().sum::<f32>()).sum::<f32>() / area;
            });
        }
    }
    record("avg-pool2d", [&xs], ys, (batch, channels, out.0, out.1), move |[xs], _, gradient| {
        let mut dx = vec![0.0_f32; xs.elem_count()];
        let gradient = elements(gradient)?;
        for (dx, gradient) in dx.chunks_exact_mut(height * width).zip(gradient.chunks_exact(out.0 * out.1)) {
            windows(pooling, height, width, |at, rows, columns| {
                let share = gradient[at] / (rows.len() * columns.len()) as f32;
                rows.for_each(|row| dx[row * width..][columns.clone()].iter_mut().for_each(|x| *x += share));
            });
        }
        Ok([like(dx, xs)?])
    })
}

/// Calls `each(output, rows, columns)` for every window of a plane.
fn windows(pooling: Pooling, height: usize, width: usize, mut each: impl FnMut(usize, Range<usize>, Range<usize>)) {
    let out = pooling.out(height, width);
    for (oy, ox) in (0..out.0).flat_map(|oy| (0..out.1).map(move |ox| (oy, ox))) {
        let rows = inside(oy * pooling.stride.0, pooling.pad.top, pooling.size.0, height);
        let columns = inside(ox * pooling.stride.1, pooling.pad.left, pooling.size.1, width);
        each(oy * out.1 + ox, rows, columns);
    }
}
