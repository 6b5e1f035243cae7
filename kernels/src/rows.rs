//! The left side of a product: rows of values, wherever they lie.

use std::ops::Range;

use crate::shape::{Image, Window};

/// The offset of a tap that lies in the padding.
pub const PADDING: u32 = u32::MAX;

/// So many values can be read behind ample rows.
pub const AMPLE: usize = 3;

/// Rows of `taps * depth` values each. A row is put together of `taps` runs, so a convolution is a product without a copy.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    values: &'a [T],
    /// Rows before these, which others take.
    first: usize,
    count: usize,
    depth: usize,
    place: Place<'a, T>,
    /// What follows a run may be read as well, up to four values together.
    ample: bool,
}

#[derive(Clone, Copy, Debug)]
enum Place<'a, T> {
    Strided(usize),
    Indirect { taps: &'a Taps, zero: &'a [T] },
}

impl<'a, T: Copy> Rows<'a, T> {
    /// Rows of `depth` values, one after the other.
    ///
    /// # Panics
    /// If the last row is not whole.
    pub fn dense(values: &'a [T], depth: usize) -> Self {
        assert!(depth > 0 && values.len().is_multiple_of(depth), "{} values are no rows of {depth}", values.len());
        Self::strided(values, values.len() / depth, depth, depth)
    }

    /// `count` rows of `depth` values that begin `stride` apart.
    ///
    /// # Panics
    /// If `values` ends before the last row does.
    pub fn strided(values: &'a [T], count: usize, depth: usize, stride: usize) -> Self {
        let reach = count.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(depth));
        assert!(reach.is_some_and(|reach| reach <= values.len()), "{} values are too few", values.len());
        Self { values, first: 0, count, depth, place: Place::Strided(stride), ample: false }
    }

    /// The rows that `taps` puts together from each image of a batch. `zero` stands in the padding: zeros, or the zero point.
    ///
    /// # Panics
    /// If the last image is not whole, or `zero` shorter than a tap.
    pub fn indirect(values: &'a [T], taps: &'a Taps, zero: &'a [T]) -> Self {
        assert!(values.len().is_multiple_of(taps.extent), "{} values are no images of {}", values.len(), taps.extent);
        assert!(zero.len() >= taps.depth, "the zero row is shorter than a tap");
        let count = values.len() / taps.extent * taps.rows();
        Self { values, first: 0, count, depth: taps.depth, place: Place::Indirect { taps, zero }, ample: false }
    }

    /// The same in a buffer that goes on for at least three values behind the first `len`, which are the images; so does `zero`,
    /// behind a tap. The ends of runs that are no multiple of four are then read at once.
    ///
    /// # Panics
    /// As [`Rows::indirect`], or if either ends too early.
    pub fn ample(buffer: &'a [T], len: usize, taps: &'a Taps, zero: &'a [T]) -> Self {
        let reach = |len: usize| len.checked_add(AMPLE);
        assert!(
            reach(len).is_some_and(|reach| reach <= buffer.len()),
            "{} values and no more behind {len}",
            buffer.len()
        );
        assert!(reach(taps.depth).is_some_and(|reach| reach <= zero.len()), "the zero row ends with a tap");
        Self { ample: true, ..Self::indirect(&buffer[..len], taps, zero) }
    }

    /// Some of these rows.
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.count, "{rows:?} of {} rows", self.count);
        Self { first: self.first + rows.start, count: rows.len(), ..*self }
    }

    /// All that they are taken from.
    #[inline(always)]
    pub(crate) fn values(&self) -> &'a [T] {
        self.values
    }

    pub(crate) fn is_ample(&self) -> bool {
        self.ample
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Values in one run.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn taps(&self) -> usize {
        match self.place {
            Place::Strided(_) => 1,
            Place::Indirect { taps, .. } => taps.taps,
        }
    }

    /// Whether the pixels of a pool's window follow each other.
    pub(crate) fn are_of_windows(&self) -> bool {
        matches!(self.place, Place::Indirect { taps: Taps { of_windows: true, .. }, .. })
    }

    /// The `R` rows from `row` on.
    ///
    /// # Safety
    /// They exist.
    #[inline(always)]
    pub(crate) unsafe fn few<const R: usize>(&self, row: usize) -> Few<T, R> {
        let (row, start, zero) = (self.first + row, self.values.as_ptr(), self.values.as_ptr());
        let mut few = Few { starts: [start; R], offsets: [&raw const ONE_RUN; R], zero };
        match self.place {
            Place::Strided(stride) => {
                for (r, start) in few.starts.iter_mut().enumerate() {
                    // SAFETY: the last row that exists ends inside `values`; this was checked when the rows were made.
                    *start = unsafe { start.add((row + r) * stride) };
                }
            }
            Place::Indirect { taps, zero } => {
                few.zero = zero.as_ptr();
                let (mut image, mut within) = (row / taps.rows(), row % taps.rows());
                for (start, offsets) in few.starts.iter_mut().zip(&mut few.offsets) {
                    // SAFETY: `values` holds whole images, and `within` is one of the rows that each of them gives.
                    unsafe {
                        *start = start.add(image * taps.extent);
                        *offsets = taps.offsets.as_ptr().add(within * taps.taps);
                    }
                    within += 1;
                    if within == taps.rows() {
                        (image, within) = (image + 1, 0);
                    }
                }
            }
        }
        few
    }
}

/// The offset of the only run of a row that is not put together.
static ONE_RUN: u32 = 0;

/// A few rows of a product.
pub(crate) struct Few<T, const R: usize> {
    starts: [*const T; R],
    offsets: [*const u32; R],
    zero: *const T,
}

impl<T, const R: usize> Few<T, R> {
    /// Where tap `tap` of each row begins; it is `depth` values long.
    ///
    /// # Safety
    /// There is such a tap.
    #[inline(always)]
    pub(crate) unsafe fn lines(&self, tap: usize) -> [*const T; R] {
        let mut lines = self.starts;
        for (line, offsets) in lines.iter_mut().zip(self.offsets) {
            // SAFETY: each row has as many offsets as taps, and each was checked against the extent of an image.
            let offset = unsafe { *offsets.add(tap) };
            *line = if offset == PADDING { self.zero } else { line.wrapping_add(offset as usize) };
        }
        lines
    }
}

/// From where in an image each row takes its runs. Made once per layer.
#[derive(Clone, Debug)]
pub struct Taps {
    offsets: Vec<u32>,
    rows: usize,
    taps: usize,
    depth: usize,
    extent: usize,
    /// The pixels of a pool's window follow each other, else those of a line.
    of_windows: bool,
}

impl Taps {
    /// `offsets` holds `taps` per row, each the start of `depth` values in an image of `extent` values, or [`PADDING`].
    ///
    /// # Panics
    /// If there is no whole row, or a run leaves the image.
    pub fn new(offsets: Vec<u32>, taps: usize, depth: usize, extent: usize) -> Self {
        assert!(taps > 0 && !offsets.is_empty() && offsets.len().is_multiple_of(taps), "offsets: {taps} for each row");
        let inside = |offset: &u32| *offset == PADDING || (*offset as usize).saturating_add(depth) <= extent;
        assert!(extent > 0 && offsets.iter().all(inside), "a tap of {depth} leaves the image of {extent}");
        Self { rows: offsets.len() / taps, offsets, taps, depth, extent, of_windows: false }
    }

    /// A convolution: one row per output pixel, its values in the order (kernel row, kernel column, channel). Without padding at
    /// the sides a run is a whole row of the kernel, else one pixel.
    ///
    /// # Panics
    /// As [`Window::output`], or if an image has 2³² values or more.
    pub fn convolution(image: Image, window: &Window) -> Self {
        let output = window.output(image);
        let pixels = (0..output.height).flat_map(|y| (0..output.width).map(move |x| (y, x)));
        Self::of_pixels(image, window, pixels)
    }

    /// The same for these pixels `(y, x)` of the output, in the order of a pool's windows.
    pub(crate) fn of_windows(image: Image, window: &Window, pixels: impl Iterator<Item = (usize, usize)>) -> Self {
        Self { of_windows: true, ..Self::of_pixels(image, window, pixels) }
    }

    /// One row for each of these pixels `(y, x)` of the output.
    fn of_pixels(image: Image, window: &Window, pixels: impl Iterator<Item = (usize, usize)>) -> Self {
        assert!(u32::try_from(image.len()).is_ok_and(|len| len < PADDING), "{image:?} is too large");
        let run = if window.padding[1] + window.padding[3] == 0 { window.kernel[1] } else { 1 };
        let mut offsets = Vec::new();
        for (y, x) in pixels {
            for tap in 0..window.kernel[0] {
                for column in (0..window.kernel[1]).step_by(run) {
                    let row = (y * window.stride[0] + tap).checked_sub(window.padding[0]);
                    let column = (x * window.stride[1] + column).checked_sub(window.padding[1]);
                    offsets.push(match (row, column) {
                        (Some(row), Some(column)) if row < image.height && column < image.width => {
                            ((row * image.width + column) * image.channels) as u32
                        }
                        _ => PADDING,
                    });
                }
            }
        }
        offsets.shrink_to_fit();
        let taps = window.kernel[0] * window.kernel[1] / run;
        Self::new(offsets, taps, run * image.channels, image.len())
    }

    /// Rows that one image gives.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// In memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.offsets[..])
    }

    /// Runs in a row.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Values in a run.
    pub fn depth(&self) -> usize {
        self.depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolution_takes_whole_kernel_rows_where_no_side_is_padded() {
        let image = Image { height: 3, width: 4, channels: 2 };
        let valid = Taps::convolution(image, &Window { kernel: [2, 3], stride: [1, 1], padding: [0; 4] });
        assert_eq!((valid.offsets, valid.taps, valid.depth), (vec![0, 8, 2, 10, 8, 16, 10, 18], 2, 6));
        let same = Taps::convolution(image, &Window { kernel: [1, 3], stride: [3, 3], padding: [0, 1, 0, 1] });
        assert_eq!((same.offsets, same.taps, same.depth), (vec![PADDING, 0, 2, 4, 6, PADDING], 3, 2));
    }

    #[test]
    #[should_panic = "leaves the image"]
    fn run_that_leaves_the_image_is_refused() {
        Taps::new(vec![0, 5], 1, 4, 8);
    }

    #[test]
    #[should_panic = "too few"]
    fn row_that_is_not_whole_is_refused() {
        Rows::strided(&[0.0; 10], 3, 4, 4);
    }
}
