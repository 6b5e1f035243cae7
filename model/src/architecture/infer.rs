//! Shape inference. A description is hostile input: every product is checked, every size bounded.

use super::{Activation, Architecture, ArchitectureError as Error, Conv2d, Dense, Kind, MaxPool2d, Padding};
use crate::graph::{Graph, Init, Node, Op, Pad, Parameter};
use std::collections::{BTreeMap, BTreeSet};

const MAX_LAYERS: usize = 256;
const MAX_ACTIVATION: usize = 1 << 26;
const MAX_PARAMETERS: usize = 1 << 28;

pub(super) fn graph(architecture: &Architecture) -> Result<Graph, Error> {
    let input = architecture.input.shape.clone();
    if input.is_empty() || input.len() > 4 || input.contains(&0) {
        return Err(Error::Input { got: input });
    }
    match architecture.layers.len() {
        0 => return Err(Error::Empty),
        got if got > MAX_LAYERS => return Err(Error::TooManyLayers { got, limit: MAX_LAYERS }),
        _ => {}
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(architecture.layers.len());
    let (mut numbers, mut names) = (BTreeMap::<&str, usize>::new(), BTreeSet::new());
    let mut parameters = 0_usize;
    for (index, layer) in architecture.layers.iter().enumerate() {
        let number = numbers.entry(layer.kind.stem()).or_default();
        *number += 1;
        let name = layer.name.clone().unwrap_or_else(|| format!("{}_{number}", layer.kind.stem()));
        if !names.insert(name.clone()) {
            return Err(Error::Name { index, name });
        }
        let before = nodes.last().map_or(&input, |node| &node.shape);
        let place = Place { index, name: &name, last: index + 1 == architecture.layers.len() };
        let node = place.node(&layer.kind, before)?;
        place.bounded(&node.shape, MAX_ACTIVATION, "activation")?;
        for parameter in &node.parameters {
            parameters = parameters.saturating_add(place.bounded(&parameter.shape, MAX_PARAMETERS, "parameters")?);
        }
        if parameters > MAX_PARAMETERS {
            return Err(Error::TooLarge { index, name, what: "parameters", limit: MAX_PARAMETERS });
        }
        nodes.push(node);
    }
    Ok(Graph { input, nodes })
}

/// Where in the list a layer stands, for its errors.
struct Place<'a> {
    index: usize,
    name: &'a str,
    last: bool,
}

impl Place<'_> {
    fn node(&self, kind: &Kind, before: &[usize]) -> Result<Node, Error> {
        match kind {
            Kind::Conv2d(conv) => self.conv2d(conv, before),
            Kind::MaxPool2d(pool) => self.max_pool2d(pool, before),
            Kind::Flatten => {
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
        }
    }

    fn conv2d(&self, conv: &Conv2d, before: &[usize]) -> Result<Node, Error> {
        let (channels, size) = self.image("conv2d", before)?;
        let (kernel, stride) = (conv.kernel.sizes(), conv.stride.sizes());
        self.positive("filters", conv.filters)?;
        self.positive("kernel", kernel.0.min(kernel.1))?;
        self.positive("stride", stride.0.min(stride.1))?;
        self.softmax_is_last(conv.activation)?;
        if let Padding::Zeros(zeros) = conv.padding
            && zeros >= kernel.0.min(kernel.1)
        {
            return Err(self.value(
                "padding",
                zeros,
                "less than the kernel: a window of nothing but zeros sees nothing",
            ));
        }
        let pad = padding(conv.padding, size, kernel, stride);
        let padded = (size.0 + pad.top + pad.bottom, size.1 + pad.left + pad.right);
        let (height, width) = self.windows(padded, kernel, stride, size, conv.padding)?;
        let shape = vec![conv.filters, height, width];
        let area = kernel.0.saturating_mul(kernel.1);
        self.bounded(&[height, width, kernel.0, kernel.1], MAX_ACTIVATION, "windows")?;
        let init =
            Init::GlorotUniform { fan_in: channels.saturating_mul(area), fan_out: conv.filters.saturating_mul(area) };
        let weight = vec![conv.filters, channels, kernel.0, kernel.1];
        let macs = [conv.filters, height, width, channels, kernel.0, kernel.1]
            .iter()
            .fold(1_u64, |product, &size| product.saturating_mul(size as u64));
        let op = Op::Conv2d { kernel, stride, pad, activation: conv.activation };
        Ok(Node {
            parameters: self.weight_and_bias(weight, conv.use_bias.then_some(conv.filters), init),
            flops: macs.saturating_mul(2),
            ..self.plain(op, shape)
        })
    }

    fn max_pool2d(&self, pool: &MaxPool2d, before: &[usize]) -> Result<Node, Error> {
        let (channels, area) = self.image("maxPool2d", before)?;
        let size = pool.size.sizes();
        let stride = pool.stride.unwrap_or(pool.size).sizes();
        self.positive("size", size.0.min(size.1))?;
        self.positive("stride", stride.0.min(stride.1))?;
        let (height, width) = self.windows(area, size, stride, area, Padding::Valid)?;
        let mut node = self.plain(Op::MaxPool2d { size, stride }, vec![channels, height, width]);
        node.flops = [channels, height, width, size.0, size.1]
            .iter()
            .fold(1, |product: u64, &size| product.saturating_mul(size as u64));
        Ok(node)
    }

    fn dense(&self, dense: &Dense, before: &[usize]) -> Result<Node, Error> {
        let &[inputs] = before else {
            let advice =
                if before.len() == 3 { "add flatten or globalAvgPool before it" } else { "add flatten before it" };
            return Err(Error::Rank {
                index: self.index,
                name: self.name.into(),
                kind: "dense",
                got: before.to_vec(),
                advice,
            });
        };
        self.positive("units", dense.units)?;
        self.softmax_is_last(dense.activation)?;
        let init = Init::GlorotUniform { fan_in: inputs, fan_out: dense.units };
        let parameters = self.weight_and_bias(vec![dense.units, inputs], dense.use_bias.then_some(dense.units), init);
        let flops = (inputs as u64).saturating_mul(dense.units as u64).saturating_mul(2);
        Ok(Node { parameters, flops, ..self.plain(Op::Dense { activation: dense.activation }, vec![dense.units]) })
    }

    fn plain(&self, op: Op, shape: Vec<usize>) -> Node {
        Node { name: self.name.into(), op, shape, parameters: Vec::new(), flops: 0 }
    }

    fn weight_and_bias(&self, weight: Vec<usize>, bias: Option<usize>, init: Init) -> Vec<Parameter> {
        let weight = Parameter { name: format!("{}.weight", self.name), shape: weight, init };
        let bias =
            bias.map(|units| Parameter { name: format!("{}.bias", self.name), shape: vec![units], init: Init::Zeros });
        std::iter::once(weight).chain(bias).collect()
    }

    fn image(&self, kind: &'static str, before: &[usize]) -> Result<(usize, (usize, usize)), Error> {
        match before {
            &[channels, height, width] => Ok((channels, (height, width))),
            _ => {
                let advice = "it needs [channels, height, width]";
                Err(Error::Rank { index: self.index, name: self.name.into(), kind, got: before.to_vec(), advice })
            }
        }
    }

    /// How many windows fit, per axis.
    fn windows(
        &self,
        padded: (usize, usize),
        kernel: (usize, usize),
        stride: (usize, usize),
        got: (usize, usize),
        padding: Padding,
    ) -> Result<(usize, usize), Error> {
        let along = |size: usize, kernel: usize, stride: usize| Some(size.checked_sub(kernel)? / stride + 1);
        along(padded.0, kernel.0, stride.0).zip(along(padded.1, kernel.1, stride.1)).ok_or_else(|| {
            let padding = match padding {
                Padding::Valid => "valid".into(),
                Padding::Same => "same".into(),
                Padding::Zeros(zeros) => zeros.to_string(),
            };
            Error::Kernel { index: self.index, name: self.name.into(), kernel, got, padding }
        })
    }

    fn positive(&self, field: &'static str, got: usize) -> Result<(), Error> {
        if (1..=1 << 20).contains(&got) {
            Ok(())
        } else {
            Err(self.value(field, got, "at least 1 and at most 1,048,576"))
        }
    }

    fn value(&self, field: &'static str, got: impl ToString, need: &'static str) -> Error {
        Error::Value { index: self.index, name: self.name.into(), field, got: got.to_string(), need }
    }

    fn softmax_is_last(&self, activation: Activation) -> Result<(), Error> {
        if activation == Activation::Softmax && !self.last {
            return Err(Error::Softmax { index: self.index, name: self.name.into() });
        }
        Ok(())
    }

    /// The product of the sizes, if it is within the limit.
    fn bounded(&self, shape: &[usize], limit: usize, what: &'static str) -> Result<usize, Error> {
        let product = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        product.filter(|&product| product <= limit).ok_or_else(|| Error::TooLarge {
            index: self.index,
            name: self.name.into(),
            what,
            limit,
        })
    }
}

fn padding(padding: Padding, size: (usize, usize), kernel: (usize, usize), stride: (usize, usize)) -> Pad {
    // Beyond 2^20 zeros nothing fits any more: `windows` and `bounded` refuse the outcome.
    let same = |size: usize, kernel: usize, stride: usize| {
        ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size)
    };
    match padding {
        Padding::Valid => Pad::default(),
        Padding::Zeros(zeros) => {
            let zeros = zeros.min(1 << 20);
            Pad { top: zeros, bottom: zeros, left: zeros, right: zeros }
        }
        Padding::Same => {
            let (rows, columns) = (same(size.0, kernel.0, stride.0), same(size.1, kernel.1, stride.1));
            Pad { top: rows / 2, bottom: rows - rows / 2, left: columns / 2, right: columns - columns / 2 }
        }
    }
}

#[cfg(test)]
mod tests;
