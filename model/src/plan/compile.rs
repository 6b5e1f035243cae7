//! From a graph with weights to steps. Pure: every choice is here, none at run time.

mod values;

use super::buffers::Span;
use super::fallback::Fallback;
use super::fuse::{Fused, Norm, fuse};
use super::recurrent::{Direction, Recurrence};
use super::weights::{Packer, in_epilogue};
use super::{Expansion, Kernel, Plan, Product, Step, Weights};
use crate::architecture::Activation;
use crate::graph::{Cell, Graph, Node, Op, Pad, Recurrent, Source};
use crate::network::Network;
use crate::ops::values;
use crate::variant::{Arithmetic, STATE};
use candle_core::Result;
use sconce_kernels::conv_depthwise::Expanded;
use sconce_kernels::conv_pool::Pooled;
use sconce_kernels::gates::Function;
use sconce_kernels::pool::Pool;
use sconce_kernels::rows::Taps;
use sconce_kernels::{Image, Window};
use std::collections::BTreeSet;
use values::{Layout, Value};

struct Compiler<'a> {
    network: &'a Network,
    graph: &'a Graph,
    packer: Packer<'a>,
    readers: Vec<Vec<usize>>,
    steps: Vec<Step>,
    input: Value,
    /// Of each node that is computed.
    outputs: Vec<Option<Value>>,
}

pub(super) fn compile(network: &Network, arithmetic: &Arithmetic) -> Result<Plan> {
    let graph: &Graph = network.graph();
    let input = Span::floats(0, graph.input.iter().product());
    let mut compiler = Compiler {
        network,
        graph,
        packer: Packer { network, arithmetic },
        readers: graph.readers(),
        steps: Vec::with_capacity(graph.nodes.len() + 2),
        input: Value { span: input, layout: Layout::AsGraph },
        outputs: vec![None; graph.nodes.len()],
    };
    for index in 0..graph.nodes.len() {
        if compiler.outputs[index].is_none() {
            compiler.node(index)?;
        }
    }
    let last = graph.nodes.len().checked_sub(1).map_or(Source::Input, Source::Node);
    let mut output = compiler.as_graph(last);
    if graph.classifies() {
        let width = graph.units();
        output = compiler.push(vec![compiler.name(last)], Kernel::Softmax(width), &[output], output.span.values);
    }
    let mut steps = compiler.steps;
    let ends = [input, output.span];
    leave_out(&mut steps, output.span);
    Ok(Plan { input: graph.input.clone(), output: graph.shape(last).to_vec(), lengths: graph.lengths(), steps, ends })
}

/// Numbers that all who read them read as bytes.
fn leave_out(steps: &mut [Step], output: Span) {
    let read: BTreeSet<Span> = steps.iter().flat_map(|step| step.reads.iter().copied()).chain([output]).collect();
    for writes in steps.iter_mut().map(|step| &mut step.writes).filter(|writes| writes.bytes.is_some()) {
        writes.floats = writes.floats.filter(|floats| read.contains(floats));
    }
}

impl Compiler<'_> {
    fn node(&mut self, index: usize) -> Result<()> {
        let node = &self.graph.nodes[index];
        let source = node.inputs[0];
        let ys = match &node.op {
            op if has_no_kernel(op) => self.fallback(index)?,
            Op::Conv2d { .. } | Op::DepthwiseConv2d { .. } | Op::Conv1d { .. } | Op::Dense { .. } => {
                return self.fused(index);
            }
            Op::MaxPool2d { .. } | Op::AvgPool2d { .. } => self.pool(node),
            Op::GlobalAvgPool => {
                let (xs, image) = self.image_or_sequence(source);
                self.push(vec![node.name.clone()], Kernel::GlobalAverage(image), &[xs], image.channels)
            }
            &Op::MaxPool1d { size, stride, pad } => {
                let (xs, image) = self.image_or_sequence(source);
                let pad = Pad { top: pad.0, bottom: pad.1, ..Pad::default() };
                let window = window((size, 1), (stride, 1), pad);
                let values = node.shape.iter().product();
                self.push(vec![node.name.clone()], Kernel::Pool { pool: Pool::Max, window, image }, &[xs], values)
            }
            Op::BatchNorm { epsilon, activation, .. } => {
                let Norm { scale, shift } = Norm::of(self.network, node, *epsilon)?;
                let xs = if node.shape.len() == 3 { self.image(source).0 } else { self.value(source) };
                // Per channel, which lie last; a flattened image has a scale for each of its values.
                let order = |per_channel: Vec<f32>| match xs.layout {
                    layout if node.shape.len() == 1 => {
                        (0..per_channel.len()).map(|k| per_channel[layout.place(k)]).collect()
                    }
                    _ => per_channel,
                };
                let kernel = Kernel::MultiplyAdd { scale: order(scale), shift: order(shift) };
                let ys = self.push(vec![node.name.clone()], kernel, &[xs], xs.span.values);
                self.activate(node.name.clone(), *activation, ys)
            }
            Op::Activation(activation) => self.activate(node.name.clone(), *activation, self.value(source)),
            // Which order values lie in is known to whoever reads them next; dropout is for training.
            Op::Flatten | Op::Dropout { .. } => self.value(source),
            Op::Reshape => self.as_graph(source),
            Op::Recurrent(recurrent) => self.recurrent(node, recurrent)?,
            Op::Add { activation } => {
                let xs = self.alike(node);
                let ys = self.push(vec![node.name.clone()], Kernel::Add, &xs, xs[0].span.values);
                self.activate(node.name.clone(), *activation, ys)
            }
            Op::Anomaly => {
                let xs: Vec<Value> = node.inputs.iter().map(|source| self.as_graph(*source)).collect();
                let threshold = values(self.network.of(node, "threshold")?)?[0];
                self.push(vec![node.name.clone()], Kernel::Anomaly { threshold }, &xs, node.shape.iter().product())
            }
            Op::GlobalMaxPool
            | Op::StatsPool
            | Op::LayerNorm { .. }
            | Op::Embedding { .. }
            | Op::Concat { .. }
            | Op::Upsample2d { .. } => unreachable!("they have no kernel"),
        };
        self.outputs[index] = Some(ys);
        Ok(())
    }

    /// The node by candle, as the reference does it.
    fn fallback(&mut self, index: usize) -> Result<Value> {
        let node = &self.graph.nodes[index];
        let xs: Vec<Value> = node.inputs.iter().map(|source| self.as_graph(*source)).collect();
        let kernel = Kernel::Fallback(Box::new(Fallback::of(self.network, index)?));
        Ok(self.push(vec![node.name.clone()], kernel, &xs, node.shape.iter().product()))
    }

    /// A product or a depthwise convolution, with what follows it.
    fn fused(&mut self, index: usize) -> Result<()> {
        let node = &self.graph.nodes[index];
        let source = node.inputs[0];
        let is_known = |source: Source| match source {
            Source::Input => true,
            Source::Node(index) => self.outputs[index].is_some(),
        };
        let fused = fuse(self.network, &self.readers, index, is_known)?;
        let residual = fused.residual.map(|source| match node.shape.len() {
            3 => self.image(source).0,
            _ => self.as_graph(source),
        });
        let mut pooled = None;
        let (xs, kernel, layout) = match &node.op {
            Op::Conv2d { kernel, stride, pad, .. } => {
                let (xs, image, window) = self.image_under(source, window(*kernel, *stride, *pad));
                let fits = fused.residual.is_none() && in_epilogue(fused.activation).is_some();
                let pool = fused.pool.filter(|_| fits);
                let of_pool = pool.and_then(|index| pool_of(&self.graph.nodes[index]));
                let (product, output) = self.convolution(node, image, window, &fused, of_pool)?;
                pooled = pool.filter(|_| product.pooled.is_some());
                let output = product.pooled.as_ref().map_or(output, |pooled| pooled.output());
                (xs, Kernel::Product(product), Layout::ChannelsLast(output))
            }
            Op::Conv1d { kernel, stride, pad, .. } => {
                let (xs, image) = self.image_or_sequence(source);
                let pad = Pad { top: pad.0, bottom: pad.1, ..Pad::default() };
                let window = window((*kernel, 1), (*stride, 1), pad);
                let (product, _) = self.convolution(node, image, window, &fused, None)?;
                let over = product.taps.as_ref().map(|_| (image, window));
                (xs, Kernel::Product(Product { over, ..product }), Layout::AsGraph)
            }
            Op::DepthwiseConv2d { kernel, stride, pad, .. } => {
                let (xs, image) = self.image(source);
                let window = window(*kernel, *stride, *pad);
                let kernel = Kernel::Depthwise(self.packer.depthwise(node, image, window, &fused)?);
                (xs, kernel, Layout::ChannelsLast(window.output(image)))
            }
            _ => {
                let xs = if node.shape.len() > 1 { self.as_graph(source) } else { self.value(source) };
                let depth = self.graph.shape(source).last().copied().unwrap_or(1);
                // The weights' columns are put in the order of the values, rather than the values in theirs.
                let product = self.packer.product(node, None, depth, |k| xs.layout.place(k), &fused)?;
                (xs, Kernel::Product(product), Layout::AsGraph)
            }
        };
        let (mut nodes, mut kernel, mut layout, mut behind) = (fused.nodes, kernel, layout, fused.activation);
        nodes.extend(pooled);
        if let (Kernel::Product(product), Layout::ChannelsLast(image), None) = (&kernel, layout, residual)
            && in_epilogue(behind).is_some()
            && let Some((next, expanded)) = self.depthwise_behind(&nodes, product, image)
        {
            // One pass takes no residual: a sum behind it is a pass of its own.
            let second = fuse(self.network, &self.readers, next, |_| false)?;
            let depthwise = self.packer.depthwise(&self.graph.nodes[next], image, expanded.window(), &second)?;
            nodes.extend(second.nodes);
            (layout, behind) = (Layout::ChannelsLast(expanded.output()), second.activation);
            kernel = match kernel {
                Kernel::Product(product) => Kernel::Expansion(Box::new(Expansion { product, depthwise, expanded })),
                other => other,
            };
        }
        let names = nodes.iter().map(|index| self.graph.nodes[*index].name.clone()).collect();
        let last = &self.graph.nodes[nodes[nodes.len() - 1]];
        let xs = self.as_read(self.name(source), xs, kernel.input());
        let reads: Vec<Value> = std::iter::once(xs).chain(residual).collect();
        let ys = Value { layout, ..self.push(names, kernel, &reads, last.shape.iter().product()) };
        let ys = if in_epilogue(behind).is_some() { ys } else { self.activate(last.name.clone(), behind, ys) };
        for index in nodes {
            self.outputs[index] = Some(ys);
        }
        Ok(())
    }

    /// The depthwise convolution that alone reads the image that a product makes, the last of these nodes, if one pass suits both.
    fn depthwise_behind(&self, nodes: &[usize], product: &Product, image: Image) -> Option<(usize, Expanded)> {
        let &[next] = &self.readers[*nodes.last()?][..] else { return None };
        let node = &self.graph.nodes[next];
        let Op::DepthwiseConv2d { kernel, stride, pad, .. } = &node.op else { return None };
        let are_numbers = matches!(product.weights, Weights::Float { .. }) && self.packer.input(node).is_none();
        let expanded = Expanded::new(window(*kernel, *stride, *pad), image);
        (are_numbers && product.pooled.is_none() && expanded.suits(product.weights.bytes())).then_some((next, expanded))
    }

    /// With the pool behind it, if one pass suits both.
    fn convolution(
        &self,
        node: &Node,
        image: Image,
        window: Window,
        fused: &Fused,
        pool: Option<(Pool, Window)>,
    ) -> Result<(Product, Image)> {
        let area = window.kernel[0] * window.kernel[1];
        let is_pointwise = (window.kernel, window.stride, window.padding) == ([1, 1], [1, 1], [0; 4]);
        let (outputs, depth) = (self.network.weight(node)?.dims()[0], area * image.channels);
        let output = Image { channels: outputs, ..window.output(image) };
        // The graph's weight is (filters, channels, height, width); a row of taps is (height, width, channels).
        let column = |k: usize| k % image.channels * area + k / image.channels;
        let pooled = pool.map(|(pool, of_pool)| Pooled::new(pool, of_pool, window, image, outputs));
        if !pooled.as_ref().is_some_and(|pooled| pooled.suits(outputs * depth * size_of::<f32>()))
            && let Some(product) = self.packer.tiles(node, image, window, column, fused)?
        {
            return Ok((product, output));
        }
        let taps = (!is_pointwise).then(|| Taps::convolution(image, &window));
        let mut product = self.packer.product(node, taps, depth, column, fused)?;
        product.pooled = pooled.filter(|pooled| pooled.suits(product.weights.bytes())).map(Box::new);
        product.taps = product.pooled.as_ref().and_then(|pooled| pooled.taps()).or(product.taps);
        Ok((product, output))
    }

    /// For each layer the products of a whole sequence with the input's weights, then one step after the other.
    fn recurrent(&mut self, node: &Node, recurrent: &Recurrent) -> Result<Value> {
        let Recurrent { cell, units, layers, return_sequences, .. } = *recurrent;
        let [time, _] = *self.graph.shape(node.inputs[0]) else {
            unreachable!("shape inference lets sequences alone come here")
        };
        let mut xs = self.as_graph(node.inputs[0]);
        let gates = cell.gates() * units;
        let input = self.packer.input(node);
        let states = input.map(|_| STATE);
        for layer in 0..layers {
            let name = if layers == 1 { node.name.clone() } else { format!("{} layer {}", node.name, layer + 1) };
            let (mut directions, mut of_input) = (Vec::new(), Vec::new());
            for direction in recurrent.directions() {
                let end = format!("hh_l{layer}{direction}");
                let product = match (cell, states) {
                    (Cell::Gru, None) => self.packer.gru(node, &end)?,
                    _ => self.packer.dense(node, &[end], states)?,
                };
                directions.push(Direction { product, reverse: !direction.is_empty() });
                of_input.push(format!("ih_l{layer}{direction}"));
            }
            let wide = directions.len();
            let projection = self.packer.dense(node, &of_input, if layer == 0 { input } else { states })?;
            let read = self.as_read(name.clone(), xs, projection.input());
            let projected = self.push(vec![name.clone()], Kernel::Product(projection), &[read], time * wide * gates);
            let every = return_sequences || layer + 1 < layers;
            let recurrence = Recurrence { cell, units, time, directions: directions.into(), every };
            let left = wide * units * if every { time } else { 1 };
            xs = self.push(vec![name], Kernel::Recurrence(recurrence), &[projected], left);
        }
        Ok(xs)
    }

    fn pool(&mut self, node: &Node) -> Value {
        let (xs, image) = self.image(node.inputs[0]);
        let (pool, window) = pool_of(node).expect("the caller saw a pool");
        let output = window.output(image);
        let ys = self.push(vec![node.name.clone()], Kernel::Pool { pool, window, image }, &[xs], output.len());
        Value { layout: Layout::ChannelsLast(output), ..ys }
    }

    /// A pass of its own.
    fn activate(&mut self, name: String, activation: Activation, xs: Value) -> Value {
        let kernel = match activation {
            // A softmax is last, and comes once the output lies as the graph says.
            Activation::None | Activation::Softmax => return xs,
            Activation::Relu => Kernel::Clamp(f32::INFINITY),
            Activation::Relu6 => Kernel::Clamp(6.0),
            Activation::Tanh => Kernel::Map(Function::Tanh),
            Activation::Sigmoid => Kernel::Map(Function::Sigmoid),
            other @ (Activation::LeakyRelu | Activation::HardSwish | Activation::Silu) => Kernel::Activate(other),
        };
        Value { layout: xs.layout, ..self.push(vec![name], kernel, &[xs], xs.span.values) }
    }
}

/// Whether candle computes it in serving, too.
pub(crate) fn has_no_kernel(op: &Op) -> bool {
    match op {
        Op::Conv2d { dilation, groups, .. } => (*dilation, *groups) != ((1, 1), 1),
        Op::Conv1d { dilation, .. } => *dilation != 1,
        Op::Recurrent(recurrent) => recurrent.cell == Cell::Rnn && recurrent.activation != Activation::Tanh,
        Op::GlobalMaxPool
        | Op::StatsPool
        | Op::LayerNorm { .. }
        | Op::Embedding { .. }
        | Op::Concat { .. }
        | Op::Upsample2d { .. } => true,
        _ => false,
    }
}

fn pool_of(node: &Node) -> Option<(Pool, Window)> {
    match node.op {
        Op::MaxPool2d { size, stride, pad } => Some((Pool::Max, window(size, stride, pad))),
        Op::AvgPool2d { size, stride, pad } => Some((Pool::Average, window(size, stride, pad))),
        _ => None,
    }
}

fn window(kernel: (usize, usize), stride: (usize, usize), pad: Pad) -> Window {
    Window {
        kernel: [kernel.0, kernel.1],
        stride: [stride.0, stride.1],
        padding: [pad.top, pad.left, pad.bottom, pad.right],
    }
}
