//! AArch64 with NEON, and with the dot product beside it: a vector is four registers.

use std::arch::{aarch64::*, asm};

use super::{Body, Isa, LANES, four, instructions};

#[derive(Clone, Copy)]
pub(super) struct Neon(());

#[derive(Clone, Copy)]
pub(super) struct NeonDot(());

/// # Safety
/// The CPU has what is enabled here.
#[target_feature(enable = "neon")]
pub(super) unsafe fn enter<B: Body>(body: B) -> B::Output {
    body.run(Neon(()))
}

/// # Safety
/// The CPU has what is enabled here.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn enter_dot<B: Body>(body: B) -> B::Output {
    body.run(NeonDot(()))
}

type F = [float32x4_t; 4];
type Acc = [int32x4_t; 4];

macro_rules! common {
    () => {
        type F = F;
        type Acc = Acc;
        const SUMS: usize = 6;
        const ACCS: usize = 6;
        const SHIFT: i32 = 128;
        instructions! {
            fn splat(x: f32) -> F { [vdupq_n_f32(x); 4] }
            fn load(xs: &[f32; LANES]) -> F { four!(|i| vld1q_f32(xs.as_ptr().add(4 * i))) }
            fn load_f16(xs: &[u16; LANES]) -> F { four!(|i| widen_f16(vld1_u16(xs.as_ptr().add(4 * i)))) }
            fn load_u8(xs: &[u8; LANES]) -> F {
                let bytes = vld1q_u8(xs.as_ptr());
                let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
                let words = [vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)];
                four!(|i| vcvtq_f32_u32(words[i]))
            }
            fn store(x: F, ys: &mut [f32; LANES]) {
                for (i, x) in x.into_iter().enumerate() {
                    vst1q_f32(ys.as_mut_ptr().add(4 * i), x);
                }
            }
            fn fma(a: F, b: F, c: F) -> F { four!(|i| vfmaq_f32(c[i], a[i], b[i])) }
            fn add(a: F, b: F) -> F { four!(|i| vaddq_f32(a[i], b[i])) }
            fn sub(a: F, b: F) -> F { four!(|i| vsubq_f32(a[i], b[i])) }
            fn mul(a: F, b: F) -> F { four!(|i| vmulq_f32(a[i], b[i])) }
            fn div(a: F, b: F) -> F { four!(|i| vdivq_f32(a[i], b[i])) }
            fn max(a: F, b: F) -> F { four!(|i| vmaxq_f32(a[i], b[i])) }
            fn min(a: F, b: F) -> F { four!(|i| vminq_f32(a[i], b[i])) }
            fn at_least(x: F, low: F) -> F { four!(|i| vbslq_f32(vcgtq_f32(low[i], x[i]), low[i], x[i])) }
            fn at_most(x: F, high: F) -> F { four!(|i| vbslq_f32(vcltq_f32(high[i], x[i]), high[i], x[i])) }
            fn round(a: F) -> F { four!(|i| vrndnq_f32(a[i])) }
            fn pow2(n: F) -> F {
                four!(|i| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n[i]), vdupq_n_s32(127)))))
            }
            fn to_u8(a: F) -> [u8; LANES] {
                let words = four!(|i| vqmovun_s32(vcvtnq_s32_f32(a[i])));
                let low = vqmovn_u16(vcombine_u16(words[0], words[1]));
                let high = vqmovn_u16(vcombine_u16(words[2], words[3]));
                let mut bytes = [0; LANES];
                vst1q_u8(bytes.as_mut_ptr(), vcombine_u8(low, high));
                bytes
            }
            fn begin(factor: i32, sums: &[i32; LANES]) -> Acc {
                four!(|i| vmulq_n_s32(vld1q_s32(sums.as_ptr().add(4 * i)), factor))
            }
            fn finish(acc: Acc) -> F { four!(|i| vcvtq_f32_s32(acc[i])) }
        }
    };
}

/// Four activations, each less 128, four times.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn signed(a: u32) -> int8x16_t {
    // SAFETY: the caller's promise.
    unsafe { vreinterpretq_s8_u32(vdupq_n_u32(a ^ 0x8080_8080)) }
}

/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn widen_f16(bits: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: the caller's promise. In assembly, for the intrinsic wants the unstable `f16`.
    unsafe { asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) bits, options(pure, nomem, nostack)) };
    wide
}

/// # Safety
/// The CPU has the dot product.
#[inline(always)]
unsafe fn sdot(mut acc: int32x4_t, a: int8x16_t, weights: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's promise. In assembly, for the intrinsic is unstable.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) acc, in(vreg) a, in(vreg) weights, options(pure, nomem, nostack));
    }
    acc
}

impl Isa for NeonDot {
    common!();
    instructions! {
        fn dot4(acc: Acc, a: u32, weights: &[i8; 4 * LANES]) -> Acc {
            let a = signed(a);
            four!(|i| sdot(acc[i], a, vld1q_s8(weights.as_ptr().add(LANES * i))))
        }
    }
}

impl Isa for Neon {
    common!();
    instructions! {
        // Two products fit 16 bits, for no weight is -128.
        fn dot4(acc: Acc, a: u32, weights: &[i8; 4 * LANES]) -> Acc {
            let a = signed(a);
            four!(|i| {
                let weights = vld1q_s8(weights.as_ptr().add(LANES * i));
                let low = vmull_s8(vget_low_s8(a), vget_low_s8(weights));
                vpadalq_s16(acc[i], vpaddq_s16(low, vmull_high_s8(a, weights)))
            })
        }
    }
}
