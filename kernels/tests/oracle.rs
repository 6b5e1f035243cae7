//! Every kernel, on every instruction set of this CPU, alone and with threads, over odd shapes: against `f64`, and to the bit
//! against each other. Every buffer lies between canaries and begins where it likes.

use std::sync::OnceLock;

use proptest::prelude::*;
use sconce_kernels::conv_pool::{Pooled, convolve_and_pool};
use sconce_kernels::depthwise::{depthwise, depthwise_i8};
use sconce_kernels::gates::{self, Function, Step};
use sconce_kernels::gemm::{Factors, gemm, gemm_i8};
use sconce_kernels::half::{f16_to_f32, f32_to_f16};
use sconce_kernels::pack::{Packed, PackedI8};
use sconce_kernels::pool::{Pool, global_average, pool};
use sconce_kernels::quantise::{Scaling, quantise, quantise_dynamic};
use sconce_kernels::rows::{AMPLE, Rows, Taps};
use sconce_kernels::{Activation, Cpu, Epilogue, Image, IsaToken, Out, Threads, Window};

const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Relu, Activation::Relu6];
const EPSILON: f64 = f32::EPSILON as f64;

/// A value that no kernel may read (results would show it) or write.
trait Canary: Copy + PartialEq + std::fmt::Debug {
    const CANARY: Self;
    fn is_canary(self) -> bool;
    fn is_nan(self) -> bool;
}

impl Canary for f32 {
    const CANARY: f32 = f32::from_bits(0x7fc0_1234);
    fn is_canary(self) -> bool {
        self.to_bits() == 0x7fc0_1234
    }
    fn is_nan(self) -> bool {
        self.is_nan()
    }
}

impl Canary for u8 {
    const CANARY: u8 = 0xa5;
    fn is_canary(self) -> bool {
        self == 0xa5
    }
    fn is_nan(self) -> bool {
        false
    }
}

/// Values between canaries, at an alignment that depends on their number.
struct Fenced<T> {
    all: Vec<T>,
    start: usize,
    end: usize,
}

impl<T: Canary> Fenced<T> {
    fn new(values: Vec<T>) -> Self {
        let start = 40 + values.len() % 7;
        let mut all = vec![T::CANARY; start];
        all.extend(&values);
        all.extend([T::CANARY; 40]);
        Self { all, start, end: start + values.len() }
    }

    fn inside(&self) -> &[T] {
        &self.all[self.start..self.end]
    }

    fn inside_mut(&mut self) -> &mut [T] {
        &mut self.all[self.start..self.end]
    }

    fn checked(self) -> Vec<T> {
        let canaries = self.all[..self.start].iter().chain(&self.all[self.end..]);
        assert!(canaries.into_iter().all(|value| value.is_canary()), "a kernel wrote outside its buffer");
        self.inside().to_vec()
    }
}

/// A stream of values from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn floats(&mut self, len: usize, reach: f32) -> Vec<f32> {
        (0..len).map(|_| ((self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * reach).collect()
    }

    fn fenced(&mut self, len: usize) -> Fenced<f32> {
        Fenced::new(self.floats(len, 1.0))
    }

    fn bytes(&mut self, len: usize) -> Fenced<u8> {
        // The ends of the range show where sums of pairs would saturate.
        Fenced::new((0..len).map(|_| if self.next().is_multiple_of(4) { 255 } else { self.next() as u8 }).collect())
    }

    fn any(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}

/// Runs a kernel everywhere; each output must be the same to the bit (a NaN may be any NaN).
fn everywhere<T: Canary>(len: usize, start: T, kernel: impl Fn(Cpu<'_>, &mut [T])) -> Vec<T> {
    everywhere_from(&vec![start; len], kernel)
}

fn everywhere_from<T: Canary>(start: &[T], kernel: impl Fn(Cpu<'_>, &mut [T])) -> Vec<T> {
    static THREADS: OnceLock<[Threads; 2]> = OnceLock::new();
    let threads = THREADS.get_or_init(|| [Threads::one(), Threads::new(3).expect("two threads")]);
    let mut first: Option<Vec<T>> = None;
    for isa in IsaToken::all_present() {
        for threads in threads {
            let mut out = Fenced::new(start.to_vec());
            kernel(Cpu { isa, threads }, out.inside_mut());
            let out = out.checked();
            let first = first.get_or_insert_with(|| out.clone());
            for (i, (a, b)) in first.iter().zip(&out).enumerate() {
                assert!(a == b || (a.is_nan() && b.is_nan()), "{}: output {i} is {b:?}, elsewhere {a:?}", isa.name());
            }
        }
    }
    first.expect("the portable instruction set is always there")
}

/// What a kernel writes as bytes, or as both, is what it writes as numbers, quantised.
fn check_bytes(ys: &[f32], kernel: impl Fn(Cpu<'_>, Out<'_>)) {
    let scaling = Scaling { scale: 0.013, zero_point: 100 };
    let expected = everywhere(ys.len(), 9, |cpu, out| quantise(cpu.isa, ys, scaling, out));
    let bytes = everywhere(ys.len(), 9, |cpu, out| kernel(cpu, Out::bytes(out, scaling)));
    assert_eq!(bytes, expected);
    let floats = everywhere(ys.len(), 7.0, |cpu, out| {
        let mut bytes = Fenced::new(vec![9; out.len()]);
        kernel(cpu, Out::both(out, bytes.inside_mut(), scaling));
        assert_eq!(bytes.checked(), expected);
    });
    assert_eq!(floats, ys);
}

fn activate(y: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => y,
        Activation::Relu => y.max(0.0),
        Activation::Relu6 => y.clamp(0.0, 6.0),
    }
}

/// A sum of products in `f64`, and of their magnitudes.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    magnitude: f64,
    terms: usize,
}

impl Sum {
    fn add(&mut self, a: f32, b: f32) {
        self.value += f64::from(a) * f64::from(b);
        self.magnitude += (f64::from(a) * f64::from(b)).abs();
        self.terms += 1;
    }

    fn check(&self, y: f32, activation: Activation) {
        let expected = activate(self.value, activation);
        let bound = 2.0 * self.terms as f64 * EPSILON * self.magnitude;
        assert!((f64::from(y) - expected).abs() <= bound, "{y} is not {expected} within {bound:e}");
    }
}

/// Bias, residual and activation, each there or not.
struct Rest {
    bias: Option<Fenced<f32>>,
    residual: Option<Fenced<f32>>,
    activation: Activation,
}

impl Rest {
    fn new(random: &mut Random, channels: usize, len: usize) -> Self {
        let bias = random.any().then(|| random.fenced(channels));
        let residual = random.any().then(|| random.fenced(len));
        Self { bias, residual, activation: ACTIVATIONS[random.next() as usize % 3] }
    }

    fn epilogue(&self) -> Epilogue<'_> {
        Epilogue {
            bias: self.bias.as_ref().map(Fenced::inside),
            residual: self.residual.as_ref().map(Fenced::inside),
            activation: self.activation,
        }
    }

    fn add_to(&self, sum: &mut Sum, channel: usize, at: usize) {
        for (values, at) in [(&self.bias, channel), (&self.residual, at)] {
            if let Some(values) = values {
                sum.add(values.inside()[at], 1.0);
            }
        }
    }
}

/// Where the rows of a product lie.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Dense { rows: usize, depth: usize },
    Strided { rows: usize, depth: usize, gap: usize },
    Convolution { batch: usize, image: Image, window: Window },
}

fn image() -> impl Strategy<Value = Image> {
    (1..9usize, 1..11usize, 1..37usize).prop_map(|(height, width, channels)| Image { height, width, channels })
}

/// A window that fits the image.
fn window(image: Image) -> impl Strategy<Value = Window> {
    ((1..5usize, 1..5usize), (1..4usize, 1..4usize), prop::array::uniform4(0..4usize)).prop_map(
        move |(kernel, stride, padding)| {
            let kernel = [kernel.0.min(image.height), kernel.1.min(image.width)];
            let padding = std::array::from_fn(|i| padding[i].min(kernel[i % 2] - 1));
            Window { kernel, stride: [stride.0, stride.1], padding }
        },
    )
}

fn image_and_window() -> impl Strategy<Value = (Image, Window)> {
    image().prop_flat_map(|image| (Just(image), window(image)))
}

fn layout() -> impl Strategy<Value = Layout> {
    let (rows, depth) = (0..40usize, 1..100usize);
    prop_oneof![
        (rows.clone(), depth.clone()).prop_map(|(rows, depth)| Layout::Dense { rows, depth }),
        (rows, depth, 0..9usize).prop_map(|(rows, depth, gap)| Layout::Strided { rows, depth, gap }),
        (0..3usize, image_and_window()).prop_map(|(batch, (image, window))| Layout::Convolution {
            batch,
            image,
            window
        }),
    ]
}

/// Values laid out, and the same rows one after the other.
struct Laid<T> {
    values: Fenced<T>,
    taps: Option<Taps>,
    zero: Fenced<T>,
    rows: Vec<Vec<T>>,
}

impl<T: Canary> Laid<T> {
    fn new(layout: &Layout, zero: T, values: impl FnOnce(usize) -> Fenced<T>) -> Self {
        match *layout {
            Layout::Dense { rows, depth } => {
                let values = values(rows * depth);
                let rows = values.inside().chunks(depth).map(<[T]>::to_vec).collect();
                Self { values, taps: None, zero: Fenced::new(vec![]), rows }
            }
            Layout::Strided { rows, depth, gap } => {
                let mut values = values((rows * (depth + gap)).saturating_sub(gap));
                for row in values.inside_mut().chunks_mut(depth + gap) {
                    let end = depth.min(row.len());
                    row[end..].fill(T::CANARY);
                }
                let rows = values.inside().chunks(depth + gap).map(|row| row[..depth].to_vec()).collect();
                Self { values, taps: None, zero: Fenced::new(vec![]), rows }
            }
            Layout::Convolution { batch, image, window } => {
                let values = values(batch * image.len());
                let taps = Taps::convolution(image, &window);
                let rows =
                    values.inside().chunks(image.len()).flat_map(|xs| patches(xs, image, &window, zero)).collect();
                Self { values, zero: Fenced::new(vec![zero; taps.depth()]), taps: Some(taps), rows }
            }
        }
    }

    fn rows(&self, layout: &Layout) -> Rows<'_, T> {
        match (*layout, &self.taps) {
            (Layout::Strided { rows, depth, gap }, _) => Rows::strided(self.values.inside(), rows, depth, depth + gap),
            (_, Some(taps)) => Rows::indirect(self.values.inside(), taps, self.zero.inside()),
            (Layout::Dense { depth, .. }, _) => Rows::dense(self.values.inside(), depth),
            (Layout::Convolution { .. }, None) => unreachable!("a convolution has taps"),
        }
    }
}

/// The values under each place of the window, padding included.
fn patches<T: Copy>(xs: &[T], image: Image, window: &Window, zero: T) -> Vec<Vec<T>> {
    let output = window.output(image);
    let mut rows = Vec::new();
    for at in 0..output.height * output.width {
        let mut row = Vec::new();
        for tap in 0..window.kernel[0] * window.kernel[1] {
            let y = (at / output.width * window.stride[0] + tap / window.kernel[1]).checked_sub(window.padding[0]);
            let x = (at % output.width * window.stride[1] + tap % window.kernel[1]).checked_sub(window.padding[1]);
            for channel in 0..image.channels {
                row.push(match (y, x) {
                    (Some(y), Some(x)) if y < image.height && x < image.width => {
                        xs[(y * image.width + x) * image.channels + channel]
                    }
                    _ => zero,
                });
            }
        }
        rows.push(row);
    }
    rows
}

fn check_gemm(layout: Layout, outputs: usize, is_f16: bool, seed: u64) {
    let random = &mut Random(seed);
    let laid = Laid::new(&layout, 0.0, |len| random.fenced(len));
    let depth = match layout {
        Layout::Dense { depth, .. } | Layout::Strided { depth, .. } => depth,
        Layout::Convolution { image, window, .. } => window.kernel[0] * window.kernel[1] * image.channels,
    };
    let mut weights = random.floats(outputs * depth, 1.0);
    let packed = if is_f16 {
        weights.iter_mut().for_each(|w| *w = f16_to_f32(f32_to_f16(*w)));
        Packed::f16(outputs, depth, |output, k| weights[output * depth + k])
    } else {
        Packed::f32(outputs, depth, |output, k| weights[output * depth + k])
    };
    let rest = Rest::new(random, outputs, laid.rows.len() * outputs);
    let ys = everywhere(laid.rows.len() * outputs, 7.0, |cpu, out| {
        gemm(cpu, laid.rows(&layout), &packed, rest.epilogue(), out);
    });
    check_bytes(&ys, |cpu, out| gemm(cpu, laid.rows(&layout), &packed, rest.epilogue(), out));
    for (row, xs) in laid.rows.iter().enumerate() {
        for output in 0..outputs {
            let mut sum = Sum::default();
            xs.iter().zip(&weights[output * depth..]).for_each(|(x, w)| sum.add(*x, *w));
            rest.add_to(&mut sum, output, row * outputs + output);
            sum.check(ys[row * outputs + output], rest.activation);
        }
    }
    // A row alone: the batch must not matter.
    if let Some(row) = laid.rows.len().checked_sub(1).map(|last| random.next() as usize % (last + 1)) {
        let part = row * outputs..(row + 1) * outputs;
        let residual = rest.residual.as_ref().map(|residual| &residual.inside()[part.clone()]);
        let alone = everywhere(outputs, 7.0, |cpu, out| {
            gemm(cpu, Rows::dense(&laid.rows[row], depth), &packed, Epilogue { residual, ..rest.epilogue() }, out);
        });
        assert_eq!(alone, ys[part]);
    }
}

fn check_gemm_i8(layout: Layout, outputs: usize, seed: u64) {
    let random = &mut Random(seed);
    let zero_point = random.next() as u8;
    let laid = Laid::new(&layout, zero_point, |len| random.bytes(len));
    let (taps, run) = laid.taps.as_ref().map_or_else(
        || match layout {
            Layout::Dense { depth, .. } | Layout::Strided { depth, .. } => (1, depth),
            Layout::Convolution { .. } => unreachable!("a convolution has taps"),
        },
        |taps| (taps.taps(), taps.depth()),
    );
    let depth = taps * run;
    let weights: Vec<i8> =
        (0..outputs * depth).map(|_| (random.next() % 255) as u8 as i16 - 127).map(|w| w as i8).collect();
    let scales: Vec<f32> = random.floats(outputs, 0.1).iter().map(|scale| scale.abs()).collect();
    let packed = PackedI8::new(&scales, taps, run, |output, k| weights[output * depth + k]);
    // In the padding stands one zero point, so there all rows share it.
    let count = if random.any() && laid.taps.is_none() { laid.rows.len().max(1) } else { 1 };
    let scalings: Vec<Scaling> = (0..count)
        .map(|i| Scaling { scale: 0.01 + i as f32 * 0.003, zero_point: zero_point.wrapping_add(i as u8) })
        .collect();
    let rest = Rest::new(random, outputs, laid.rows.len() * outputs);
    let ys = everywhere(laid.rows.len() * outputs, 7.0, |cpu, out| {
        gemm_i8(cpu, laid.rows(&layout), &scalings, &packed, rest.epilogue(), out);
    });
    check_bytes(&ys, |cpu, out| gemm_i8(cpu, laid.rows(&layout), &scalings, &packed, rest.epilogue(), out));
    if let Some(taps) = &laid.taps {
        // Whatever lies behind the ends.
        let followed = |values: &Fenced<u8>| [values.inside(), &[255; AMPLE]].concat();
        let (values, zero) = (followed(&laid.values), followed(&laid.zero));
        let ample = everywhere(ys.len(), 7.0, |cpu, out| {
            let rows = Rows::ample(&values, values.len() - AMPLE, taps, &zero);
            gemm_i8(cpu, rows, &scalings, &packed, rest.epilogue(), out);
        });
        assert_eq!(ample, ys);
    }
    for (row, xs) in laid.rows.iter().enumerate() {
        let Scaling { scale, zero_point } = scalings[row % count];
        for output in 0..outputs {
            let products = xs.iter().zip(&weights[output * depth..]);
            let sum: i64 = products.map(|(x, w)| (i64::from(*x) - i64::from(zero_point)) * i64::from(*w)).sum();
            let at = row * outputs + output;
            let bias = rest.bias.as_ref().map_or(0.0, |bias| bias.inside()[output]);
            let residual = rest.residual.as_ref().map_or(0.0, |residual| residual.inside()[at]);
            let y = (sum as f32).mul_add(scale * scales[output], bias) + residual;
            assert_eq!(ys[at], activate(f64::from(y), rest.activation) as f32);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // More than by default, in proportion to `PROPTEST_CASES`.
        cases: 8 * ProptestConfig::default().cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn product_is_within_its_bound_and_the_same_in_any_batch(
        layout in layout(), outputs in 1..150usize, is_f16: bool, seed: u64,
    ) {
        check_gemm(layout, outputs, is_f16, seed);
    }

    #[test]
    fn product_of_bytes_is_exact(layout in layout(), outputs in 1..150usize, seed: u64) {
        check_gemm_i8(layout, outputs, seed);
    }

    #[test]
    fn depthwise_convolution_is_within_its_bound((image, window) in image_and_window(), batch in 0..3usize, seed: u64) {
        let random = &mut Random(seed);
        let (xs, output) = (random.fenced(batch * image.len()), window.output(image));
        let weights = random.fenced(window.kernel[0] * window.kernel[1] * image.channels);
        let rest = Rest::new(random, image.channels, batch * output.len());
        let ys = everywhere(batch * output.len(), 7.0, |cpu, out| {
            depthwise(cpu, &window, image, xs.inside(), weights.inside(), rest.epilogue(), out);
        });
        check_bytes(&ys, |cpu, out| {
            depthwise(cpu, &window, image, xs.inside(), weights.inside(), rest.epilogue(), out);
        });
        let patches = xs.inside().chunks(image.len()).flat_map(|xs| patches(xs, image, &window, 0.0));
        for (pixel, patch) in patches.enumerate() {
            for channel in 0..image.channels {
                let mut sum = Sum::default();
                let of_channel = patch.iter().zip(weights.inside()).skip(channel).step_by(image.channels);
                of_channel.for_each(|(x, w)| sum.add(*x, *w));
                let at = pixel * image.channels + channel;
                rest.add_to(&mut sum, channel, at);
                sum.check(ys[at], rest.activation);
            }
        }
    }

    #[test]
    fn depthwise_convolution_of_bytes_is_exact((image, window) in image_and_window(), batch in 0..3usize, seed: u64) {
        let random = &mut Random(seed);
        let (xs, output) = (random.bytes(batch * image.len()), window.output(image));
        let scaling = Scaling { scale: 0.02, zero_point: random.next() as u8 };
        let weight = |_| (random.next() % 255) as f32 - 127.0;
        let weights = Fenced::new((0..window.kernel[0] * window.kernel[1] * image.channels).map(weight).collect());
        let scales = Fenced::new(random.floats(image.channels, 0.1));
        let rest = Rest::new(random, image.channels, batch * output.len());
        let (xs, weights, scales) = (xs.inside(), weights.inside(), scales.inside());
        let ys = everywhere(batch * output.len(), 7.0, |cpu, out| {
            depthwise_i8(cpu, &window, image, (xs, scaling), weights, scales, rest.epilogue(), out);
        });
        check_bytes(&ys, |cpu, out| {
            depthwise_i8(cpu, &window, image, (xs, scaling), weights, scales, rest.epilogue(), out);
        });
        let patches = xs.chunks(image.len()).flat_map(|xs| patches(xs, image, &window, scaling.zero_point));
        for (pixel, patch) in patches.enumerate() {
            for (channel, scale) in scales.iter().enumerate() {
                let of_channel = patch.iter().zip(weights).skip(channel).step_by(image.channels);
                let sum: i64 = of_channel.map(|(x, w)| (i64::from(*x) - i64::from(scaling.zero_point)) * *w as i64).sum();
                let at = pixel * image.channels + channel;
                let bias = rest.bias.as_ref().map_or(0.0, |bias| bias.inside()[channel]);
                let residual = rest.residual.as_ref().map_or(0.0, |residual| residual.inside()[at]);
                let y = (sum as f32).mul_add(scaling.scale * scale, bias) + residual;
                prop_assert_eq!(ys[at], activate(f64::from(y), rest.activation) as f32);
            }
        }
    }

    #[test]
    fn convolution_with_its_pool_is_both_one_after_the_other(
        ((image, window), pooled) in image_and_window().prop_flat_map(|(image, by)| {
            (Just((image, by)), window(Image { channels: 1, ..by.output(image) }))
        }),
        outputs in 1..70usize, batch in 0..3usize, seed: u64,
    ) {
        let random = &mut Random(seed);
        let convolved = Image { channels: outputs, ..window.output(image) };
        let (taps, len) = (Taps::convolution(image, &window), convolved.height * convolved.width * outputs);
        let halves = Window { kernel: [2, 2], stride: [2, 2], padding: [0; 4] };
        let pooled = if random.any() && convolved.height.min(convolved.width) > 1 { halves } else { pooled };
        let depth = taps.taps() * taps.depth();
        let (xs, weights) = (random.fenced(batch * image.len()), random.floats(outputs * depth, 1.0));
        let bytes = random.bytes(batch * image.len());
        let zeros = vec![0.0; taps.depth()];
        let packed = Packed::f32(outputs, depth, |output, k| weights[output * depth + k]);
        let packed_i8 = PackedI8::quantise(outputs, taps.taps(), taps.depth(), |output, k| weights[output * depth + k]);
        let scaling = [Scaling { scale: 0.02, zero_point: 9 }];
        let zero_point = vec![9; taps.depth()];
        let bias = random.any().then(|| random.fenced(outputs));
        let bias = bias.as_ref().map(Fenced::inside);
        let activation = ACTIVATIONS[random.next() as usize % 3];
        let epilogue = Epilogue { bias, activation, residual: None };
        for kind in [Pool::Max, Pool::Average, Pool::AverageWithPadding] {
            let by = Pooled { pool: kind, window: pooled, image: convolved, depth };
            let (after, by_pool) = (by.window.output(convolved).len() * batch, by.taps(image, &window));
            for of_bytes in [false, true] {
                let factors = |taps| match of_bytes {
                    false => Factors::Floats(Rows::indirect(xs.inside(), taps, &zeros), &packed),
                    true => Factors::Bytes(Rows::indirect(bytes.inside(), taps, &zero_point), &scaling, &packed_i8),
                };
                let expected = everywhere(after, 7.0, |cpu, out| {
                    let mut between = vec![7.0; batch * len];
                    match factors(&taps) {
                        Factors::Floats(rows, packed) => gemm(cpu, rows, packed, epilogue, &mut between[..]),
                        Factors::Bytes(rows, scalings, packed) => gemm_i8(cpu, rows, scalings, packed, epilogue, &mut between[..]),
                    }
                    pool(cpu, kind, &by.window, convolved, &between, out);
                });
                let run = |cpu: Cpu<'_>, out: Out<'_>| {
                    let mut work = Fenced::new(vec![f32::NAN; batch * by.work()]);
                    convolve_and_pool(cpu, factors(&by_pool), bias, activation, &by, work.inside_mut(), out);
                    work.checked();
                };
                prop_assert_eq!(&everywhere(after, 7.0, |cpu, out| run(cpu, out.into())), &expected);
                check_bytes(&expected, run);
            }
        }
    }

    #[test]
    fn pool_is_the_greatest_or_within_the_bound_of_a_mean((image, window) in image_and_window(), batch in 0..3usize, seed: u64) {
        let random = &mut Random(seed);
        let (xs, output) = (random.fenced(batch * image.len()), window.output(image));
        for kind in [Pool::Max, Pool::Average, Pool::AverageWithPadding] {
            let ys = everywhere(batch * output.len(), 7.0, |cpu, out| pool(cpu, kind, &window, image, xs.inside(), out));
            let patches = xs.inside().chunks(image.len()).flat_map(|xs| patches(xs, image, &window, f32::NAN));
            for (pixel, patch) in patches.enumerate() {
                for channel in 0..image.channels {
                    let xs: Vec<f32> = patch.iter().skip(channel).step_by(image.channels).copied().collect();
                    let y = ys[pixel * image.channels + channel];
                    let inside = xs.iter().filter(|x| !x.is_nan());
                    match kind {
                        Pool::Max => prop_assert_eq!(y, inside.fold(f32::NEG_INFINITY, |max, x| max.max(*x))),
                        _ => {
                            let count = if kind == Pool::Average { inside.clone().count() } else { xs.len() };
                            let mut sum = Sum::default();
                            inside.for_each(|x| sum.add(*x, 1.0));
                            let mean = Sum { value: sum.value / count as f64, magnitude: sum.magnitude / count as f64, ..sum };
                            mean.check(y, Activation::None);
                        }
                    }
                }
            }
        }
        let mean = everywhere(batch * image.channels, 7.0, |cpu, out| global_average(cpu, image, xs.inside(), out));
        for (at, y) in mean.iter().enumerate() {
            let (of_image, channel) = (&xs.inside()[at / image.channels * image.len()..][..image.len()], at % image.channels);
            let mut sum = Sum::default();
            let share = 1.0 / (image.height * image.width) as f32;
            of_image.iter().skip(channel).step_by(image.channels).for_each(|x| sum.add(*x, share));
            sum.check(*y, Activation::None);
        }
    }

    #[test]
    fn functions_are_within_a_few_units_in_the_last_place(len in 0..70usize, reach in 0.01..100f32, seed: u64) {
        let xs = Random(seed).floats(len, reach);
        type Case = (Function, fn(f64) -> f64, f64);
        let cases: [Case; 3] = [
            (Function::Exp, f64::exp, 4.0),
            (Function::Sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 8.0),
            (Function::Tanh, f64::tanh, 4.0),
        ];
        for (function, exact, ulps) in cases {
            let ys = everywhere_from(&xs, |cpu, ys| gates::map(cpu.isa, function, ys));
            for (x, y) in xs.iter().zip(ys) {
                let expected = exact(f64::from(*x));
                // Results below the least normal number may be 0; above the greatest they are infinite.
                let small = expected <= 1.5 * f64::from(f32::MIN_POSITIVE) && y == 0.0;
                let large = expected > f64::from(f32::MAX) && y == f32::INFINITY;
                let is_near = (f64::from(y) - expected).abs() <= ulps * EPSILON * expected.abs();
                prop_assert!(small || large || is_near, "{:?} of {} is {}, not {}", function, x, y, expected);
            }
        }
    }

    #[test]
    fn softmax_is_within_its_bound(rows in 0..4usize, width in 1..70usize, seed: u64) {
        let xs = Random(seed).floats(rows * width, 20.0);
        let ys = everywhere_from(&xs, |cpu, ys| gates::softmax(cpu.isa, width, ys));
        for (xs, ys) in xs.chunks(width).zip(ys.chunks(width)) {
            let max = xs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let share = |x: f32| (f64::from(x) - f64::from(max)).exp();
            let sum: f64 = xs.iter().copied().map(share).sum();
            for (x, y) in xs.iter().zip(ys) {
                prop_assert!((f64::from(*y) - share(*x) / sum).abs() <= 8.0 * EPSILON, "{} of {}", y, x);
            }
        }
    }

    #[test]
    fn recurrent_steps_are_within_their_bound(rows in 0..4usize, hidden in 1..50usize, gap in 0..5usize, seed: u64) {
        let random = &mut Random(seed);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let state = random.floats(rows * hidden, 1.0);
        let cell = random.floats(rows * hidden, 2.0);
        for gates in [1, 3, 4] {
            let stride = gates * hidden + gap;
            let inputs = Fenced::new(random.floats(rows * stride, 4.0));
            let recurrent = Fenced::new(random.floats(rows * gates * hidden, 4.0));
            let step = Step { inputs: inputs.inside(), stride, recurrent: recurrent.inside() };
            // The cells of an LSTM come behind its states.
            let start: Vec<f32> = state.iter().chain(if gates == 4 { &cell[..] } else { &[] }).copied().collect();
            let ys = everywhere_from(&start, |cpu, ys| match gates {
                1 => gates::rnn(cpu.isa, step, hidden, ys),
                3 => gates::gru(cpu.isa, step, hidden, ys),
                _ => {
                    let (state, cell) = ys.split_at_mut(rows * hidden);
                    gates::lstm(cpu.isa, step, hidden, cell, state);
                }
            });
            for at in 0..rows * hidden {
                let (row, unit) = (at / hidden, at % hidden);
                let x = |gate: usize| f64::from(inputs.inside()[row * stride + gate * hidden + unit]);
                let r = |gate: usize| f64::from(recurrent.inside()[(row * gates + gate) * hidden + unit]);
                let check = |y: f32, expected: f64| {
                    let bound = 32.0 * EPSILON * (1.0 + expected.abs());
                    assert!((f64::from(y) - expected).abs() <= bound, "{gates} gates: {y} is not {expected}");
                };
                match gates {
                    1 => check(ys[at], (x(0) + r(0)).tanh()),
                    3 => {
                        let n = (x(2) + sigmoid(x(0) + r(0)) * r(2)).tanh();
                        let z = sigmoid(x(1) + r(1));
                        check(ys[at], (1.0 - z) * n + z * f64::from(state[at]));
                    }
                    _ => {
                        let [i, f, o] = [0, 1, 3].map(|gate| sigmoid(x(gate) + r(gate)));
                        let c = f * f64::from(cell[at]) + i * (x(2) + r(2)).tanh();
                        check(ys[rows * hidden + at], c);
                        check(ys[at], o * c.tanh());
                    }
                }
            }
        }
    }

    #[test]
    fn quantised_bytes_are_the_nearest(len in 0..70usize, reach in 1e-3..1e3f32, offset in -1.0..1f32, seed: u64) {
        let xs: Vec<f32> = Random(seed).floats(len, reach).iter().map(|x| x + offset * reach).collect();
        let fenced = Fenced::new(xs.clone());
        let (min, max) = xs.iter().fold((0f32, 0f32), |(min, max), x| (min.min(*x), max.max(*x)));
        let scaling = Scaling::of_range(min, max).unwrap();
        let ys = everywhere(len, 9, |cpu, out| {
            assert_eq!(quantise_dynamic(cpu.isa, fenced.inside(), out), Some(scaling));
        });
        prop_assert_eq!(&ys, &everywhere(len, 9, |cpu, out| quantise(cpu.isa, fenced.inside(), scaling, out)));
        for (x, y) in xs.iter().zip(ys) {
            let back = scaling.scale * (f32::from(y) - f32::from(scaling.zero_point));
            // Half a step, and half another for the rounding of the zero point where the byte is at an end of the range.
            let bound = scaling.scale * if y == 0 || y == 255 { 1.001 } else { 0.501 };
            prop_assert!((back - x).abs() <= bound, "{} became {}, {}", x, y, back);
        }
    }
}

#[test]
fn long_rows_and_weights_that_no_cache_holds_are_no_different() {
    check_gemm(Layout::Dense { rows: 13, depth: 2_500 }, 90, false, 1);
    check_gemm(Layout::Dense { rows: 1, depth: 2_500 }, 150, true, 2);
    check_gemm(Layout::Strided { rows: 60, depth: 700, gap: 3 }, 150, false, 3);
    check_gemm_i8(Layout::Dense { rows: 7, depth: 10_001 }, 70, 4);
}

#[test]
fn longest_sum_of_bytes_does_not_overflow() {
    for (weight, zero_point, x) in [(127, 0, 255), (-127, 0, 255), (127, 255, 0)] {
        let (packed, xs) = (PackedI8::new(&[1.0], 1, 65_536, |_, _| weight), vec![x; 65_536]);
        let ys = everywhere(1, 7.0, |cpu, out| {
            let scaling = Scaling { scale: 1.0, zero_point };
            gemm_i8(cpu, Rows::dense(&xs, 65_536), &[scaling], &packed, Epilogue::default(), out);
        });
        assert_eq!(ys[0], (65_536 * i64::from(weight) * (i64::from(x) - i64::from(zero_point))) as f32);
    }
}

#[test]
fn nan_stays_nan_and_touches_only_what_depends_on_it() {
    let image = Image { height: 3, width: 19, channels: 19 };
    let window = Window { kernel: [3, 3], stride: [1, 1], padding: [1, 1, 1, 1] };
    let (pixel, channel) = (19 + 9, 17);
    let mut xs = Random(5).floats(image.len(), 1.0);
    xs[pixel * 19 + channel] = f32::NAN;
    let is_near = |at: usize| (at / 19 % 19).abs_diff(9) <= 1;
    let weights = Random(6).floats(9 * 19, 1.0);
    for activation in ACTIVATIONS {
        let epilogue = Epilogue { activation, ..Epilogue::default() };
        let ys = everywhere(image.len(), 7.0, |cpu, out| depthwise(cpu, &window, image, &xs, &weights, epilogue, out));
        (0..ys.len()).for_each(|at| assert_eq!(ys[at].is_nan(), is_near(at) && at % 19 == channel));

        let packed = Packed::f32(18, 19, |output, k| weights[(output * 19 + k) % weights.len()]);
        let ys = everywhere(3 * 19 * 18, 7.0, |cpu, out| gemm(cpu, Rows::dense(&xs, 19), &packed, epilogue, out));
        (0..ys.len()).for_each(|at| assert_eq!(ys[at].is_nan(), at / 18 == pixel));
    }
    for kind in [Pool::Max, Pool::Average, Pool::AverageWithPadding] {
        let ys = everywhere(image.len(), 7.0, |cpu, out| pool(cpu, kind, &window, image, &xs, out));
        (0..ys.len()).for_each(|at| assert_eq!(ys[at].is_nan(), is_near(at) && at % 19 == channel));
    }
    for function in [Function::Exp, Function::Sigmoid, Function::Tanh] {
        let ys = everywhere_from(&xs, |cpu, ys| gates::map(cpu.isa, function, ys));
        (0..ys.len()).for_each(|at| assert_eq!(ys[at].is_nan(), at == pixel * 19 + channel));
    }
    let ys = everywhere_from(&xs, |cpu, ys| gates::softmax(cpu.isa, 19, ys));
    (0..ys.len()).for_each(|at| assert_eq!(ys[at].is_nan(), at / 19 == pixel));
}

/// A convolution, a recurrent step, a softmax, and the bytes of it: one number for all bits.
#[test]
fn results_are_the_same_bits_on_x86_and_on_arm() {
    let random = &mut Random(7);
    let image = Image { height: 9, width: 8, channels: 21 };
    let window = Window { kernel: [3, 3], stride: [1, 2], padding: [1, 0, 1, 1] };
    let (xs, weights) = (random.floats(image.len(), 2.0), random.floats(48 * 9 * 21, 1.0));
    let (taps, packed) =
        (Taps::convolution(image, &window), Packed::f16(48, 9 * 21, |output, k| weights[output * 189 + k]));
    let rows = 9 * 4;
    let gates = everywhere(rows * 48, 0.0, |cpu, out| {
        gemm(cpu, Rows::indirect(&xs, &taps, &[0.0; 21]), &packed, Epilogue::default(), out);
    });
    let states = everywhere(rows * 16, 0.5, |cpu, state| {
        gates::gru(cpu.isa, Step { inputs: &gates, stride: 48, recurrent: &gates }, 16, state);
    });
    let shares = everywhere_from(&states, |cpu, ys| gates::softmax(cpu.isa, 36, ys));
    let bytes = everywhere(shares.len(), 0, |cpu, out| assert!(quantise_dynamic(cpu.isa, &shares, out).is_some()));
    let bits = shares.iter().map(|share| share.to_bits()).chain(bytes.into_iter().map(u32::from));
    let digest =
        bits.fold(0xcbf2_9ce4_8422_2325, |digest: u64, bits| (digest ^ u64::from(bits)).wrapping_mul(0x0100_0000_01b3));
    assert_eq!(digest, 0x811b_7790_4015_eecb, "{digest:#x}");
}
