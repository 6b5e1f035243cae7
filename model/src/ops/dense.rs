//! `ys = xs · Wᵀ + b`, optionally rectified.

use super::activation::{self, activate, is_rectifier, isa, through};
use super::record::{elements, learns, like, record};
use crate::architecture::Activation;
use candle_core::{Result, Tensor};
use sconce_kernels::{Matrix, matmul, wide};

/// `xs` is `(batch, .., in)`, `weight` `(out, in)`, `bias` `(out)`; returns `(batch, .., out)`.
pub fn dense(xs: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let (xs, weight) = (xs.contiguous()?, weight.contiguous()?);
    let (outputs, inputs) = weight.dims2()?;
    let rows = xs.elem_count() / inputs.max(1);
    let fused = if is_rectifier(activation) { activation } else { Activation::None };
    let mut ys = elements(&bias.contiguous()?)?.repeat(rows);
    matmul(
        Matrix::new(&elements(&xs)?, rows, inputs),
        Matrix::new(&elements(&weight)?, outputs, inputs).t(),
        &mut ys,
        true,
    );
    activation::apply(fused, &mut ys)?;
    let mut shape = xs.dims().to_vec();
    *shape.last_mut().expect("an input has a last axis") = outputs;
    let ys = record("dense", [&xs, &weight, bias], ys, shape, move |[xs, weight, bias], ys, gradient| {
        let gradient = elements(gradient)?;
        let before = through(fused, &gradient, &elements(ys)?)?;
        let gradient = Matrix::new(&before, rows, outputs);
        let product = |a, b, of: &Tensor| {
            let mut out = vec![0.0; of.elem_count()];
            matmul(a, b, &mut out, false);
            like(out, of)
        };
        let (values, weights) = (elements(xs)?, elements(weight)?);
        let dx = learns(xs).then(|| product(gradient, Matrix::new(&weights, outputs, inputs), xs)).transpose()?;
        let dw =
            learns(weight).then(|| product(gradient.t(), Matrix::new(&values, rows, inputs), weight)).transpose()?;
        let db = learns(bias).then(|| like(column_sums(&before, outputs)?, bias)).transpose()?;
        Ok([dx.flatten(), dw.flatten(), db.flatten()])
    })?;
    activate(&ys, if fused == activation { Activation::None } else { activation })
}

/// Of rows that lie one after the other.
pub(super) fn column_sums(rows: &[f32], columns: usize) -> Result<Vec<f32>> {
    Ok(wide(isa()?, summed, (rows, columns)))
}

#[inline(always)]
fn summed((rows, columns): (&[f32], usize)) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    for row in rows.chunks_exact(columns.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    sums
}
