//! How an operation enters the graph of gradients: what was computed, from what, and how its gradient goes back.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor};
use std::ops::Deref;
use std::sync::Mutex;

/// `ys`, computed from `inputs`. `backward` is given the inputs, the output and its gradient, all contiguous, and returns the
/// gradient of each input that has one: those of data (see [`learns`]) need none.
pub(super) fn record<const N: usize, B>(
    name: &'static str,
    inputs: [&Tensor; N],
    ys: Vec<f32>,
    shape: impl Into<Shape>,
    backward: B,
) -> Result<Tensor>
where
    B: Fn([&Tensor; N], &Tensor, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    Recorded<N, B>: Apply<N>,
{
    Recorded { name, ys: Mutex::new(Some(ys)), shape: shape.into(), backward }.apply(inputs)
}

/// Whether a variable is behind it, so that its gradient is asked for.
pub(super) fn learns(xs: &Tensor) -> bool {
    xs.track_op()
}

pub(super) struct Recorded<const N: usize, B> {
    name: &'static str,
    ys: Mutex<Option<Vec<f32>>>,
    shape: Shape,
    backward: B,
}

pub(super) trait Apply<const N: usize> {
    fn apply(self, inputs: [&Tensor; N]) -> Result<Tensor>;
}

impl<const N: usize, B> Recorded<N, B> {
    fn forward(&self) -> Result<(CpuStorage, Shape)> {
        let ys = self.ys.lock().ok().and_then(|mut ys| ys.take());
        let Some(ys) = ys else { candle_core::bail!("{} is computed once", self.name) };
        Ok((CpuStorage::F32(ys), self.shape.clone()))
    }
}

/// What a recorded operation is to candle, by how much it reads.
macro_rules! recorded {
    ($count:literal, $op:ident, $apply:ident, ($($input:ident),+), ($($index:tt),+), ($($rest:tt),*), $gradients:ty) => {
        impl<B> $op for Recorded<$count, B>
        where
            B: Fn([&Tensor; $count], &Tensor, &Tensor) -> Result<[Option<Tensor>; $count]> + Send + Sync + 'static,
        {
            fn name(&self) -> &'static str {
                self.name
            }

            recorded!(@forward $($input),+);

            fn bwd(&self, $($input: &Tensor,)+ ys: &Tensor, gradient: &Tensor) -> Result<$gradients> {
                let [$($input),+] = (self.backward)([$($input),+], ys, &gradient.contiguous()?)?;
                Ok(($($input),+))
            }
        }

        impl<B> Apply<$count> for Recorded<$count, B>
        where
            B: Fn([&Tensor; $count], &Tensor, &Tensor) -> Result<[Option<Tensor>; $count]> + Send + Sync + 'static,
        {
            fn apply(self, inputs: [&Tensor; $count]) -> Result<Tensor> {
                inputs[0].$apply($(inputs[$rest],)* self)
            }
        }
    };
    (@forward $a:ident) => {
        fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
            self.forward()
        }
    };
    (@forward $a:ident, $b:ident) => {
        fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
            self.forward()
        }
    };
    (@forward $a:ident, $b:ident, $c:ident) => {
        fn cpu_fwd(
            &self,
            _: &CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
        ) -> Result<(CpuStorage, Shape)> {
            self.forward()
        }
    };
}

recorded!(1, CustomOp1, apply_op1, (a), (0), (), Option<Tensor>);
recorded!(2, CustomOp2, apply_op2, (a, b), (0, 1), (1), (Option<Tensor>, Option<Tensor>));
recorded!(3, CustomOp3, apply_op3, (a, b, c), (0, 1, 2), (1, 2), (Option<Tensor>, Option<Tensor>, Option<Tensor>));

/// The elements of a CPU tensor of f32.
///
/// # Errors
/// If the tensor is strided, lies elsewhere, or holds other numbers.
pub(super) fn elements(xs: &Tensor) -> Result<impl Deref<Target = [f32]>> {
    let (storage, layout) = xs.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(_)) = &*storage else {
        candle_core::bail!("operations of ours take f32 on the CPU, got {:?}", xs.dtype())
    };
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("an operation of ours was given a strided view: make it contiguous first")
    };
    Ok(Elements { storage, start, end })
}

/// Lent for as long as this is held.
struct Elements<S> {
    storage: S,
    start: usize,
    end: usize,
}

impl<S: Deref<Target = Storage>> Deref for Elements<S> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.end],
            _ => unreachable!("seen when it was lent"),
        }
    }
}

/// A gradient in the shape of what it belongs to.
pub(super) fn like(values: Vec<f32>, of: &Tensor) -> Result<Option<Tensor>> {
    Tensor::from_vec(values, of.shape(), &Device::Cpu).map(Some)
}
