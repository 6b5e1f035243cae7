//! Operations with backward passes of our own, where candle's are wrong, missing or slow. Safe code on `f32` slices.
//!
//! They are judged by central differences (`tests.rs`), not by candle.

mod adam;
mod conv;
mod dense;
mod loss;
mod pool;
mod sgd;
mod soft;

pub use adam::{Adam, Moments};
pub use conv::{Window, conv2d};
pub use dense::dense;
pub use loss::softmax_cross_entropy;
pub use pool::max_pool2d;
pub use sgd::Sgd;
pub use soft::soft_cross_entropy;

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor};

/// The elements of a CPU tensor, which is contiguous.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("an operation of ours was given a strided view: make it contiguous first")
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Lends the elements of a CPU tensor; a strided view is copied first.
pub(crate) fn lend<T>(xs: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let xs = xs.contiguous()?;
    let (storage, layout) = xs.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { candle_core::bail!("operations of ours run on the CPU only") };
    read(slice(storage, layout)?)
}

/// The elements of a CPU tensor of f32, in the order of its shape.
///
/// # Errors
/// If it lies elsewhere, or holds other numbers.
pub fn values(xs: &Tensor) -> Result<Vec<f32>> {
    lend(xs, |values| Ok(values.to_vec()))
}

/// Elements and shape of a result that was computed before its operation was made.
pub(crate) fn computed(ys: &Tensor) -> Result<(CpuStorage, Shape)> {
    lend(ys, |elements| Ok((CpuStorage::F32(elements.to_vec()), ys.shape().clone())))
}

/// The gradient where the rectified output is above zero, else zero: the derivative at zero is zero, as in PyTorch.
pub(crate) fn through_relu(gradient: &Tensor, ys: &Tensor) -> Result<Tensor> {
    let through = lend(gradient, |gradient| {
        lend(ys, |ys| Ok(gradient.iter().zip(ys).map(|(&g, &y)| if y > 0.0 { g } else { 0.0 }).collect::<Vec<_>>()))
    })?;
    Tensor::from_vec(through, gradient.shape(), &Device::Cpu)
}

#[cfg(test)]
mod tests;
