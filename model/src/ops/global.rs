//! Pools over all of an image, or over the valid steps of a sequence.

use super::record::{elements, like, record};
use candle_core::{Result, Tensor};

/// Added to a variance before its root, whose slope has no end at zero.
pub const SPREAD: f32 = 1e-5;

/// What is kept of the values of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    Mean,
    Max,
    /// The means of all channels, then their deviations.
    Statistics,
}

/// `xs` is `(batch, channels, height, width)`, or `(batch, time, features)` with the valid steps of each sequence; returns
/// `(batch, channels)`, or twice as many.
pub fn summarise(xs: &Tensor, summary: Summary, lengths: Option<&[usize]>) -> Result<Tensor> {
    let xs = match xs.rank() {
        4 => xs.flatten_from(2)?,
        _ => xs.transpose(1, 2)?,
    }
    .contiguous()?;
    let (batch, channels, count) = xs.dims3()?;
    let lengths = lengths.map_or_else(|| vec![count; batch], <[usize]>::to_vec);
    let wide = if summary == Summary::Statistics { 2 } else { 1 } * channels;
    let (mut ys, mut winners) = (vec![0.0; batch * wide], vec![0; batch * channels]);
    for (row, values) in elements(&xs)?.chunks_exact(count).enumerate() {
        let (sample, channel) = (row / channels, row % channels);
        let values = &values[..lengths[sample]];
        let y = sample * wide + channel;
        match summary {
            Summary::Mean => ys[y] = mean(values),
            Summary::Max => (ys[y], winners[row]) = greatest(values),
            Summary::Statistics => {
                let mean = mean(values);
                (ys[y], ys[y + channels]) = (mean, (variance(values, mean) + SPREAD).sqrt());
            }
        }
    }
    record("summary", [&xs], ys, (batch, wide), move |[xs], ys, gradient| {
        let (xs_values, ys, gradient) = (elements(xs)?, elements(ys)?, elements(gradient)?);
        let mut dx = vec![0.0; xs_values.len()];
        for (row, (dx, values)) in dx.chunks_exact_mut(count).zip(xs_values.chunks_exact(count)).enumerate() {
            let (sample, channel) = (row / channels, row % channels);
            let (y, length) = (sample * wide + channel, lengths[sample]);
            let share = gradient[y] / length as f32;
            match summary {
                Summary::Mean => dx[..length].fill(share),
                Summary::Max => dx[winners[row]] = gradient[y],
                Summary::Statistics => {
                    let slope = gradient[y + channels] / (length as f32 * ys[y + channels]);
                    dx[..length].iter_mut().zip(values).for_each(|(dx, x)| *dx = share + (x - ys[y]) * slope);
                }
            }
        }
        Ok([like(dx, xs)?])
    })
}

fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64) as f32
}

fn variance(values: &[f32], mean: f32) -> f32 {
    (values.iter().map(|x| f64::from(x - mean).powi(2)).sum::<f64>() / values.len() as f64) as f32
}

/// The first among equals; a NaN wins, and stays.
fn greatest(values: &[f32]) -> (f32, usize) {
    let better = |best: (f32, usize), other: (f32, usize)| {
        if other.0 > best.0 || other.0.is_nan() { other } else { best }
    };
    let numbered = values.iter().enumerate().map(|(at, x)| (*x, at));
    numbered.reduce(better).unwrap_or((f32::NEG_INFINITY, 0))
}
