//! Images and the windows that slide over them. Layout is NHWC: the channels of a pixel lie together.

use std::ops::Range;

/// The shape of one image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl Image {
    /// Values in one image.
    pub fn len(&self) -> usize {
        self.height * self.width * self.channels
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a kernel or a pool slides: `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Top, left, bottom, right; each less than the kernel.
    pub padding: [usize; 4],
}

impl Window {
    /// The image that comes out, with the same channels.
    ///
    /// # Panics
    /// If the kernel is empty or larger than the padded image, the stride 0, or a padding as large as the kernel.
    pub fn output(&self, image: Image) -> Image {
        let side = |axis: usize, extent: usize| {
            let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
            let (before, after) = (self.padding[axis], self.padding[axis + 2]);
            assert!(stride > 0 && before < kernel && after < kernel, "no such window: {self:?}");
            assert!(extent > 0 && extent + before + after >= kernel, "{self:?} does not fit {image:?}");
            (extent + before + after - kernel) / stride + 1
        };
        Image { height: side(0, image.height), width: side(1, image.width), channels: image.channels }
    }

    /// The taps that lie inside, for the output at `index` along an axis of length `extent`, and the place of the first of them.
    #[inline(always)]
    pub(crate) fn inside(&self, axis: usize, index: usize, extent: usize) -> (Range<usize>, usize) {
        let start = index * self.stride[axis];
        let skipped = self.padding[axis].saturating_sub(start).min(self.kernel[axis]);
        let first = (start + skipped).saturating_sub(self.padding[axis]);
        let count = (self.kernel[axis] - skipped).min(extent.saturating_sub(first));
        (skipped..skipped + count, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_outside_the_image_are_left_out() {
        let window = Window { kernel: [3, 3], stride: [2, 1], padding: [1, 2, 1, 0] };
        let image = Image { height: 5, width: 4, channels: 7 };
        assert_eq!(window.output(image), Image { height: 3, width: 4, channels: 7 });
        assert_eq!(window.inside(0, 0, 5), (1..3, 0));
        assert_eq!(window.inside(0, 1, 5), (0..3, 1));
        assert_eq!(window.inside(0, 2, 5), (0..2, 3));
        assert_eq!(window.inside(1, 0, 4), (2..3, 0));
        assert_eq!(window.inside(1, 3, 4), (0..3, 1));
    }

    #[test]
    #[should_panic = "does not fit"]
    fn kernel_larger_than_the_image_is_refused() {
        let window = Window { kernel: [3, 3], stride: [1, 1], padding: [0; 4] };
        window.output(Image { height: 3, width: 2, channels: 1 });
    }
}
