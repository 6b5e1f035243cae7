//! Norms: of a batch, per channel, and of a layer, per row.

use super::activation::{self, activate, is_rectifier, through};
use super::record::{elements, learns, like, record};
use crate::architecture::Activation;
use candle_core::{Result, Tensor};

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

    /// Sums per channel of two functions of two values.
    fn sums(
        self,
        xs: &[f32],
        gradient: &[f32],
        valid: &Valid,
        of: impl Fn(usize, f32, f32) -> (f32, f32),
    ) -> (Vec<f64>, Vec<f64>) {
        let (mut first, mut second) = (vec![0.0; self.count], vec![0.0; self.count]);
        if self.inner == 1 {
            let rows = xs.chunks_exact(self.count).zip(gradient.chunks_exact(self.count));
            for (_, (xs, gradient)) in rows.enumerate().filter(|(row, _)| valid.has(*row)) {
                for (channel, (x, g)) in xs.iter().zip(gradient).enumerate() {
                    let (a, b) = of(channel, *x, *g);
                    first[channel] += f64::from(a);
                    second[channel] += f64::from(b);
                }
            }
            return (first, second);
        }
        for (run, (xs, gradient)) in xs.chunks_exact(self.inner).zip(gradient.chunks_exact(self.inner)).enumerate() {
            let channel = run % self.count;
            // Sums side by side, which can be vectorised, and are more exact than one.
            let mut lanes = [[0.0_f32; 8]; 2];
            for (xs, gradient) in xs.chunks(8).zip(gradient.chunks(8)) {
                for (lane, (x, g)) in xs.iter().zip(gradient).enumerate() {
                    let (a, b) = of(channel, *x, *g);
                    lanes[0][lane] += a;
                    lanes[1][lane] += b;
                }
            }
            first[channel] += lanes[0].iter().map(|x| f64::from(*x)).sum::<f64>();
            second[channel] += lanes[1].iter().map(|x| f64::from(*x)).sum::<f64>();
        }
        (first, second)
    }

    /// Calls `each(channel, from, to)` for every run.
    fn runs(self, len: usize, valid: &Valid, mut each: impl FnMut(usize, usize, usize)) {
        for (run, from) in (0..len).step_by(self.inner).enumerate() {
            if self.inner > 1 || valid.has(run / self.count) {
                each(run % self.count, from, from + self.inner);
            }
        }
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

    /// What is padding gets no gradient.
    fn clear_rest(&self, rows: &mut [f32], width: usize) {
        let Some(valid) = &self.0 else { return };
        for (row, _) in rows.chunks_exact_mut(width).zip(valid).filter(|(_, valid)| !**valid) {
            row.fill(0.0);
        }
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
    let means = mean(channels.sums(&xs, &xs, valid, |_, x, _| (x, 0.0)).0);
    let variance =
        mean(channels.sums(&xs, &xs, valid, |channel, x, _| ((x - means[channel]) * (x - means[channel]), 0.0)).0);
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
    let mut ys = vec![0.0; xs.elem_count()];
    {
        let (values, weight, bias) = (elements(&xs)?, elements(weight)?, elements(bias)?);
        let scale: Vec<f32> = weight.iter().zip(&inverse).map(|(weight, inverse)| weight * inverse).collect();
        channels.runs(values.len(), &valid, |channel, from, to| {
            let (mean, scale, bias) = (mean[channel], scale[channel], bias[channel]);
            ys[from..to].iter_mut().zip(&values[from..to]).for_each(|(y, x)| *y = (x - mean) * scale + bias);
        });
    }
    activation::apply(fused, &mut ys)?;
    let ys = record("batch-norm", [&xs, weight, bias], ys, xs.shape(), move |[xs, weight, bias], ys, gradient| {
        let (values, weights) = (elements(xs)?, elements(weight)?);
        let mut before = through(fused, &elements(gradient)?, &elements(ys)?)?;
        valid.clear_rest(&mut before, channels.count);
        let (sums, products) = channels.sums(&values, &before, &valid, |channel, x, g| (g, g * (x - mean[channel])));
        let of = |sums: &[f64]| sums.iter().map(|sum| *sum as f32).collect::<Vec<f32>>();
        let dw = of(&products).iter().zip(&inverse).map(|(product, inverse)| product * inverse).collect();
        let db = of(&sums);
        if learns(xs) {
            let mut dx = std::mem::take(&mut before);
            let shares = |channel: usize| match of_batch {
                true => {
                    let spread = f64::from(inverse[channel]).powi(2);
                    ((sums[channel] / count as f64) as f32, (products[channel] * spread / count as f64) as f32)
                }
                false => (0.0, 0.0),
            };
            channels.runs(values.len(), &valid, |channel, from, to| {
                let (scale, mean, (shift, slope)) =
                    (weights[channel] * inverse[channel], mean[channel], shares(channel));
                let run = dx[from..to].iter_mut().zip(&values[from..to]);
                run.for_each(|(g, x)| *g = scale * (*g - shift - (x - mean) * slope));
            });
            before = dx;
        }
        let given = |is: bool, values: Vec<f32>, of| if is { like(values, of) } else { Ok(None) };
        Ok([given(learns(xs), before, xs)?, given(learns(weight), dw, weight)?, given(learns(bias), db, bias)?])
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
