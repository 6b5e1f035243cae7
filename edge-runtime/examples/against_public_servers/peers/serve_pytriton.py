"""Behind PyTriton, which is Triton with its Python backend: dynamic batches, as large as ours. It is told one thing more: for how
many microseconds the first of a batch may wait for others."""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from network import GRPC, INPUT, METRICS, NAME, OUTPUT, REST, infer, shape


@batch
def answer(input):
    return {OUTPUT.name: infer(input)}


def told(tensor):
    return [Tensor(name=tensor.name, dtype=np.float32, shape=tuple(shape(tensor)))]


if __name__ == "__main__":
    config = TritonConfig(http_port=REST, grpc_port=GRPC, metrics_port=METRICS, log_verbose=0)
    with Triton(config=config) as triton:
        batching = ModelConfig(max_batch_size=16, batcher=DynamicBatcher(max_queue_delay_microseconds=int(sys.argv[6])))
        triton.bind(NAME, answer, inputs=told(INPUT), outputs=told(OUTPUT), config=batching)
        triton.serve()
