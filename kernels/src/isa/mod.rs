//! What the kernels ask of an instruction set, and which of them this CPU has.
//!
//! A vector has sixteen lanes everywhere: one register of AVX-512, two of AVX2, four of NEON. So sums are taken in one order, and
//! with the same fused and rounded steps a kernel gives the same bits on each.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use crate::quantise::Steps;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

pub(crate) const LANES: usize = 16;

/// Vectors of [`LANES`] lanes. A value of the type is the proof that the CPU has the instructions.
pub(crate) trait Isa: Copy {
    /// Lanes of `f32`.
    type F: Copy;
    /// Lanes of `i32` under way: partial sums that [`Isa::finish`] brings together.
    type Acc: Copy;
    /// How many `F` of running sums the registers hold beside the operands.
    const SUMS: usize;
    /// How many `Acc` likewise.
    const ACCS: usize;
    /// What [`Isa::dot4`] takes off each activation, for instructions that know signed bytes only.
    const SHIFT: i32 = 0;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, xs: &[f32; LANES]) -> Self::F;
    fn load_f16(self, xs: &[u16; LANES]) -> Self::F;
    fn load_u8(self, xs: &[u8; LANES]) -> Self::F;
    fn store(self, x: Self::F, ys: &mut [f32; LANES]);
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// The greater; NaN where either is NaN; `b` where both are zeros.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; NaN where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `x`, but `low` where that is greater; so NaN stays. `low` is no NaN.
    fn at_least(self, x: Self::F, low: Self::F) -> Self::F;
    /// `x`, but `high` where that is smaller; so NaN stays. `high` is no NaN.
    fn at_most(self, x: Self::F, high: Self::F) -> Self::F;
    /// To a whole number, half to even.
    fn round(self, a: Self::F) -> Self::F;
    /// 2ⁿ for whole `n` in -126..=127, and 0 for -127.
    fn pow2(self, n: Self::F) -> Self::F;
    /// `y · 2ⁿ` for whole `n` in -126..=128 and `y` near 1. What is less than 2⁻¹²⁵ may be 0 instead.
    #[inline(always)]
    fn times_pow2(self, y: Self::F, n: Self::F) -> Self::F {
        times_pow2(self, y, n)
    }
    /// `round(x * in_one) + zero_point` as bytes; as [`Isa::to_u8`] where that is no byte.
    #[inline(always)]
    fn quantised(self, x: Self::F, in_one: f32, zero_point: u8) -> [u8; LANES] {
        let steps = self.round(self.mul(x, self.splat(in_one)));
        self.to_u8(self.add(steps, self.splat(f32::from(zero_point))))
    }
    /// Whole numbers as bytes: what is less than 0 becomes 0, what is more than 255 becomes 255, and NaN becomes 0.
    fn to_u8(self, a: Self::F) -> [u8; LANES];

    /// Asks for the cache line at `at`, which may lie anywhere, in the second-level cache.
    #[inline(always)]
    fn prefetch<T>(self, _at: *const T) {}

    /// Where each lane's sum begins: `factor` times `sums`, wrapping.
    fn begin(self, factor: i32, sums: &[i32; LANES]) -> Self::Acc;
    /// Adds to each lane the product of the four activations in `a` with the lane's own four weights. Exact; no weight is -128.
    fn dot4(self, acc: Self::Acc, a: u32, weights: &[i8; 4 * LANES]) -> Self::Acc;
    /// Each lane's sum, rounded to `f32`.
    fn finish(self, acc: Self::Acc) -> Self::F;
    /// The greatest of four.
    #[inline(always)]
    fn finish_greatest(self, accs: [Self::Acc; 4]) -> Self::F {
        let [a, b, c, d] = accs;
        let (first, second) = (self.max(self.finish(a), self.finish(b)), self.max(self.finish(c), self.finish(d)));
        self.max(first, second)
    }

    /// Fewer than [`LANES`] values; the other lanes are `fill`.
    #[inline(always)]
    fn load_first(self, xs: &[f32], fill: f32) -> Self::F {
        let mut all = [fill; LANES];
        for (lane, x) in all.iter_mut().zip(xs) {
            *lane = *x;
        }
        self.load(&all)
    }

    /// Fewer than [`LANES`] values; the other lanes go nowhere.
    #[inline(always)]
    fn store_first(self, x: Self::F, ys: &mut [f32]) {
        for (y, lane) in ys.iter_mut().zip(self.lanes(x)) {
            *y = lane;
        }
    }

    /// The first values of `xs`; lanes that it is too short for are `fill`.
    #[inline(always)]
    fn read(self, xs: &[f32], fill: f32) -> Self::F {
        match xs.first_chunk() {
            Some(xs) => self.load(xs),
            None => self.load_first(xs, fill),
        }
    }

    /// The first values of `xs`; lanes that it is too short for are 0.
    #[inline(always)]
    fn read_u8(self, xs: &[u8]) -> Self::F {
        match xs.first_chunk() {
            Some(xs) => self.load_u8(xs),
            None => {
                let mut all = [0; LANES];
                for (lane, x) in all.iter_mut().zip(xs) {
                    *lane = *x;
                }
                self.load_u8(&all)
            }
        }
    }

    /// The first lanes, as many as `ys` has room for.
    #[inline(always)]
    fn write(self, x: Self::F, ys: &mut [f32]) {
        match ys.first_chunk_mut() {
            Some(ys) => self.store(x, ys),
            None => self.store_first(x, ys),
        }
    }

    #[inline(always)]
    fn lanes(self, x: Self::F) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        lanes
    }

    /// The lanes of three vectors in turn: the first of each, and so on.
    #[inline(always)]
    fn in_turn(self, planes: [Self::F; 3]) -> [Self::F; 3] {
        let (planes, mut pixels) = (planes.map(|plane| self.lanes(plane)), [0.0; 3 * LANES]);
        for (at, value) in pixels.iter_mut().enumerate() {
            *value = planes[at % 3][at / 3];
        }
        let mut vectors = [self.splat(0.0); 3];
        for (vector, values) in vectors.iter_mut().zip(pixels.as_chunks().0) {
            *vector = self.load(values);
        }
        vectors
    }

    /// Lanes as vectors: the first of each become the first vector.
    #[inline(always)]
    fn turn(self, square: [Self::F; LANES]) -> [Self::F; LANES] {
        let (mut rows, mut turned) = ([[0.0; LANES]; LANES], square);
        for row in 0..LANES {
            self.store(square[row], &mut rows[row]);
        }
        for lane in 0..LANES {
            let mut line = [0.0; LANES];
            for row in 0..LANES {
                line[row] = rows[row][lane];
            }
            turned[lane] = self.load(&line);
        }
        turned
    }

    /// One value of all lanes, taken in halves: the same order everywhere.
    #[inline(always)]
    fn fold(self, x: Self::F, join: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = self.lanes(x);
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] = join(lanes[i], lanes[i + half]);
            }
        }
        lanes[0]
    }
}

/// An instruction set that sums four products of bytes in each lane at once, for depthwise convolutions: four vectors hold a lane for
/// each of 64 channels, in an order that [`Dots::fours`] makes and [`Dots::write_fours`] takes back.
#[cfg(target_arch = "x86_64")]
pub(crate) trait Dots: Isa {
    /// One byte of each of 64 channels.
    type Bytes: Copy;
    /// Two bytes of each channel.
    type Pairs: Copy;
    /// Four.
    type Fours: Copy;
    /// A sum for each.
    type Sums: Copy;

    fn bytes(self, low: &[u8; 32], high: &[u8; 32]) -> Self::Bytes;
    fn pairs(self, a: Self::Bytes, b: Self::Bytes) -> Self::Pairs;
    fn fours(self, a: Self::Pairs, b: Self::Pairs) -> Self::Fours;
    /// What sums begin with, in their order.
    fn begin_fours(self, sums: &[i32; 64]) -> Self::Sums;
    /// Adds to each sum the products of its channel's bytes and weights, these in the sums' order. Exact.
    fn dot_fours(self, sums: Self::Sums, bytes: Self::Fours, weights: &[i8; 256]) -> Self::Sums;
    /// Each sum, rounded to `f32`.
    fn numbers(self, sums: Self::Sums) -> [Self::F; 4];
    /// One number of each channel, in the sums' order.
    fn in_fours(self, low: &[f32; 32], high: &[f32; 32]) -> [Self::F; 4];
    /// The bytes of numbers, as [`Steps`] makes them, in the channels' order.
    fn write_fours(self, ys: [Self::F; 4], steps: Steps, low: &mut [u8; 32], high: &mut [u8; 32]);
}

/// The methods of an [`Isa`] that are said in its own instructions.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! instructions {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)? $body:block)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: $type),*) $(-> $out)? {
                // SAFETY: `self` exists only where the CPU has the instructions, and memory is touched through references only.
                unsafe { $body }
            }
        )*
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use instructions;

/// An array of what is said of each index.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! four {
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
            {
                let $i = 2;
                $each
            },
            {
                let $i = 3;
                $each
            },
        ]
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use four;

/// `y · 2ⁿ`, the same on all: 0 where `n` is -126. In two steps, for 2¹²⁸ is no `f32`.
#[inline(always)]
pub(crate) fn times_pow2<I: Isa>(isa: I, y: I::F, n: I::F) -> I::F {
    let half = isa.mul(y, isa.pow2(isa.sub(n, isa.splat(1.0))));
    isa.add(half, half)
}

/// A kernel, written once. `run` and what it calls must be `#[inline(always)]`: only so do they take on the instructions of the
/// entry that they are called from.
pub(crate) trait Body {
    type Output;
    /// Whether it multiplies bytes. What does not is compiled once for instruction sets that differ in that alone.
    const MULTIPLIES_BYTES: bool = false;
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// The same for those with [`Dots`].
#[cfg(target_arch = "x86_64")]
pub(crate) trait DotsBody {
    fn run<I: Dots>(self, isa: I);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsaToken(Kind);

/// `SCONCE_ISA` asks for an instruction set that is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError {
    pub asked: String,
    pub present: Vec<&'static str>,
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SCONCE_ISA asks for `{}`, but this CPU has: {}", self.asked, self.present.join(", "))
    }
}

impl std::error::Error for IsaError {}

impl IsaToken {
    /// The best that the CPU has, or the one that the environment variable `SCONCE_ISA` names.
    ///
    /// # Errors
    /// If the CPU has no instruction set of that name.
    pub fn detect() -> Result<Self, IsaError> {
        Self::choose(std::env::var_os("SCONCE_ISA").map(|asked| asked.to_string_lossy().into_owned()))
    }

    fn choose(asked: Option<String>) -> Result<Self, IsaError> {
        let present = Self::all_present();
        match asked {
            None => Ok(present.last().copied().unwrap_or(Self(Kind::Portable))),
            Some(asked) => present
                .iter()
                .copied()
                .find(|isa| isa.name() == asked)
                .ok_or_else(|| IsaError { asked, present: present.iter().map(|isa| isa.name()).collect() }),
        }
    }

    /// All that the CPU has, from the plainest to the best.
    pub fn all_present() -> Vec<Self> {
        let mut present = vec![Self(Kind::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx2 = avx2 && is_x86_feature_detected!("f16c");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            let kinds = [
                (Kind::Avx2, avx2),
                (Kind::Avx512, avx512),
                (Kind::Avx512Vnni, avx512 && is_x86_feature_detected!("avx512vnni")),
            ];
            present.extend(kinds.iter().filter(|kind| kind.1).map(|kind| Self(kind.0)));
        }
        #[cfg(target_arch = "aarch64")]
        {
            present.push(Self(Kind::Neon));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                present.push(Self(Kind::NeonDot));
            }
        }
        present
    }

    /// As `SCONCE_ISA` calls it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512vnni",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => "neondot",
        }
    }

    /// Runs a kernel with these instructions.
    pub(crate) fn run<B: Body>(self, body: B) -> B::Output {
        match self.0 {
            Kind::Portable => body.run(portable::Portable),
            // SAFETY: `all_present` gives the token only if the CPU has what the entry enables. So for all below.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { avx2::enter(body) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni if B::MULTIPLIES_BYTES => unsafe { avx512::enter_vnni(body) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 | Kind::Avx512Vnni => unsafe { avx512::enter(body) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot if B::MULTIPLIES_BYTES => unsafe { neon::enter_dot(body) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => unsafe { neon::enter(body) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl IsaToken {
    /// Runs a kernel with [`Dots`]; returns whether the CPU has them.
    pub(crate) fn run_dots(self, body: impl DotsBody) -> bool {
        let has_them = self.0 == Kind::Avx512Vnni;
        if has_them {
            // SAFETY: as in [`Self::run`].
            unsafe { avx512::enter_dots(body) };
        }
        has_them
    }
}

/// What one core does at best: fused multiply-adds of as many independent sums as the registers hold, in GFLOP/s.
pub fn peak_gflops(isa: IsaToken) -> f64 {
    const STEPS: usize = 20_000;
    struct Peak;
    impl Body for Peak {
        type Output = usize;

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> usize {
            // Twelve, or six: either way twelve registers or more.
            let (a, b) = (isa.splat(std::hint::black_box(0.5)), isa.splat(std::hint::black_box(1.0)));
            let mut sums = [a; 12];
            let count = I::SUMS.min(12);
            for _ in 0..STEPS {
                for sum in &mut sums[..count] {
                    *sum = isa.fma(*sum, a, b);
                }
            }
            std::hint::black_box(sums.map(|sum| isa.lanes(sum)));
            2 * STEPS * count * LANES
        }
    }
    let runs = (0..20).map(|_| {
        let start = std::time::Instant::now();
        isa.run(Peak) as f64 / start.elapsed().as_secs_f64() / 1e9
    });
    runs.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_instruction_set_is_taken_unless_one_is_asked_for() {
        assert_eq!(IsaToken::choose(None).unwrap(), *IsaToken::all_present().last().unwrap());
        for isa in IsaToken::all_present() {
            assert_eq!(IsaToken::choose(Some(isa.name().into())).unwrap(), isa);
        }
    }

    #[test]
    fn what_was_asked_and_what_is_there_are_told() {
        let error = IsaToken::choose(Some("avx9".into())).unwrap_err().to_string();
        assert!(error.starts_with("SCONCE_ISA asks for `avx9`, but this CPU has: portable"), "{error}");
    }
}
