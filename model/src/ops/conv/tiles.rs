//! The convolution of 3×3 by strides of one in tiles: 16 products for 36. The gradient of its images is such a convolution, too, of
//! the outputs' gradient by the kernels turned round, and that of its weights is made of tiles as well.

use super::{Geometry, Gradients};
use crate::ops::activation::isa;
use crate::ops::scratch::{Scratch, scratch};
use candle_core::Result;
use sconce_kernels::turn::{turn, turned};
use sconce_kernels::winograd::{self, Tiles, Winograd, convolve, gradient_work};
use sconce_kernels::{Cpu, Epilogue, Image, IsaToken, Threads, Window, wide};

/// Of a kernel.
const TAPS: usize = 9;

/// Whether this is faster than a product over patches, for so many images.
pub(super) fn suits(geometry: &Geometry, batch: usize) -> bool {
    let super::Window { kernel, stride, pad, dilation, groups } = geometry.window;
    let is_plain = (kernel, stride, dilation, groups) == ((3, 3), (1, 1), (1, 1), 1);
    let is_narrow = [pad.top, pad.left, pad.bottom, pad.right].into_iter().all(|pad| pad < 3);
    is_plain && is_narrow && Winograd::suits(batch, images(geometry), &window(geometry), geometry.filters)
}

fn images(geometry: &Geometry) -> Image {
    Image { height: geometry.size.0, width: geometry.size.1, channels: geometry.channels }
}

fn window(geometry: &Geometry) -> Window {
    let pad = geometry.window.pad;
    Window { kernel: [3, 3], stride: [1, 1], padding: [pad.top, pad.left, pad.bottom, pad.right] }
}

/// `xs` and what it returns have their channels first.
pub(super) fn forward(geometry: &Geometry, xs: &[f32], weight: &[f32], biases: &[f32]) -> Result<Vec<f32>> {
    let (isa, filters, depth) = (isa()?, geometry.filters, geometry.patch());
    let mut lines = scratch(weight.len());
    turn(isa, filters, depth, weight, &mut lines);
    let by = Winograd::of_lines(isa, images(geometry), window(geometry), filters, &lines);
    let xs = channels_last(isa, geometry.channels, geometry.size, xs);
    Ok(convolved(isa, &by, &xs, Some(biases)))
}

/// Those that are asked for.
pub(super) fn backward(
    geometry: &Geometry,
    xs: &[f32],
    weight: &[f32],
    gradient: &[f32],
    asked: (bool, bool),
) -> Result<Gradients> {
    let (isa, channels, filters) = (isa()?, geometry.channels, geometry.filters);
    let gradient = channels_last(isa, filters, geometry.out, gradient);
    let dx = asked.0.then(|| {
        let image = Image { height: geometry.out.0, width: geometry.out.1, channels: filters };
        let window = window(geometry);
        let window = Window { padding: window.padding.map(|pad| 2 - pad), ..window };
        let mut lines = scratch(weight.len());
        wide(isa, turned_round, (channels, weight, &mut lines[..]));
        let by = Winograd::of_lines(isa, image, window, channels, &lines);
        drop(lines);
        convolved(isa, &by, &gradient, None)
    });
    let dw = asked.1.then(|| {
        let xs = channels_last(isa, channels, geometry.size, xs);
        let of = Tiles::new(images(geometry), window(geometry), filters);
        let mut work = scratch(gradient_work(&of, xs.len() / geometry.image()));
        let mut lines = scratch(weight.len());
        let threads = Threads::one();
        winograd::gradient(Cpu { isa, threads: &threads }, &of, &xs, &gradient, &mut work, &mut lines);
        turned(isa, TAPS * channels, filters, &lines)
    });
    Ok((dx, dw))
}

/// Images whose channels lie first.
fn channels_last(isa: IsaToken, channels: usize, size: (usize, usize), xs: &[f32]) -> Scratch {
    let mut last = scratch(xs.len());
    turn(isa, channels, size.0 * size.1, xs, &mut last);
    last
}

/// Of images whose channels lie last; in what it returns they lie first.
fn convolved(isa: IsaToken, by: &Winograd, xs: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (threads, output) = (Threads::one(), by.output());
    let images = xs.len() / by.input().len();
    let (mut ys, mut work) = (scratch(images * output.len()), scratch(by.work(images)));
    let epilogue = Epilogue { bias, ..Epilogue::default() };
    convolve(Cpu { isa, threads: &threads }, by, xs, epilogue, &mut work, &mut ys[..]);
    turned(isa, output.height * output.width, output.channels, &ys)
}

/// From `(filter, channel, tap)` to `(filter, tap, channel)`, the last tap first.
#[inline(always)]
fn turned_round((channels, weight, lines): (usize, &[f32], &mut [f32])) {
    for (weight, lines) in weight.chunks_exact(TAPS * channels).zip(lines.chunks_exact_mut(TAPS * channels)) {
        for (tap, line) in lines.chunks_exact_mut(channels).enumerate() {
            for (to, taps) in line.iter_mut().zip(weight.as_chunks::<TAPS>().0) {
                *to = taps[TAPS - 1 - tap];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Window, product};
    use super::*;
    use crate::graph::Pad;

    /// Values that tell places apart.
    fn drawn(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    fn check(of_tiles: &[f32], of_product: &[f32]) {
        let largest = of_product.iter().fold(1.0, |largest: f32, y| largest.max(y.abs()));
        for (at, (y, expected)) in of_tiles.iter().zip(of_product).enumerate() {
            assert!((y - expected).abs() <= 1e-5 * largest, "{at}: {y} is not {expected}");
        }
    }

    #[test]
    fn tiles_give_what_the_product_gives_forwards_and_backwards() {
        let pads = [Pad { top: 1, left: 1, bottom: 1, right: 1 }, Pad { top: 0, left: 2, bottom: 1, right: 0 }];
        for (pad, batch) in pads.into_iter().zip([3, 1]) {
            let window = Window { kernel: (3, 3), stride: (1, 1), pad, dilation: (1, 1), groups: 1 };
            let geometry = Geometry::new(32, 48, (7, 9), window);
            assert!(suits(&geometry, batch));
            let (xs, weight) = (drawn(batch * geometry.image(), 1), drawn(48 * geometry.patch(), 2));
            let (gradient, biases) = (drawn(batch * 48 * geometry.plane(), 3), drawn(48, 4));
            let ys = forward(&geometry, &xs, &weight, &biases).unwrap();
            let of_bias = |bias: &f32| std::iter::repeat_n(*bias, geometry.plane());
            let mut expected: Vec<f32> = biases.iter().flat_map(of_bias).collect::<Vec<_>>().repeat(batch);
            product::forward(&geometry, &xs, &weight, &mut expected);
            check(&ys, &expected);
            let (dx, dw) = backward(&geometry, &xs, &weight, &gradient, (true, true)).unwrap();
            let (mut of_xs, mut of_weight) = (vec![0.0; xs.len()], vec![0.0; weight.len()]);
            product::backward(&geometry, &xs, &weight, &gradient, (Some(&mut of_xs), Some(&mut of_weight)));
            check(&dx.unwrap(), &of_xs);
            check(&dw.unwrap(), &of_weight);
        }
    }
}
