"""A network in ONNX Runtime: reads graph.json, weights.safetensors and input.safetensors of a folder, and leaves there what it
makes of them. What is asked and answered is as in answers.py."""

import functools
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.registry import QDQRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.numpy import load_file

from answers import fastest, serve, slice_of

OPSET = 17
PRODUCTS = {"Conv", "Gemm", "GRU"}
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
SIMPLE = {"add": "Add", "flatten": "Flatten", "maxPool2d": "MaxPool", "avgPool2d": "AveragePool"}


class Graph:
    """ONNX nodes under way. Each method adds some and returns the name of what they give."""

    def __init__(self, weights):
        self.weights, self.nodes, self.constants = weights, [], {}

    def add(self, op, inputs, **attributes):
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name, values):
        self.constants[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def parameters(self, node, *ends):
        names = [f"{node['name']}.{end}" for end in ends]
        return [self.constant(name, self.weights[name]) for name in names if name in self.weights]

    def layer(self, node, xs):
        op, numbers = node["op"], node["numbers"]
        if op == "conv2d":
            return self.add("Conv", xs + self.parameters(node, "weight", "bias"), **numbers)
        if op == "depthwiseConv2d":
            return self.add("Conv", xs + self.parameters(node, "weight", "bias"), group=node["shape"][0], **numbers)
        if op == "batchNorm":
            parameters = self.parameters(node, "weight", "bias", "running_mean", "running_var")
            return self.add("BatchNormalization", xs + parameters, **numbers)
        if op == "dense" and len(node["shape"]) == 1:
            return self.add("Gemm", xs + self.parameters(node, "weight", "bias"), transB=1)
        if op == "gru" and not numbers["bidirectional"]:
            return self.gru(node, xs[0], **numbers)
        if op == "globalAvgPool":
            return self.add("Flatten", [self.add("GlobalAveragePool", xs)])
        if op in ("dropout", "activation"):
            return xs[0]
        if op in SIMPLE and len(xs) == (2 if op == "add" else 1):
            return self.add(SIMPLE[op], xs, **numbers)
        raise NotImplementedError(f"{op} is not written for the peer: add it to peer.py")

    def gru(self, node, xs, units, layers, sequences, **_):
        """PyTorch's gates are reset, update, new; those of ONNX update, reset, new. ONNX has the time first."""

        def gates(end):
            reset, update, new = np.split(self.weights[f"{node['name']}.{end}"], 3)
            return np.concatenate([update, reset, new])[None]

        ys = self.add("Transpose", [xs], perm=[1, 0, 2])
        for layer in range(layers):
            bias = np.concatenate([gates(f"bias_{which}_l{layer}") for which in ("ih", "hh")], axis=1)
            values = {"W": gates(f"weight_ih_l{layer}"), "R": gates(f"weight_hh_l{layer}"), "B": bias}
            constants = [self.constant(f"{node['name']}.{end}{layer}", value) for end, value in values.items()]
            ys = self.add("GRU", [ys, *constants], hidden_size=units, linear_before_reset=1)
            if layer + 1 == layers and not sequences:
                self.nodes[-1].output[:] = ["", ys]
                return self.add("Squeeze", [ys, self.constant("first", np.array([0]))])
            ys = self.add("Squeeze", [ys, self.constant("second", np.array([1]))])
        return self.add("Transpose", [ys], perm=[1, 0, 2])

    def activation(self, kind, xs):
        if kind == "none":
            return xs
        if kind == "relu6":
            bounds = [self.constant(f"bound_{bound}", np.float32(bound)) for bound in (0, 6)]
            return self.add("Clip", [xs, *bounds])
        if kind == "softmax":
            return self.add("Softmax", [xs], axis=-1)
        return self.add(ACTIVATIONS[kind], [xs])

    def save(self, path, inputs, outputs):
        """`inputs` and `outputs` are pairs of a name and a shape."""

        def values(pairs):
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in pairs]

        graph = helper.make_graph(self.nodes, "network", values(inputs), values(outputs), list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def export(described, weights, path):
    """A node of the description becomes one of ONNX, and one for its activation; a batch norm is left for ONNX Runtime to fold."""
    graph, values = Graph(weights), {"input": "input"}
    for node in described["nodes"]:
        try:
            ys = graph.layer(node, [values[name] for name in node["from"]])
            values[node["name"]] = graph.activation(node["activation"], ys)
        except Exception as error:
            raise SystemExit(f"peer: \"{node['name']}\": {type(error).__name__}: {error}") from error
    last = described["nodes"][-1]
    graph.save(
        path, [("input", ["batch", *described["input"]])], [(values[last["name"]], ["batch", *last["shape"]])]
    )


class Inputs(CalibrationDataReader):
    """One at a time."""

    def __init__(self, xs):
        self.rows = iter([{"input": xs[row : row + 1]} for row in range(len(xs))])

    def get_next(self):
        return next(self.rows, None)


def quantise(path, xs, to):
    """As the documentation advises: norms folded first, QDQ, a scale per channel. Returns why not, or None."""
    products = {node.op_type for node in onnx.load(path).graph.node} & PRODUCTS
    left = sorted(products - QDQRegistry.keys())
    if left:
        return f"its quantiser leaves {', '.join(left)} in f32"
    folded = path.with_name("folded.onnx")
    quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
    quantize_static(
        str(folded),
        str(to),
        Inputs(xs),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return None


class Session:
    """One thread, all optimisations, the batch known when the session is made; inputs and outputs lie where they stay."""

    def __init__(self, path, xs):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_free_dimension_override_by_name("batch", len(xs))
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        output = session.get_outputs()[0]
        self.ys = ort.OrtValue.ortvalue_from_shape_and_type([len(xs), *output.shape[1:]], np.float32)
        binding = session.io_binding()
        binding.bind_ortvalue_input("input", ort.OrtValue.ortvalue_from_numpy(xs))
        binding.bind_ortvalue_output(output.name, self.ys)
        self.bound = functools.partial(session.run_with_iobinding, binding)
        given = functools.partial(session.run, None, {"input": xs})
        self.run = fastest(self.bound, given)

    def infer(self):
        self.bound()
        return self.ys.numpy().ravel().tolist()


def empty_call(path):
    graph = Graph({})
    output = graph.add("Identity", ["input"])
    graph.save(path, [("input", ["batch", 1])], [(output, ["batch", 1])])
    return slice_of(Session(path, np.zeros((1, 1), np.float32)).run, 100)


def main():
    folder = pathlib.Path(sys.argv[1])
    described = json.loads((folder / "graph.json").read_text())
    xs = load_file(folder / "input.safetensors")["input"]
    files = {precision: folder / f"{precision}.onnx" for precision in ("f32", "int8")}
    export(described, load_file(folder / "weights.safetensors"), files["f32"])
    no_int8 = quantise(files["f32"], xs, files["int8"])
    about = {"empty_call": empty_call(folder / "empty.onnx"), "no_int8": no_int8}
    serve(about, lambda precision, batch: Session(files[precision], xs[:batch]))


if __name__ == "__main__":
    main()
