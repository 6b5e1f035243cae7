//! A graph as JSON, for the peer: each node with what it reads, by names, and its numbers, as ONNX calls them.

use sconce_model::graph::{Cell, Graph, Node, Op, Pad, Source};
use serde_json::{Value, json};

pub fn graph(graph: &Graph) -> Value {
    let nodes: Vec<Value> = graph.nodes.iter().map(|described| node(graph, described)).collect();
    json!({"input": graph.input, "nodes": nodes})
}

fn node(graph: &Graph, node: &Node) -> Value {
    let name = |source: &Source| match source {
        Source::Input => "input",
        Source::Node(index) => graph.nodes[*index].name.as_str(),
    };
    let from: Vec<&str> = node.inputs.iter().map(name).collect();
    let (op, numbers) = op(&node.op);
    let activation = node.op.activation();
    json!({"name": node.name, "op": op, "from": from, "shape": node.shape, "numbers": numbers, "activation": activation})
}

/// The kind, as it is typed.
fn op(op: &Op) -> (&'static str, Value) {
    match op {
        Op::Conv2d { kernel, stride, pad, .. } => ("conv2d", window(*kernel, *stride, *pad)),
        Op::DepthwiseConv2d { kernel, stride, pad, .. } => ("depthwiseConv2d", window(*kernel, *stride, *pad)),
        Op::Conv1d { kernel, stride, pad, .. } => {
            ("conv1d", json!({"kernel_shape": [kernel], "strides": [stride], "pads": pad}))
        }
        Op::MaxPool2d { size, stride, pad } => ("maxPool2d", window(*size, *stride, *pad)),
        Op::AvgPool2d { size, stride, pad } => ("avgPool2d", window(*size, *stride, *pad)),
        Op::GlobalAvgPool => ("globalAvgPool", json!({})),
        Op::BatchNorm { epsilon, .. } => ("batchNorm", json!({"epsilon": epsilon})),
        Op::Flatten => ("flatten", json!({})),
        Op::Dense { .. } => ("dense", json!({})),
        Op::Activation(_) => ("activation", json!({})),
        Op::Dropout { .. } => ("dropout", json!({})),
        Op::Recurrent(recurrent) => {
            let cell = match recurrent.cell {
                Cell::Rnn => "rnn",
                Cell::Gru => "gru",
                Cell::Lstm => "lstm",
            };
            let (units, layers, sequences) = (recurrent.units, recurrent.layers, recurrent.return_sequences);
            let both = recurrent.bidirectional;
            (cell, json!({"units": units, "layers": layers, "sequences": sequences, "bidirectional": both}))
        }
        Op::Add { .. } => ("add", json!({})),
        // Of none of the networks here.
        _ => ("unknown", json!({})),
    }
}

fn window(kernel: (usize, usize), stride: (usize, usize), pad: Pad) -> Value {
    let pads = [pad.top, pad.left, pad.bottom, pad.right];
    json!({"kernel_shape": kernel, "strides": stride, "pads": pads})
}
