"""Behind KServe's SDK: one worker for one core, uvloop, no line of log for each request."""

import asyncio

import uvloop
from kserve import InferOutput, InferResponse, Model, ModelServer

from network import GRPC, INPUT, NAME, OUTPUT, REST, infer, shape


def told(tensor):
    return [{"name": tensor.name, "datatype": "FP32", "shape": [-1, *shape(tensor)]}]


class Network(Model):
    def __init__(self):
        super().__init__(NAME)
        self.ready = True

    def get_input_types(self):
        return told(INPUT)

    def get_output_types(self):
        return told(OUTPUT)

    async def predict(self, payload, headers=None, response_headers=None):
        ys = infer(payload.inputs[0].as_numpy())
        output = InferOutput(OUTPUT.name, list(ys.shape), "FP32")
        output.set_data_from_numpy(ys, binary_data=True)
        return InferResponse(response_id=payload.id, model_name=NAME, infer_outputs=[output])


if __name__ == "__main__":
    uvloop.install()
    # The SDK looks for a loop before it starts its own, and uvloop makes none by itself.
    asyncio.set_event_loop(asyncio.new_event_loop())
    server = ModelServer(
        http_port=REST, grpc_port=GRPC, workers=1, enable_latency_logging=False, access_log_format=None
    )
    server.start([Network()])
