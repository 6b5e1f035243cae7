//! Batch norms of images: runs of one channel, a plane each, by loops that are compiled for the CPU's vectors.

use super::super::activation::isa;
use candle_core::Result;
use sconce_kernels::{IsaToken, wide};

/// Sums side by side, which can be vectorised, and are more exact than one.
const LANES: usize = 16;

/// Planes of so many channels, one after the other, again and again.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    isa: IsaToken,
    channels: usize,
    inner: usize,
}

impl Planes {
    pub(super) fn new(channels: usize, inner: usize) -> Result<Self> {
        Ok(Self { isa: isa()?, channels, inner })
    }

    /// Of each channel.
    pub(super) fn sums(&self, xs: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels];
        for (index, run) in xs.chunks_exact(self.inner).enumerate() {
            sums[index % self.channels] += wide(self.isa, sum, run);
        }
        sums
    }

    /// Of squares of what is left without the mean.
    pub(super) fn squares(&self, xs: &[f32], mean: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels];
        for (index, run) in xs.chunks_exact(self.inner).enumerate() {
            let channel = index % self.channels;
            sums[channel] += wide(self.isa, squared, (run, mean[channel]));
        }
        sums
    }

    /// Values without the mean, times `scale`, and `bias`; optionally what is below zero as zero.
    pub(super) fn normal(&self, xs: &[f32], mean: &[f32], scale: &[f32], bias: &[f32], rectify: bool) -> Vec<f32> {
        let mut ys = Vec::with_capacity(xs.len());
        for (index, run) in xs.chunks_exact(self.inner).enumerate() {
            let channel = index % self.channels;
            let by = (mean[channel], scale[channel], bias[channel]);
            match rectify {
                true => wide(self.isa, normal::<true>, (run, by, &mut ys)),
                false => wide(self.isa, normal::<false>, (run, by, &mut ys)),
            }
        }
        ys
    }

    /// Of each channel the sum of the gradient, and of its products with values without the mean. Where `ys` is given, the gradient
    /// counts where that is above zero.
    pub(super) fn slopes(
        &self,
        xs: &[f32],
        gradient: &[f32],
        ys: Option<&[f32]>,
        mean: &[f32],
    ) -> (Vec<f64>, Vec<f64>) {
        let (mut sums, mut products) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        for index in 0..xs.len() / self.inner {
            let (channel, run) = (index % self.channels, index * self.inner..(index + 1) * self.inner);
            let (xs, gradient) = (&xs[run.clone()], &gradient[run.clone()]);
            let (sum, product) = match ys {
                Some(ys) => wide(self.isa, slopes::<true>, (xs, gradient, &ys[run], mean[channel])),
                None => wide(self.isa, slopes::<false>, (xs, gradient, gradient, mean[channel])),
            };
            sums[channel] += sum;
            products[channel] += product;
        }
        (sums, products)
    }

    /// `scale · (gradient − shift − (x − mean) · slope)`; `of` gives the four of a channel.
    pub(super) fn back(
        &self,
        xs: &[f32],
        gradient: &[f32],
        ys: Option<&[f32]>,
        of: impl Fn(usize) -> [f32; 4],
    ) -> Vec<f32> {
        let mut dx = Vec::with_capacity(xs.len());
        for index in 0..xs.len() / self.inner {
            let (of, run) = (of(index % self.channels), index * self.inner..(index + 1) * self.inner);
            let (xs, gradient) = (&xs[run.clone()], &gradient[run.clone()]);
            match ys {
                Some(ys) => wide(self.isa, back::<true>, (xs, gradient, &ys[run], of, &mut dx)),
                None => wide(self.isa, back::<false>, (xs, gradient, gradient, of, &mut dx)),
            }
        }
        dx
    }
}

#[inline(always)]
fn sum(xs: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = xs.as_chunks::<LANES>();
    whole.iter().for_each(|xs| lanes.iter_mut().zip(xs).for_each(|(sum, x)| *sum += x));
    total(lanes) + rest.iter().map(|x| f64::from(*x)).sum::<f64>()
}

#[inline(always)]
fn squared((xs, mean): (&[f32], f32)) -> f64 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = xs.as_chunks::<LANES>();
    whole.iter().for_each(|xs| lanes.iter_mut().zip(xs).for_each(|(sum, x)| *sum += (x - mean) * (x - mean)));
    total(lanes) + rest.iter().map(|x| f64::from((x - mean) * (x - mean))).sum::<f64>()
}

#[inline(always)]
fn normal<const RECTIFY: bool>((xs, (mean, scale, bias), ys): (&[f32], (f32, f32, f32), &mut Vec<f32>)) {
    ys.extend(xs.iter().map(|x| {
        let y = (x - mean) * scale + bias;
        // Not `max`, which would hide a NaN.
        if RECTIFY && y < 0.0 { 0.0 } else { y }
    }));
}

/// The gradient, where `y` is above zero: bits, not a branch, for which of them is positive is chance.
#[inline(always)]
fn kept<const MASKED: bool>(gradient: f32, y: f32) -> f32 {
    if MASKED { f32::from_bits(gradient.to_bits() & u32::from(y > 0.0).wrapping_neg()) } else { gradient }
}

#[inline(always)]
fn slopes<const MASKED: bool>((xs, gradient, ys, mean): (&[f32], &[f32], &[f32], f32)) -> (f64, f64) {
    let (mut sums, mut products) = ([0.0; LANES], [0.0; LANES]);
    let ((xs, xs_rest), (gradient, gradient_rest)) = (xs.as_chunks::<LANES>(), gradient.as_chunks::<LANES>());
    let (ys, ys_rest) = ys.as_chunks::<LANES>();
    for ((xs, gradient), ys) in xs.iter().zip(gradient).zip(ys) {
        for lane in 0..LANES {
            let g = kept::<MASKED>(gradient[lane], ys[lane]);
            sums[lane] += g;
            products[lane] += g * (xs[lane] - mean);
        }
    }
    let (mut sum, mut product) = (total(sums), total(products));
    for ((x, g), y) in xs_rest.iter().zip(gradient_rest).zip(ys_rest) {
        let g = kept::<MASKED>(*g, *y);
        sum += f64::from(g);
        product += f64::from(g * (x - mean));
    }
    (sum, product)
}

/// What one run is worth, its gradient, and what masks that.
type Run<'a> = (&'a [f32], &'a [f32], &'a [f32], [f32; 4], &'a mut Vec<f32>);

#[inline(always)]
fn back<const MASKED: bool>((xs, gradient, ys, [scale, mean, shift, slope], dx): Run<'_>) {
    let values = xs.iter().zip(gradient).zip(ys);
    dx.extend(values.map(|((x, g), y)| scale * (kept::<MASKED>(*g, *y) - shift - (x - mean) * slope)));
}

#[inline(always)]
fn total(lanes: [f32; LANES]) -> f64 {
    lanes.iter().map(|x| f64::from(*x)).sum()
}
