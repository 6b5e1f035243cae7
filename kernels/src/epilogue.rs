//! What happens to a sum before it is stored: the residual, the activation.

use crate::isa::Isa;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    #[default]
    None,
    Relu,
    Relu6,
}

impl Activation {
    /// Between what it keeps values.
    pub(crate) fn range(self) -> (f32, f32) {
        match self {
            Self::None => (f32::NEG_INFINITY, f32::INFINITY),
            Self::Relu => (0.0, f32::INFINITY),
            Self::Relu6 => (0.0, 6.0),
        }
    }
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

    /// What [`Finish`] needs, once for many sums.
    #[inline(always)]
    pub(crate) fn finish<I: Isa>(&self, isa: I) -> Finish<'_, I> {
        let (low, high) = self.activation.range();
        Finish { residual: self.residual, low: isa.splat(low), high: isa.splat(high) }
    }
}

/// What is left to do with a sum that has its bias.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a, I: Isa> {
    residual: Option<&'a [f32]>,
    /// An activation keeps values between these.
    low: I::F,
    high: I::F,
}

impl<I: Isa> Finish<'_, I> {
    /// Of the `n` outputs from `at` on.
    #[inline(always)]
    pub(crate) fn of(&self, isa: I, sums: I::F, at: usize, n: usize) -> I::F {
        let y = match self.residual {
            Some(residual) => isa.add(sums, isa.read(&residual[at..at + n], 0.0)),
            None => sums,
        };
        self.clamp(isa, y)
    }

    /// The same where there is no residual.
    #[inline(always)]
    pub(crate) fn clamp(&self, isa: I, sums: I::F) -> I::F {
        isa.at_most(isa.at_least(sums, self.low), self.high)
    }
}
