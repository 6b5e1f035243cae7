//! `synthetic:digits`: digits that we draw ourselves, stroke by stroke, so that nothing has to be downloaded.
//!
//! Each digit is a few strokes on the unit square. A sample bends them by a random affine map, gives the pen a
//! random thickness and pressure, and adds noise. The same seed draws the same pixels.

use super::{DataSet, Samples, TestSplit};
use rand_chacha::ChaCha8Rng;
use sconce_model::digest;
use sconce_model::idx::Images;
use sconce_model::network::{generator, unit};

/// Samples of the data set, a fifth of them for the test.
pub const COUNT: usize = 10_000;
/// One for each digit.
pub const CLASSES: usize = 10;
/// What the data set is drawn and split by. Not the seed of training: runs with other seeds learn from the same digits.
pub const SEED: u64 = 1;
/// Part of the data set's name: another way of drawing is another version.
const VERSION: u32 = 1;
const SIDE: usize = 28;

type Point = (f32, f32);

/// Draws `count` digits, all ten equally often.
pub fn digits(count: usize, seed: u64) -> DataSet {
    let mut generator = generator(seed, "synthetic:digits");
    let labels: Vec<u8> = (0..count).map(|index| (index % CLASSES) as u8).collect();
    let pixels: Vec<u8> = labels.iter().flat_map(|&label| draw(label, &mut generator)).collect();
    let digest = digest::sha256(&[&pixels[..], &labels].concat());
    let all = Samples::grey(Images { count, height: SIDE, width: SIDE, pixels }, labels);
    let (train, test) = all.split(0.2, seed, "test");
    DataSet {
        name: format!("synthetic:digits v{VERSION}, {count} by seed {seed}"),
        digest,
        notes: vec![],
        train,
        test: TestSplit::new(test),
    }
}

/// The strokes of a digit; y grows downwards.
fn strokes(digit: u8) -> Vec<Vec<Point>> {
    let arc = |cx, cy, rx, ry, from: f32, to: f32| -> Vec<Point> {
        (0..=16).map(|i| from + (to - from) * i as f32 / 16.0).map(|t| (cx + rx * t.cos(), cy + ry * t.sin())).collect()
    };
    use std::f32::consts::{PI, TAU};
    match digit {
        0 => vec![arc(0.5, 0.5, 0.26, 0.4, 0.0, TAU)],
        1 => vec![vec![(0.36, 0.26), (0.54, 0.1), (0.54, 0.9)]],
        2 => vec![[arc(0.5, 0.32, 0.24, 0.22, -PI, 0.35), vec![(0.28, 0.88), (0.78, 0.88)]].concat()],
        3 => vec![arc(0.47, 0.3, 0.24, 0.2, -2.6, PI / 2.0), arc(0.47, 0.69, 0.27, 0.2, -PI / 2.0, 2.6)],
        4 => vec![vec![(0.6, 0.1), (0.22, 0.62), (0.8, 0.62)], vec![(0.62, 0.36), (0.62, 0.92)]],
        5 => vec![[vec![(0.74, 0.12), (0.34, 0.12), (0.3, 0.46)], arc(0.49, 0.65, 0.26, 0.24, -1.9, 2.5)].concat()],
        6 => vec![[vec![(0.66, 0.1), (0.42, 0.3)], arc(0.5, 0.66, 0.23, 0.24, -2.8, TAU - 2.8)].concat()],
        7 => vec![vec![(0.24, 0.13), (0.77, 0.13), (0.44, 0.9)]],
        8 => vec![arc(0.5, 0.3, 0.2, 0.19, 0.0, TAU), arc(0.5, 0.69, 0.25, 0.21, 0.0, TAU)],
        _ => vec![[arc(0.5, 0.34, 0.22, 0.23, 0.2, TAU + 0.2), vec![(0.68, 0.6), (0.56, 0.9)]].concat()],
    }
}

fn draw(digit: u8, generator: &mut ChaCha8Rng) -> [u8; SIDE * SIDE] {
    let mut between = |low: f32, high: f32| low + (high - low) * unit(generator);
    let (angle, shear) = (between(-0.3, 0.3), between(-0.3, 0.3));
    let (width, height) = (between(0.68, 1.05), between(0.68, 1.05));
    let (right, down) = (between(-0.1, 0.1), between(-0.1, 0.1));
    let (thickness, pressure) = (between(0.028, 0.075), between(0.65, 1.0));
    let (sin, cos) = angle.sin_cos();
    let segments: Vec<(Point, Point)> = strokes(digit)
        .iter()
        .flat_map(|stroke| {
            let bent: Vec<Point> = stroke
                .iter()
                .map(|&(x, y)| {
                    // A hand is not a plotter: each point strays a little.
                    let (x, y) = ((x - 0.5 + between(-0.02, 0.02)) * width, (y - 0.5 + between(-0.02, 0.02)) * height);
                    let x = x + shear * y;
                    (0.5 + right + cos * x - sin * y, 0.5 + down + sin * x + cos * y)
                })
                .collect();
            bent.windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>()
        })
        .collect();
    let mut pixels = [0; SIDE * SIDE];
    for (index, pixel) in pixels.iter_mut().enumerate() {
        let at = (((index % SIDE) as f32 + 0.5) / SIDE as f32, ((index / SIDE) as f32 + 0.5) / SIDE as f32);
        let near = segments.iter().map(|&segment| distance(at, segment)).fold(f32::MAX, f32::min);
        // Ink fades over one pixel at the edge of the stroke.
        let ink = ((thickness - near) * SIDE as f32 + 0.5).clamp(0.0, 1.0) * pressure;
        *pixel = ((ink + between(-0.08, 0.08)).clamp(0.0, 1.0) * 255.0) as u8;
    }
    pixels
}

fn distance((x, y): Point, ((ax, ay), (bx, by)): (Point, Point)) -> f32 {
    let (dx, dy) = (bx - ax, by - ay);
    let along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy).max(1e-9)).clamp(0.0, 1.0);
    (x - ax - along * dx).hypot(y - ay - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_draws_the_same_digits_and_another_seed_others() {
        let [a, again, b] = [7, 7, 8].map(|seed| digits(50, seed));
        assert_eq!((a.digest.clone(), a.train.clone()), (again.digest, again.train));
        assert_ne!(a.digest, b.digest);
        assert_eq!((a.train.len(), a.test.len()), (40, 10));
        let ink = a.train.images().unwrap().pixels.iter().filter(|&&pixel| pixel > 128).count();
        assert!(ink > 40 * 30, "digits have ink: {ink}");
    }

    /// Fails when the way of drawing changes: raise `VERSION` then. Sine and cosine differ in their last bits elsewhere.
    #[test]
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    fn this_version_has_this_digest() {
        assert_eq!(
            digits(COUNT, SEED).digest,
            "sha256:6f87259f617fdf11e5deb293d363f723bd8ab3cd72e827190fc3871025015854"
        );
    }
}
