//! What happens to a sum before it is stored: the residual, the activation.

use crate::isa::{Isa, LANES};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    #[default]
    None,
    Relu,
    Relu6,
}

/// `activation(sum + bias + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One per output channel.
    pub bias: Option<&'a [f32]>,
    /// Of the output's shape.
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
}

impl Epilogue<'_> {
    /// # Panics
    /// If a length differs.
    pub(crate) fn check(&self, channels: usize, len: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == channels), "bias: one per channel, of {channels}");
        assert!(self.residual.is_none_or(|residual| residual.len() == len), "residual: as long as the output");
    }

    /// The bias of the channels from `channel` on.
    #[inline(always)]
    pub(crate) fn bias<I: Isa>(&self, isa: I, channel: usize) -> I::F {
        match self.bias {
            Some(bias) => isa.read(&bias[channel..], 0.0),
            None => isa.splat(0.0),
        }
    }

    /// The biases of `P` times sixteen channels from `channel` on.
    #[inline(always)]
    pub(crate) fn biases<I: Isa, const P: usize>(&self, isa: I, channel: usize) -> [[f32; LANES]; P] {
        let mut biases = [[0.0; LANES]; P];
        for (p, lanes) in biases.iter_mut().enumerate() {
            isa.store(self.bias(isa, channel + p * LANES), lanes);
        }
        biases
    }

    /// Finishes the sums (with bias) of the `n` outputs from `at` on.
    #[inline(always)]
    pub(crate) fn finish<I: Isa>(&self, isa: I, sums: I::F, at: usize, n: usize) -> I::F {
        let mut y = sums;
        if let Some(residual) = self.residual {
            y = isa.add(y, isa.read(&residual[at..at + n], 0.0));
        }
        if self.activation != Activation::None {
            y = isa.max(y, isa.splat(0.0));
        }
        if self.activation == Activation::Relu6 {
            y = isa.min(y, isa.splat(6.0));
        }
        y
    }
}
