//! The convolution of 3×3 by strides of one in tiles: 16 products for 36. The gradient of its images is such a convolution, too, of
//! the outputs' gradient by the kernels turned round.

use super::Geometry;
use crate::ops::activation::isa;
use candle_core::Result;
use sconce_kernels::winograd::{Winograd, convolve};
use sconce_kernels::{Cpu, Epilogue, Image, Threads, Window, wide};

/// Values along a side of a block that is turned at once.
const BLOCK: usize = 16;

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

/// Adds to `ys`.
pub(super) fn forward(geometry: &Geometry, xs: &[f32], weight: &[f32], ys: &mut [f32]) -> Result<()> {
    let channels = geometry.channels;
    let weight = |filter: usize, k: usize| weight[(filter * channels + k % channels) * 9 + k / channels];
    let by = Winograd::new(images(geometry), window(geometry), geometry.filters, weight);
    add(&by, xs, channels, ys)
}

/// Adds to `dx`.
pub(super) fn backward(geometry: &Geometry, weight: &[f32], gradient: &[f32], dx: &mut [f32]) -> Result<()> {
    let (channels, filters) = (geometry.channels, geometry.filters);
    let image = Image { height: geometry.out.0, width: geometry.out.1, channels: filters };
    let window = window(geometry);
    let window = Window { padding: window.padding.map(|pad| 2 - pad), ..window };
    let weight = |channel: usize, k: usize| weight[(k % filters * channels + channel) * 9 + 8 - k / filters];
    add(&Winograd::new(image, window, channels, weight), gradient, filters, dx)
}

/// Adds the convolution of `xs`, of so many channels, to `ys`; in both, channels lie first.
fn add(by: &Winograd, xs: &[f32], channels: usize, ys: &mut [f32]) -> Result<()> {
    let (isa, threads, output) = (isa()?, Threads::one(), by.output());
    let batch = ys.len() / output.len();
    let plane = xs.len() / batch / channels;
    let (mut last, mut convolved) = (vec![0.0; xs.len()], vec![0.0; ys.len()]);
    for (xs, last) in xs.chunks_exact(channels * plane).zip(last.chunks_exact_mut(channels * plane)) {
        wide(isa, turn, (channels, plane, xs, last));
    }
    let mut work = vec![0.0; by.work(batch)];
    convolve(Cpu { isa, threads: &threads }, by, &last, Epilogue::default(), &mut work, &mut convolved[..]);
    for (convolved, ys) in convolved.chunks_exact(output.len()).zip(ys.chunks_exact_mut(output.len())) {
        wide(isa, turn, (output.height * output.width, output.channels, convolved, ys));
    }
    Ok(())
}

/// Adds `(rows, columns)` to `(columns, rows)`.
#[inline(always)]
fn turn((rows, columns, from, to): (usize, usize, &[f32], &mut [f32])) {
    for row in (0..rows).step_by(BLOCK) {
        for column in (0..columns).step_by(BLOCK) {
            for column in column..columns.min(column + BLOCK) {
                let to = &mut to[column * rows..][row..rows.min(row + BLOCK)];
                for (index, to) in to.iter_mut().enumerate() {
                    *to += from[(row + index) * columns + column];
                }
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
    fn tiles_add_what_the_product_adds_forwards_and_backwards() {
        let pads = [Pad { top: 1, left: 1, bottom: 1, right: 1 }, Pad { top: 0, left: 2, bottom: 1, right: 0 }];
        for (pad, batch) in pads.into_iter().zip([3, 1]) {
            let window = Window { kernel: (3, 3), stride: (1, 1), pad, dilation: (1, 1), groups: 1 };
            let geometry = Geometry::new(32, 48, (7, 9), window);
            assert!(suits(&geometry, batch));
            let (xs, weight) = (drawn(batch * geometry.image(), 1), drawn(48 * geometry.patch(), 2));
            let gradient = drawn(batch * 48 * geometry.plane(), 3);
            let (mut ys, mut expected) = (gradient.clone(), gradient.clone());
            forward(&geometry, &xs, &weight, &mut ys).unwrap();
            product::forward(&geometry, &xs, &weight, &mut expected);
            check(&ys, &expected);
            let (mut dx, mut expected) = (xs.clone(), xs.clone());
            backward(&geometry, &weight, &gradient, &mut dx).unwrap();
            product::backward(&geometry, &xs, &weight, &gradient, (Some(&mut expected), None));
            check(&dx, &expected);
        }
    }
}
