//! From typed layers to nodes: names, who reads whom, and limits. A description is hostile input.

use super::infer::{MAX_ACTIVATION, Place};
use super::time::{self, Time};
use super::{ANY_TIME, Architecture, ArchitectureError as Error, BatchNorm, Input, InputType, Kind, Output, output};
use crate::graph::{Graph, Node, Source};
use std::collections::{BTreeMap, BTreeSet};

const MAX_LAYERS: usize = 256;
/// Once residual blocks and batch norms are expanded.
const MAX_NODES: usize = 1_024;
const MAX_PARAMETERS: usize = 1 << 28;
/// Steps of a sequence of any length.
const MAX_LENGTH: usize = 1 << 16;
/// The name by which a layer reads the network's input.
const INPUT: &str = "input";

/// The graph, and of which typed layer each node is.
pub(super) fn graph(architecture: &Architecture) -> Result<(Graph, Vec<usize>), Error> {
    let (input, any_time) = longest(&architecture.input)?;
    match architecture.layers.len() {
        0 => return Err(Error::Empty),
        got if got > MAX_LAYERS => return Err(Error::TooManyLayers { got, limit: MAX_LAYERS }),
        _ => {}
    }
    let mut wiring = Wiring::new(input, any_time, architecture.output.clone());
    let mut numbers = BTreeMap::<&str, usize>::new();
    for (index, layer) in architecture.layers.iter().enumerate() {
        let number = numbers.entry(layer.kind.stem()).or_default();
        *number += 1;
        let name = layer.name.clone().unwrap_or_else(|| format!("{}_{number}", layer.kind.stem()));
        let inputs = wiring.inputs(index, &layer.from, &layer.kind)?;
        let place = Place { index, name, last: index + 1 == architecture.layers.len() };
        let reads_words = architecture.input.dtype == InputType::U32 && inputs.contains(&Source::Input);
        match (&layer.kind, reads_words) {
            (Kind::Embedding(_), false) => return Err(Error::Words { index, name: place.name }),
            (kind, true) if kind.key() != "embedding" => {
                return Err(Error::Numbers { index, name: place.name, kind: kind.key() });
            }
            _ => {}
        }
        let output = match &layer.kind {
            Kind::SeparableConv2d(conv) => wiring.separable(&place, conv, inputs[0])?,
            Kind::Residual(residual) => wiring.residual(&place, residual, inputs[0])?,
            kind => wiring.layer(&place, kind, inputs)?,
        };
        if wiring.layers.insert(place.name.clone(), output).is_some() {
            return Err(Error::Name { index, name: place.name });
        }
        wiring.before = output;
    }
    let (mut graph, mut origins) = wiring.finish()?;
    output::check(architecture, &graph)?;
    if let Some(node) = output::closing(&graph, &origins)? {
        // It comes and goes with the last layer.
        origins.push(architecture.layers.len() - 1);
        graph.nodes.push(node);
    }
    Ok((graph, origins))
}

/// The shape of the longest input, and whether others are shorter.
fn longest(input: &Input) -> Result<(Vec<usize>, bool), Error> {
    let Input { shape, max_length, .. } = input;
    let any_time = matches!(shape[..], [ANY_TIME] | [ANY_TIME, _]);
    if any_time && !(1..=MAX_LENGTH).contains(max_length) {
        return Err(Error::MaxLength { got: *max_length });
    }
    let size = |(axis, &size): (usize, &i64)| match size {
        ANY_TIME if any_time && axis == 0 => Some(*max_length),
        size => usize::try_from(size).ok().filter(|size| *size > 0),
    };
    let sizes: Option<Vec<usize>> = shape.iter().enumerate().map(size).collect();
    match sizes.filter(|sizes| (1..=4).contains(&sizes.len())) {
        Some(sizes) => Ok((sizes, any_time)),
        None => Err(Error::Input { got: shape.clone() }),
    }
}

/// The nodes so far.
pub(super) struct Wiring {
    graph: Graph,
    /// Of each node, if sequences are of any length.
    times: Vec<Option<Time>>,
    /// Of which typed layer each node is.
    origins: Vec<usize>,
    names: BTreeSet<String>,
    /// What each typed layer gives.
    layers: BTreeMap<String, Source>,
    /// What a layer reads that does not say.
    before: Source,
    parameters: usize,
}

impl Wiring {
    fn new(input: Vec<usize>, any_time: bool, output: Output) -> Self {
        Self {
            graph: Graph { input, any_time, nodes: Vec::new(), output },
            times: Vec::new(),
            origins: Vec::new(),
            names: BTreeSet::new(),
            layers: BTreeMap::from([(INPUT.into(), Source::Input)]),
            before: Source::Input,
            parameters: 0,
        }
    }

    pub(super) fn shape(&self, source: Source) -> &[usize] {
        self.graph.shape(source)
    }

    fn inputs(&self, index: usize, from: &[String], kind: &Kind) -> Result<Vec<Source>, Error> {
        let source = |name: &String| {
            self.layers.get(name).copied().ok_or_else(|| Error::From {
                index,
                got: name.clone(),
                advice: self.advice(name),
            })
        };
        let inputs: Vec<Source> = from.iter().map(source).collect::<Result<_, _>>()?;
        let kind = kind.key();
        match (kind, inputs.len()) {
            ("add" | "concat", got @ (0 | 1)) => Err(Error::Sources { index, kind, need: "two or more layers", got }),
            ("add" | "concat", _) | (_, 1) => Ok(inputs),
            (_, 0) => Ok(vec![self.before]),
            (_, got) => Err(Error::Sources {
                index,
                kind,
                need: "one layer; add sums several, concat puts them side by side",
                got,
            }),
        }
    }

    /// The earlier layer whose name is nearest, if one is near.
    fn advice(&self, name: &str) -> String {
        let nearest = self.layers.keys().map(|known| (edits(known, name), known)).min();
        match nearest {
            Some((edits, known)) if edits <= 2 => format!("did you mean \"{known}\"?"),
            _ => format!("name one above it, or {INPUT}"),
        }
    }

    /// A layer that is one node, or two if a batch norm follows its convolution.
    pub(super) fn layer(&mut self, place: &Place, kind: &Kind, inputs: Vec<Source>) -> Result<Source, Error> {
        let mut bare = kind.clone();
        let (use_bias, activation) = match &mut bare {
            Kind::Conv2d(conv) if conv.batch_norm => (&mut conv.use_bias, &mut conv.activation),
            Kind::DepthwiseConv2d(conv) if conv.batch_norm => (&mut conv.use_bias, &mut conv.activation),
            Kind::Conv1d(conv) if conv.batch_norm => (&mut conv.use_bias, &mut conv.activation),
            _ => {
                let source = self.node(place, |shapes| place.node(kind, shapes), inputs)?;
                return self.is_padded_alike(place, kind).map(|()| source);
            }
        };
        use_bias.get_or_insert(false);
        let activation = std::mem::take(activation);
        let conv = self.node(place, |shapes| place.node(&bare, shapes), inputs)?;
        self.is_padded_alike(place, &bare)?;
        let norm = place.part("bn");
        let settings = BatchNorm::default();
        self.node(&norm, |shapes| norm.batch_norm(&settings, activation, shapes[0]), vec![conv])
    }

    /// The last node, if it has a time that may be any.
    fn is_padded_alike(&self, place: &Place, kind: &Kind) -> Result<(), Error> {
        match (self.times.last(), self.graph.nodes.last()) {
            (Some(Some(_)), Some(node)) => time::is_padded_alike(place, kind, node),
            _ => Ok(()),
        }
    }

    fn node(
        &mut self,
        place: &Place,
        infer: impl FnOnce(&[&[usize]]) -> Result<Node, Error>,
        inputs: Vec<Source>,
    ) -> Result<Source, Error> {
        let (index, name) = (place.index, place.name.clone());
        if !self.names.insert(name.clone()) {
            return Err(Error::Name { index, name });
        }
        if self.graph.nodes.len() == MAX_NODES {
            return Err(Error::TooManyNodes { index, name, limit: MAX_NODES });
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(|&source| self.shape(source)).collect();
        let node = infer(&shapes)?;
        place.bounded(&node.shape, MAX_ACTIVATION, "activation")?;
        for parameter in &node.parameters {
            let count = place.bounded(&parameter.shape, MAX_PARAMETERS, "parameters")?;
            self.parameters = self.parameters.saturating_add(count);
        }
        if self.parameters > MAX_PARAMETERS {
            return Err(Error::TooLarge { index, name, what: "parameters", limit: MAX_PARAMETERS });
        }
        let any = self.graph.any_time.then(Time::default);
        let time = |source: &Source| match source {
            Source::Input => any.as_ref(),
            Source::Node(index) => self.times[*index].as_ref(),
        };
        let times: Vec<Option<&Time>> = inputs.iter().map(time).collect();
        let time = time::after(place, &node, &times)?;
        self.times.push(time);
        self.graph.nodes.push(Node { inputs, ..node });
        self.origins.push(index);
        Ok(Source::Node(self.graph.nodes.len() - 1))
    }

    fn finish(self) -> Result<(Graph, Vec<usize>), Error> {
        let readers = self.graph.readers();
        let inner = self.graph.nodes.len() - 1;
        match readers.iter().take(inner).position(Vec::is_empty) {
            Some(unused) => Err(Error::Unused { name: self.graph.nodes[unused].name.clone() }),
            None if self.times[inner].is_some() => {
                let (index, name) = (self.origins[inner], self.graph.nodes[inner].name.clone());
                let advice = "use globalAvgPool, or returnSequences: false";
                Err(Error::OverTime { index, name, kind: "an output", advice })
            }
            None => Ok((self.graph, self.origins)),
        }
    }
}

/// How many letters to insert, delete or replace: Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
