//! Operations with backward passes of our own, where candle's are wrong, missing or slow. Safe code on `f32` slices.
//!
//! They are judged by central differences of the reference in `f64` (`network/gradients.rs`) and by PyTorch, not by candle.

mod activation;
mod adam;
mod conv;
mod dense;
mod global;
pub mod loss;
mod norm;
mod pool;
mod rearrange;
mod record;
mod recurrent;
mod scratch;
mod sgd;
mod soft;

pub(crate) use activation::apply;
pub use activation::{LEAK, activate};
pub use adam::{Adam, Moments};
pub use conv::{Window, conv2d};
pub use dense::dense;
pub use global::{SPREAD, Summary, summarise};
pub use loss::{Loss, Targets, softplus};
pub use norm::{Statistics, Valid, batch_norm, layer_norm, statistics};
pub use pool::{Pooling, avg_pool2d, max_pool2d};
pub use rearrange::{add, embedding, pick, upsample2d};
pub use recurrent::{Reading, recurrent};
pub use sgd::Sgd;
pub use soft::soft_cross_entropy;

use crate::graph::Pad;
use candle_core::{CpuStorage, Layout, Result, Storage, Tensor};

/// The padding of a line, before and after, as that of an image.
pub(crate) fn along((left, right): (usize, usize)) -> Pad {
    Pad { left, right, ..Pad::default() }
}

/// The elements of a CPU tensor, which is contiguous.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("an operation of ours was given a strided view: make it contiguous first")
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Lends the elements of a CPU tensor; a strided view is copied first.
pub fn lend<T>(xs: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
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

#[cfg(test)]
mod tests;
