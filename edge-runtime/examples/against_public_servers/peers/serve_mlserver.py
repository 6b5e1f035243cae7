"""Behind MLServer: in its own process instead of a pool of them, as is advised for one core and small models; uvloop."""

import asyncio

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse, MetadataTensor
from mlserver.utils import install_uvloop_event_loop

from network import GRPC, INPUT, METRICS, NAME, OUTPUT, REST, infer, shape


def told(tensor):
    return [MetadataTensor(name=tensor.name, datatype="FP32", shape=[-1, *shape(tensor)])]


class Network(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        ys = infer(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=NAME, outputs=[NumpyCodec.encode_output(OUTPUT.name, ys)])


if __name__ == "__main__":
    install_uvloop_event_loop()
    settings = Settings(
        grpc_port=GRPC, http_port=REST, metrics_port=METRICS, parallel_workers=0, debug=False, load_models_at_startup=False
    )
    model = ModelSettings(name=NAME, implementation=Network, inputs=told(INPUT), outputs=told(OUTPUT))

    async def serve():
        await MLServer(settings).start([model])

    asyncio.run(serve())
