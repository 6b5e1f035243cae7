//! Shape inference of one layer: every product is checked, every size bounded.

use super::{
    Activation, ArchitectureError as Error, BatchNorm, Conv1d, Conv2d, Dense, DepthwiseConv2d, Embedding, Kind,
    LayerNorm, Padding, Pair, Pool1d, Pool2d, Recurrent as Typed,
};
use crate::graph::{Cell, Init, Node, Op, Pad, Parameter, Recurrent, Role};

pub(super) const MAX_ACTIVATION: usize = 1 << 26;

/// Where in the list a layer stands.
pub(super) struct Place {
    pub index: usize,
    pub name: String,
    pub last: bool,
}

impl Place {
    /// A layer that this one is expanded into.
    pub(super) fn part(&self, part: &str) -> Place {
        Place { name: format!("{}_{part}", self.name), ..*self }
    }

    /// The node of a layer that reads what has these shapes; who that is, is left to the caller.
    pub(super) fn node(&self, kind: &Kind, shapes: &[&[usize]]) -> Result<Node, Error> {
        let before = shapes[0];
        match kind {
            Kind::Conv2d(conv) => self.conv2d(conv, before),
            Kind::DepthwiseConv2d(conv) => self.depthwise_conv2d(conv, before),
            Kind::Conv1d(conv) => self.conv1d(conv, before),
            Kind::MaxPool2d(pool) | Kind::AvgPool2d(pool) => self.pool2d(kind, pool, before),
            Kind::MaxPool1d(pool) => self.max_pool1d(pool, before),
            Kind::GlobalAvgPool {} | Kind::GlobalMaxPool {} | Kind::StatsPool {} => self.global_pool(kind, before),
            Kind::LayerNorm(norm) => self.layer_norm(norm, before),
            Kind::Reshape(reshape) => self.reshape(&reshape.shape, before),
            Kind::Embedding(embedding) => self.embedding(embedding, before),
            Kind::Concat(concat) => self.concat(concat.axis, shapes),
            Kind::Upsample2d(upsample) => self.upsample2d(upsample.factor, before),
            Kind::BatchNorm(norm) => self.batch_norm(norm, Activation::None, before),
            Kind::Flatten {} => {
                let size = self.bounded(before, MAX_ACTIVATION, "activation")?;
                Ok(self.plain(Op::Flatten, vec![size]))
            }
            Kind::Dense(dense) => self.dense(dense, before),
            Kind::Activation(activation) => {
                self.softmax_is_last(*activation)?;
                Ok(self.plain(Op::Activation(*activation), before.to_vec()))
            }
            Kind::Dropout(dropout) if (0.0..1.0).contains(&dropout.rate) => {
                Ok(self.plain(Op::Dropout { rate: dropout.rate }, before.to_vec()))
            }
            Kind::Dropout(dropout) => Err(self.value("rate", dropout.rate, "a share in [0, 1)")),
            Kind::Rnn(typed) => self.recurrent(Cell::Rnn, kind, typed, before),
            Kind::Gru(typed) => self.recurrent(Cell::Gru, kind, typed, before),
            Kind::Lstm(typed) => self.recurrent(Cell::Lstm, kind, typed, before),
            Kind::Add(add) => self.add(add.activation, shapes),
            // Expanded into the others before it comes here.
            Kind::SeparableConv2d(_) => Err(self.rank("separableConv2d", before, "it is no single layer")),
            Kind::Residual(_) => Err(self.rank("residual", before, "a block is no single layer")),
        }
    }

    fn conv2d(&self, conv: &Conv2d, before: &[usize]) -> Result<Node, Error> {
        let (channels, size) = self.image("conv2d", before)?;
        self.positive("filters", conv.filters)?;
        let (kernel, stride, dilation) = (conv.kernel.sizes(), conv.stride.sizes(), conv.dilation.sizes());
        self.positive("groups", conv.groups)?;
        for (what, got) in [("channels", channels), ("filters", conv.filters)] {
            if !got.is_multiple_of(conv.groups) {
                let (index, name, groups) = (self.index, self.name.clone(), conv.groups);
                return Err(Error::Groups { index, name, groups, what, got });
            }
        }
        if conv.groups > 1 && (conv.groups, conv.filters, dilation) == (channels, channels, (1, 1)) {
            let Conv2d { kernel, stride, padding, use_bias, batch_norm, activation, .. } = *conv;
            let conv = DepthwiseConv2d { kernel, stride, padding, multiplier: 1, use_bias, batch_norm, activation };
            return self.depthwise_conv2d(&conv, before);
        }
        self.softmax_is_last(conv.activation)?;
        let (pad, (height, width)) = self.windows("kernel", size, kernel, stride, dilation, conv.padding)?;
        let area = kernel.0.saturating_mul(kernel.1);
        let seen = channels / conv.groups;
        let fan_out = (conv.filters / conv.groups).saturating_mul(area);
        let init = Init::GlorotUniform { fan_in: seen.saturating_mul(area), fan_out };
        let weight = vec![conv.filters, seen, kernel.0, kernel.1];
        let op = Op::Conv2d { kernel, stride, pad, dilation, groups: conv.groups, activation: conv.activation };
        Ok(Node {
            flops: product(&[2, height, width]).saturating_mul(product(&weight)),
            parameters: self.weight_and_bias(weight, conv.use_bias.unwrap_or(true).then_some(conv.filters), init),
            ..self.plain(op, vec![conv.filters, height, width])
        })
    }

    fn depthwise_conv2d(&self, conv: &DepthwiseConv2d, before: &[usize]) -> Result<Node, Error> {
        let (channels, size) = self.image("depthwiseConv2d", before)?;
        self.positive("multiplier", conv.multiplier)?;
        if conv.multiplier > 1 {
            let DepthwiseConv2d { kernel, stride, padding, multiplier, use_bias, batch_norm, activation } = *conv;
            let (filters, dilation) = (channels.saturating_mul(multiplier), Pair::Both(1));
            let conv = Conv2d {
                filters,
                kernel,
                stride,
                padding,
                dilation,
                groups: channels,
                use_bias,
                batch_norm,
                activation,
            };
            return self.conv2d(&conv, before);
        }
        let (kernel, stride) = (conv.kernel.sizes(), conv.stride.sizes());
        self.softmax_is_last(conv.activation)?;
        let (pad, (height, width)) = self.windows("kernel", size, kernel, stride, (1, 1), conv.padding)?;
        let area = kernel.0.saturating_mul(kernel.1);
        let weight = vec![channels, 1, kernel.0, kernel.1];
        let op = Op::DepthwiseConv2d { kernel, stride, pad, activation: conv.activation };
        Ok(Node {
            flops: product(&[2, height, width]).saturating_mul(product(&weight)),
            parameters: self.weight_and_bias(
                weight,
                conv.use_bias.unwrap_or(true).then_some(channels),
                Init::GlorotUniform { fan_in: area, fan_out: area },
            ),
            ..self.plain(op, vec![channels, height, width])
        })
    }

    fn conv1d(&self, conv: &Conv1d, before: &[usize]) -> Result<Node, Error> {
        let (time, features) = self.sequence("conv1d", before)?;
        self.positive("filters", conv.filters)?;
        self.softmax_is_last(conv.activation)?;
        self.positive("dilation", conv.dilation)?;
        let reach = reach(conv.kernel, conv.dilation);
        self.slides("kernel", conv.kernel, conv.stride, conv.padding)?;
        let axis = axis(time, reach, conv.stride, conv.padding);
        let (before, after, steps) = axis.ok_or_else(|| self.kernel((conv.kernel, 1), (time, 1), conv.padding))?;
        self.bounded(&[steps, conv.kernel], MAX_ACTIVATION, "windows")?;
        let init = Init::GlorotUniform {
            fan_in: features.saturating_mul(conv.kernel),
            fan_out: conv.filters.saturating_mul(conv.kernel),
        };
        let weight = vec![conv.filters, features, conv.kernel];
        let pad = (before, after);
        let (kernel, stride, dilation) = (conv.kernel, conv.stride, conv.dilation);
        let op = Op::Conv1d { kernel, stride, pad, dilation, activation: conv.activation };
        Ok(Node {
            flops: product(&[2, steps]).saturating_mul(product(&weight)),
            parameters: self.weight_and_bias(weight, conv.use_bias.unwrap_or(true).then_some(conv.filters), init),
            ..self.plain(op, vec![steps, conv.filters])
        })
    }

    fn pool2d(&self, kind: &Kind, pool: &Pool2d, before: &[usize]) -> Result<Node, Error> {
        let (channels, area) = self.image(kind.key(), before)?;
        let size = pool.size.sizes();
        let stride = pool.stride.unwrap_or(pool.size).sizes();
        let (pad, (height, width)) = self.windows("size", area, size, stride, (1, 1), pool.padding)?;
        let op = match kind {
            Kind::AvgPool2d(_) => Op::AvgPool2d { size, stride, pad },
            _ => Op::MaxPool2d { size, stride, pad },
        };
        let flops = product(&[channels, height, width, size.0, size.1]);
        Ok(Node { flops, ..self.plain(op, vec![channels, height, width]) })
    }

    fn max_pool1d(&self, pool: &Pool1d, before: &[usize]) -> Result<Node, Error> {
        let (time, features) = self.sequence("maxPool1d", before)?;
        let (size, stride) = (pool.size, pool.stride.unwrap_or(pool.size));
        self.is_not_causal(pool.padding)?;
        self.slides("size", size, stride, pool.padding)?;
        let axis = axis(time, size, stride, pool.padding);
        let (before, after, steps) = axis.ok_or_else(|| self.kernel((size, 1), (time, 1), pool.padding))?;
        self.bounded(&[steps, size], MAX_ACTIVATION, "windows")?;
        let op = Op::MaxPool1d { size, stride, pad: (before, after) };
        Ok(Node { flops: product(&[steps, features, size]), ..self.plain(op, vec![steps, features]) })
    }

    fn global_pool(&self, kind: &Kind, before: &[usize]) -> Result<Node, Error> {
        let channels = match *before {
            [channels, _, _] => channels,
            [_, features] => features,
            _ => return Err(self.rank(kind.key(), before, "it needs an image or a sequence")),
        };
        let (op, wide) = match kind {
            Kind::GlobalMaxPool {} => (Op::GlobalMaxPool, channels),
            Kind::StatsPool {} => (Op::StatsPool, channels.saturating_mul(2)),
            _ => (Op::GlobalAvgPool, channels),
        };
        Ok(Node { flops: product(before), ..self.plain(op, vec![wide]) })
    }

    fn layer_norm(&self, norm: &LayerNorm, before: &[usize]) -> Result<Node, Error> {
        let features = match *before {
            [features] | [_, features] => features,
            _ => {
                return Err(self.rank(
                    "layerNorm",
                    before,
                    "it needs a sequence or a list of features; images have batchNorm",
                ));
            }
        };
        self.epsilon(norm.eps)?;
        let parameter = |end: &str, init| self.parameter(end, vec![features], init, Role::Weight);
        let parameters = vec![parameter("weight", Init::Ones), parameter("bias", Init::Zeros)];
        let op = Op::LayerNorm { epsilon: norm.eps };
        Ok(Node { parameters, flops: product(before).saturating_mul(6), ..self.plain(op, before.to_vec()) })
    }

    fn reshape(&self, shape: &[usize], before: &[usize]) -> Result<Node, Error> {
        let is_shape = (1..=4).contains(&shape.len()) && !shape.contains(&0);
        if !is_shape || product(shape) != product(before) {
            let (from, to) = (before.to_vec(), shape.to_vec());
            return Err(Error::Reshape { index: self.index, name: self.name.clone(), from, to });
        }
        Ok(self.plain(Op::Reshape, shape.to_vec()))
    }

    fn embedding(&self, embedding: &Embedding, before: &[usize]) -> Result<Node, Error> {
        let &[time] = before else { return Err(self.rank("embedding", before, "it needs [time]")) };
        let Embedding { vocabulary, dimension, padding_id } = *embedding;
        // Numbers of words pass as f32 in serving, which holds them exactly up to here.
        if !(1..=1 << 24).contains(&vocabulary) {
            return Err(self.value("vocabulary", vocabulary, "at least 1 and at most 16,777,216"));
        }
        self.positive("dimension", dimension)?;
        if padding_id >= vocabulary {
            return Err(self.value("paddingId", padding_id, "a number below vocabulary"));
        }
        let init = Init::Words { padding: padding_id };
        let parameters = vec![self.parameter("weight", vec![vocabulary, dimension], init, Role::Weight)];
        Ok(Node { parameters, ..self.plain(Op::Embedding { padding: padding_id }, vec![time, dimension]) })
    }

    fn concat(&self, axis: usize, shapes: &[&[usize]]) -> Result<Node, Error> {
        let first = shapes[0];
        if axis >= first.len() {
            return Err(self.value("axis", axis, "an axis of what it reads, from 0 on, without the batch"));
        }
        let mut shape = first.to_vec();
        shape[axis] = 0;
        for other in shapes {
            let is_alike =
                other.len() == first.len() && (0..first.len()).all(|at| at == axis || other[at] == first[at]);
            if !is_alike {
                let (first, other) = (first.to_vec(), other.to_vec());
                return Err(Error::Concat { index: self.index, first, other, axis });
            }
            shape[axis] = shape[axis].saturating_add(other[axis]);
        }
        Ok(self.plain(Op::Concat { axis }, shape))
    }

    fn upsample2d(&self, factor: usize, before: &[usize]) -> Result<Node, Error> {
        let (channels, (height, width)) = self.image("upsample2d", before)?;
        self.positive("factor", factor)?;
        let shape = vec![channels, height.saturating_mul(factor), width.saturating_mul(factor)];
        Ok(self.plain(Op::Upsample2d { factor }, shape))
    }

    fn epsilon(&self, eps: f32) -> Result<(), Error> {
        if eps > 0.0 && eps <= 1.0 { Ok(()) } else { Err(self.value("eps", eps, "above 0, at most 1")) }
    }

    pub(super) fn batch_norm(&self, norm: &BatchNorm, activation: Activation, before: &[usize]) -> Result<Node, Error> {
        let channels = match *before {
            [channels, _, _] => channels,
            [features] | [_, features] => features,
            _ => return Err(self.rank("batchNorm", before, "it needs an image, a sequence or a list of features")),
        };
        self.epsilon(norm.eps)?;
        if !(norm.momentum > 0.0 && norm.momentum <= 1.0) {
            return Err(self.value("momentum", norm.momentum, "above 0, at most 1"));
        }
        self.softmax_is_last(activation)?;
        let parameter = |end: &str, init, role| self.parameter(end, vec![channels], init, role);
        let parameters = vec![
            parameter("weight", Init::Ones, Role::Weight),
            parameter("bias", Init::Zeros, Role::Weight),
            parameter("running_mean", Init::Zeros, Role::Statistic),
            parameter("running_var", Init::Ones, Role::Statistic),
        ];
        let op = Op::BatchNorm { epsilon: norm.eps, momentum: norm.momentum, activation };
        Ok(Node { parameters, flops: product(before).saturating_mul(2), ..self.plain(op, before.to_vec()) })
    }

    fn dense(&self, dense: &Dense, before: &[usize]) -> Result<Node, Error> {
        let (rows, inputs) = match *before {
            [inputs] => (None, inputs),
            [time, inputs] => (Some(time), inputs),
            [_, _, _] => return Err(self.rank("dense", before, "add flatten or globalAvgPool before it")),
            _ => return Err(self.rank("dense", before, "add flatten before it")),
        };
        self.positive("units", dense.units)?;
        self.softmax_is_last(dense.activation)?;
        let init = Init::GlorotUniform { fan_in: inputs, fan_out: dense.units };
        let shape: Vec<usize> = rows.into_iter().chain([dense.units]).collect();
        Ok(Node {
            parameters: self.weight_and_bias(vec![dense.units, inputs], dense.use_bias.then_some(dense.units), init),
            flops: product(&shape).saturating_mul(product(&[2, inputs])),
            ..self.plain(Op::Dense { activation: dense.activation }, shape)
        })
    }

    fn recurrent(&self, cell: Cell, kind: &Kind, typed: &Typed, before: &[usize]) -> Result<Node, Error> {
        let (time, features) = self.sequence(kind.key(), before)?;
        let Typed { units, layers, bidirectional, return_sequences, dropout, activation } = *typed;
        self.positive("units", units)?;
        if !(1..=16).contains(&layers) {
            return Err(self.value("layers", layers, "at least 1 and at most 16"));
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(self.value("dropout", dropout, "a share in [0, 1)"));
        }
        let activation = match (cell, activation) {
            (_, None) => Activation::Tanh,
            (Cell::Rnn, Some(known @ (Activation::Tanh | Activation::Sigmoid | Activation::Relu))) => known,
            (Cell::Rnn, Some(other)) => {
                return Err(self.value("activation", other.word(), "tanh, sigmoid or relu"));
            }
            (_, Some(other)) => {
                return Err(self.value("activation", other.word(), "none: its gates have theirs"));
            }
        };
        let op = Recurrent { cell, units, layers, bidirectional, return_sequences, dropout, activation };
        let (gates, directions) = (cell.gates().saturating_mul(units), op.directions().len());
        self.bounded(&[time, gates, directions], MAX_ACTIVATION, "projection")?;
        let wide = units.saturating_mul(directions);
        let (mut parameters, mut macs) = (Vec::new(), 0_u64);
        for layer in 0..layers {
            let inputs = if layer == 0 { features } else { wide };
            for direction in op.directions() {
                let mut parameter = |which: &str, shape, init| {
                    let end = format!("{which}_l{layer}{direction}");
                    parameters.push(self.parameter(&end, shape, init, Role::Weight));
                };
                let bias = if cell == Cell::Lstm { Init::ForgetGate } else { Init::Zeros };
                parameter("weight_ih", vec![gates, inputs], Init::GlorotUniform { fan_in: inputs, fan_out: gates });
                parameter("weight_hh", vec![gates, units], Init::Orthogonal);
                parameter("bias_ih", vec![gates], bias);
                parameter("bias_hh", vec![gates], Init::Zeros);
                macs = macs.saturating_add(product(&[time, gates, inputs.saturating_add(units)]));
            }
        }
        let shape = if return_sequences { vec![time, wide] } else { vec![wide] };
        Ok(Node { parameters, flops: macs.saturating_mul(2), ..self.plain(Op::Recurrent(op), shape) })
    }

    fn add(&self, activation: Activation, shapes: &[&[usize]]) -> Result<Node, Error> {
        let first = shapes[0];
        if let Some(other) = shapes.iter().find(|shape| **shape != first) {
            return Err(Error::Add { index: self.index, first: first.to_vec(), other: other.to_vec() });
        }
        self.softmax_is_last(activation)?;
        let flops = product(first).saturating_mul(shapes.len() as u64 - 1);
        Ok(Node { flops, ..self.plain(Op::Add { activation }, first.to_vec()) })
    }

    fn plain(&self, op: Op, shape: Vec<usize>) -> Node {
        Node { name: self.name.clone(), op, inputs: Vec::new(), shape, parameters: Vec::new(), flops: 0 }
    }

    fn weight_and_bias(&self, weight: Vec<usize>, bias: Option<usize>, init: Init) -> Vec<Parameter> {
        let weight = self.parameter("weight", weight, init, Role::Weight);
        let bias = bias.map(|units| self.parameter("bias", vec![units], Init::Zeros, Role::Weight));
        std::iter::once(weight).chain(bias).collect()
    }

    fn parameter(&self, end: &str, shape: Vec<usize>, init: Init, role: Role) -> Parameter {
        Parameter { name: format!("{}.{end}", self.name), shape, init, role }
    }

    /// Channels, and height and width.
    pub(super) fn image(&self, kind: &'static str, before: &[usize]) -> Result<(usize, (usize, usize)), Error> {
        match before {
            &[channels, height, width] => Ok((channels, (height, width))),
            _ => Err(self.rank(kind, before, "it needs [channels, height, width]")),
        }
    }

    /// Time and features.
    fn sequence(&self, kind: &'static str, before: &[usize]) -> Result<(usize, usize), Error> {
        match before {
            &[time, features] => Ok((time, features)),
            _ => Err(self.rank(kind, before, "it needs [time, features]")),
        }
    }

    fn rank(&self, kind: &'static str, before: &[usize], advice: &'static str) -> Error {
        Error::Rank { index: self.index, name: self.name.clone(), kind, got: before.to_vec(), advice }
    }

    /// The padding in numbers, and how many windows fit, per axis. `field` is what the kernel is called.
    fn windows(
        &self,
        field: &'static str,
        size: (usize, usize),
        kernel: (usize, usize),
        stride: (usize, usize),
        dilation: (usize, usize),
        padding: Padding,
    ) -> Result<(Pad, (usize, usize)), Error> {
        self.is_not_causal(padding)?;
        self.positive("dilation", dilation.0.min(dilation.1))?;
        self.positive("dilation", dilation.0.max(dilation.1))?;
        self.slides(field, kernel.0.min(kernel.1), stride.0.min(stride.1), padding)?;
        let rows = axis(size.0, reach(kernel.0, dilation.0), stride.0, padding);
        let columns = axis(size.1, reach(kernel.1, dilation.1), stride.1, padding);
        let ((top, bottom, height), (left, right, width)) =
            rows.zip(columns).ok_or_else(|| self.kernel(kernel, size, padding))?;
        self.bounded(&[height, width, kernel.0, kernel.1], MAX_ACTIVATION, "windows")?;
        Ok((Pad { top, bottom, left, right }, (height, width)))
    }

    fn is_not_causal(&self, padding: Padding) -> Result<(), Error> {
        match padding {
            Padding::Causal => Err(self.value("padding", "causal", "valid, same or a number; only conv1d is causal")),
            _ => Ok(()),
        }
    }

    fn slides(&self, field: &'static str, kernel: usize, stride: usize, padding: Padding) -> Result<(), Error> {
        self.positive(field, kernel)?;
        self.positive("stride", stride)?;
        match padding {
            Padding::Zeros(zeros) if zeros >= kernel => {
                let need = "less than the kernel: a window of nothing but padding sees nothing";
                Err(self.value("padding", zeros, need))
            }
            _ => Ok(()),
        }
    }

    fn kernel(&self, kernel: (usize, usize), got: (usize, usize), padding: Padding) -> Error {
        let padding = match padding {
            Padding::Valid => "valid".into(),
            Padding::Same => "same".into(),
            Padding::Causal => "causal".into(),
            Padding::Zeros(zeros) => zeros.to_string(),
        };
        Error::Kernel { index: self.index, name: self.name.clone(), kernel, got, padding }
    }

    pub(super) fn positive(&self, field: &'static str, got: usize) -> Result<(), Error> {
        if (1..=1 << 20).contains(&got) {
            Ok(())
        } else {
            Err(self.value(field, got, "at least 1 and at most 1,048,576"))
        }
    }

    pub(super) fn value(&self, field: &'static str, got: impl ToString, need: &'static str) -> Error {
        Error::Value { index: self.index, name: self.name.clone(), field, got: got.to_string(), need }
    }

    fn softmax_is_last(&self, activation: Activation) -> Result<(), Error> {
        if activation == Activation::Softmax && !self.last {
            return Err(Error::Softmax { index: self.index, name: self.name.clone() });
        }
        Ok(())
    }

    /// The product of the sizes, if it is within the limit.
    pub(super) fn bounded(&self, shape: &[usize], limit: usize, what: &'static str) -> Result<usize, Error> {
        let product = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        product.filter(|&product| product <= limit).ok_or_else(|| Error::TooLarge {
            index: self.index,
            name: self.name.clone(),
            what,
            limit,
        })
    }
}

/// What a kernel spans, holes included.
fn reach(kernel: usize, dilation: usize) -> usize {
    kernel.saturating_sub(1).saturating_mul(dilation).saturating_add(1)
}

/// The padding before and after, and how many windows fit.
fn axis(size: usize, kernel: usize, stride: usize, padding: Padding) -> Option<(usize, usize, usize)> {
    let (before, after) = match padding {
        Padding::Valid => (0, 0),
        Padding::Zeros(zeros) => (zeros, zeros),
        Padding::Causal => (kernel.saturating_sub(1), 0),
        Padding::Same => {
            let all = ((size.div_ceil(stride) - 1) * stride).saturating_add(kernel).saturating_sub(size);
            (all / 2, all - all / 2)
        }
    };
    let padded = size.saturating_add(before).saturating_add(after);
    Some((before, after, padded.checked_sub(kernel)? / stride + 1))
}

/// Of sizes, or the largest number.
fn product(sizes: &[usize]) -> u64 {
    sizes.iter().fold(1, |product: u64, &size| product.saturating_mul(size as u64))
}
