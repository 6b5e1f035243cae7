//! What a result may be.

use sconce_kernels::Activation;

pub const EPSILON: f64 = f32::EPSILON as f64;

pub fn activate(y: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => y,
        Activation::Relu => y.max(0.0),
        Activation::Relu6 => y.clamp(0.0, 6.0),
    }
}

/// A sum of products in `f64`, and of their magnitudes.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    pub value: f64,
    pub magnitude: f64,
    pub terms: usize,
}

impl Sum {
    pub fn add(&mut self, a: f32, b: f32) {
        self.value += f64::from(a) * f64::from(b);
        self.magnitude += (f64::from(a) * f64::from(b)).abs();
        self.terms += 1;
    }

    pub fn check(&self, y: f32, activation: Activation) {
        let expected = activate(self.value, activation);
        let bound = 2.0 * self.terms as f64 * EPSILON * self.magnitude;
        assert!((f64::from(y) - expected).abs() <= bound, "{y} is not {expected} within {bound:e}");
    }
}
