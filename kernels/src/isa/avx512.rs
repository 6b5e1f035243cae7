//! x86-64 with AVX-512 F and BW, and with VNNI beside them: a vector is one register.

use std::arch::x86_64::*;

use super::{Body, Dots, DotsBody, Isa, LANES, four, instructions};
use crate::quantise::Steps;

#[derive(Clone, Copy)]
pub(super) struct Avx512(());

#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni(());

/// # Safety
/// The CPU has what is enabled here.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma,f16c")]
pub(super) unsafe fn enter<B: Body>(body: B) -> B::Output {
    body.run(Avx512(()))
}

/// # Safety
/// The CPU has what is enabled here.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn enter_vnni<B: Body>(body: B) -> B::Output {
    body.run(Avx512Vnni(()))
}

/// # Safety
/// The CPU has what is enabled here.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn enter_dots(body: impl DotsBody) {
    body.run(Avx512Vnni(()));
}

macro_rules! floats {
    () => {
        #[inline(always)]
        fn prefetch<T>(self, at: *const T) {
            // SAFETY: a prefetch touches no memory.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
        #[inline(always)]
        fn turn(self, square: [__m512; LANES]) -> [__m512; LANES] {
            // SAFETY: `self` exists only where the CPU has the instructions.
            unsafe { turn(square) }
        }
        instructions! {
            fn in_turn(planes: [__m512; 3]) -> [__m512; 3] {
                // Of the first two planes; 0 where a lane of the third comes.
                let [a, b, c] = planes;
                let first = _mm512_setr_epi32(0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
                let second = _mm512_setr_epi32(21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
                let third = _mm512_setr_epi32(0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
                let of_first = _mm512_setr_epi32(0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0, 4, 0);
                let of_second = _mm512_setr_epi32(0, 5, 0, 0, 6, 0, 0, 7, 0, 0, 8, 0, 0, 9, 0, 0);
                let of_third = _mm512_setr_epi32(10, 0, 0, 11, 0, 0, 12, 0, 0, 13, 0, 0, 14, 0, 0, 15);
                [
                    _mm512_mask_permutexvar_ps(_mm512_permutex2var_ps(a, first, b), 0x4924, of_first, c),
                    _mm512_mask_permutexvar_ps(_mm512_permutex2var_ps(a, second, b), 0x2492, of_second, c),
                    _mm512_mask_permutexvar_ps(_mm512_permutex2var_ps(a, third, b), 0x9249, of_third, c),
                ]
            }
            fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
            fn load(xs: &[f32; LANES]) -> __m512 { _mm512_loadu_ps(xs.as_ptr()) }
            fn load_f16(xs: &[u16; LANES]) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(xs.as_ptr().cast())) }
            fn load_u8(xs: &[u8; LANES]) -> __m512 {
                _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(xs.as_ptr().cast())))
            }
            fn load_first(xs: &[f32], fill: f32) -> __m512 {
                _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask(xs.len()), xs.as_ptr())
            }
            fn store(x: __m512, ys: &mut [f32; LANES]) { _mm512_storeu_ps(ys.as_mut_ptr(), x) }
            fn store_first(x: __m512, ys: &mut [f32]) {
                _mm512_mask_storeu_ps(ys.as_mut_ptr(), mask(ys.len()), x)
            }
            fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
            fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
            fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
            fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
            fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
            // The instruction gives `b` where either is NaN.
            fn max(a: __m512, b: __m512) -> __m512 {
                _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), a)
            }
            fn min(a: __m512, b: __m512) -> __m512 {
                _mm512_mask_mov_ps(_mm512_min_ps(a, b), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), a)
            }
            // The instructions give their second operand where either is NaN, and where both are zeros.
            fn at_least(x: __m512, low: __m512) -> __m512 { _mm512_max_ps(low, x) }
            fn at_most(x: __m512, high: __m512) -> __m512 { _mm512_min_ps(high, x) }
            fn round(a: __m512) -> __m512 { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
            fn pow2(n: __m512) -> __m512 {
                let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
                _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
            }
            fn times_pow2(y: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(y, n) }
            fn quantised(x: __m512, in_one: f32, zero_point: u8) -> [u8; LANES] {
                let kept = _mm512_max_epi32(in_steps(x, in_one, zero_point), _mm512_setzero_si512());
                let mut bytes = [0; LANES];
                _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtusepi32_epi8(kept));
                bytes
            }
            fn to_u8(a: __m512) -> [u8; LANES] {
                // 0 where `a` is NaN. What is too large for 32 bits becomes 2³¹, and that 255.
                let kept = _mm512_max_ps(a, _mm512_setzero_ps());
                let mut bytes = [0; LANES];
                _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(kept)));
                bytes
            }
        }
    };
}

/// Neighbours, then pairs of them, within each quarter; then quarters.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn turn(mut x: [__m512; LANES]) -> [__m512; LANES] {
    let mut y = x;
    // SAFETY: the caller's promise.
    unsafe {
        for i in 0..8 {
            y[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
            y[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
        }
        for i in 0..4 {
            for half in 0..2 {
                let (a, b) = (_mm512_castps_pd(y[4 * i + half]), _mm512_castps_pd(y[4 * i + 2 + half]));
                x[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                x[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        // Now `x[4 * i + j]` has, in quarter `q`, lane `4 * q + j` of the vectors from `4 * i` on.
        for j in 0..4 {
            let (low, high) = (x[j], x[4 + j]);
            let (third, last) = (x[8 + j], x[12 + j]);
            let [a, b] = [_mm512_shuffle_f32x4::<0x88>(low, high), _mm512_shuffle_f32x4::<0xdd>(low, high)];
            let [c, d] = [_mm512_shuffle_f32x4::<0x88>(third, last), _mm512_shuffle_f32x4::<0xdd>(third, last)];
            y[j] = _mm512_shuffle_f32x4::<0x88>(a, c);
            y[8 + j] = _mm512_shuffle_f32x4::<0xdd>(a, c);
            y[4 + j] = _mm512_shuffle_f32x4::<0x88>(b, d);
            y[12 + j] = _mm512_shuffle_f32x4::<0xdd>(b, d);
        }
    }
    y
}

fn mask(n: usize) -> u16 {
    if n < LANES { (1 << n) - 1 } else { u16::MAX }
}

/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn begin(factor: i32, sums: &[i32; LANES]) -> __m512i {
    // SAFETY: the caller's promise; memory is read through a reference.
    unsafe { _mm512_mullo_epi32(_mm512_set1_epi32(factor), _mm512_loadu_si512(sums.as_ptr().cast())) }
}

/// As [`Steps`] makes bytes: what is NaN or too small becomes the least number, which stays below 0; what is too large stays above 255.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn in_steps(x: __m512, in_one: f32, zero_point: u8) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let steps = _mm512_min_ps(_mm512_set1_ps(1e9), _mm512_mul_ps(x, _mm512_set1_ps(in_one)));
        _mm512_add_epi32(_mm512_cvtps_epi32(steps), _mm512_set1_epi32(i32::from(zero_point)))
    }
}

impl Isa for Avx512Vnni {
    type F = __m512;
    type Acc = __m512i;
    const SUMS: usize = 24;
    const ACCS: usize = 24;
    floats!();
    instructions! {
        fn begin(factor: i32, sums: &[i32; LANES]) -> __m512i { begin(factor, sums) }
        fn dot4(acc: __m512i, a: u32, weights: &[i8; 4 * LANES]) -> __m512i {
            let weights = _mm512_loadu_si512(weights.as_ptr().cast());
            _mm512_dpbusd_epi32(acc, _mm512_set1_epi32(a.cast_signed()), weights)
        }
        fn finish(acc: __m512i) -> __m512 { _mm512_cvtepi32_ps(acc) }
        fn finish_greatest(accs: [__m512i; 4]) -> __m512 {
            let (first, second) = (_mm512_max_epi32(accs[0], accs[1]), _mm512_max_epi32(accs[2], accs[3]));
            _mm512_cvtepi32_ps(_mm512_max_epi32(first, second))
        }
    }
}

/// In each quarter of a vector lie four channels of each sixteen.
impl Dots for Avx512Vnni {
    type Bytes = __m512i;
    type Pairs = [__m512i; 2];
    type Fours = [__m512i; 4];
    type Sums = [__m512i; 4];
    instructions! {
        fn bytes(low: &[u8; 32], high: &[u8; 32]) -> __m512i {
            let (low, high) = (_mm256_loadu_si256(low.as_ptr().cast()), _mm256_loadu_si256(high.as_ptr().cast()));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
        fn pairs(a: __m512i, b: __m512i) -> [__m512i; 2] {
            [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)]
        }
        fn fours(a: [__m512i; 2], b: [__m512i; 2]) -> [__m512i; 4] {
            [
                _mm512_unpacklo_epi16(a[0], b[0]),
                _mm512_unpackhi_epi16(a[0], b[0]),
                _mm512_unpacklo_epi16(a[1], b[1]),
                _mm512_unpackhi_epi16(a[1], b[1]),
            ]
        }
        fn begin_fours(sums: &[i32; 64]) -> [__m512i; 4] {
            four!(|i| _mm512_loadu_si512(sums.as_ptr().add(LANES * i).cast()))
        }
        fn dot_fours(sums: [__m512i; 4], bytes: [__m512i; 4], weights: &[i8; 256]) -> [__m512i; 4] {
            four!(|i| _mm512_dpbusd_epi32(sums[i], bytes[i], _mm512_loadu_si512(weights.as_ptr().add(64 * i).cast())))
        }
        fn numbers(sums: [__m512i; 4]) -> [__m512; 4] { four!(|i| _mm512_cvtepi32_ps(sums[i])) }
        fn in_fours(low: &[f32; 32], high: &[f32; 32]) -> [__m512; 4] {
            four!(|i| {
                let of = |half: &[f32; 32], quarter: usize| _mm_loadu_ps(half.as_ptr().add(16 * quarter + 4 * i));
                let first = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(of(low, 0)), of(low, 1));
                _mm512_insertf32x4::<3>(_mm512_insertf32x4::<2>(first, of(high, 0)), of(high, 1))
            })
        }
        fn write_fours(ys: [__m512; 4], steps: Steps, low_out: &mut [u8; 32], high_out: &mut [u8; 32]) {
            let words = four!(|i| in_steps(ys[i], steps.in_one, steps.zero_point));
            let (low, high) = (_mm512_packs_epi32(words[0], words[1]), _mm512_packs_epi32(words[2], words[3]));
            let bytes = _mm512_packus_epi16(low, high);
            _mm256_storeu_si256(low_out.as_mut_ptr().cast(), _mm512_castsi512_si256(bytes));
            _mm256_storeu_si256(high_out.as_mut_ptr().cast(), _mm512_extracti64x4_epi64::<1>(bytes));
        }
    }
}

impl Isa for Avx512 {
    type F = __m512;
    /// Eight lanes each, a lane in two neighbours.
    type Acc = [__m512i; 2];
    const SUMS: usize = 24;
    const ACCS: usize = 12;
    floats!();
    instructions! {
        fn begin(factor: i32, sums: &[i32; LANES]) -> [__m512i; 2] {
            let all = begin(factor, sums);
            let high = _mm512_extracti64x4_epi64::<1>(all);
            [_mm512_cvtepu32_epi64(_mm512_castsi512_si256(all)), _mm512_cvtepu32_epi64(high)]
        }
        // In 16 bits: `maddubs` would saturate.
        fn dot4(acc: [__m512i; 2], a: u32, weights: &[i8; 4 * LANES]) -> [__m512i; 2] {
            let a = _mm512_cvtepu8_epi16(_mm256_set1_epi32(a.cast_signed()));
            let low = _mm512_cvtepi8_epi16(_mm256_loadu_si256(weights.as_ptr().cast()));
            let high = _mm512_cvtepi8_epi16(_mm256_loadu_si256(weights.as_ptr().add(2 * LANES).cast()));
            [_mm512_add_epi32(acc[0], _mm512_madd_epi16(a, low)), _mm512_add_epi32(acc[1], _mm512_madd_epi16(a, high))]
        }
        fn finish(acc: [__m512i; 2]) -> __m512 {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            let evens = _mm512_permutex2var_epi32(acc[0], even, acc[1]);
            let odds = _mm512_permutex2var_epi32(acc[0], odd, acc[1]);
            _mm512_cvtepi32_ps(_mm512_add_epi32(evens, odds))
        }
    }
}
