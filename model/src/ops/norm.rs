//! Norms: of a batch, per channel, and of a layer, per row.

mod images;

use super::activation::{self, activate, is_rectifier, through};
use super::record::{elements, learns, like, record};
use crate::architecture::Activation;
use candle_core::{Result, Tensor};
use images::Planes;
use std::borrow::Cow;

/// What a batch norm normalises by.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    pub mean: Vec<f32>,
    /// Of the samples themselves: their squares divided by their number.
    pub variance: Vec<f32>,
    /// Values per channel.
    pub count: usize,
}

/// How the values of a channel lie: runs of `inner`, one for each channel, again and again.
#[derive(Clone, Copy)]
struct Channels {
    count: usize,
    inner: usize,
}

impl Channels {
    /// Channels of an image are its second axis, others the last.
    fn of(xs: &Tensor) -> Result<Self> {
        Ok(match *xs.dims() {
            [_, count, height, width] => Self { count, inner: height * width },
            _ => Self { count: xs.dim(candle_core::D::Minus1)?, inner: 1 },
        })
    }

    /// Sums per channel of two functions of two values, where rows are of channels.
    fn sums(
        self,
        xs: &[f32],
        gradient: &[f32],
        valid: &Valid,
        of: impl Fn(usize, f32, f32) -> (f32, f32),
    ) -> (Vec<f64>, Vec<f64>) {
        let (mut first, mut second) = (vec![0.0; self.count], vec![0.0; self.count]);
        let rows = xs.chunks_exact(self.count).zip(gradient.chunks_exact(self.count));
        for (_, (xs, gradient)) in rows.enumerate().filter(|(row, _)| valid.has(*row)) {
            for (channel, (x, g)) in xs.iter().zip(gradient).enumerate() {
                let (a, b) = of(channel, *x, *g);
                first[channel] += f64::from(a);
                second[channel] += f64::from(b);
            }
        }
        (first, second)
    }

    /// Where they are images.
    fn planes(self) -> Result<Option<Planes>> {
        (self.inner > 1).then(|| Planes::new(self.count, self.inner)).transpose()
    }

    /// Calls `each(channel, at)` for every value of rows that count.
    fn values(self, len: usize, valid: &Valid, mut each: impl FnMut(usize, usize)) {
        (0..len).filter(|at| valid.has(at / self.count)).for_each(|at| each(at % self.count, at));
    }
}

/// Which rows count: all, or the steps of sequences that are not padding.
#[derive(Clone, Debug, Default)]
pub struct Valid(Option<Vec<bool>>);

impl Valid {
    /// Of sequences of up to `time` steps.
    pub fn steps(lengths: Option<&[usize]>, time: usize) -> Self {
        Self(
            lengths
                .map(|lengths| lengths.iter().flat_map(|&length| (0..time).map(move |step| step < length)).collect()),
        )
    }

    fn has(&self, row: usize) -> bool {
        self.0.as_ref().is_none_or(|rows| rows[row])
    }

    fn count(&self, all: usize) -> usize {
        self.0.as_ref().map_or(all, |rows| rows.iter().filter(|row| **row).count())
    }
}

/// Of the batch itself.
pub fn statistics(xs: &Tensor, valid: &Valid) -> Result<Statistics> {
    let channels = Channels::of(xs)?;
    let xs = xs.contiguous()?;
    let xs = elements(&xs)?;
    let count = if channels.inner == 1 { valid.count(xs.len() / channels.count) } else { xs.len() / channels.count };
    let mean = |sums: Vec<f64>| sums.iter().map(|sum| (sum / count.max(1) as f64) as f32).collect::<Vec<_>>();
    let (means, variance) = match channels.planes()? {
        Some(planes) => {
            let means = mean(planes.sums(&xs));
            let variance = mean(planes.squares(&xs, &means));
            (means, variance)
        }
        None => {
            let means = mean(channels.sums(&xs, &xs, valid, |_, x, _| (x, 0.0)).0);
            let square = |channel: usize, x: f32, _| ((x - means[channel]) * (x - means[channel]), 0.0);
            let variance = mean(channels.sums(&xs, &xs, valid, square).0);
            (means, variance)
        }
    };
    Ok(Statistics { mean: means, variance, count })
}

/// `(x − mean) / √(variance + ε) · weight + bias` per channel. With `of_batch` the statistics are those of `xs`, whose gradient goes
/// through them, too; else they are given.
pub fn batch_norm(
    xs: &Tensor,
    [weight, bias]: [&Tensor; 2],
    statistics: Statistics,
    of_batch: bool,
    epsilon: f32,
    activation: Activation,
    valid: Valid,
) -> Result<Tensor> {
    let channels = Channels::of(xs)?;
    let xs = xs.contiguous()?;
    let fused = if is_rectifier(activation) { activation } else { Activation::None };
    let Statistics { mean, variance, count } = statistics;
    let inverse: Vec<f32> = variance.iter().map(|variance| (variance + epsilon).sqrt().recip()).collect();
    let planes = channels.planes()?;
    let mut ys = {
        let (values, weight, bias) = (elements(&xs)?, elements(weight)?, elements(bias)?);
        let scale: Vec<f32> = weight.iter().zip(&inverse).map(|(weight, inverse)| weight * inverse).collect();
        match planes {
            Some(planes) => planes.normal(&values, &mean, &scale, &bias, fused == Activation::Relu),
            None => {
                let mut ys = vec![0.0; values.len()];
                channels.values(values.len(), &valid, |channel, at| {
                    ys[at] = (values[at] - mean[channel]) * scale[channel] + bias[channel];
                });
                ys
            }
        }
    };
    if planes.is_none() || fused != Activation::Relu {
        activation::apply(fused, &mut ys)?;
    }
    let ys = record("batch-norm", [&xs, weight, bias], ys, xs.shape(), move |[xs, weight, bias], ys, gradient| {
        let (values, weights, of_ys, gradient) = (elements(xs)?, elements(weight)?, elements(ys)?, elements(gradient)?);
        let rectified = (planes.is_some() && fused == Activation::Relu).then_some(&*of_ys);
        let before = match rectified {
            Some(_) => Cow::Borrowed(&*gradient),
            None => through(fused, &gradient, &of_ys)?,
        };
        let (sums, products) = match planes {
            Some(planes) => planes.slopes(&values, &before, rectified, &mean),
            None => channels.sums(&values, &before, &valid, |channel, x, g| (g, g * (x - mean[channel]))),
        };
        let of = |sums: &[f64]| sums.iter().map(|sum| *sum as f32).collect::<Vec<f32>>();
        let dw = of(&products).iter().zip(&inverse).map(|(product, inverse)| product * inverse).collect();
        let db = of(&sums);
        let of_channel = |channel: usize| {
            let spread = f64::from(inverse[channel]).powi(2);
            let [shift, slope] = match of_batch {
                true => [sums[channel], products[channel] * spread].map(|sum| (sum / count as f64) as f32),
                false => [0.0; 2],
            };
            [weights[channel] * inverse[channel], mean[channel], shift, slope]
        };
        let dx = || match planes {
            Some(planes) => planes.back(&values, &before, rectified, of_channel),
            None => {
                let by: Vec<[f32; 4]> = (0..channels.count).map(of_channel).collect();
                let mut dx = vec![0.0; values.len()];
                channels.values(values.len(), &valid, |channel, at| {
                    let [scale, mean, shift, slope] = by[channel];
                    dx[at] = scale * (before[at] - shift - (values[at] - mean) * slope);
                });
                dx
            }
        };
        let given = |values: Vec<f32>, of: &Tensor| if learns(of) { like(values, of) } else { Ok(None) };
        let dx = if learns(xs) { like(dx(), xs)? } else { None };
        Ok([dx, given(dw, weight)?, given(db, bias)?])
    })?;
    activate(&ys, if fused == activation { Activation::None } else { activation })
}

/// `(x − mean) / √(variance + ε) · weight + bias` over the last axis, row by row.
pub fn layer_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f32) -> Result<Tensor> {
    let xs = xs.contiguous()?;
    let width = weight.elem_count();
    let mut ys = elements(&xs)?.to_vec();
    {
        let (weight, bias) = (elements(weight)?, elements(bias)?);
        for row in ys.chunks_exact_mut(width) {
            let (mean, inverse) = spread(row, epsilon);
            let values = row.iter_mut().zip(weight.iter().zip(bias.iter()));
            values.for_each(|(y, (weight, bias))| *y = (*y - mean) * inverse * weight + bias);
        }
    }
    record("layer-norm", [&xs, weight, bias], ys, xs.shape(), move |[xs, weight, bias], _, gradient| {
        let (values, weights, gradient) = (elements(xs)?, elements(weight)?, elements(gradient)?);
        let (mut dw, mut db, mut dx) = (vec![0.0; width], vec![0.0; width], vec![0.0; values.len()]);
        let rows = values.chunks_exact(width).zip(gradient.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for ((row, gradient), dx) in rows {
            let (mean, inverse) = spread(row, epsilon);
            let standard = |at: usize| (row[at] - mean) * inverse;
            let (mut shift, mut slope) = (0.0, 0.0);
            for at in 0..width {
                dw[at] += gradient[at] * standard(at);
                db[at] += gradient[at];
                shift += gradient[at] * weights[at] / width as f32;
                slope += gradient[at] * weights[at] * standard(at) / width as f32;
            }
            for (at, dx) in dx.iter_mut().enumerate() {
                *dx = inverse * (gradient[at] * weights[at] - shift - standard(at) * slope);
            }
        }
        let given = |values: Vec<f32>, of| if learns(of) { like(values, of) } else { Ok(None) };
        Ok([given(dx, xs)?, given(dw, weight)?, given(db, bias)?])
    })
}

/// The mean of a row, and the inverse of its deviation.
fn spread(row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f64;
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, (variance + f64::from(epsilon)).sqrt().recip() as f32)
}
