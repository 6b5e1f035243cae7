"""The networks of a folder, as peer.py has written them there, in OpenVINO. What is asked and answered is as in answers.py."""

import pathlib
import sys

import numpy as np
import openvino as ov
from safetensors.numpy import load_file

from answers import fastest, serve, slice_of

CORE = ov.Core()
SETTINGS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
# Else it computes in bf16 what it can, where the CPU has that.
PRECISIONS = {"f32": {"INFERENCE_PRECISION_HINT": "f32"}, "int8": {}}


class Session:
    """One thread, the batch known when the network is compiled; inputs and outputs lie where they stay."""

    def __init__(self, path, xs, precision):
        model = CORE.read_model(path)
        model.reshape(list(xs.shape))
        request = CORE.compile_model(model, "CPU", SETTINGS | PRECISIONS[precision]).create_infer_request()
        request.set_input_tensor(ov.Tensor(xs, shared_memory=True))
        self.ys = request.get_output_tensor().data

        def started():
            request.start_async()
            request.wait()

        self.run = fastest(started, lambda: request.infer(share_outputs=True))

    def infer(self):
        self.run()
        return self.ys.ravel().tolist()


def main():
    folder = pathlib.Path(sys.argv[1])
    xs = load_file(folder / "input.safetensors")["input"]
    files = {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}
    no_int8 = None if files["int8"].exists() else "there is none of ONNX Runtime's to read"
    empty_call = slice_of(Session(folder / "empty.onnx", np.zeros((1, 1), np.float32), "f32").run, 100)
    serve(
        {"empty_call": empty_call, "no_int8": no_int8},
        lambda precision, batch: Session(files[precision], np.ascontiguousarray(xs[:batch]), precision),
    )


if __name__ == "__main__":
    main()
