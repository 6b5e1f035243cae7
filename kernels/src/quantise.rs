//! From `f32` to unsigned bytes: `byte = round(x · 1/scale) + zero_point`, half to even, kept in 0..=255.

use crate::IsaToken;
use crate::isa::{Body, Isa, LANES};

/// What a byte stands for: `scale * (byte - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    pub scale: f32,
    pub zero_point: u8,
}

impl Scaling {
    /// The finest one for values of `min..=max`; 0 is always among them, and exact. `None` if either is not finite.
    pub fn of_range(min: f32, max: f32) -> Option<Self> {
        let (min, max) = (min.min(0.0), max.max(0.0));
        if !(min.is_finite() && max.is_finite()) {
            return None;
        }
        let scale = max / 255.0 - min / 255.0;
        if scale < f32::MIN_POSITIVE {
            return Some(Self { scale: 1.0, zero_point: 0 });
        }
        Some(Self { scale, zero_point: (-min / scale).round_ties_even() as u8 })
    }
}

/// Quantises by a given scaling. A NaN becomes 0; refuse it before.
///
/// # Panics
/// If the lengths differ.
pub fn quantise(isa: IsaToken, xs: &[f32], scaling: Scaling, out: &mut [u8]) {
    assert_eq!(xs.len(), out.len(), "one byte per value");
    isa.run(Quantise { xs, scaling, out });
}

/// Quantises by the values' own range. `None` if one is not finite; `out` is then as it was.
///
/// # Panics
/// If the lengths differ.
pub fn quantise_dynamic(isa: IsaToken, xs: &[f32], out: &mut [u8]) -> Option<Scaling> {
    let (min, max) = isa.run(Extremes { xs });
    if min.is_nan() {
        return None;
    }
    let scaling = Scaling::of_range(min, max)?;
    quantise(isa, xs, scaling, out);
    Some(scaling)
}

/// A scaling, ready for many values.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) in_one: f32,
    pub(crate) zero_point: u8,
}

impl Steps {
    pub(crate) fn of(scaling: Scaling) -> Self {
        Self { in_one: 1.0 / scaling.scale, zero_point: scaling.zero_point }
    }

    /// The bytes of the first lanes, as many as `out` has room for.
    #[inline(always)]
    pub(crate) fn write<I: Isa>(self, isa: I, x: I::F, out: &mut [u8]) {
        let bytes = isa.quantised(x, self.in_one, self.zero_point);
        match out.first_chunk_mut() {
            Some(out) => *out = bytes,
            None => out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte),
        }
    }
}

struct Quantise<'a> {
    xs: &'a [f32],
    scaling: Scaling,
    out: &'a mut [u8],
}

impl Body for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let steps = Steps::of(self.scaling);
        for (xs, out) in self.xs.chunks(LANES).zip(self.out.chunks_mut(LANES)) {
            steps.write(isa, isa.read(xs, 0.0), out);
        }
    }
}

/// The least and the greatest value and 0; both NaN if one is.
struct Extremes<'a> {
    xs: &'a [f32],
}

impl Body for Extremes<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (f32, f32) {
        let (mut min, mut max) = (isa.splat(0.0), isa.splat(0.0));
        for xs in self.xs.chunks(LANES) {
            let x = isa.read(xs, 0.0);
            (min, max) = (isa.min(x, min), isa.max(x, max));
        }
        let (min, max) = (isa.fold(min, f32::minimum_nan), isa.fold(max, f32::maximum_nan));
        (min, max)
    }
}

/// The standard library's `minimum` and `maximum` are not stable, and its `min` and `max` hide a NaN.
trait Nan {
    fn minimum_nan(self, other: Self) -> Self;
    fn maximum_nan(self, other: Self) -> Self;
}

impl Nan for f32 {
    #[inline(always)]
    fn minimum_nan(self, other: f32) -> f32 {
        if self < other || self.is_nan() { self } else { other }
    }
    #[inline(always)]
    fn maximum_nan(self, other: f32) -> f32 {
        if self > other || self.is_nan() { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(xs: &[f32], scaling: Scaling, expected: &[u8]) {
        for isa in IsaToken::all_present() {
            let mut out = vec![9; xs.len()];
            quantise(isa, xs, scaling, &mut out);
            assert_eq!(out, expected, "{}", isa.name());
        }
    }

    #[test]
    fn ties_go_to_the_even_byte_and_the_rest_is_kept_in_range() {
        let scaling = Scaling { scale: 2.0, zero_point: 3 };
        let xs = [1.0, 3.0, -1.0, -3.0, 5.0, -1e30, 1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        check(&xs, scaling, &[3, 5, 3, 1, 5, 0, 255, 255, 0, 0]);
    }

    #[test]
    fn range_of_a_row_holds_zero_and_both_ends() {
        assert_eq!(Scaling::of_range(-1.0, 254.0), Some(Scaling { scale: 1.0, zero_point: 1 }));
        assert_eq!(Scaling::of_range(2.0, 510.0), Some(Scaling { scale: 2.0, zero_point: 0 }));
        assert_eq!(Scaling::of_range(-51.0, -2.0), Some(Scaling { scale: 0.2, zero_point: 255 }));
        assert_eq!(Scaling::of_range(0.0, 0.0), Some(Scaling { scale: 1.0, zero_point: 0 }));
        assert!(Scaling::of_range(-f32::MAX, f32::MAX).is_some_and(|scaling| scaling.scale.is_finite()));
    }

    #[test]
    fn row_with_a_value_that_is_not_finite_is_refused() {
        for isa in IsaToken::all_present() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 15, 16, 36] {
                    let (mut xs, mut out) = ([1.0; 37], [9; 37]);
                    xs[at] = bad;
                    assert_eq!((quantise_dynamic(isa, &xs, &mut out), out), (None, [9; 37]));
                }
            }
        }
    }
}
