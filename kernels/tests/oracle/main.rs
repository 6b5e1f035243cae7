//! Every kernel, on every instruction set of this CPU, alone and with threads, over odd shapes: against `f64`, and to the bit
//! against each other. Every buffer lies between canaries and begins where it likes.

mod bounds;
mod fences;
mod inputs;
mod products;
mod tiles;

use bounds::{EPSILON, Sum, activate};
use fences::{Fenced, check_bytes, everywhere, everywhere_from};
use inputs::{
    ACTIVATIONS, Layout, Random, Rest, image_and_window, layout, one_channel, patches, tall_image_and_window,
    wide_image_and_window, window,
};
use products::{check_gemm, check_gemm_i8};
use proptest::prelude::*;
use sconce_kernels::conv_depthwise::{Expanded, expand_and_convolve};
use sconce_kernels::conv_pool::{Pooled, convolve_and_pool};
use sconce_kernels::depthwise::{DepthwiseI8, depthwise, depthwise_i8};
use sconce_kernels::gates::{self, Function, Step};
use sconce_kernels::gemm::{Factors, gemm, gemm_i8, multiply};
use sconce_kernels::gru::{self, Gru};
use sconce_kernels::pack::{Packed, PackedI8};
use sconce_kernels::pool::{Pool, global_average, pool};
use sconce_kernels::quantise::{Scaling, quantise, quantise_dynamic};
use sconce_kernels::rows::{AMPLE, Rows, Taps};
use sconce_kernels::turn::{pixels, turn, turned};
use sconce_kernels::{Activation, Cpu, Epilogue, Image, IsaToken, Out, Threads, Window};
use std::panic::AssertUnwindSafe;
use tiles::{check_gradient, check_tiles};

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
    fn convolution_in_tiles_is_within_its_bound_and_the_same_in_any_batch(
        (height, width) in (3..9usize, 3..9usize), padding in prop::array::uniform4(0..3usize),
        (channels, outputs) in (1..4usize, 1..4usize), batch in 0..3usize, seed: u64,
    ) {
        let image = Image { height, width, channels: 16 * channels };
        check_tiles(image, padding, 16 * outputs, batch, seed);
        check_gradient(image, padding, 16 * outputs, batch, seed);
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
    fn depthwise_convolution_of_bytes_is_exact(
        (image, window) in prop_oneof![image_and_window(), wide_image_and_window()], batch in 0..3usize, seed: u64,
    ) {
        let random = &mut Random(seed);
        let (xs, output) = (random.bytes(batch * image.len()), window.output(image));
        let scaling = Scaling { scale: 0.02, zero_point: random.next() as u8 };
        let area = window.kernel[0] * window.kernel[1];
        let weights: Vec<i8> = (0..area * image.channels).map(|_| ((random.next() % 255) as i16 - 127) as i8).collect();
        let scales = random.floats(image.channels, 0.1);
        let packed = DepthwiseI8::new(scaling, window.kernel, &scales, |tap, channel| weights[tap * image.channels + channel]);
        let rest = Rest::new(random, image.channels, batch * output.len());
        let xs = xs.inside();
        let ys = everywhere(batch * output.len(), 7.0, |cpu, out| {
            depthwise_i8(cpu, &window, image, xs, &packed, rest.epilogue(), out);
        });
        check_bytes(&ys, |cpu, out| {
            depthwise_i8(cpu, &window, image, xs, &packed, rest.epilogue(), out);
        });
        let patches = xs.chunks(image.len()).flat_map(|xs| patches(xs, image, &window, scaling.zero_point));
        for (pixel, patch) in patches.enumerate() {
            for (channel, scale) in scales.iter().enumerate() {
                let of_channel = patch.iter().zip(&weights).skip(channel).step_by(image.channels);
                let sum: i64 = of_channel.map(|(x, w)| (i64::from(*x) - i64::from(scaling.zero_point)) * i64::from(*w)).sum();
                let at = pixel * image.channels + channel;
                let bias = rest.bias.as_ref().map_or(0.0, |bias| bias.inside()[channel]);
                let residual = rest.residual.as_ref().map_or(0.0, |residual| residual.inside()[at]);
                let y = (sum as f32).mul_add(scaling.scale * scale, bias) + residual;
                prop_assert_eq!(ys[at], activate(f64::from(y), rest.activation) as f32);
            }
        }
    }

    #[test]
    fn product_with_the_depthwise_convolution_behind_it_is_both_one_after_the_other(
        (image, window) in prop_oneof![40 => image_and_window(), 1 => tall_image_and_window()],
        depth in 1..8usize, batch in 0..3usize, is_f16: bool, seed: u64,
    ) {
        let random = &mut Random(seed);
        let (pixels, output) = (batch * image.height * image.width, window.output(image));
        let xs = random.fenced(pixels * depth);
        let (weights, taps) = (random.floats(image.channels * depth, 1.0), random.fenced(window.kernel[0] * window.kernel[1] * image.channels));
        let pack = if is_f16 { Packed::f16 } else { Packed::f32 };
        let packed = pack(image.channels, depth, |output, k| weights[output * depth + k]);
        let [of_product, rest] = [(); 2].map(|()| Rest { residual: None, ..Rest::new(random, image.channels, 0) });
        let (rows, expanded) = (|| Rows::dense(xs.inside(), depth), Expanded::new(window, image));
        let expected = everywhere(batch * output.len(), 7.0, |cpu, out| {
            let mut between = vec![7.0; pixels * image.channels];
            gemm(cpu, rows(), &packed, of_product.epilogue(), &mut between[..]);
            depthwise(cpu, &window, image, &between, taps.inside(), rest.epilogue(), out);
        });
        let run = |cpu: Cpu<'_>, out: Out<'_>| {
            let mut work = Fenced::new(vec![f32::NAN; batch * expanded.work()]);
            let epilogues = [of_product.epilogue(), rest.epilogue()];
            let factors = Factors::Floats(rows(), &packed);
            expand_and_convolve(cpu, factors, &expanded, taps.inside(), epilogues, work.inside_mut(), out);
            work.checked();
        };
        prop_assert_eq!(&everywhere(batch * output.len(), 7.0, |cpu, out| run(cpu, out.into())), &expected);
        check_bytes(&expected, run);
    }

    #[test]
    fn planes_become_pixels(len in 0..70usize, seed: u64) {
        let xs = Random(seed).floats(3 * len, 1.0);
        let planes = [0, 1, 2].map(|plane| &xs[plane * len..][..len]);
        let ys = everywhere(3 * len, 7.0, |cpu, ys| pixels(cpu.isa, planes, ys));
        for (at, y) in ys.iter().enumerate() {
            prop_assert_eq!(*y, planes[at % 3][at / 3]);
        }
    }

    #[test]
    fn convolution_with_its_pool_is_both_one_after_the_other(
        ((image, window), pooled) in prop_oneof![3 => image_and_window(), 1 => one_channel()].prop_flat_map(|(image, by)| {
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
        let weight = |output: usize, k: usize| weights[output * depth + k];
        let (packed, packed_f16) = (Packed::f32(outputs, depth, weight), Packed::f16(outputs, depth, weight));
        // A norm can turn an output over.
        let scales: Vec<f32> = (0..outputs).map(|_| if random.next().is_multiple_of(16) { -0.01 } else { 0.01 }).collect();
        let byte = |output: usize, k: usize| (weight(output, k) * 127.0) as i8;
        let packed_i8 = PackedI8::new(&scales, taps.taps(), taps.depth(), byte);
        let scaling = Scaling { scale: 0.02, zero_point: 9 };
        // Whatever lies behind the ends.
        let (ample, len_of_bytes) = ([bytes.inside(), &[255; AMPLE]].concat(), bytes.inside().len());
        let zero_point = [vec![9; taps.depth()], vec![255; AMPLE]].concat();
        let bias = random.any().then(|| random.fenced(outputs));
        let bias = bias.as_ref().map(Fenced::inside);
        let activation = ACTIVATIONS[random.next() as usize % 3];
        let epilogue = Epilogue { bias, activation, residual: None };
        for kind in [Pool::Max, Pool::Average, Pool::AverageWithPadding] {
            let by = Pooled::new(kind, pooled, window, image, outputs);
            let (after, by_pool) = (by.output().len() * batch, by.taps());
            type Given<'a> = dyn Fn(&'a Taps) -> Factors<'a> + 'a;
            let all: [&Given<'_>; 4] = [
                &|taps| Factors::Floats(Rows::indirect(xs.inside(), taps, &zeros), &packed),
                &|taps| Factors::Floats(Rows::indirect(xs.inside(), taps, &zeros), &packed_f16),
                &|taps| Factors::Bytes(Rows::indirect(bytes.inside(), taps, &zero_point), scaling, &packed_i8),
                &|taps| Factors::Bytes(Rows::ample(&ample, len_of_bytes, taps, &zero_point), scaling, &packed_i8),
            ];
            for factors in all {
                let expected = everywhere(after, 7.0, |cpu, out| {
                    let mut between = vec![7.0; batch * len];
                    multiply(cpu, factors(&taps), epilogue, &mut between[..]);
                    pool(cpu, kind, &pooled, convolved, &between, out);
                });
                let run = |cpu: Cpu<'_>, out: Out<'_>| {
                    let mut work = Fenced::new(vec![f32::NAN; batch * by.work()]);
                    let factors = factors(by_pool.as_ref().unwrap_or(&taps));
                    convolve_and_pool(cpu, factors, bias, activation, &by, work.inside_mut(), out);
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

    /// [`gates::gru`] and products are held against exact results; one pass over both gives the same bits.
    #[test]
    fn step_of_a_gru_is_its_products_and_gates(
        rows in 0..60usize, units in prop_oneof![1..80usize, Just(96), Just(128)], gap in 0..5usize, is_f16: bool, seed: u64,
    ) {
        let random = &mut Random(seed);
        let (outputs, stride) = (3 * units, 3 * units + gap);
        let (weights, bias) = (random.floats(outputs * units, 0.5), random.floats(outputs, 1.0));
        let weight = |output: usize, k: usize| weights[output * units + k];
        let pack = if is_f16 { Packed::f16 } else { Packed::f32 };
        let (packed, by) = (pack(outputs, units, weight), Gru::new(units, is_f16, weight, &bias));
        // Of the last row no gap.
        let inputs = Fenced::new(random.floats((rows * stride).saturating_sub(gap), 4.0));
        let state = Fenced::new(random.floats(rows * units, 1.0));
        let (inputs, state) = (inputs.inside(), state.inside());
        let expected = everywhere_from(state, |cpu, ys| {
            let mut recurrent = vec![0.0; rows * outputs];
            let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
            gemm(cpu, Rows::dense(state, units), &packed, epilogue, &mut recurrent);
            gates::gru(cpu.isa, Step { inputs, stride, recurrent: &recurrent }, units, ys);
        });
        for backwards in [false, true] {
            let got = everywhere(state.len(), f32::NAN, |cpu, ys| {
                gru::step(cpu, &by, (inputs, stride), backwards, state, ys);
            });
            prop_assert_eq!(&got, &expected);
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
fn tiles_of_many_blocks_whose_weights_no_cache_holds_are_no_different() {
    check_tiles(Image { height: 30, width: 31, channels: 16 }, [1; 4], 32, 2, 1);
    check_tiles(Image { height: 9, width: 8, channels: 160 }, [1, 0, 2, 1], 112, 3, 2);
    check_gradient(Image { height: 30, width: 31, channels: 16 }, [1; 4], 32, 2, 1);
    check_gradient(Image { height: 9, width: 8, channels: 160 }, [1, 0, 2, 1], 112, 9, 2);
}

#[test]
fn rows_become_columns() {
    for (rows, columns) in [(1, 1), (16, 16), (17, 33), (5, 40), (48, 32)] {
        let from = Fenced::new((0..3 * rows * columns).map(|at| at as f32).collect());
        let place = |at: usize| (at / (rows * columns), at % (rows * columns) / rows, at % rows);
        let ys = everywhere(from.inside().len(), f32::NAN, |cpu, to| {
            turn(cpu.isa, rows, columns, from.inside(), to);
            assert_eq!(turned(cpu.isa, rows, columns, from.inside()), to);
        });
        for (at, y) in ys.into_iter().enumerate() {
            let (matrix, column, row) = place(at);
            assert_eq!(y, from.inside()[(matrix * rows + row) * columns + column]);
        }
    }
}

#[test]
fn longest_sum_of_bytes_does_not_overflow() {
    for (weight, zero_point, x) in [(127, 0, 255), (-127, 0, 255), (127, 255, 0)] {
        let (packed, xs) = (PackedI8::new(&[1.0], 1, 65_536, |_, _| weight), vec![x; 65_536]);
        let ys = everywhere(1, 7.0, |cpu, out| {
            let scaling = Scaling { scale: 1.0, zero_point };
            gemm_i8(cpu, Rows::dense(&xs, 65_536), scaling, &packed, Epilogue::default(), out);
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

/// As many values as one image has, and rows of another that is of another form.
#[test]
#[should_panic = "of each all"]
fn first_layer_refuses_rows_of_another_image() {
    let by_3 = Window { kernel: [3, 3], stride: [1, 1], padding: [0; 4] };
    let halves = Window { kernel: [2, 2], stride: [2, 2], padding: [0; 4] };
    let image = |height, width| Image { height, width, channels: 1 };
    let pooled = |image| Pooled::new(Pool::Max, halves, by_3, image, 1);
    let (square, long, threads) = (pooled(image(6, 6)), pooled(image(9, 4)), Threads::one());
    let cpu = Cpu { isa: IsaToken::all_present()[0], threads: &threads };
    let (taps, packed, mut ys) = (square.taps().unwrap(), Packed::f32(1, 9, |_, _| 1.0), vec![0.0; 4]);
    let factors = Factors::Floats(Rows::indirect(&[0.0; 36], &taps, &[0.0; 9]), &packed);
    convolve_and_pool(cpu, factors, None, Activation::None, &long, &mut [], &mut ys);
}

#[test]
#[should_panic = "put together by the taps of the pool"]
fn pool_of_four_refuses_rows_in_the_order_of_lines() {
    let image = Image { height: 4, width: 4, channels: 1 };
    let window = Window { kernel: [1, 1], stride: [1, 1], padding: [0; 4] };
    let halves = Window { kernel: [2, 2], stride: [2, 2], padding: [0; 4] };
    let (by, packed, threads) =
        (Pooled::new(Pool::Max, halves, window, image, 1), Packed::f32(1, 1, |_, _| 1.0), Threads::one());
    let cpu = Cpu { isa: IsaToken::all_present()[0], threads: &threads };
    let (taps, mut ys) = (Taps::convolution(image, &window), vec![0.0; 4]);
    let factors = Factors::Floats(Rows::indirect(&[0.0; 16], &taps, &[0.0]), &packed);
    convolve_and_pool(cpu, factors, None, Activation::None, &by, &mut [], &mut ys);
}

/// Behind the door nothing is checked again.
#[test]
fn step_of_a_gru_refuses_what_does_not_fit() {
    let (by, threads) = (Gru::new(2, false, |_, _| 1.0, &[0.0; 6]), Threads::one());
    let cpu = Cpu { isa: IsaToken::all_present()[0], threads: &threads };
    let fits = |inputs: usize, from: usize, to: usize| {
        let (inputs, from, mut to) = (vec![0.0; inputs], vec![0.0; from], vec![0.0; to]);
        std::panic::catch_unwind(AssertUnwindSafe(|| gru::step(cpu, &by, (&inputs, 7), false, &from, &mut to))).is_ok()
    };
    // Two rows, seven apart.
    assert!(fits(13, 4, 4));
    assert!(!fits(12, 4, 4), "of the last row one input is missing");
    assert!(!fits(13, 4, 2), "a row less");
    assert!(!fits(13, 3, 3), "no rows of two");
}
