//! From a graph with weights to steps. Pure: every choice is here, none at run time.

use super::{Kernel, Plan, Product, Step, Weights};
use crate::architecture::Activation;
use crate::graph::{Node, Op, Pad};
use crate::network::Network;
use crate::ops::lend;
use crate::variant::Arithmetic;
use candle_core::Result;
use sconce_kernels::gates::Function;
use sconce_kernels::pack::{self, Packed, PackedI8};
use sconce_kernels::pool::Pool;
use sconce_kernels::rows::Taps;
use sconce_kernels::{Activation as Fused, Image, Window};

/// How the values of one input lie, where the graph has them row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    AsGraph,
    /// An image whose channels lie last; flattened or not, to the graph they lie first.
    ChannelsLast(Image),
}

struct Compiler<'a> {
    network: &'a Network,
    arithmetic: &'a Arithmetic,
    steps: Vec<Step>,
    layout: Layout,
    /// Of the node before, without the batch.
    shape: Vec<usize>,
    largest_in_bytes: usize,
}

pub(super) fn compile(network: &Network, arithmetic: &Arithmetic) -> Result<Plan> {
    let graph = network.graph();
    let mut compiler = Compiler {
        network,
        arithmetic,
        steps: Vec::with_capacity(graph.nodes.len() + 2),
        layout: Layout::AsGraph,
        shape: graph.input.clone(),
        largest_in_bytes: 0,
    };
    for node in &graph.nodes {
        compiler.node(node)?;
        compiler.shape.clone_from(&node.shape);
    }
    compiler.channels_first();
    if graph.classifies() {
        let name = graph.nodes.last().map(|node| node.name.clone()).unwrap_or_default();
        let width = compiler.shape.last().copied().unwrap_or(1);
        compiler.in_place(name, Kernel::Softmax(width));
    }
    let values = |shape: &[usize]| shape.iter().product::<usize>();
    Ok(Plan {
        largest: compiler.steps.iter().map(|step| step.values).chain([values(&graph.input)]).max().unwrap_or_default(),
        input: graph.input.clone(),
        largest_in_bytes: compiler.largest_in_bytes,
        output: compiler.shape,
        steps: compiler.steps,
    })
}

impl Compiler<'_> {
    fn node(&mut self, node: &Node) -> Result<()> {
        match &node.op {
            Op::Conv2d { kernel, stride, pad, activation } => self.conv2d(node, *kernel, *stride, *pad, *activation),
            Op::MaxPool2d { size, stride, pad } => {
                let image = self.image();
                let padding = [pad.top, pad.left, pad.bottom, pad.right];
                let window = Window { kernel: pair(*size), stride: pair(*stride), padding };
                let output = window.output(image);
                self.push(node, Kernel::Pool { pool: Pool::Max, window, image }, output.len());
                self.layout = Layout::ChannelsLast(output);
                Ok(())
            }
            Op::Dense { activation } => self.dense(node, *activation),
            Op::Activation(activation) => {
                self.activate(node, *activation);
                Ok(())
            }
            // Which order values lie in is known to whoever reads them next; dropout is for training.
            Op::Flatten | Op::Dropout { .. } => Ok(()),
            _ => candle_core::bail!("\"{}\": no kernel for this layer", node.name),
        }
    }

    fn conv2d(
        &mut self,
        node: &Node,
        kernel: (usize, usize),
        stride: (usize, usize),
        pad: Pad,
        activation: Activation,
    ) -> Result<()> {
        let image = self.image();
        let window =
            Window { kernel: pair(kernel), stride: pair(stride), padding: [pad.top, pad.left, pad.bottom, pad.right] };
        let output = Image { channels: node.shape[0], ..window.output(image) };
        let taps = Taps::convolution(image, &window);
        let depth = kernel.0 * kernel.1 * image.channels;
        // The graph's weight is (filters, channels, height, width); a row of taps is (height, width, channels).
        let area = kernel.0 * kernel.1;
        let column = |k: usize| k % image.channels * area + k / image.channels;
        let product = self.product(node, Some(taps), depth, column, activation)?;
        self.push(node, product, output.len());
        self.layout = Layout::ChannelsLast(output);
        self.activate_rest(node, activation);
        Ok(())
    }

    fn dense(&mut self, node: &Node, activation: Activation) -> Result<()> {
        let depth = self.shape.iter().product();
        let layout = std::mem::replace(&mut self.layout, Layout::AsGraph);
        // The weights' columns are put in the order of the values, rather than the values in theirs.
        let column = |k: usize| match layout {
            Layout::AsGraph => k,
            Layout::ChannelsLast(image) => k % image.channels * (image.height * image.width) + k / image.channels,
        };
        let product = self.product(node, None, depth, column, activation)?;
        self.push(node, product, node.shape.iter().product());
        self.activate_rest(node, activation);
        Ok(())
    }

    /// The node's weights, packed: weight `k` of an output is the graph's `column(k)`.
    fn product(
        &mut self,
        node: &Node,
        taps: Option<Taps>,
        depth: usize,
        column: impl Fn(usize) -> usize,
        activation: Activation,
    ) -> Result<Kernel> {
        let scales = match self.arithmetic {
            Arithmetic::I8(quantisation) => quantisation.0.get(&node.name),
            Arithmetic::F32 | Arithmetic::F16 => None,
        };
        let (runs, run) = taps.as_ref().map_or((1, depth), |taps| (taps.taps(), taps.depth()));
        let weights = lend(self.network.weight(node)?, |values| {
            let outputs = values.len() / depth;
            let weight = |output: usize, k: usize| values[output * depth + column(k)];
            if let Some(scales) = scales {
                let byte = |output, k| pack::byte(weight(output, k), scales.weights[output]);
                let packed = PackedI8::new(&scales.weights, runs, run, byte);
                return Ok(Weights::Bytes { packed, padding: vec![scales.input.zero_point; run], input: scales.input });
            }
            let packed = match self.arithmetic {
                Arithmetic::F16 => Packed::f16(outputs, depth, weight),
                Arithmetic::F32 | Arithmetic::I8(_) => Packed::f32(outputs, depth, weight),
            };
            Ok(Weights::Float { packed, padding: vec![0.0; run] })
        })?;
        let bias = self.network.variables().get(&format!("{}.bias", node.name));
        let bias = bias.map(|bias| lend(bias, |values| Ok(values.to_vec()))).transpose()?;
        let activation = if activation == Activation::Relu { Fused::Relu } else { Fused::None };
        if scales.is_some() {
            self.largest_in_bytes = self.largest_in_bytes.max(self.shape.iter().product());
        }
        Ok(Kernel::Product(Product { taps, weights, bias, activation }))
    }

    fn activate(&mut self, node: &Node, activation: Activation) {
        let kernel = match activation {
            // A softmax is last, and comes once the output lies as the graph says.
            Activation::None | Activation::Softmax => return,
            Activation::Relu => Kernel::Clamp(f32::INFINITY),
            Activation::Relu6 => Kernel::Clamp(6.0),
            Activation::Tanh => Kernel::Map(Function::Tanh),
            Activation::Sigmoid => Kernel::Map(Function::Sigmoid),
        };
        self.in_place(node.name.clone(), kernel);
    }

    /// What the product has not done already.
    fn activate_rest(&mut self, node: &Node, activation: Activation) {
        if activation != Activation::Relu {
            self.activate(node, activation);
        }
    }

    /// The image that the next kernel reads, channels last.
    fn image(&mut self) -> Image {
        if let Layout::ChannelsLast(image) = self.layout {
            return image;
        }
        // Shape inference lets images alone come here.
        let [channels, height, width] = self.shape[..] else { unreachable!("{:?} is no image", self.shape) };
        let image = Image { height, width, channels };
        if channels > 1 && height * width > 1 {
            self.reorder("input", Kernel::ChannelsLast(image), image.len());
        }
        self.layout = Layout::ChannelsLast(image);
        image
    }

    fn channels_first(&mut self) {
        if let Layout::ChannelsLast(image) = self.layout
            && image.channels > 1
            && image.height * image.width > 1
        {
            self.reorder("output", Kernel::ChannelsFirst(image), image.len());
        }
        self.layout = Layout::AsGraph;
    }

    fn reorder(&mut self, what: &str, kernel: Kernel, values: usize) {
        self.steps.push(Step { nodes: vec![what.into()], kernel, values });
    }

    fn push(&mut self, node: &Node, kernel: Kernel, values: usize) {
        self.steps.push(Step { nodes: vec![node.name.clone()], kernel, values });
    }

    fn in_place(&mut self, node: String, kernel: Kernel) {
        let values = self.steps.last().map_or_else(|| self.shape.iter().product(), |step| step.values);
        self.steps.push(Step { nodes: vec![node], kernel, values });
    }
}

fn pair((height, width): (usize, usize)) -> [usize; 2] {
    [height, width]
}
