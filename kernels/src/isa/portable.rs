//! Any CPU: plain Rust. The yardstick of the others, and slow, for a fused multiply-add is a library call on most.

use super::{Isa, LANES};
use crate::half::f16_to_f32;

#[derive(Clone, Copy)]
pub(super) struct Portable;

type F = [f32; LANES];

#[inline(always)]
fn zip(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    std::array::from_fn(|i| f(a[i], b[i]))
}

// Functions of their own, where sixteen lanes are much code.

#[inline(never)]
fn load_f16(xs: &[u16; LANES]) -> F {
    xs.map(f16_to_f32)
}

#[inline(never)]
fn fma(a: &F, b: &F, c: &F) -> F {
    std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
}

impl Isa for Portable {
    type F = F;
    type Acc = [i32; LANES];
    // No register holds one: more at once would be more code, and not faster.
    const SUMS: usize = 2;
    const ACCS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, xs: &F) -> F {
        *xs
    }
    #[inline(always)]
    fn load_f16(self, xs: &[u16; LANES]) -> F {
        load_f16(xs)
    }
    #[inline(always)]
    fn load_u8(self, xs: &[u8; LANES]) -> F {
        xs.map(f32::from)
    }
    #[inline(always)]
    fn store(self, x: F, ys: &mut F) {
        *ys = x;
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        fma(&a, &b, &c)
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        zip(a, b, |a, b| if a > b || a.is_nan() { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        zip(a, b, |a, b| if a < b || a.is_nan() { a } else { b })
    }
    #[inline(always)]
    fn at_least(self, x: F, low: F) -> F {
        zip(x, low, |x, low| if low > x { low } else { x })
    }
    #[inline(always)]
    fn at_most(self, x: F, high: F) -> F {
        zip(x, high, |x, high| if high < x { high } else { x })
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn pow2(self, n: F) -> F {
        n.map(|n| f32::from_bits((n as i32).wrapping_add(127).cast_unsigned() << 23))
    }
    #[inline(always)]
    fn to_u8(self, a: F) -> [u8; LANES] {
        a.map(|a| a as u8)
    }
    #[inline(always)]
    fn begin(self, factor: i32, sums: &[i32; LANES]) -> [i32; LANES] {
        sums.map(|sum| factor.wrapping_mul(sum))
    }
    #[inline(always)]
    fn dot4(self, acc: [i32; LANES], a: u32, weights: &[i8; 4 * LANES]) -> [i32; LANES] {
        let a = a.to_le_bytes();
        std::array::from_fn(|lane| {
            (0..4).fold(acc[lane], |sum, i| sum.wrapping_add(i32::from(a[i]) * i32::from(weights[4 * lane + i])))
        })
    }
    #[inline(always)]
    fn finish(self, acc: [i32; LANES]) -> F {
        acc.map(|sum| sum as f32)
    }
}
