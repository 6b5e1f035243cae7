//! Residual blocks as plain layers: `NAME_1_conv1`, `NAME_1_conv1_bn`, … `NAME_1_add`, and so on for each repetition.

use super::infer::Place;
use super::wire::Wiring;
use super::{
    Activation, Add, ArchitectureError as Error, Block, Conv2d, DepthwiseConv2d, Kind, Padding, Pair, Residual,
    SeparableConv2d,
};
use crate::graph::Source;

impl Wiring {
    /// All blocks of a layer; returns what the last one gives.
    pub(super) fn residual(&mut self, place: &Place, residual: &Residual, xs: Source) -> Result<Source, Error> {
        place.positive("filters", residual.filters)?;
        place.positive("stride", residual.stride)?;
        place.positive("repeat", residual.repeat)?;
        if residual.block != Block::Inverted
            && let Some(expand) = residual.expand
        {
            return Err(place.value("expand", expand, "block inverted, or no expand"));
        }
        place.positive("expand", residual.expand.unwrap_or(1))?;
        if residual.block == Block::Bottleneck && !residual.filters.is_multiple_of(4) {
            return Err(place.value("filters", residual.filters, "a multiple of 4: a bottleneck has a quarter inside"));
        }
        let mut ys = xs;
        for number in 1..=residual.repeat {
            let stride = if number == 1 { residual.stride } else { 1 };
            ys = self.block(&place.part(&number.to_string()), residual, stride, ys)?;
        }
        Ok(ys)
    }

    /// `NAME_depthwise`, and `NAME_pointwise` with all that follows.
    pub(super) fn separable(&mut self, place: &Place, conv: &SeparableConv2d, xs: Source) -> Result<Source, Error> {
        let SeparableConv2d { filters, kernel, stride, padding, use_bias, batch_norm, activation } = *conv;
        let depthwise = DepthwiseConv2d {
            kernel,
            stride,
            padding,
            multiplier: 1,
            use_bias: Some(false),
            batch_norm: false,
            activation: Activation::None,
        };
        let pointwise = Conv2d {
            filters,
            kernel: Pair::Both(1),
            stride: Pair::Both(1),
            padding: Padding::Valid,
            dilation: Pair::Both(1),
            groups: 1,
            use_bias,
            batch_norm,
            activation,
        };
        let between = self.layer(&place.part("depthwise"), &Kind::DepthwiseConv2d(depthwise), vec![xs])?;
        self.layer(&place.part("pointwise"), &Kind::Conv2d(pointwise), vec![between])
    }

    fn block(&mut self, place: &Place, residual: &Residual, stride: usize, xs: Source) -> Result<Source, Error> {
        let filters = residual.filters;
        let (channels, _) = place.image("residual", self.shape(xs))?;
        let same = stride == 1 && channels == filters;
        let relu = Activation::Relu;
        let conv = |filters, kernel, stride, activation| {
            Kind::Conv2d(Conv2d {
                filters,
                kernel: Pair::Both(kernel),
                stride: Pair::Both(stride),
                padding: Padding::Zeros(kernel / 2),
                dilation: Pair::Both(1),
                groups: 1,
                use_bias: None,
                batch_norm: true,
                activation,
            })
        };
        let mut push = |name: &str, kind: Kind, xs: Source| self.layer(&place.part(name), &kind, vec![xs]);
        let mut ys = xs;
        // The way around comes first, so that the last convolution of a block can add it as it goes.
        let around = match residual.block {
            Block::Inverted => xs,
            _ if same => xs,
            _ => push("shortcut", conv(filters, 1, stride, Activation::None), xs)?,
        };
        match residual.block {
            Block::Basic => {
                ys = push("conv1", conv(filters, 3, stride, relu), ys)?;
                ys = push("conv2", conv(filters, 3, 1, Activation::None), ys)?;
            }
            Block::Bottleneck => {
                ys = push("conv1", conv(filters / 4, 1, 1, relu), ys)?;
                ys = push("conv2", conv(filters / 4, 3, stride, relu), ys)?;
                ys = push("conv3", conv(filters, 1, 1, Activation::None), ys)?;
            }
            Block::Inverted => {
                let expand = residual.expand.unwrap_or(6);
                if expand > 1 {
                    ys = push("expand", conv(channels.saturating_mul(expand), 1, 1, Activation::Relu6), ys)?;
                }
                let depthwise = DepthwiseConv2d {
                    kernel: Pair::Both(3),
                    stride: Pair::Both(stride),
                    padding: Padding::Zeros(1),
                    multiplier: 1,
                    use_bias: None,
                    batch_norm: true,
                    activation: Activation::Relu6,
                };
                ys = push("depthwise", Kind::DepthwiseConv2d(depthwise), ys)?;
                ys = push("project", conv(filters, 1, 1, Activation::None), ys)?;
            }
        }
        let activation = match residual.block {
            Block::Inverted if !same => return Ok(ys),
            Block::Inverted => Activation::None,
            Block::Basic | Block::Bottleneck => relu,
        };
        self.layer(&place.part("add"), &Kind::Add(Add { activation }), vec![ys, around])
    }
}
