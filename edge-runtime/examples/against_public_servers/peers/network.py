"""What each of the servers is told, `SERVER.py MODEL.onnx NAME GRPC REST METRICS`, and the network in ONNX Runtime, on one thread."""

import sys

import onnxruntime as ort

PATH, NAME = sys.argv[1:3]
GRPC, REST, METRICS = map(int, sys.argv[3:6])

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
session = ort.InferenceSession(PATH, options, providers=["CPUExecutionProvider"])
[INPUT], [OUTPUT] = session.get_inputs(), session.get_outputs()


def shape(of):
    """Without the batch."""
    return of.shape[1:]


def infer(xs):
    [ys] = session.run(None, {INPUT.name: xs})
    return ys
