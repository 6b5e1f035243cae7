"""The f32 weights of an artifact as ONNX: `export.py ARTIFACT MODEL.onnx`, for networks that are a chain of these layers."""

import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

OPSET = 17
ACTIVATIONS = {"relu": "Relu", "softmax": "Softmax"}


def pair(value):
    return value if isinstance(value, list) else [value, value]


def operation(kind, typed):
    if kind == "conv2d":
        return "Conv", {"kernel_shape": pair(typed["kernel"])}
    if kind == "maxPool2d":
        size = pair(typed.get("size", 2))
        return "MaxPool", {"kernel_shape": size, "strides": size}
    if kind == "flatten":
        return "Flatten", {}
    if kind == "dense":
        return "Gemm", {"transB": 1}
    raise SystemExit(f"export: layer {kind} is not written here: add it to export.py")


def export(architecture, weights, classes):
    nodes, last, counts = [], "input", {}

    def add(op, inputs, **attributes):
        output = f"{op}_{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    for layer in architecture["layers"]:
        [(kind, typed)] = layer.items()
        counts[kind] = counts.get(kind, 0) + 1
        op, attributes = operation(kind, typed)
        names = [f"{kind}_{counts[kind]}.{end}" for end in ("weight", "bias")]
        last = add(op, [last, *(name for name in names if name in weights)], **attributes)
        if "activation" in typed:
            last = add(ACTIVATIONS[typed["activation"]], [last])
    nodes[-1].output[0] = "output"

    def value(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    constants = [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()]
    inputs, outputs = [value("input", architecture["input"]["shape"])], [value("output", [classes])]
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    artifact, to = map(pathlib.Path, sys.argv[1:])
    config = json.loads((artifact / "config.json").read_text())
    files = sorted((artifact / "weights/f32").glob("*.safetensors"))
    weights = {name: values for file in files for name, values in load_file(file).items()}
    onnx.save(export(config["architecture"], weights, len(config["labels"])), to)


if __name__ == "__main__":
    main()
