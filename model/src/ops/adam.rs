//! Adam, in place: one pass over weight, gradient and both moments. No weight decay, as in Keras and PyTorch.

use super::activation::isa;
use super::slice;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var};
use sconce_kernels::wide;
use std::sync::{Mutex, PoisonError};

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// The moments of one variable: what a checkpoint has to keep beside its weights.
pub struct Adam {
    moments: Mutex<Moments>,
    learning_rate: f32,
    step: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    pub means: Vec<f32>,
    pub squares: Vec<f32>,
}

impl Adam {
    pub fn new(variable: &Var, learning_rate: f32) -> Self {
        let zeros = vec![0.0; variable.elem_count()];
        Self { moments: Mutex::new(Moments { means: zeros.clone(), squares: zeros }), learning_rate, step: 0 }
    }

    /// As it was after so many steps.
    pub fn resume(moments: Moments, learning_rate: f32, steps: i32) -> Self {
        Self { moments: Mutex::new(moments), learning_rate, step: steps }
    }

    pub fn moments(&self) -> Moments {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From the next step on.
    pub fn set_learning_rate(&mut self, learning_rate: f32) {
        self.learning_rate = learning_rate;
    }

    /// Moves the variable against its gradient.
    pub fn step(&mut self, variable: &Var, gradient: &Tensor) -> Result<()> {
        self.step += 1;
        variable.as_tensor().inplace_op2(&gradient.contiguous()?, &*self)
    }
}

impl InplaceOp2 for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, weight: &mut CpuStorage, at: &Layout, gradient: &CpuStorage, layout: &Layout) -> Result<()> {
        let gradient = slice(gradient, layout)?;
        let (CpuStorage::F32(weight), Some((start, end))) = (weight, at.contiguous_offsets()) else {
            candle_core::bail!("adam: a variable is contiguous f32")
        };
        let Ok(mut moments) = self.moments.lock() else { candle_core::bail!("adam: an earlier step panicked") };
        let Moments { means, squares } = &mut *moments;
        let rate = self.learning_rate / (1.0 - BETA1.powi(self.step));
        let scale = 1.0 / (1.0 - BETA2.powi(self.step));
        wide(isa()?, step, (&mut weight[start..end], gradient, (&mut means[..], &mut squares[..]), (rate, scale)));
        Ok(())
    }
}

/// Weights, gradient and both moments side by side.
type Sides<'a> = (&'a mut [f32], &'a [f32], (&'a mut [f32], &'a mut [f32]), (f32, f32));

#[inline(always)]
fn step((weights, gradient, (means, squares), (rate, scale)): Sides<'_>) {
    for (((w, g), m), v) in weights.iter_mut().zip(gradient).zip(means).zip(squares) {
        *m = BETA1 * *m + (1.0 - BETA1) * g;
        *v = BETA2 * *v + (1.0 - BETA2) * g * g;
        *w -= rate * *m / ((*v * scale).sqrt() + EPSILON);
    }
}
