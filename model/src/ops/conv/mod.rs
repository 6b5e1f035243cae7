//! Two-dimensional convolution, optionally rectified: small kernels directly, large ones as a product over patches.

mod direct;
mod patches;

use crate::graph::Pad;
use candle_core::{Result, Tensor};

/// Up to so many elements of a patch, writing the patches out costs more than the product over them saves.
const DIRECT: usize = 32;

/// Sizes of a convolution; pairs are `(height, width)`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub pad: Pad,
}

/// `xs` is `(batch, channels, height, width)`, `weight` `(filters, channels, kh, kw)`, `bias` `(filters)`.
///
/// `wants_dx` is false where `xs` is data: its gradient is then never computed.
pub fn conv2d(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    window: Window,
    relu: bool,
    wants_dx: bool,
) -> Result<Tensor> {
    let (_, channels, height, width) = xs.dims4()?;
    let geometry = Geometry::new(channels, (height, width), window);
    let xs = xs.contiguous()?;
    if geometry.patch() <= DIRECT && window.stride.1 == 1 {
        direct::conv2d(&xs, weight, bias, geometry, relu, wants_dx)
    } else {
        patches::conv2d(&xs, weight, bias, geometry, relu, wants_dx)
    }
}

#[derive(Clone, Copy)]
struct Geometry {
    channels: usize,
    size: (usize, usize),
    out: (usize, usize),
    window: Window,
}

impl Geometry {
    fn new(channels: usize, size: (usize, usize), window: Window) -> Self {
        let Window { kernel, stride, pad } = window;
        // The graph has been checked: the kernel fits.
        let out = (
            (size.0 + pad.top + pad.bottom - kernel.0) / stride.0 + 1,
            (size.1 + pad.left + pad.right - kernel.1) / stride.1 + 1,
        );
        Self { channels, size, out, window }
    }

    /// Elements of one patch, which are those of one filter.
    fn patch(&self) -> usize {
        self.channels * self.window.kernel.0 * self.window.kernel.1
    }

    /// Elements of one image.
    fn image(&self) -> usize {
        self.channels * self.size.0 * self.size.1
    }

    /// Elements of one filter's output for one image.
    fn plane(&self) -> usize {
        self.out.0 * self.out.1
    }

    /// Calls `each(element of the patch, start in the plane, start in the image, count)` for every run of outputs that meet
    /// the image with this element, side by side: `stride.1` apart in the image.
    fn runs(&self, mut each: impl FnMut(usize, usize, usize, usize)) {
        let Window { kernel, stride, pad } = self.window;
        let (height, width) = self.size;
        for element in 0..self.patch() {
            let (rest, kx) = (element / kernel.1, element % kernel.1);
            let (channel, ky) = (rest / kernel.0, rest % kernel.0);
            // Outputs `from..to` of a row meet columns 0..width of the image.
            let from = pad.left.saturating_sub(kx).div_ceil(stride.1);
            let to = (width + pad.left).saturating_sub(kx).div_ceil(stride.1).min(self.out.1);
            if from >= to {
                continue;
            }
            for oy in 0..self.out.0 {
                let y = (oy * stride.0 + ky).wrapping_sub(pad.top);
                if y < height {
                    let column = from * stride.1 + kx - pad.left;
                    each(element, oy * self.out.1 + from, (channel * height + y) * width + column, to - from);
                }
            }
        }
    }
}
