//! Operations with backward passes of our own, where candle's are wrong, missing or slow. Safe code on `f32` slices.
//!
//! They are judged by central differences (`tests.rs`), not by candle.

mod adam;
mod conv;
mod dense;
mod pool;

pub use adam::Adam;
pub use conv::{Window, conv2d};
pub use dense::dense;
pub use pool::max_pool2d;

use candle_core::{CpuStorage, Layout, Result, Shape, Tensor};

/// The elements of a CPU tensor, which is contiguous.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("an operation of ours was given a strided view: make it contiguous first")
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// What a custom operation returns for a result that was computed on the way.
pub(crate) fn forwarded(ys: &Tensor) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(ys.flatten_all()?.to_vec1()?), ys.shape().clone()))
}

/// The gradient where the rectified output is above zero, else zero: the derivative at zero is zero, as in PyTorch.
pub(crate) fn through_relu(gradient: &Tensor, ys: &Tensor) -> Result<Tensor> {
    let (gradient, shape) = (gradient.flatten_all()?.to_vec1::<f32>()?, gradient.shape().clone());
    let ys = ys.flatten_all()?.to_vec1::<f32>()?;
    let through: Vec<f32> = gradient.iter().zip(&ys).map(|(g, y)| if *y > 0.0 { *g } else { 0.0 }).collect();
    Tensor::from_vec(through, shape, &candle_core::Device::Cpu)
}

#[cfg(test)]
mod tests;
