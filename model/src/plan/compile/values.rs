//! What steps leave for others: how it lies, and how it is brought into the order or the form in which it is read.

use super::super::buffers::Span;
use super::super::{Kernel, Step, Writes};
use super::Compiler;
use crate::graph::{Node, Source};
use sconce_kernels::quantise::Scaling;
use sconce_kernels::{Image, Window};

/// How the values of one input lie, where the graph has them row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    AsGraph,
    /// An image whose channels lie last; flattened or not, to the graph they lie first.
    ChannelsLast(Image),
}

impl Layout {
    /// Where the graph has what lies at `k`.
    pub(super) fn place(self, k: usize) -> usize {
        match self {
            Layout::AsGraph => k,
            Layout::ChannelsLast(image) => k % image.channels * (image.height * image.width) + k / image.channels,
        }
    }

    /// Whether both orders are the same.
    fn is_trivial(self) -> bool {
        match self {
            Layout::AsGraph => true,
            Layout::ChannelsLast(image) => image.channels == 1 || image.height * image.width == 1,
        }
    }
}

/// What a step leaves for others, or the input.
#[derive(Clone, Copy)]
pub(super) struct Value {
    pub span: Span,
    pub layout: Layout,
}

impl Compiler<'_> {
    pub(super) fn value(&self, source: Source) -> Value {
        let known = match source {
            Source::Input => Some(self.input),
            Source::Node(index) => self.outputs[index],
        };
        known.expect("nodes are computed in the order of the graph")
    }

    pub(super) fn name(&self, source: Source) -> String {
        match source {
            Source::Input => "input".into(),
            Source::Node(index) => self.graph.nodes[index].name.clone(),
        }
    }

    /// From now on the source lies like this.
    fn lies(&mut self, source: Source, value: Value) -> Value {
        match source {
            Source::Input => self.input = value,
            Source::Node(index) => self.outputs[index] = Some(value),
        }
        value
    }

    /// An image that a kernel reads, channels last.
    pub(super) fn image(&mut self, source: Source) -> (Value, Image) {
        let value = self.value(source);
        if let Layout::ChannelsLast(image) = value.layout {
            return (value, image);
        }
        let [channels, height, width] = *self.graph.shape(source) else {
            unreachable!("shape inference lets images alone come here")
        };
        let image = Image { height, width, channels };
        let layout = Layout::ChannelsLast(image);
        let value = if layout.is_trivial() {
            value
        } else {
            let kernel = Kernel::ChannelsLast { image, padding: [0; 4] };
            self.push(vec![self.name(source)], kernel, &[value], image.len())
        };
        (self.lies(source, Value { layout, ..value }), image)
    }

    /// The image that a convolution reads, and its window. Where the image is brought into order for nobody else, it gets its padding
    /// with that: without padding at the sides, a row of the kernel is read at once.
    pub(super) fn image_under(&mut self, source: Source, window: Window) -> (Value, Image, Window) {
        let value = self.value(source);
        let is_alone =
            self.graph.nodes.iter().flat_map(|node| &node.inputs).filter(|read| **read == source).count() == 1;
        let &[channels, height, width] = self.graph.shape(source) else {
            unreachable!("shape inference lets images alone come here")
        };
        let image = Image { height, width, channels };
        let is_in_order = value.layout != Layout::AsGraph || Layout::ChannelsLast(image).is_trivial();
        if is_in_order || !is_alone || window.padding == [0; 4] {
            let (value, image) = self.image(source);
            return (value, image, window);
        }
        let [top, left, bottom, right] = window.padding;
        let padded = Image { height: top + height + bottom, width: left + width + right, channels };
        let kernel = Kernel::ChannelsLast { image, padding: window.padding };
        let value = self.push(vec![self.name(source)], kernel, &[value], padded.len());
        (value, padded, Window { padding: [0; 4], ..window })
    }

    /// An image, or a sequence as an image of one column, whose channels are the features.
    pub(super) fn image_or_sequence(&mut self, source: Source) -> (Value, Image) {
        match *self.graph.shape(source) {
            [time, features] => (self.as_graph(source), Image { height: time, width: 1, channels: features }),
            _ => self.image(source),
        }
    }

    pub(super) fn as_graph(&mut self, source: Source) -> Value {
        let value = self.value(source);
        let ordered = match value.layout {
            Layout::ChannelsLast(image) if !value.layout.is_trivial() => {
                self.push(vec![self.name(source)], Kernel::ChannelsFirst(image), &[value], image.len())
            }
            _ => value,
        };
        self.lies(source, Value { layout: Layout::AsGraph, ..ordered })
    }

    /// All that the node reads, in one order.
    pub(super) fn alike(&mut self, node: &Node) -> Vec<Value> {
        let first = self.value(node.inputs[0]).layout;
        let are_alike = node.inputs.iter().all(|source| self.value(*source).layout == first);
        let in_order = |source: &Source| match node.shape.len() {
            3 => self.image(*source).0,
            _ if are_alike => self.value(*source),
            _ => self.as_graph(*source),
        };
        node.inputs.iter().map(in_order).collect()
    }

    /// The value as a product reads it: as numbers, or as bytes that stand for so much. Those are left by the step that writes the
    /// value, if it can and does not leave others.
    pub(super) fn as_read(&mut self, name: String, xs: Value, scaling: Option<Scaling>) -> Value {
        let Some(scaling) = scaling else { return xs };
        let Span { at, values, .. } = xs.span;
        let bytes = Value { span: Span::bytes(at, values), ..xs };
        if let Some(Step { kernel, writes, .. }) = at.checked_sub(1).map(|index| &mut self.steps[index]) {
            if writes.bytes.is_none() && kernel.leaves_bytes() {
                writes.bytes = Some((bytes.span, scaling));
            }
            if writes.bytes == Some((bytes.span, scaling)) {
                return bytes;
            }
        }
        let is_same =
            |step: &&Step| step.reads[0] == xs.span && matches!(*step.kernel, Kernel::Quantise(by) if by == scaling);
        if let Some((span, _)) = self.steps.iter().find(is_same).and_then(|step| step.writes.bytes) {
            return Value { span, ..xs };
        }
        let layout = xs.layout;
        Value { layout, ..self.push(vec![name], Kernel::Quantise(scaling), &[xs], values) }
    }

    /// One more step; what it leaves lies as what it reads does if it works in place or adds, else as the graph says.
    pub(super) fn push(&mut self, nodes: Vec<String>, kernel: Kernel, reads: &[Value], values: usize) -> Value {
        let layout = match &kernel {
            Kernel::Add => reads[0].layout,
            kernel if kernel.is_in_place() => reads[0].layout,
            _ => Layout::AsGraph,
        };
        let at = self.steps.len() + 1;
        let reads = reads.iter().map(|value| value.span).collect();
        let (span, writes) = match kernel {
            Kernel::Quantise(scaling) => {
                let span = Span::bytes(at, values);
                (span, Writes { floats: None, bytes: Some((span, scaling)) })
            }
            _ => (Span::floats(at, values), Writes { floats: Some(Span::floats(at, values)), bytes: None }),
        };
        let work = kernel.work();
        self.steps.push(Step { nodes, kernel: kernel.into(), reads, writes, work });
        Value { span, layout }
    }
}
