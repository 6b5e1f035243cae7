//! What is done by chance to an image before it is learned from. The same (seed, epoch, sample) draws the same.

use crate::manifest::{Augment, Axis};
use rand_chacha::ChaCha8Rng;
use sconce_model::network::{generator, unit};

/// An image of a network's input: `channels` planes, with what preprocessing made of black and of white in each.
pub struct Planes<'a> {
    pub height: usize,
    pub width: usize,
    pub black: &'a [f32],
    pub white: &'a [f32],
}

/// Where a pixel comes from: `(x, y)` from the middle becomes `(a·x + b·y + c, d·x + e·y + f)`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Affine([f32; 6]);

impl Affine {
    const SAME: Self = Self([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);

    /// First `inner`, then this.
    fn of(self, inner: Self) -> Self {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (self.0, inner.0);
        Self([a * g + b * j, a * h + b * k, a * i + b * l + c, d * g + e * j, d * h + e * k, d * i + e * l + f])
    }

    /// About the middle, against the clock.
    fn turned(degrees: f32) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Self([cos, -sin, 0.0, sin, cos, 0.0])
    }

    /// So many times as large.
    fn grown(times: f32) -> Self {
        let of = 1.0 / times;
        Self([of, 0.0, 0.0, 0.0, of, 0.0])
    }
}

impl Planes<'_> {
    /// Changes an image in place: first all that moves pixels, at once, then what changes their values.
    pub fn augment(&self, image: &mut [f32], steps: &[Augment], seed: u64, epoch: usize, sample: usize) {
        let mut generator = generator(seed, &format!("augment {epoch} {sample}"));
        let mut from = Affine::SAME;
        let values: Vec<Augment> = steps
            .iter()
            .filter(|step| match moved(**step, &mut generator) {
                Some(map) => {
                    from = from.of(map);
                    false
                }
                None => true,
            })
            .copied()
            .collect();
        if from != Affine::SAME {
            self.resample(image, from);
        }
        values.into_iter().for_each(|step| self.change(image, step, &mut generator));
    }

    fn resample(&self, image: &mut [f32], Affine([a, b, c, d, e, f]): Affine) {
        let (middle_x, middle_y) = ((self.width as f32 - 1.0) / 2.0, (self.height as f32 - 1.0) / 2.0);
        for (plane, black) in image.chunks_exact_mut(self.height * self.width).zip(self.black) {
            let old = plane.to_vec();
            let at = |x: i64, y: i64| {
                let inside = (0..self.width as i64).contains(&x) && (0..self.height as i64).contains(&y);
                if inside { old[y as usize * self.width + x as usize] } else { *black }
            };
            for (index, pixel) in plane.iter_mut().enumerate() {
                let (x, y) = ((index % self.width) as f32 - middle_x, (index / self.width) as f32 - middle_y);
                let (x, y) = (a * x + b * y + c + middle_x, d * x + e * y + f + middle_y);
                let (left, top) = (x.floor(), y.floor());
                let (right_share, bottom_share) = (x - left, y - top);
                let (left, top) = (left as i64, top as i64);
                let row = |y| at(left, y) * (1.0 - right_share) + at(left + 1, y) * right_share;
                *pixel = row(top) * (1.0 - bottom_share) + row(top + 1) * bottom_share;
            }
        }
    }

    fn change(&self, image: &mut [f32], step: Augment, generator: &mut ChaCha8Rng) {
        let size = self.height * self.width;
        let hole = match step {
            Augment::Erase { pixels } => {
                let side = 1 + below(generator, pixels);
                (below(generator, self.height), below(generator, self.width), side)
            }
            _ => (0, 0, 0),
        };
        let factor = match step {
            Augment::Brightness { by } => 1.0 + by * around(generator),
            _ => 1.0,
        };
        let ranges = self.black.iter().zip(self.white);
        for (plane, (black, white)) in image.chunks_exact_mut(size).zip(ranges) {
            let (low, high) = (black.min(*white), black.max(*white));
            match step {
                Augment::Erase { .. } => {
                    let (top, left, side) = hole;
                    for row in plane.chunks_exact_mut(self.width).skip(top).take(side) {
                        row[left..(left + side).min(self.width)].fill(*black);
                    }
                }
                Augment::Brightness { .. } => {
                    plane.iter_mut().for_each(|x| *x = ((*x - black) * factor + black).clamp(low, high));
                }
                Augment::Noise { std } => {
                    let std = std * (white - black);
                    plane.iter_mut().for_each(|x| *x = (*x + std * normal(generator)).clamp(low, high));
                }
                Augment::Shift { .. } | Augment::Rotate { .. } | Augment::Scale { .. } | Augment::Flip { .. } => {}
            }
        }
    }
}

/// Where pixels come from, of a step that moves them.
fn moved(step: Augment, generator: &mut ChaCha8Rng) -> Option<Affine> {
    Some(match step {
        Augment::Shift { pixels } => {
            let mut by = || below(generator, 2 * pixels + 1) as f32 - pixels as f32;
            Affine([1.0, 0.0, by(), 0.0, 1.0, by()])
        }
        Augment::Rotate { degrees } => Affine::turned(degrees * around(generator)),
        Augment::Scale { by } => Affine::grown(1.0 + by * around(generator)),
        Augment::Flip { axis } => {
            let turned = if unit(generator) < 0.5 { -1.0 } else { 1.0 };
            match axis {
                Axis::Horizontal => Affine([turned, 0.0, 0.0, 0.0, 1.0, 0.0]),
                Axis::Vertical => Affine([1.0, 0.0, 0.0, 0.0, turned, 0.0]),
            }
        }
        Augment::Erase { .. } | Augment::Brightness { .. } | Augment::Noise { .. } => return None,
    })
}

/// Uniform in `[-1, 1)`.
fn around(generator: &mut ChaCha8Rng) -> f32 {
    unit(generator) * 2.0 - 1.0
}

fn below(generator: &mut ChaCha8Rng, count: usize) -> usize {
    ((unit(generator) * count as f32) as usize).min(count.saturating_sub(1))
}

/// Box and Muller's.
fn normal(generator: &mut ChaCha8Rng) -> f32 {
    let (radius, angle) = (1.0 - unit(generator), unit(generator));
    (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANES: Planes<'_> = Planes { height: 5, width: 4, black: &[-1.0], white: &[3.0] };

    fn image() -> Vec<f32> {
        (0..20).map(|pixel| pixel as f32 / 5.0 - 1.0).collect()
    }

    fn augmented(steps: &[Augment], epoch: usize, sample: usize) -> Vec<f32> {
        let mut image = image();
        PLANES.augment(&mut image, steps, 7, epoch, sample);
        image
    }

    #[test]
    fn the_same_epoch_and_sample_draw_the_same_and_others_do_not() {
        let steps = [
            Augment::Shift { pixels: 2 },
            Augment::Rotate { degrees: 10.0 },
            Augment::Scale { by: 0.1 },
            Augment::Noise { std: 0.1 },
        ];
        assert_eq!(augmented(&steps, 1, 3), augmented(&steps, 1, 3));
        assert_ne!(augmented(&steps, 1, 3), augmented(&steps, 2, 3));
        assert_ne!(augmented(&steps, 1, 3), augmented(&steps, 1, 4));
        assert!(augmented(&steps, 1, 3).iter().all(|x| (-1.0..=3.0).contains(x)));
    }

    /// Each of the 25 shifts is met, and gives whole pixels with black behind them.
    #[test]
    fn shifts_are_whole_pixels_and_bring_black() {
        let mut met = std::collections::BTreeSet::new();
        for sample in 0..400 {
            let shifted = augmented(&[Augment::Shift { pixels: 2 }], 1, sample);
            let all = (-2..=2).flat_map(|dy| (-2..=2).map(move |dx| (dx, dy)));
            let fits = |&(dx, dy): &(i64, i64)| {
                (0..20_i64).all(|index| {
                    let (x, y) = (index % 4 + dx, index / 4 + dy);
                    let inside = (0..4).contains(&x) && (0..5).contains(&y);
                    shifted[index as usize] == if inside { image()[(y * 4 + x) as usize] } else { -1.0 }
                })
            };
            met.insert(all.into_iter().find(fits).expect("a whole shift"));
        }
        assert_eq!(met.len(), 25);
    }

    #[test]
    fn a_flip_mirrors_about_every_second_one() {
        let mirrored: Vec<f32> = image().chunks(4).flat_map(|row| row.iter().rev()).copied().collect();
        let flipped = (0..200).filter(|sample| {
            let got = augmented(&[Augment::Flip { axis: Axis::Horizontal }], 1, *sample);
            assert!(got == image() || got == mirrored);
            got == mirrored
        });
        assert!((80..120).contains(&flipped.count()));
    }

    fn resampled(side: usize, image: &[f32], from: Affine) -> Vec<f32> {
        let mut image = image.to_vec();
        Planes { height: side, width: side, black: &[0.0], white: &[1.0] }.resample(&mut image, from);
        image
    }

    fn near(got: &[f32], expected: &[f32]) {
        let far = got.iter().zip(expected).any(|(got, expected)| (got - expected).abs() > 1e-4);
        assert!(got.len() == expected.len() && !far, "{got:?}, not {expected:?}");
    }

    #[test]
    fn a_quarter_turn_puts_each_pixel_in_its_place() {
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        near(&resampled(3, &image, Affine::turned(90.0)), &[3.0, 6.0, 9.0, 2.0, 5.0, 8.0, 1.0, 4.0, 7.0]);
        near(&resampled(3, &image, Affine::turned(180.0)), &[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
    }

    /// Twice as large, the middles of a row's four pixels are read at ±1/4 and ±3/4 of a pixel from its own; half as large, all but
    /// two outside.
    #[test]
    fn a_block_grows_and_shrinks_about_the_middle() {
        let of = |row: [f32; 4]| row.iter().flat_map(|y| row.map(|x| x * y)).collect::<Vec<f32>>();
        let block = of([0.0, 1.0, 1.0, 0.0]);
        near(&resampled(4, &block, Affine::grown(2.0)), &of([0.75, 1.0, 1.0, 0.75]));
        near(&resampled(4, &of([1.0; 4]), Affine::grown(0.5)), &block);
    }

    #[test]
    fn turns_and_sizes_are_drawn_from_all_that_was_asked_for() {
        let drawn = |step| {
            (0..400).map(move |sample| {
                let Affine([a, _, _, d, ..]) = moved(step, &mut generator(7, &format!("{sample}"))).unwrap();
                (d.atan2(a).to_degrees(), 1.0 / a.hypot(d))
            })
        };
        let check = |all: Vec<f32>, least: f32, most: f32| {
            let (low, high) = all.iter().fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
            let edge = (most - least) / 20.0;
            assert!(
                low >= least - 1e-3 && low < least + edge && high <= most + 1e-3 && high > most - edge,
                "{low} {high}"
            );
        };
        check(drawn(Augment::Rotate { degrees: 30.0 }).map(|(turn, _)| turn).collect(), -30.0, 30.0);
        check(drawn(Augment::Scale { by: 0.2 }).map(|(_, size)| size).collect(), 0.8, 1.2);
    }

    /// Where white is 4 above black, a deviation of 0.1 is 0.4.
    #[test]
    fn noise_is_normal_about_zero_as_wide_as_asked() {
        const SIDE: usize = 100;
        let mut image = vec![1.0; SIDE * SIDE];
        let planes = Planes { height: SIDE, width: SIDE, black: &[-1.0], white: &[3.0] };
        planes.augment(&mut image, &[Augment::Noise { std: 0.1 }], 7, 1, 3);
        let mean = |of: &dyn Fn(f32) -> f32| image.iter().map(|x| of(x - 1.0)).sum::<f32>() / image.len() as f32;
        let (middle, deviation) = (mean(&|x| x), mean(&|x| x * x).sqrt());
        // 32 % of a normal distribution is farther away than its deviation.
        let far = mean(&|x| f32::from(u8::from(x.abs() > 0.4)));
        assert!(
            middle.abs() < 0.016 && (deviation - 0.4).abs() < 0.016 && (far - 0.317).abs() < 0.02,
            "{middle} {deviation} {far}"
        );
    }

    #[test]
    fn erased_is_black_and_brightness_keeps_black() {
        let black = |image: Vec<f32>| image.iter().filter(|x| **x == -1.0).count();
        let most = (0..50).map(|sample| black(augmented(&[Augment::Erase { pixels: 3 }], 1, sample))).max();
        assert!(most.is_some_and(|most| (4..=10).contains(&most)), "{most:?}");
        let brighter = augmented(&[Augment::Brightness { by: 0.5 }], 1, 1);
        assert_eq!(brighter[0], -1.0);
        assert_ne!(brighter, image());
    }
}
