//! Two layers over an image in one pass: lines of the first are made as windows of the second need them, and lie in a ring that a cache
//! holds.

use std::ops::Range;

use crate::shape::{Image, Window};

/// Tasks of one image, at most: each makes the lines again that its first window shares with the task before.
pub(crate) const BANDS: usize = 4;

/// How the second layer goes over what the first makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strips {
    /// What the first makes.
    pub image: Image,
    /// Of the second.
    pub window: Window,
    /// Lines of the output that are taken at once: as many as leave what they read in the cache.
    at_once: usize,
}

impl Strips {
    /// For a ring of about so many `values`.
    ///
    /// # Panics
    /// As [`Window::output`].
    pub fn new(window: Window, image: Image, values: usize) -> Self {
        window.output(image);
        let fit = values / (image.width * image.channels).max(1);
        let at_once = fit.saturating_sub(window.kernel[0]) / window.stride[0] + 1;
        Self { image, window, at_once }
    }

    pub fn output(&self) -> Image {
        self.window.output(self.image)
    }

    /// Values of a line of the first.
    pub fn line(&self) -> usize {
        self.image.width * self.image.channels
    }

    /// Lines of the first that one task holds.
    pub fn held(&self) -> usize {
        ((self.at_once - 1) * self.window.stride[0] + self.window.kernel[0]).min(self.image.height)
    }

    /// Their values.
    pub fn ring(&self) -> usize {
        self.held() * self.line()
    }

    /// Makes these lines of the output, in the ring of a task: `make` lines of the first, which belong together into the ring, so many
    /// from one on; and then `take` what one line of the output needs.
    pub fn walk(
        &self,
        lines: Range<usize>,
        ring: &mut [f32],
        make: impl Fn(&mut [f32], Range<usize>),
        take: impl Fn(&[f32], usize),
    ) {
        let (held, line, height) = (self.held(), self.line(), self.image.height);
        let mut there = 0;
        for first in lines.clone().step_by(self.at_once) {
            let last = lines.end.min(first + self.at_once) - 1;
            let (rows, top) = self.window.inside(0, last, height);
            let end = top + rows.len();
            let mut next = there.max(self.window.inside(0, first, height).1);
            while next < end {
                // As far as the ring goes before it begins again.
                let count = (end - next).min(held - next % held);
                make(&mut ring[next % held * line..][..count * line], next..next + count);
                next += count;
            }
            there = end;
            (first..=last).for_each(|y| take(ring, y));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line of the ring says of which line of the first it is.
    fn check(strips: &Strips, lines: Range<usize>) {
        let mut ring = vec![f32::NAN; strips.ring()];
        let held = strips.held();
        let make = |made: &mut [f32], lines: Range<usize>| {
            assert_eq!(made.len(), lines.len());
            made.iter_mut().zip(lines).for_each(|(made, line)| *made = line as f32);
        };
        let taken = std::cell::Cell::new(lines.start);
        strips.walk(lines.clone(), &mut ring, make, |ring, y| {
            let (rows, top) = strips.window.inside(0, y, strips.image.height);
            for line in top..top + rows.len() {
                assert_eq!(ring[line % held], line as f32, "{strips:?}: line {line} for {y} of {lines:?}");
            }
            assert_eq!(taken.replace(y + 1), y);
        });
        assert_eq!(taken.get(), lines.end);
    }

    #[test]
    fn each_line_of_the_output_finds_the_lines_under_its_window() {
        for (height, kernel, stride, values) in
            [(1, 1, 1, 0), (7, 3, 1, 3), (12, 3, 2, 5), (12, 2, 4, 6), (11, 4, 3, 9)].into_iter().chain(
                (1..13).flat_map(|height| {
                    (1..5).map(move |kernel| (height, kernel, height % 4 + 1, height * kernel % 11))
                }),
            )
        {
            for (top, bottom) in (0..kernel).flat_map(|top| (0..kernel).map(move |bottom| (top, bottom))) {
                if height + top + bottom < kernel {
                    continue;
                }
                let window = Window { kernel: [kernel, 1], stride: [stride, 1], padding: [top, 0, bottom, 0] };
                let strips = Strips::new(window, Image { height, width: 1, channels: 1 }, values);
                let lines = strips.output().height;
                for band in 1..=lines {
                    (0..lines).step_by(band).for_each(|first| check(&strips, first..lines.min(first + band)));
                }
            }
        }
    }
}
