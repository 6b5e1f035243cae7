//! x86-64 with AVX2, FMA and F16C: a vector is two registers.

use std::arch::x86_64::*;

use super::{Body, Isa, LANES, instructions};

#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// # Safety
/// The CPU has what is enabled here.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn enter<B: Body>(body: B) -> B::Output {
    body.run(Avx2(()))
}

type F = [__m256; 2];

/// `MASKS[16 - n..]` begins with `n` lanes that are on.
static MASKS: [i32; 2 * LANES] = {
    let mut masks = [0; 2 * LANES];
    let mut i = 0;
    while i < LANES {
        masks[i] = -1;
        i += 1;
    }
    masks
};

macro_rules! both {
    (|$i:ident| $each:expr) => {
        [
            {
                let $i = 0;
                $each
            },
            {
                let $i = 1;
                $each
            },
        ]
    };
}

impl Isa for Avx2 {
    type F = F;
    /// Four lanes each, a lane in two neighbours.
    type Acc = [__m256i; 4];
    const SUMS: usize = 6;
    const ACCS: usize = 2;
    instructions! {
        fn splat(x: f32) -> F { [_mm256_set1_ps(x); 2] }
        fn load(xs: &[f32; LANES]) -> F { both!(|i| _mm256_loadu_ps(xs.as_ptr().add(8 * i))) }
        fn load_f16(xs: &[u16; LANES]) -> F { both!(|i| _mm256_cvtph_ps(_mm_loadu_si128(xs.as_ptr().add(8 * i).cast()))) }
        fn load_u8(xs: &[u8; LANES]) -> F {
            both!(|i| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(xs.as_ptr().add(8 * i).cast()))))
        }
        fn load_first(xs: &[f32], fill: f32) -> F {
            let masks = &MASKS[LANES - xs.len()..];
            both!(|i| {
                let mask = _mm256_loadu_si256(masks[8 * i..][..8].as_ptr().cast());
                let some = _mm256_maskload_ps(xs.as_ptr().wrapping_add(8 * i), mask);
                _mm256_blendv_ps(_mm256_set1_ps(fill), some, _mm256_castsi256_ps(mask))
            })
        }
        fn store(x: F, ys: &mut [f32; LANES]) {
            _mm256_storeu_ps(ys.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(ys.as_mut_ptr().add(8), x[1]);
        }
        fn store_first(x: F, ys: &mut [f32]) {
            let masks = &MASKS[LANES - ys.len()..];
            for (i, x) in x.into_iter().enumerate() {
                let mask = _mm256_loadu_si256(masks[8 * i..][..8].as_ptr().cast());
                _mm256_maskstore_ps(ys.as_mut_ptr().wrapping_add(8 * i), mask, x);
            }
        }
        fn fma(a: F, b: F, c: F) -> F { both!(|i| _mm256_fmadd_ps(a[i], b[i], c[i])) }
        fn add(a: F, b: F) -> F { both!(|i| _mm256_add_ps(a[i], b[i])) }
        fn sub(a: F, b: F) -> F { both!(|i| _mm256_sub_ps(a[i], b[i])) }
        fn mul(a: F, b: F) -> F { both!(|i| _mm256_mul_ps(a[i], b[i])) }
        fn div(a: F, b: F) -> F { both!(|i| _mm256_div_ps(a[i], b[i])) }
        // The instruction gives `b` where either is NaN.
        fn max(a: F, b: F) -> F {
            both!(|i| _mm256_blendv_ps(_mm256_max_ps(a[i], b[i]), a[i], _mm256_cmp_ps::<_CMP_UNORD_Q>(a[i], a[i])))
        }
        fn min(a: F, b: F) -> F {
            both!(|i| _mm256_blendv_ps(_mm256_min_ps(a[i], b[i]), a[i], _mm256_cmp_ps::<_CMP_UNORD_Q>(a[i], a[i])))
        }
        // The instructions give their second operand where either is NaN, and where both are zeros.
        fn at_least(x: F, low: F) -> F { both!(|i| _mm256_max_ps(low[i], x[i])) }
        fn at_most(x: F, high: F) -> F { both!(|i| _mm256_min_ps(high[i], x[i])) }
        fn round(a: F) -> F { both!(|i| _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[i])) }
        fn pow2(n: F) -> F {
            both!(|i| {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n[i]), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
            })
        }
        fn to_u8(a: F) -> [u8; LANES] {
            // The first instruction gives 0 where `a` is NaN.
            let kept = both!(|i| _mm256_min_ps(_mm256_max_ps(a[i], _mm256_setzero_ps()), _mm256_set1_ps(255.0)));
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(kept[0]), _mm256_cvtps_epi32(kept[1]));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let packed = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let mut bytes = [0; LANES];
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), packed);
            bytes
        }
        fn begin(factor: i32, sums: &[i32; LANES]) -> [__m256i; 4] {
            let mut acc = [_mm256_setzero_si256(); 4];
            for (i, acc) in acc.iter_mut().enumerate() {
                let sums = _mm_loadu_si128(sums.as_ptr().add(4 * i).cast());
                *acc = _mm256_cvtepu32_epi64(_mm_mullo_epi32(_mm_set1_epi32(factor), sums));
            }
            acc
        }
        // In 16 bits: `maddubs` would saturate.
        fn dot4(acc: [__m256i; 4], a: u32, weights: &[i8; 4 * LANES]) -> [__m256i; 4] {
            let a = _mm256_cvtepu8_epi16(_mm_set1_epi32(a.cast_signed()));
            let mut acc = acc;
            for (i, acc) in acc.iter_mut().enumerate() {
                let weights = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.as_ptr().add(LANES * i).cast()));
                *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(a, weights));
            }
            acc
        }
        fn finish(acc: [__m256i; 4]) -> F {
            both!(|i| {
                let pairs = _mm256_hadd_epi32(acc[2 * i], acc[2 * i + 1]);
                _mm256_cvtepi32_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(pairs))
            })
        }
    }
}
