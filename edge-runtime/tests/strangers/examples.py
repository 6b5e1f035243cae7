"""What Triton's public examples ask of the models "simple", "simple_string" and "simple_identity", by the same calls. Each class
is for the examples that it names; left out are those of shared memory and of sequences, and of models loaded with another
configuration."""

import asyncio
import os
import queue
import unittest

import grpc
import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

GRPC, REST = (os.environ[name] for name in ("SCONCE_OPEN_GRPC", "SCONCE_OPEN_REST"))
XS = np.arange(16, dtype=np.int32).reshape(1, 16)
YS = np.ones((1, 16), dtype=np.int32)
OUTPUTS = "OUTPUT0", "OUTPUT1"


def filled(wire, name, values, datatype, **form):
    tensor = wire.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, **form)
    return tensor


def pair(wire, xs=XS, ys=YS, datatype="INT32"):
    return [filled(wire, "INPUT0", xs, datatype), filled(wire, "INPUT1", ys, datatype)]


def wanted(wire, **form):
    return [wire.InferRequestedOutput(name, **form) for name in OUTPUTS]


def texts(values):
    return np.array([str(value).encode() for value in values.flat], dtype=np.object_).reshape(values.shape)


class Example:
    """Over one wire; a subclass says which."""

    def setUp(self):
        self.client = self.wire.InferenceServerClient(self.address)
        self.addCleanup(self.client.close)

    def right(self, result, ys=YS):
        for name, expected in zip(OUTPUTS, (XS + ys, XS - ys)):
            np.testing.assert_array_equal(result.as_numpy(name).astype(np.int32), expected)


class Both(Example):
    def test_infer(self):
        """simple_{grpc,http}_infer_client"""
        self.right(self.client.infer("simple", pair(self.wire), outputs=wanted(self.wire), headers={"test": "1"}))
        self.right(self.client.infer("simple", pair(self.wire), outputs=None))
        with self.assertRaisesRegex(InferenceServerException, "Request for unknown model"):
            self.client.infer("wrong_model_name", pair(self.wire))

    def test_health_and_metadata(self):
        """simple_{grpc,http}_health_metadata"""
        self.assertTrue(self.client.is_server_live(headers={"test": "1", "dummy": "2"}))
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("simple"))
        about = self.client.get_server_metadata()
        self.assertEqual(about["name"] if isinstance(about, dict) else about.name, "triton")
        metadata = self.client.get_model_metadata("simple", headers={"test": "1", "dummy": "2"})
        self.assertEqual(metadata["name"] if isinstance(metadata, dict) else metadata.name, "simple")
        with self.assertRaises(InferenceServerException) as caught:
            self.client.get_model_metadata("wrong_model_name")
        self.assertTrue(caught.exception.message().startswith("Request for unknown model"))

    def test_tensors_that_are_filled_anew(self):
        """reuse_infer_objects_client, without its shared memory"""
        inputs, outputs = pair(self.wire), wanted(self.wire)
        for factor in 1, 2:
            inputs[0].set_data_from_numpy(XS)
            inputs[1].set_data_from_numpy(YS * factor)
            for output in outputs:
                output.unset_shared_memory()
            self.right(self.client.infer("simple", inputs, outputs=outputs), YS * factor)

    def test_bytes_that_are_no_text(self):
        """simple_{grpc,http}_string_infer_client: simple_identity"""
        for values in (
            np.array([b"he\x00llo"] * 16, dtype=np.object_).reshape(1, 16),
            np.array([b"\x00\x01\x02\x03"] * 16, dtype=np.bytes_).reshape(1, 16),
            np.array([b"", bytes(range(256))], dtype=np.object_).reshape(2, 1),
        ):
            inputs = [filled(self.wire, "INPUT0", values, "BYTES")]
            outputs = [self.wire.InferRequestedOutput("OUTPUT0")]
            result = self.client.infer("simple_identity", inputs, outputs=outputs).as_numpy("OUTPUT0")
            np.testing.assert_array_equal(result, values.astype(np.object_))


class TestGrpc(Both, unittest.TestCase):
    wire, address = tritonclient.grpc, GRPC

    def test_statistics_and_configuration(self):
        """simple_grpc_infer_client, simple_grpc_health_metadata"""
        self.client.infer("simple", pair(self.wire))
        self.assertEqual(len(self.client.get_inference_statistics(model_name="simple").model_stats), 1)
        config = self.client.get_model_config("simple").config
        self.assertEqual((config.name, config.max_batch_size), ("simple", 8))

    def test_texts(self):
        """simple_grpc_string_infer_client: simple_string"""
        inputs = pair(self.wire, texts(XS), texts(YS), "BYTES")
        self.right(self.client.infer("simple_string", inputs, outputs=wanted(self.wire)))

    def test_async(self):
        """simple_grpc_async_infer_client"""
        done = queue.Queue()
        self.client.async_infer("simple", pair(self.wire), lambda result, error: done.put((result, error)))
        result, error = done.get(timeout=10)
        self.assertIsNone(error)
        self.right(result)

    def test_aio(self):
        """simple_grpc_aio_infer_client, simple_grpc_aio_string_infer_client"""

        async def ask():
            async with tritonclient.grpc.aio.InferenceServerClient(GRPC) as client:
                for model, inputs in (
                    ("simple", pair(self.wire)),
                    ("simple_string", pair(self.wire, texts(XS), texts(YS), "BYTES")),
                ):
                    self.right(await client.infer(model, inputs, outputs=wanted(self.wire)))

        asyncio.run(ask())

    def test_connections_of_other_settings(self):
        """simple_grpc_keepalive_client, simple_grpc_custom_args_client"""
        options = tritonclient.grpc.KeepAliveOptions(keepalive_time_ms=2**31 - 1, keepalive_timeout_ms=20_000)
        for settings in {"keepalive_options": options}, {"channel_args": [("grpc.primary_user_agent", "some")]}:
            with self.wire.InferenceServerClient(GRPC, **settings) as client:
                self.right(client.infer("simple", pair(self.wire)))

    def test_typed_contents(self):
        """grpc_explicit_{int,byte}_content_client, but for where they look: an answer to what is typed is typed"""

        def tensor(name, datatype, **contents):
            shape = [1, 16]
            return service_pb2.ModelInferRequest.InferInputTensor(
                name=name, datatype=datatype, shape=shape, contents=service_pb2.InferTensorContents(**contents)
            )

        with grpc.insecure_channel(GRPC) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for model, datatype, field, given in (
                ("simple", "INT32", "int_contents", lambda values: values.ravel().tolist()),
                ("simple_string", "BYTES", "bytes_contents", lambda values: texts(values).ravel().tolist()),
            ):
                inputs = [tensor(f"INPUT{at}", datatype, **{field: given(xs)}) for at, xs in enumerate((XS, YS))]
                request = service_pb2.ModelInferRequest(model_name=model, inputs=inputs)
                outputs = stub.ModelInfer(request).outputs
                for output, expected in zip(outputs, (XS + YS, XS - YS), strict=True):
                    self.assertEqual(list(getattr(output.contents, field)), given(expected))
                # Both at once are refused.
                request.raw_input_contents.extend([b"", b""])
                with self.assertRaises(grpc.RpcError) as caught:
                    stub.ModelInfer(request)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)


class TestRest(Both, unittest.TestCase):
    wire, address = tritonclient.http, REST

    def test_forms_beside_one_another(self):
        """simple_http_infer_client, simple_http_string_infer_client"""
        outputs = [self.wire.InferRequestedOutput(name, binary_data=at == 0) for at, name in enumerate(OUTPUTS)]
        for model, datatype, xs, ys in (
            ("simple", "INT32", XS, YS),
            ("simple_string", "BYTES", texts(XS), texts(YS)),
        ):
            for binary in True, False:
                inputs = [
                    filled(self.wire, "INPUT0", xs, datatype, binary_data=binary),
                    filled(self.wire, "INPUT1", ys, datatype, binary_data=not binary),
                ]
                self.right(self.client.infer(model, inputs, outputs=outputs, query_params={"test_1": 1, "test_2": 2}))
        self.assertEqual(len(self.client.get_inference_statistics(model_name="simple")["model_stats"]), 1)

    def test_texts_as_json(self):
        """simple_http_string_infer_client: simple_identity"""
        for text in b"he\x00llo", b"\x00\x01\x02\x03", "grüße".encode():
            values = np.array([text] * 16, dtype=np.object_).reshape(1, 16)
            inputs = [filled(self.wire, "INPUT0", values, "BYTES", binary_data=False)]
            outputs = [self.wire.InferRequestedOutput("OUTPUT0", binary_data=False)]
            result = self.client.infer("simple_identity", inputs, outputs=outputs).as_numpy("OUTPUT0")
            self.assertEqual([element.encode() for element in result.flat], [text] * 16)

    def test_async(self):
        """simple_http_async_infer_client"""
        self.right(self.client.async_infer("simple", pair(self.wire)).get_result())

    def test_aio(self):
        """simple_http_aio_infer_client"""

        async def ask():
            async with tritonclient.http.aio.InferenceServerClient(REST) as client:
                self.right(await client.infer("simple", pair(self.wire), outputs=wanted(self.wire)))

        asyncio.run(ask())


if __name__ == "__main__":
    unittest.main()
