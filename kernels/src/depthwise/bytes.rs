//! Bytes by bytes: weights, and how both are read as numbers.

use super::Values;
use crate::aligned::Aligned;
use crate::isa::Isa;
use crate::quantise::Scaling;
use crate::shape::{Image, Window};
#[cfg(target_arch = "x86_64")]
use {
    super::Depthwise,
    super::quads::{self, Quads},
    crate::IsaToken,
    std::ops::Range,
};

/// The most taps whose sum of products of bytes an `f32` surely holds.
pub const MAX_TAPS_I8: usize = (1 << 24) / (255 * 127);

/// Weights as signed bytes, in -127..=127, with a scale for each channel.
#[derive(Clone, Debug)]
pub struct DepthwiseI8 {
    /// What the bytes stand for that they meet.
    input: Scaling,
    kernel: [usize; 2],
    /// As numbers: `(kernel height, kernel width, channels)`.
    pub(super) taps: Aligned<f32>,
    /// What 1 of a channel's sum is.
    pub(super) scales: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    pub(super) quads: Option<Quads>,
}

impl DepthwiseI8 {
    /// Of a channel for each of `scales`, `weight(tap, channel)` for each tap of the kernel, row by row. `input` says what the bytes stand
    /// for that they will meet.
    ///
    /// # Panics
    /// If the kernel has more than [`MAX_TAPS_I8`] taps, or a weight is -128.
    pub fn new(input: Scaling, kernel: [usize; 2], scales: &[f32], weight: impl Fn(usize, usize) -> i8) -> Self {
        let (area, channels) = (kernel[0] * kernel[1], scales.len());
        assert!(area <= MAX_TAPS_I8, "{kernel:?}: sums would not be exact");
        let weight = |tap: usize, channel: usize| {
            let weight = weight(tap, channel);
            assert!(weight != i8::MIN, "a weight of -128");
            weight
        };
        let all: Vec<f32> = (0..area * channels).map(|at| f32::from(weight(at / channels, at % channels))).collect();
        #[cfg(target_arch = "x86_64")]
        let quads = Quads::new(input.zero_point, kernel, channels, weight);
        let scales = scales.iter().map(|scale| input.scale * scale).collect();
        Self {
            input,
            kernel,
            taps: Aligned::from(&all[..]),
            scales,
            #[cfg(target_arch = "x86_64")]
            quads,
        }
    }

    /// What the bytes stand for that they meet.
    pub fn input(&self) -> Scaling {
        self.input
    }

    /// In memory, without the scales, as far as one convolution reads them.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.taps[..])
    }

    pub(super) fn are_for(&self, window: &Window, image: Image) -> bool {
        (self.kernel, self.scales.len()) == (window.kernel, image.channels)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub xs: &'a [u8],
    pub weights: &'a DepthwiseI8,
}

impl Bytes<'_> {
    /// Whole numbers, less the zero point.
    #[inline(always)]
    fn centred<I: Isa>(&self, isa: I, x: I::F) -> I::F {
        isa.sub(x, isa.splat(f32::from(self.weights.input.zero_point)))
    }
}

impl Values for Bytes<'_> {
    fn len(&self) -> usize {
        self.xs.len()
    }
    #[cfg(target_arch = "x86_64")]
    fn in_quads(&self, isa: IsaToken, convolution: &Depthwise<'_, Self>, output: Image, lines: &Range<usize>) -> bool {
        quads::convolve(isa, convolution, output, lines)
    }
    #[inline(always)]
    fn read<I: Isa>(&self, isa: I, at: usize, n: usize) -> I::F {
        self.centred(isa, isa.read_u8(&self.xs[at..at + n]))
    }
    #[inline(always)]
    unsafe fn load<I: Isa>(&self, isa: I, at: usize) -> I::F {
        // SAFETY: the caller's promise.
        self.centred(isa, isa.load_u8(unsafe { &*self.xs.as_ptr().add(at).cast() }))
    }
    #[inline(always)]
    fn finish<I: Isa>(&self, isa: I, sum: I::F, bias: I::F, channel: usize) -> I::F {
        isa.fma(sum, isa.read(&self.weights.scales[channel..], 0.0), bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic = "-128"]
    fn weight_by_which_sums_might_not_be_exact_is_refused() {
        DepthwiseI8::new(Scaling { scale: 1.0, zero_point: 0 }, [3, 3], &[1.0; 64], |_, _| -128);
    }
}
