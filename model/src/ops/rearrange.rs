//! Operations that move values, and add up what came from one place.

use super::activation::{self, activate, is_rectifier, isa, through};
use super::record::{elements, learns, like, record};
use crate::architecture::Activation;
use candle_core::{DType, Result, Tensor};
use sconce_kernels::wide;

/// The sum of several of one shape.
pub fn add(xs: &[Tensor], activation: Activation) -> Result<Tensor> {
    let [first @ .., last] = xs else { candle_core::bail!("a sum of nothing") };
    let [one, more @ ..] = first else { return activate(last, activation) };
    let left = more.iter().try_fold(one.clone(), |sum, xs| sum + xs)?.contiguous()?;
    let right = last.contiguous()?;
    let fused = if is_rectifier(activation) { activation } else { Activation::None };
    let mut ys = wide(isa()?, sums, (&*elements(&left)?, &*elements(&right)?));
    activation::apply(fused, &mut ys)?;
    let ys = record("add", [&left, &right], ys, left.shape(), move |[left, right], ys, gradient| {
        let before = if fused == Activation::None {
            gradient.clone()
        } else {
            let before = through(fused, &elements(gradient)?, &elements(ys)?)?.into_owned();
            Tensor::from_vec(before, ys.shape(), ys.device())?
        };
        Ok([left, right].map(|of| learns(of).then(|| before.clone())))
    })?;
    activate(&ys, if fused == activation { Activation::None } else { activation })
}

#[inline(always)]
fn sums((left, right): (&[f32], &[f32])) -> Vec<f32> {
    left.iter().zip(right).map(|(left, right)| left + right).collect()
}

/// Each pixel becomes `factor × factor` of them. `xs` is `(batch, channels, height, width)`.
pub fn upsample2d(xs: &Tensor, factor: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = xs.dims4()?;
    let xs = xs.contiguous()?;
    let mut ys = Vec::with_capacity(xs.elem_count() * factor * factor);
    for row in elements(&xs)?.chunks_exact(width) {
        for _ in 0..factor {
            ys.extend(row.iter().flat_map(|x| std::iter::repeat_n(*x, factor)));
        }
    }
    record("upsample2d", [&xs], ys, (batch, channels, height * factor, width * factor), move |[xs], _, gradient| {
        let gradient = elements(gradient)?;
        let mut dx = vec![0.0; xs.elem_count()];
        for (dx, rows) in dx.chunks_exact_mut(width).zip(gradient.chunks_exact(factor * factor * width)) {
            for row in rows.chunks_exact(factor * width) {
                dx.iter_mut().zip(row.chunks_exact(factor)).for_each(|(x, from)| *x += from.iter().sum::<f32>());
            }
        }
        Ok([like(dx, xs)?])
    })
}

/// The rows of `weight` `(vocabulary, dimension)` that `ids`, whole numbers `(batch, time)`, name. The row `padding` stays as it is:
/// it gets no gradient.
///
/// # Errors
/// If an id is beyond the vocabulary.
pub fn embedding(ids: &Tensor, weight: &Tensor, padding: Option<usize>) -> Result<Tensor> {
    let (vocabulary, dimension) = weight.dims2()?;
    let (batch, time) = ids.dims2()?;
    let ids: Vec<u32> = ids.to_dtype(DType::U32)?.flatten_all()?.to_vec1()?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
        candle_core::bail!("id {id}, but the vocabulary has {vocabulary} words: 0 to {}", vocabulary.saturating_sub(1))
    }
    let weight = weight.contiguous()?;
    let mut ys = Vec::with_capacity(ids.len() * dimension);
    {
        let rows = elements(&weight)?;
        ids.iter().for_each(|id| ys.extend_from_slice(&rows[*id as usize * dimension..][..dimension]));
    }
    record("embedding", [&weight], ys, (batch, time, dimension), move |[weight], _, gradient| {
        let mut dw = vec![0.0; weight.elem_count()];
        for (id, gradient) in ids.iter().zip(elements(gradient)?.chunks_exact(dimension)) {
            if Some(*id as usize) != padding {
                let row = &mut dw[*id as usize * dimension..][..dimension];
                row.iter_mut().zip(gradient).for_each(|(w, g)| *w += g);
            }
        }
        Ok([like(dw, weight)?])
    })
}

/// One step of each sequence. `xs` is `(batch, time, features)`; returns `(batch, features)`.
pub fn pick(xs: &Tensor, steps: Vec<usize>) -> Result<Tensor> {
    let (batch, time, features) = xs.dims3()?;
    let xs = xs.contiguous()?;
    let place = move |sample: usize, step: usize| (sample * time + step) * features;
    let mut ys = Vec::with_capacity(batch * features);
    {
        let values = elements(&xs)?;
        (0..batch).for_each(|sample| ys.extend_from_slice(&values[place(sample, steps[sample])..][..features]));
    }
    record("pick", [&xs], ys, (batch, features), move |[xs], _, gradient| {
        let mut dx = vec![0.0; xs.elem_count()];
        for (sample, gradient) in elements(gradient)?.chunks_exact(features).enumerate() {
            dx[place(sample, steps[sample])..][..features].copy_from_slice(gradient);
        }
        Ok([like(dx, xs)?])
    })
}
