//! The right side of a product: weights, packed once into panels of sixteen outputs, the same for every instruction set.

use crate::aligned::Aligned;
use crate::half::f32_to_f16;
use crate::isa::LANES;

/// The longest sum of products of bytes that 32 bits surely hold.
pub const MAX_DEPTH_I8: usize = 65_536;

/// Weights as `f32`, or stored as `f16` and multiplied as `f32`: half the memory to read, the same arithmetic.
#[derive(Clone, Debug)]
pub struct Packed {
    pub(crate) panels: Panels,
    /// Weights of one output.
    pub(crate) depth: usize,
    pub(crate) outputs: usize,
}

/// For each panel, for each weight of an output: that weight of sixteen outputs.
#[derive(Clone, Debug)]
pub(crate) enum Panels {
    F32(Aligned<f32>),
    F16(Aligned<u16>),
}

impl Packed {
    /// Weights of `outputs` outputs, `weight(output, k)` for each `k` in `0..depth`.
    pub fn f32(outputs: usize, depth: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        Self { panels: Panels::F32(pack::<_, 1>(outputs, 1, depth, weight)), depth, outputs }
    }

    /// The same, each weight rounded to the nearest `f16`; beyond 65,504 that is infinite.
    pub fn f16(outputs: usize, depth: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        let panels = Panels::F16(pack::<_, 1>(outputs, 1, depth, |output, k| f32_to_f16(weight(output, k))));
        Self { panels, depth, outputs }
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    /// In memory.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(panels) => size_of_val(&**panels),
            Panels::F16(panels) => size_of_val(&**panels),
        }
    }

    pub fn is_f16(&self) -> bool {
        matches!(self.panels, Panels::F16(_))
    }
}

/// The scale of an output: its greatest weight becomes 127.
///
/// # Panics
/// If a weight is not finite.
pub fn scale(weights: impl IntoIterator<Item = f32>) -> f32 {
    let finite = weights.into_iter().inspect(|w| assert!(w.is_finite(), "weight {w}"));
    let greatest = finite.fold(0.0, |max: f32, w| max.max(w.abs()));
    // So small a greatest weight would leave no scale but 0.
    if greatest < f32::MIN_POSITIVE * 127.0 { 1.0 } else { greatest / 127.0 }
}

/// A weight by the scale of its output, rounded half to even.
#[inline]
pub fn byte(weight: f32, scale: f32) -> i8 {
    // Numbers from 2²³ on have no places behind the point: what is added to is rounded so, without a call of the library.
    const WHOLE: f32 = 1.5 * (1 << 23) as f32;
    ((weight / scale).clamp(-127.0, 127.0) + WHOLE - WHOLE) as i8
}

/// Weights as signed bytes, in -127..=127 with one scale per output.
#[derive(Clone, Debug)]
pub struct PackedI8 {
    /// For each panel, for each four weights of a run: those of sixteen outputs. A run is filled up with zeros.
    pub(crate) panels: Aligned<i8>,
    /// One per output, and on to a whole panel.
    pub(crate) scales: Vec<f32>,
    /// The sum of each output's weights, likewise.
    pub(crate) sums: Vec<i32>,
    pub(crate) taps: usize,
    pub(crate) depth: usize,
    pub(crate) outputs: usize,
}

impl PackedI8 {
    /// Weights that are bytes already: `weight(output, k)` for each `k` in `0..taps * depth`, for rows of `taps` runs of `depth`.
    ///
    /// # Panics
    /// If there is not one scale per output, a weight is -128, or a row is longer than 65,536.
    pub fn new(scales: &[f32], taps: usize, depth: usize, weight: impl Fn(usize, usize) -> i8) -> Self {
        let outputs = scales.len();
        assert!(taps * depth <= MAX_DEPTH_I8, "{taps} times {depth} products overflow 32 bits");
        let mut sums = vec![0; outputs.next_multiple_of(LANES)];
        let panels = pack::<_, 4>(outputs, taps, depth, |output, k| {
            let weight = weight(output, k);
            assert!(weight != i8::MIN, "a weight of -128");
            sums[output] += i32::from(weight);
            weight
        });
        let mut scales = scales.to_vec();
        scales.resize(sums.len(), 0.0);
        Self { panels, scales, sums, taps, depth, outputs }
    }

    /// Quantises: the greatest weight of an output becomes 127, and each is rounded half to even.
    ///
    /// # Panics
    /// If a weight is not finite, or a row is longer than 65,536.
    pub fn quantise(outputs: usize, taps: usize, depth: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        let scale = |output| scale((0..taps * depth).map(|k| weight(output, k)));
        let scales: Vec<f32> = (0..outputs).map(scale).collect();
        Self::new(&scales, taps, depth, |output, k| byte(weight(output, k), scales[output]))
    }

    /// Weights of one output.
    pub fn depth(&self) -> usize {
        self.taps * self.depth
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// In memory, without the scales.
    pub fn bytes(&self) -> usize {
        self.panels.len()
    }

    /// One per output.
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.outputs]
    }
}

/// `GROUP` neighbours of a run lie together for each output; each run is filled up to whole groups. Weights are asked for once each,
/// in order.
fn pack<T: Copy + Default, const GROUP: usize>(
    outputs: usize,
    runs: usize,
    run: usize,
    mut weight: impl FnMut(usize, usize) -> T,
) -> Aligned<T> {
    let depth = runs * run.next_multiple_of(GROUP);
    let len = outputs
        .div_ceil(LANES)
        .checked_mul(LANES)
        .and_then(|lanes| lanes.checked_mul(depth))
        .expect("weights that fit in memory");
    let mut panels = Aligned::zeros(len);
    let values: &mut [T] = &mut panels;
    for output in 0..outputs {
        let panel = output / LANES * LANES * depth;
        for nth in 0..runs {
            for k in 0..run {
                let at = nth * run.next_multiple_of(GROUP) + k;
                let place = (at / GROUP * LANES + output % LANES) * GROUP + at % GROUP;
                values[panel + place] = weight(output, nth * run + k);
            }
        }
    }
    panels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_the_weights_of_sixteen_outputs_together() {
        let packed = Packed::f32(17, 3, |output, k| (100 * k + output) as f32);
        let Panels::F32(panels) = &packed.panels else { panic!("packed as f32") };
        let values = panels;
        assert_eq!((values[0], values[15], values[16], values[47]), (0.0, 15.0, 100.0, 215.0));
        assert_eq!((values[48], values[49], values[64], values.len()), (16.0, 0.0, 116.0, 96));
    }

    #[test]
    fn greatest_weight_of_each_output_becomes_127() {
        let weights = [[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]];
        let packed = PackedI8::quantise(2, 1, 3, |output, k| weights[output][k]);
        assert_eq!(packed.panels[..8], [64, -127, 32, 0, 0, 0, 0, 0]);
        assert_eq!((packed.scales(), &packed.sums[..2]), (&[2.0 / 127.0, 1.0][..], &[-31, 0][..]));
    }

    #[test]
    fn weight_is_rounded_half_to_even_whatever_it_is() {
        for x in (-1300..1300).map(|x| x as f32 / 10.0).chain([
            0.5,
            1.5,
            -2.5,
            126.5,
            127.5,
            1e30,
            f32::NEG_INFINITY,
            f32::NAN,
        ]) {
            assert_eq!(byte(x, 1.0), x.round_ties_even().clamp(-127.0, 127.0) as i8, "{x}");
        }
    }

    #[test]
    #[should_panic = "-128"]
    fn weight_that_sixteen_bits_might_not_hold_is_refused() {
        PackedI8::new(&[1.0], 1, 1, |_, _| -128);
    }
}
