//! Products against sums of their own.

use sconce_kernels::Epilogue;
use sconce_kernels::gemm::{gemm, gemm_i8};
use sconce_kernels::half::{f16_to_f32, f32_to_f16};
use sconce_kernels::pack::{Packed, PackedI8};
use sconce_kernels::quantise::Scaling;
use sconce_kernels::rows::{AMPLE, Rows};

use crate::bounds::{Sum, activate};
use crate::fences::{Fenced, check_bytes, everywhere};
use crate::inputs::{Laid, Layout, Random, Rest};

pub fn check_gemm(layout: Layout, outputs: usize, is_f16: bool, seed: u64) {
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

pub fn check_gemm_i8(layout: Layout, outputs: usize, seed: u64) {
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
    let scaling = Scaling { scale: 0.01 + 0.003 * (random.next() % 8) as f32, zero_point };
    let rest = Rest::new(random, outputs, laid.rows.len() * outputs);
    let ys = everywhere(laid.rows.len() * outputs, 7.0, |cpu, out| {
        gemm_i8(cpu, laid.rows(&layout), scaling, &packed, rest.epilogue(), out);
    });
    check_bytes(&ys, |cpu, out| gemm_i8(cpu, laid.rows(&layout), scaling, &packed, rest.epilogue(), out));
    if let Some(taps) = &laid.taps {
        // Whatever lies behind the ends.
        let followed = |values: &Fenced<u8>| [values.inside(), &[255; AMPLE]].concat();
        let (values, zero) = (followed(&laid.values), followed(&laid.zero));
        let ample = everywhere(ys.len(), 7.0, |cpu, out| {
            let rows = Rows::ample(&values, values.len() - AMPLE, taps, &zero);
            gemm_i8(cpu, rows, scaling, &packed, rest.epilogue(), out);
        });
        assert_eq!(ample, ys);
    }
    let Scaling { scale, zero_point } = scaling;
    for (row, xs) in laid.rows.iter().enumerate() {
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
