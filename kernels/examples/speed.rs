//! How fast the kernels are on this CPU, beside what one core could do at best.
//!
//! `cargo run --release -p sconce-kernels --example speed [THREADS]`

use std::hint::black_box;
use std::time::{Duration, Instant};

use sconce_kernels::conv_pool::{Pooled, convolve_and_pool};
use sconce_kernels::depthwise::{DepthwiseI8, depthwise, depthwise_i8};
use sconce_kernels::gates::{self, Step};
use sconce_kernels::gemm::{Factors, gemm, gemm_i8};
use sconce_kernels::gru::{self, Gru};
use sconce_kernels::pack::{Packed, PackedI8};
use sconce_kernels::pool::{Pool, pool};
use sconce_kernels::quantise::{Scaling, quantise_dynamic};
use sconce_kernels::rows::{AMPLE, Rows, Taps};
use sconce_kernels::winograd::{Winograd, convolve};
use sconce_kernels::{Activation, Cpu, Epilogue, Image, IsaToken, Out, Threads, Window, isa};

fn main() -> std::io::Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1);
    let threads = Threads::new(count)?;
    for isa in IsaToken::all_present() {
        let cpu = Cpu { isa, threads: &threads };
        let peak = isa::peak_gflops(isa);
        println!("{}: at most {peak:.0} GFLOP/s in f32 on one core; {count} threads", isa.name());
        let line = |what: &str, flops: usize, run: &mut dyn FnMut()| {
            let time = best(run);
            let gflops = flops as f64 / time.as_secs_f64() / 1e9;
            println!("  {what:<44} {:>9.1} us {gflops:>8.1} GFLOP/s {:>4.0} %", micros(time), 100.0 * gflops / peak);
        };
        convolution(cpu, &line);
        for batch in [1, 8] {
            dense(cpu, batch, &line);
        }
        recurrent(cpu, &line);
        mobile(cpu, &line);
    }
    Ok(())
}

type Line<'a> = dyn Fn(&str, usize, &mut dyn FnMut()) + 'a;

/// The seed CNN's convolution, 3x3x1 -> 32 on 28x28, and its pool.
fn convolution(cpu: Cpu<'_>, line: &Line<'_>) {
    let image = Image { height: 28, width: 28, channels: 1 };
    let window = Window { kernel: [3, 3], stride: [1, 1], padding: [0; 4] };
    let (xs, weights, bias) = (values(784), values(9 * 32), values(32));
    let (taps, floats) = (Taps::convolution(image, &window), Packed::f32(32, 9, |output, k| weights[output * 9 + k]));
    let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::default() };
    let (mut ys, mut pooled) = (vec![0.0; 26 * 26 * 32], vec![0.0; 13 * 13 * 32]);
    line("conv 3x3x1 -> 32 on 28x28", 2 * 26 * 26 * 32 * 9, &mut || {
        gemm(cpu, Rows::indirect(&xs, &taps, &[0.0; 3]), &floats, epilogue, &mut ys);
    });
    let (packed, scaling) =
        (PackedI8::quantise(32, 3, 3, |output, k| weights[output * 9 + k]), Scaling { scale: 0.01, zero_point: 9 });
    let bytes = vec![7; 784 + AMPLE];
    line("the same, i8", 2 * 26 * 26 * 32 * 9, &mut || {
        let rows = Rows::ample(&bytes, 784, &taps, &[9; 3 + AMPLE]);
        gemm_i8(cpu, rows, scaling, &packed, epilogue, &mut ys);
    });
    let halves = Window { kernel: [2, 2], stride: [2, 2], padding: [0; 4] };
    let convolved = Image { height: 26, width: 26, channels: 32 };
    line("max pool 2x2 of 26x26x32", 13 * 13 * 32 * 4, &mut || {
        pool(cpu, Pool::Max, &halves, convolved, &ys, &mut pooled);
    });
    let by = Pooled::new(Pool::Max, halves, window, image, 32);
    let taps = by.taps().unwrap_or(taps);
    let mut both = |what: &str, factors: Factors<'_>| {
        line(what, 2 * 26 * 26 * 32 * 9, &mut || {
            convolve_and_pool(cpu, factors, Some(&bias), Activation::Relu, &by, &mut [], &mut pooled);
        });
    };
    both("convolution and pool in one", Factors::Floats(Rows::indirect(&xs, &taps, &[0.0; 3]), &floats));
    let rows = Rows::ample(&bytes, 784, &taps, &[9; 3 + AMPLE]);
    both("convolution and pool in one, i8", Factors::Bytes(rows, scaling, &packed));
}

/// The seed CNN's large dense layer, with each kind of weights.
fn dense(cpu: Cpu<'_>, batch: usize, line: &Line<'_>) {
    let (depth, outputs) = (5_408, 128);
    let (xs, weights) = (values(batch * depth), values(outputs * depth));
    let weight = |output: usize, k: usize| weights[output * depth + k];
    let mut ys = vec![0.0; batch * outputs];
    let flops = 2 * batch * depth * outputs;
    for (name, packed) in [("f32", Packed::f32(outputs, depth, weight)), ("f16", Packed::f16(outputs, depth, weight))] {
        line(&format!("dense {depth} -> {outputs} batch {batch} {name}"), flops, &mut || {
            gemm(cpu, Rows::dense(&xs, depth), &packed, Epilogue::default(), &mut ys);
        });
    }
    let packed = PackedI8::quantise(outputs, 1, depth, weight);
    let mut bytes = vec![0; xs.len()];
    line(&format!("dense {depth} -> {outputs} batch {batch} i8 and quantising"), flops, &mut || {
        let Some(scaling) = quantise_dynamic(cpu.isa, &xs, &mut bytes) else { return };
        gemm_i8(cpu, Rows::dense(&bytes, depth), scaling, &packed, Epilogue::default(), &mut ys);
    });
}

/// Two GRU layers of 128 over 100 steps of 40 values: projections, then the steps.
fn recurrent(cpu: Cpu<'_>, line: &Line<'_>) {
    let (steps, hidden) = (100, 128);
    for width in [40, 128] {
        let (xs, weights) = (values(steps * width), values(384 * (width + hidden)));
        let input = Packed::f32(384, width, |output, k| weights[output * width + k]);
        let recurrent = |output: usize, k: usize| 0.1 * weights[384 * width + output * hidden + k];
        let mut projected = vec![0.0; steps * 384];
        line(&format!("GRU projection 100 x {width} -> 384"), 2 * steps * width * 384, &mut || {
            gemm(cpu, Rows::dense(&xs, width), &input, Epilogue::default(), &mut projected);
        });
        for (name, halved) in [("f32", false), ("f16", true)] {
            let by = Gru::new(hidden, halved, recurrent, &[0.1; 384]);
            for rows in [1, 8] {
                let mut states = [vec![0.0; rows * hidden], vec![0.0; rows * hidden]];
                let xs: Vec<f32> = projected.iter().copied().cycle().take(rows * projected.len()).collect();
                let flops = 2 * steps * rows * hidden * 384;
                line(&format!("GRU 100 steps 128 -> 384 and gates {name}, batch {rows}"), flops, &mut || {
                    for step in 0..steps {
                        let [before, after] = &mut states;
                        gru::step(cpu, &by, (&xs[step * 384..], steps * 384), step % 2 > 0, before, after);
                        states.swap(0, 1);
                    }
                });
            }
        }
        let (mut state, mut products) = (vec![0.0; hidden], vec![0.0; 384]);
        let weights = PackedI8::quantise(384, 1, hidden, recurrent);
        let mut bytes = vec![0; hidden];
        line("GRU 100 steps 128 -> 384 and gates i8", 2 * steps * hidden * 384, &mut || {
            state.fill(0.0);
            for step in 0..steps {
                let Some(scaling) = quantise_dynamic(cpu.isa, &state, &mut bytes) else { return };
                gemm_i8(cpu, Rows::dense(&bytes, hidden), scaling, &weights, Epilogue::default(), &mut products);
                let step = Step { inputs: &projected[step * 384..], stride: 384, recurrent: &products };
                gates::gru(cpu.isa, step, hidden, &mut state);
            }
        });
    }
}

/// Layers as in MobileNetV2 and ResNet-18.
fn mobile(cpu: Cpu<'_>, line: &Line<'_>) {
    let image = Image { height: 28, width: 28, channels: 192 };
    let (xs, weights) = (values(image.len()), values(9 * 192));
    for stride in [1, 2] {
        let window = Window { kernel: [3, 3], stride: [stride, stride], padding: [1; 4] };
        let output = window.output(image);
        let mut ys = vec![0.0; output.len()];
        line(&format!("depthwise 3x3 of 28x28x192 stride {stride}"), 2 * 9 * output.len(), &mut || {
            depthwise(cpu, &window, image, &xs, &weights, Epilogue::default(), &mut ys);
        });
    }
    let bytes = vec![7; image.len()];
    let scaling = Scaling { scale: 0.01, zero_point: 0 };
    let mut out = vec![0; image.len()];
    let window = Window { kernel: [3, 3], stride: [1, 1], padding: [1; 4] };
    let byte = |tap: usize, channel: usize| (weights[tap * 192 + channel] * 127.0).round() as i8;
    let whole = DepthwiseI8::new(scaling, window.kernel, &[0.01; 192], byte);
    line("the same of stride 1, i8 to i8", 2 * 9 * image.len(), &mut || {
        depthwise_i8(cpu, &window, image, &bytes, &whole, Epilogue::default(), Out::bytes(&mut out, scaling));
    });
    let (xs, weights) = (values(56 * 56 * 24), values(144 * 24));
    let packed = Packed::f32(144, 24, |output, k| weights[output * 24 + k]);
    let epilogue = Epilogue { activation: Activation::Relu6, ..Epilogue::default() };
    let mut ys = vec![0.0; 56 * 56 * 144];
    line("conv 1x1x24 -> 144 on 56x56 and relu6", 2 * 56 * 56 * 144 * 24, &mut || {
        gemm(cpu, Rows::dense(&xs, 24), &packed, epilogue, &mut ys);
    });
    let packed = PackedI8::quantise(144, 1, 24, |output, k| weights[output * 24 + k]);
    let (bytes, mut out) = (vec![7; 56 * 56 * 24], vec![0; 56 * 56 * 144]);
    line("the same, i8 to i8", 2 * 56 * 56 * 144 * 24, &mut || {
        gemm_i8(cpu, Rows::dense(&bytes, 24), scaling, &packed, epilogue, Out::bytes(&mut out, scaling));
    });
    let (xs, weights) = (values(56 * 56 * 144), values(144 * 24));
    let packed = Packed::f32(24, 144, |output, k| weights[output * 144 + k]);
    let mut ys = vec![0.0; 56 * 56 * 24];
    line("conv 1x1x144 -> 24 on 56x56", 2 * 56 * 56 * 144 * 24, &mut || {
        gemm(cpu, Rows::dense(&xs, 144), &packed, Epilogue::default(), &mut ys);
    });
    for (side, channels) in [(56, 64), (28, 128), (14, 256), (7, 512)] {
        let image = Image { height: side, width: side, channels };
        let window = Window { kernel: [3, 3], stride: [1, 1], padding: [1; 4] };
        let depth = 9 * channels;
        let (xs, weights, zero) = (values(image.len()), values(channels * depth), vec![0.0; channels]);
        let taps = Taps::convolution(image, &window);
        let packed = Packed::f32(channels, depth, |output, k| weights[output * depth + k]);
        let mut ys = vec![0.0; image.len()];
        line(&format!("conv 3x3x{channels} -> {channels} on {side}x{side}"), 2 * image.len() * depth, &mut || {
            gemm(cpu, Rows::indirect(&xs, &taps, &zero), &packed, Epilogue::default(), &mut ys);
        });
        let by = Winograd::new(image, window, channels, |output, k| weights[output * depth + k]);
        let mut work = vec![0.0; by.work(1)];
        line("the same in tiles", 2 * image.len() * depth, &mut || {
            convolve(cpu, &by, &xs, Epilogue::default(), &mut work, &mut ys);
        });
        let packed = PackedI8::quantise(channels, 9, channels, |output, k| weights[output * depth + k]);
        let mut bytes = vec![0; xs.len()];
        line(&format!("conv 3x3x{channels} -> {channels} on {side}x{side} i8"), 2 * image.len() * depth, &mut || {
            let Some(scaling) = quantise_dynamic(cpu.isa, &xs, &mut bytes) else { return };
            let zero = vec![scaling.zero_point; channels];
            gemm_i8(cpu, Rows::indirect(&bytes, &taps, &zero), scaling, &packed, Epilogue::default(), &mut ys);
        });
    }
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
}

/// The best of the runs within 0.2 s: what else runs on the machine only adds to the others.
fn best(run: &mut dyn FnMut()) -> Duration {
    let (since, mut best) = (Instant::now(), Duration::MAX);
    let mut runs = 0;
    while runs < 3 || since.elapsed() < Duration::from_millis(200) {
        let start = Instant::now();
        black_box(&mut *run)();
        best = best.min(start.elapsed());
        runs += 1;
    }
    best
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
