//! Two-dimensional convolution, optionally rectified: small kernels directly, those of 3×3 in tiles, others as a product over patches.

mod direct;
mod product;
mod tiles;

use super::activation::{self, activate, is_rectifier, through};
use super::record::{elements, learns, like, record};
use crate::architecture::Activation;
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
    pub dilation: (usize, usize),
    /// Channels and filters fall into so many parts, each of which knows nothing of the others.
    pub groups: usize,
}

/// `xs` is `(batch, channels, height, width)`, `weight` `(filters, channels / groups, kh, kw)`, `bias` `(filters)`.
///
/// Where `xs` is data, its gradient is never computed.
pub fn conv2d(xs: &Tensor, weight: &Tensor, bias: &Tensor, window: Window, activation: Activation) -> Result<Tensor> {
    let (batch, channels, height, width) = xs.dims4()?;
    let geometry = Geometry::new(channels, weight.dim(0)?, (height, width), window);
    let (xs, weight) = (xs.contiguous()?, weight.contiguous()?);
    let fused = if is_rectifier(activation) { activation } else { Activation::None };
    let biases = elements(&bias.contiguous()?)?.to_vec();
    let mut ys = geometry.forward(&elements(&xs)?, &elements(&weight)?, &biases, batch)?;
    activation::apply(fused, &mut ys)?;
    let shape = (batch, geometry.filters, geometry.out.0, geometry.out.1);
    let ys = record("conv2d", [&xs, &weight, bias], ys, shape, move |[xs, weight, bias], ys, gradient| {
        let gradient = elements(gradient)?;
        let before = through(fused, &gradient, &elements(ys)?)?;
        let (dx, dw) = geometry.backward(&elements(xs)?, &elements(weight)?, &before, (learns(xs), learns(weight)))?;
        let db = learns(bias).then(|| geometry.filter_sums(&before));
        let given = |values: Option<Vec<f32>>, of| values.map_or(Ok(None), |values| like(values, of));
        Ok([given(dx, xs)?, given(dw, weight)?, given(db, bias)?])
    })?;
    activate(&ys, if fused == activation { Activation::None } else { activation })
}

/// Of the images, and of the weights.
type Gradients = (Option<Vec<f32>>, Option<Vec<f32>>);

#[derive(Clone, Copy)]
struct Geometry {
    /// Of one group.
    channels: usize,
    /// Of all.
    filters: usize,
    size: (usize, usize),
    out: (usize, usize),
    window: Window,
}

impl Geometry {
    fn new(channels: usize, filters: usize, size: (usize, usize), window: Window) -> Self {
        let Window { kernel, stride, pad, dilation, groups } = window;
        // The graph has been checked: the kernel fits.
        let out = |size, pads, kernel, dilation, stride| (size + pads - dilation * (kernel - 1) - 1) / stride + 1;
        let out = (
            out(size.0, pad.top + pad.bottom, kernel.0, dilation.0, stride.0),
            out(size.1, pad.left + pad.right, kernel.1, dilation.1, stride.1),
        );
        Self { channels: channels / groups, filters, size, out, window }
    }

    /// Elements of one patch, which are those of one filter.
    fn patch(&self) -> usize {
        self.channels * self.window.kernel.0 * self.window.kernel.1
    }

    /// Elements of one group of one image.
    fn image(&self) -> usize {
        self.channels * self.size.0 * self.size.1
    }

    /// Elements of one filter's output for one image.
    fn plane(&self) -> usize {
        self.out.0 * self.out.1
    }

    /// Filters of one group.
    fn share(&self) -> usize {
        self.filters / self.window.groups
    }

    /// Whether a patch is a pixel.
    fn is_pointwise(&self) -> bool {
        self.window.kernel == (1, 1) && self.window.stride == (1, 1) && self.window.pad == Pad::default()
    }

    /// Never where tiles suit: those are of 32 channels and filters, at least.
    fn is_direct(&self) -> bool {
        self.patch() <= DIRECT && self.share() < 4 && !self.is_pointwise()
    }

    fn forward(&self, xs: &[f32], weight: &[f32], biases: &[f32], batch: usize) -> Result<Vec<f32>> {
        if tiles::suits(self, batch) {
            return tiles::forward(self, xs, weight, biases);
        }
        let mut ys = Vec::with_capacity(batch * self.filters * self.plane());
        for bias in biases.iter().cycle().take(batch * self.filters) {
            ys.extend(std::iter::repeat_n(*bias, self.plane()));
        }
        if self.is_direct() {
            direct::forward(self, xs, weight, &mut ys);
        } else {
            product::forward(self, xs, weight, &mut ys);
        }
        Ok(ys)
    }

    /// Those that are asked for.
    fn backward(&self, xs: &[f32], weight: &[f32], gradient: &[f32], asked: (bool, bool)) -> Result<Gradients> {
        if tiles::suits(self, gradient.len() / (self.filters * self.plane())) {
            return tiles::backward(self, xs, weight, gradient, asked);
        }
        let mut dx = asked.0.then(|| vec![0.0; xs.len()]);
        let mut dw = asked.1.then(|| vec![0.0; weight.len()]);
        let into = (dx.as_deref_mut(), dw.as_deref_mut());
        if self.is_direct() {
            direct::backward(self, xs, weight, gradient, into);
        } else {
            product::backward(self, xs, weight, gradient, into);
        }
        Ok((dx, dw))
    }

    fn filter_sums(&self, gradient: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0; self.filters];
        for (index, plane) in gradient.chunks_exact(self.plane()).enumerate() {
            sums[index % self.filters] += plane.iter().sum::<f32>();
        }
        sums
    }

    /// Calls `each(element of the patch, start in the plane, start in the image, count)` for every run of outputs that meet
    /// the image with this element, side by side: `stride.1` apart in the image.
    fn runs(&self, mut each: impl FnMut(usize, usize, usize, usize)) {
        let Window { kernel, stride, pad, dilation, .. } = self.window;
        let (height, width) = self.size;
        for element in 0..self.patch() {
            let (rest, kx) = (element / kernel.1, element % kernel.1 * dilation.1);
            let (channel, ky) = (rest / kernel.0, rest % kernel.0 * dilation.0);
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
