//! Convolutions in tiles against sums of their own, within what their steps may lose.

use sconce_kernels::winograd::{Tiles, Winograd, convolve, gradient, gradient_work};
use sconce_kernels::{Activation, Cpu, Epilogue, Image, Out, Window};

use crate::bounds::Sum;
use crate::fences::{Fenced, check_bytes, everywhere};
use crate::inputs::{Random, Rest, patches};

/// A tile of 4×4 values, and of 3×3 weights, become values of places by these; products of places become 2×2 outputs.
const OF_VALUES: [[f64; 4]; 4] = [[1., 0., -1., 0.], [0., 1., 1., 0.], [0., -1., 1., 0.], [0., 1., 0., -1.]];
const OF_WEIGHTS: [[f64; 3]; 4] = [[1., 0., 0.], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0., 0., 1.]];
const OF_OUTPUTS: [[f64; 4]; 2] = [[1., 1., 1., 0.], [0., 1., -1., -1.]];
/// The gradient of 2×2 outputs becomes that of products.
const OF_SLOPES: [[f64; 2]; 4] = [[1., 0.], [1., 1.], [1., -1.], [0., -1.]];

/// `by · values · byᵀ`, all without signs.
fn magnitudes<const N: usize, const M: usize>(
    by: &[[f64; N]; M],
    values: impl Fn(usize, usize) -> f64,
) -> [[f64; M]; M] {
    let of = |row: usize, column: usize| {
        let terms = (0..N * N).map(|at| (by[row][at / N] * by[column][at % N] * values(at / N, at % N)).abs());
        terms.sum::<f64>()
    };
    std::array::from_fn(|row| std::array::from_fn(|column| of(row, column)))
}

pub fn check_tiles(image: Image, padding: [usize; 4], outputs: usize, batch: usize, seed: u64) {
    let random = &mut Random(seed);
    let window = Window { kernel: [3, 3], stride: [1, 1], padding };
    let (channels, output) = (image.channels, Image { channels: outputs, ..window.output(image) });
    let (xs, weights) = (random.fenced(batch * image.len()), random.floats(outputs * 9 * channels, 1.0));
    let by = Winograd::new(image, window, outputs, |output, k| weights[output * 9 * channels + k]);
    let rest = Rest::new(random, outputs, batch * output.len());
    let run = |cpu: Cpu<'_>, xs: &[f32], epilogue: Epilogue<'_>, out: Out<'_>| {
        let mut work = Fenced::new(vec![f32::NAN; by.work(xs.len() / image.len())]);
        convolve(cpu, &by, xs, epilogue, work.inside_mut(), out);
        work.checked();
    };
    let ys = everywhere(batch * output.len(), 7.0, |cpu, out| run(cpu, xs.inside(), rest.epilogue(), out.into()));
    check_bytes(&ys, |cpu, out| run(cpu, xs.inside(), rest.epilogue(), out));
    let of_weights: Vec<_> = (0..outputs * channels)
        .map(|at| {
            let kernel = &weights[at / channels * 9 * channels + at % channels..];
            magnitudes(&OF_WEIGHTS, |row, column| f64::from(kernel[(3 * row + column) * channels]))
        })
        .collect();
    for (index, xs) in xs.inside().chunks(image.len()).enumerate() {
        let of_values = |y: usize, x: usize, channel: usize| {
            magnitudes(&OF_VALUES, |row, column| {
                let (row, column) = ((y + row).checked_sub(padding[0]), (x + column).checked_sub(padding[1]));
                match (row, column) {
                    (Some(row), Some(column)) if row < image.height && column < image.width => {
                        f64::from(xs[(row * image.width + column) * channels + channel])
                    }
                    _ => 0.0,
                }
            })
        };
        for (pixel, patch) in patches(xs, image, &window, 0.0).into_iter().enumerate() {
            let (y, x) = (pixel / output.width, pixel % output.width);
            let values: Vec<_> = (0..channels).map(|channel| of_values(y / 2 * 2, x / 2 * 2, channel)).collect();
            for output in 0..outputs {
                let at = (index * patches_of(&window, image) + pixel) * outputs + output;
                let mut sum = Sum::default();
                patch.iter().zip(&weights[output * 9 * channels..]).for_each(|(x, w)| sum.add(*x, *w));
                sum.magnitude = 0.0;
                for (values, weights) in values.iter().zip(&of_weights[output * channels..]) {
                    for (row, by_row) in OF_OUTPUTS[y % 2].iter().enumerate() {
                        for (column, by_column) in OF_OUTPUTS[x % 2].iter().enumerate() {
                            sum.magnitude += (by_row * by_column).abs() * values[row][column] * weights[row][column];
                        }
                    }
                }
                rest.add_to(&mut sum, output, at);
                // Each sum of products, and a few sums before and behind it.
                sum.terms = channels + 12;
                sum.check(ys[at], rest.activation);
            }
        }
        // An image alone: the batch must not matter.
        let part = index * output.len()..(index + 1) * output.len();
        let residual = rest.residual.as_ref().map(|residual| &residual.inside()[part.clone()]);
        let epilogue = Epilogue { residual, ..rest.epilogue() };
        assert_eq!(everywhere(part.len(), 7.0, |cpu, out| run(cpu, xs, epilogue, out.into())), ys[part]);
    }
}

/// The gradient of the weights.
pub fn check_gradient(image: Image, padding: [usize; 4], outputs: usize, batch: usize, seed: u64) {
    let random = &mut Random(seed);
    let window = Window { kernel: [3, 3], stride: [1, 1], padding };
    let (channels, output) = (image.channels, Image { channels: outputs, ..window.output(image) });
    let (xs, slopes) = (random.fenced(batch * image.len()), random.fenced(batch * output.len()));
    let of = Tiles::new(image, window, outputs);
    let got = everywhere(9 * channels * outputs, 7.0, |cpu, out| {
        let mut work = Fenced::new(vec![f32::NAN; gradient_work(&of, batch)]);
        gradient(cpu, &of, xs.inside(), slopes.inside(), work.inside_mut(), out);
        work.checked();
    });
    let mut sums = vec![Sum::default(); got.len()];
    let place = |channel: usize, tap: usize, output: usize| (channel * 9 + tap) * outputs + output;
    for (xs, slopes) in xs.inside().chunks(image.len()).zip(slopes.inside().chunks(output.len())) {
        let x_at = |row: usize, column: usize, channel: usize| {
            let (row, column) = (row.checked_sub(padding[0])?, column.checked_sub(padding[1])?);
            let is_inside = row < image.height && column < image.width;
            is_inside.then(|| xs[(row * image.width + column) * channels + channel])
        };
        let slope_at = |row: usize, column: usize, of: usize| {
            let is_inside = row < output.height && column < output.width;
            is_inside.then(|| slopes[(row * output.width + column) * outputs + of])
        };
        for (y, x) in (0..output.height).flat_map(|y| (0..output.width).map(move |x| (y, x))) {
            for (tap, channel) in (0..9).flat_map(|tap| (0..channels).map(move |channel| (tap, channel))) {
                let value = x_at(y + tap / 3, x + tap % 3, channel).unwrap_or(0.0);
                for of in 0..outputs {
                    sums[place(channel, tap, of)].add(value, slope_at(y, x, of).unwrap_or(0.0));
                }
            }
        }
        // The steps lose more than the products alone would.
        for (y, x) in (0..output.height).step_by(2).flat_map(|y| (0..output.width).step_by(2).map(move |x| (y, x))) {
            let values = |channel| {
                magnitudes(&OF_VALUES, |row, column| f64::from(x_at(y + row, x + column, channel).unwrap_or(0.0)))
            };
            let slopes =
                |of| magnitudes(&OF_SLOPES, |row, column| f64::from(slope_at(y + row, x + column, of).unwrap_or(0.0)));
            let slopes: Vec<_> = (0..outputs).map(slopes).collect();
            for channel in 0..channels {
                let values = values(channel);
                for (of, slopes) in slopes.iter().enumerate() {
                    for tap in 0..9 {
                        let steps = (0..16).map(|at| {
                            let by = OF_WEIGHTS[at / 4][tap / 3] * OF_WEIGHTS[at % 4][tap % 3];
                            by.abs() * values[at / 4][at % 4] * slopes[at / 4][at % 4]
                        });
                        sums[place(channel, tap, of)].magnitude += steps.sum::<f64>();
                    }
                }
            }
        }
    }
    let tiles = batch * output.height.div_ceil(2) * output.width.div_ceil(2);
    for (sum, y) in sums.iter_mut().zip(got) {
        sum.terms = tiles + 12;
        sum.check(y, Activation::None);
    }
}

/// Pixels of one output image.
fn patches_of(window: &Window, image: Image) -> usize {
    let output = window.output(image);
    output.height * output.width
}
