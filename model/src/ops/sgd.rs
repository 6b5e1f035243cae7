//! Stochastic gradient descent, in place, with PyTorch's momentum: `v = μ·v + g`, then `w -= rate·v`, or with Nesterov's
//! look ahead `w -= rate·(g + μ·v)`.

use super::slice;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var};
use std::sync::{Mutex, PoisonError};

/// The velocity of one variable.
pub struct Sgd {
    velocity: Mutex<Vec<f32>>,
    learning_rate: f32,
    momentum: f32,
    nesterov: bool,
}

impl Sgd {
    pub fn new(variable: &Var, learning_rate: f32, momentum: f32, nesterov: bool) -> Self {
        Self::resume(vec![0.0; variable.elem_count()], learning_rate, momentum, nesterov)
    }

    /// As it was with this velocity.
    pub fn resume(velocity: Vec<f32>, learning_rate: f32, momentum: f32, nesterov: bool) -> Self {
        Self { velocity: Mutex::new(velocity), learning_rate, momentum, nesterov }
    }

    pub fn velocity(&self) -> Vec<f32> {
        self.velocity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From the next step on.
    pub fn set_learning_rate(&mut self, learning_rate: f32) {
        self.learning_rate = learning_rate;
    }

    /// Moves the variable against its gradient.
    pub fn step(&mut self, variable: &Var, gradient: &Tensor) -> Result<()> {
        variable.as_tensor().inplace_op2(&gradient.contiguous()?, &*self)
    }
}

impl InplaceOp2 for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn cpu_fwd(&self, weight: &mut CpuStorage, at: &Layout, gradient: &CpuStorage, layout: &Layout) -> Result<()> {
        let gradient = slice(gradient, layout)?;
        let (CpuStorage::F32(weight), Some((start, end))) = (weight, at.contiguous_offsets()) else {
            candle_core::bail!("sgd: a variable is contiguous f32")
        };
        let Ok(mut velocity) = self.velocity.lock() else { candle_core::bail!("sgd: an earlier step panicked") };
        let (rate, momentum) = (self.learning_rate, self.momentum);
        for ((w, g), v) in weight[start..end].iter_mut().zip(gradient).zip(velocity.iter_mut()) {
            *v = momentum * *v + g;
            *w -= rate * if self.nesterov { g + momentum * *v } else { *v };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// What `torch.optim.SGD(lr=0.1, momentum=0.9)` makes of a weight of 1 and the gradients 1, 2, 3.
    #[test]
    fn steps_are_those_of_pytorch() {
        let check = |momentum, nesterov, expected: [f32; 3]| {
            let variable = Var::new(&[1.0_f32], &Device::Cpu).unwrap();
            let mut sgd = Sgd::new(&variable, 0.1, momentum, nesterov);
            for (gradient, expected) in [1.0_f32, 2.0, 3.0].into_iter().zip(expected) {
                sgd.step(&variable, &Tensor::new(&[gradient], &Device::Cpu).unwrap()).unwrap();
                let got = variable.to_vec1::<f32>().unwrap()[0];
                assert!((got - expected).abs() < 1e-6, "{got} {expected}");
            }
        };
        check(0.0, false, [0.9, 0.7, 0.4]);
        check(0.9, false, [0.9, 0.61, 0.049]);
        check(0.9, true, [0.81, 0.349, -0.4559]);
    }
}
