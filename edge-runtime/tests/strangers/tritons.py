"""Triton's public clients against a server of the tiny model: input (-1, 1, 8, 8), output (-1, 3), classes a, b, c."""

import asyncio
import os
import queue
import unittest

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

GRPC, REST, MODEL = (os.environ[name] for name in ("SCONCE_GRPC", "SCONCE_REST", "SCONCE_MODEL"))
OPEN_GRPC, OPEN_REST = (os.environ[name] for name in ("SCONCE_OPEN_GRPC", "SCONCE_OPEN_REST"))
ROUTED = os.environ["SCONCE_ROUTED"]
IMAGES = (np.arange(2 * 64, dtype=np.float32).reshape(2, 1, 8, 8) % 11) / 11


def inputs(wire, images=IMAGES, **form):
    tensor = wire.InferInput("input", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, **form)
    return [tensor]


class Asked:
    """What holds over both wires, and through a router; a subclass says which."""

    def setUp(self):
        self.client = self.wire.InferenceServerClient(self.address)
        self.addCleanup(self.client.close)
        # Of another wire than each of them is compared with.
        with tritonclient.http.InferenceServerClient(REST) as other:
            self.expected = other.infer(MODEL, inputs(tritonclient.http)).as_numpy("output")

    def infer(self, **kwargs):
        return self.client.infer(MODEL, inputs(self.wire), **kwargs)

    def refused(self, expected, call, *args, **kwargs):
        with self.assertRaises(InferenceServerException) as caught:
            call(*args, **kwargs)
        self.assertIn(expected, caught.exception.message())
        return caught.exception

    def test_health(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready(MODEL))
        self.assertTrue(self.client.is_model_ready(MODEL, "1"))

    def test_an_answer(self):
        result = self.infer(request_id="7")
        np.testing.assert_array_equal(result.as_numpy("output"), self.expected)
        np.testing.assert_allclose(self.expected.sum(axis=1), 1, rtol=1e-5)
        response = result.get_response()
        self.assertEqual(response["id"] if isinstance(response, dict) else response.id, "7")

    def test_a_version_and_an_output_that_are_named(self):
        outputs = [self.wire.InferRequestedOutput("output")]
        result = self.infer(model_version="1", outputs=outputs)
        np.testing.assert_array_equal(result.as_numpy("output"), self.expected)

    def test_classes(self):
        outputs = [self.wire.InferRequestedOutput("output", class_count=2)]
        classes = self.infer(outputs=outputs).as_numpy("output")
        self.assertEqual(classes.shape, (2, 2))
        for row, scores in zip(classes, self.expected):
            for text, index in zip(row, np.argsort(-scores, kind="stable")):
                score, of, label = text.decode().split(":")
                self.assertAlmostEqual(float(score), scores[index], places=5)
                self.assertEqual((int(of), label), (index, "abc"[index]))

    def test_priority_and_timeout(self):
        np.testing.assert_array_equal(self.infer(priority=1, timeout=10_000_000).as_numpy("output"), self.expected)
        self.refused("for longer than its timeout", self.infer, timeout=1)

    def test_free_parameters(self):
        np.testing.assert_array_equal(self.infer(parameters={"note": "seven"}).as_numpy("output"), self.expected)

    def test_many_at_once(self):
        def sixteen(client):
            return [client.async_infer(MODEL, inputs(self.wire)) for _ in range(16)]

        if self.wire is tritonclient.http:
            with self.wire.InferenceServerClient(self.address, concurrency=8) as client:
                answers = [waiting.get_result() for waiting in sixteen(client)]
        else:
            done = queue.Queue()
            for _ in range(16):
                self.client.async_infer(MODEL, inputs(self.wire), lambda result, error: done.put((result, error)))
            answers = []
            for _ in range(16):
                result, error = done.get(timeout=10)
                self.assertIsNone(error)
                answers.append(result)
        for answer in answers:
            np.testing.assert_allclose(answer.as_numpy("output"), self.expected, rtol=1e-5)

    def test_refusals_say_what_was_expected(self):
        self.refused('no version "9"', self.infer, model_version="9")
        small = inputs(self.wire, np.zeros((1, 8, 8), np.float32))
        self.refused("the model takes [-1, 1, 8, 8]", self.client.infer, MODEL, small)
        many = inputs(self.wire, np.zeros((9, 1, 8, 8), np.float32))
        self.refused("the first being 1 to 4", self.client.infer, MODEL, many)
        holed = inputs(self.wire, np.full((1, 1, 8, 8), np.nan, np.float32))
        self.refused("has NaN at 0; numbers must be finite", self.client.infer, MODEL, holed)
        wide = self.wire.InferInput("input", [1, 1, 8, 8], "FP64")
        wide.set_data_from_numpy(np.zeros((1, 1, 8, 8)))
        self.refused('has datatype "FP64"; the model takes FP32', self.client.infer, MODEL, [wide])
        self.refused("is given twice", self.client.infer, MODEL, inputs(self.wire) * 2)


class Wire(Asked):
    """What holds over both wires."""

    def test_who_is_not_there(self):
        self.refused('no model "other" here', self.client.infer, "other", inputs(self.wire))

    def test_models_are_loaded_only_where_that_is_allowed(self):
        self.refused("clients cannot load models here", self.client.load_model, "other")
        self.refused("clients cannot unload models here", self.client.unload_model, MODEL)


class Open:
    """A server that lets clients load and unload."""

    def setUp(self):
        self.client = self.wire.InferenceServerClient(self.address)
        self.addCleanup(self.client.close)

    def states(self):
        index = self.client.get_model_repository_index()
        models = index if isinstance(index, list) else [{"name": m.name, "state": m.state} for m in index.models]
        return [(model["name"], model["state"]) for model in models if model["name"] == MODEL]

    def test_models_come_and_go(self):
        self.client.unload_model(MODEL)
        self.assertFalse(self.client.is_model_ready(MODEL))
        self.assertEqual(self.states(), [(MODEL, "UNAVAILABLE")])
        self.client.load_model(MODEL)
        self.assertTrue(self.client.is_model_ready(MODEL))
        self.assertEqual(self.states(), [(MODEL, "READY")])
        self.client.infer(MODEL, inputs(self.wire))

    def test_the_log_is_told_and_changed(self):
        def verbosity(settings):
            if isinstance(settings, dict):
                return settings["log_verbose_level"]
            return settings.settings["log_verbose_level"].uint32_param

        self.assertEqual(verbosity(self.client.get_log_settings()), 0)
        self.assertEqual(verbosity(self.client.update_log_settings({"log_verbose_level": 1})), 1)
        self.assertEqual(verbosity(self.client.update_log_settings({"log_verbose_level": 0})), 0)
        with self.assertRaisesRegex(InferenceServerException, '"log_file" is no setting'):
            self.client.update_log_settings({"log_file": "/tmp/log"})

    def test_what_cannot_be_loaded(self):
        with self.assertRaisesRegex(InferenceServerException, 'no model "other" to load'):
            self.client.load_model("other")
        with self.assertRaisesRegex(InferenceServerException, 'load takes no parameter "config"'):
            self.client.load_model(MODEL, config="{}")


class TestOpenGrpc(Open, unittest.TestCase):
    wire, address = tritonclient.grpc, OPEN_GRPC


class TestOpenRest(Open, unittest.TestCase):
    wire, address = tritonclient.http, OPEN_REST


class TestGrpc(Wire, unittest.TestCase):
    wire, address = tritonclient.grpc, GRPC

    def test_the_model_is_told(self):
        about = self.client.get_server_metadata(as_json=True)
        self.assertIn("statistics", about["extensions"])
        metadata = self.client.get_model_metadata(MODEL)
        self.assertEqual(list(metadata.inputs[0].shape), [-1, 1, 8, 8])
        config = self.client.get_model_config(MODEL).config
        self.assertEqual((config.max_batch_size, list(config.input[0].dims)), (4, [1, 8, 8]))
        self.assertEqual(config.dynamic_batching.priority_levels, 3)
        index = self.client.get_model_repository_index()
        self.assertEqual([(model.name, model.state) for model in index.models], [(MODEL, "READY")])

    def test_statistics_grow(self):
        def model():
            return self.client.get_inference_statistics(MODEL).model_stats[0]

        before = model()
        self.infer()
        after = model()
        self.assertEqual(after.inference_count, before.inference_count + 2)
        self.assertEqual(after.inference_stats.success.count, before.inference_stats.success.count + 1)
        self.assertGreater(after.inference_stats.compute_infer.ns, before.inference_stats.compute_infer.ns)

    def test_compressed_requests(self):
        for algorithm in "gzip", "deflate":
            result = self.infer(compression_algorithm=algorithm)
            np.testing.assert_array_equal(result.as_numpy("output"), self.expected)

    def test_codes(self):
        error = self.refused("no model", self.client.infer, "other", inputs(self.wire))
        self.assertEqual(error.status(), "StatusCode.NOT_FOUND")
        error = self.refused("cannot load", self.client.load_model, "other")
        self.assertEqual(error.status(), "StatusCode.PERMISSION_DENIED")
        error = self.refused("timeout", self.infer, timeout=1)
        self.assertEqual(error.status(), "StatusCode.UNAVAILABLE")

    def test_a_stream(self):
        done = queue.Queue()
        self.client.start_stream(lambda result, error: done.put((result, error)))
        for index in range(12):
            model = "other" if index == 5 else MODEL
            self.client.async_stream_infer(model, inputs(self.wire), request_id=str(index))
        for index in range(12):
            result, error = done.get(timeout=10)
            if index == 5:
                self.assertIn('no model "other" here', error.message())
                continue
            self.assertIsNone(error)
            self.assertEqual(result.get_response().id, str(index))
            np.testing.assert_allclose(result.as_numpy("output"), self.expected, rtol=1e-5)
        self.client.stop_stream()

    def test_aio(self):
        async def ask():
            async with tritonclient.grpc.aio.InferenceServerClient(GRPC) as client:
                assert await client.is_server_ready()
                answers = await asyncio.gather(*(client.infer(MODEL, inputs(self.wire)) for _ in range(8)))

                async def requests():
                    for index in range(3):
                        yield {"model_name": MODEL, "inputs": inputs(self.wire), "request_id": str(index)}

                async for result, error in client.stream_infer(requests()):
                    assert error is None, error
                    answers.append(result)
                return answers

        answers = asyncio.run(ask())
        self.assertEqual(len(answers), 11)
        for answer in answers:
            np.testing.assert_allclose(answer.as_numpy("output"), self.expected, rtol=1e-5)


class TestRouted(Asked, unittest.TestCase):
    wire, address = tritonclient.grpc, ROUTED

    def test_the_model_is_told(self):
        metadata = self.client.get_model_metadata(MODEL)
        self.assertEqual(list(metadata.inputs[0].shape), [-1, 1, 8, 8])
        self.assertEqual(self.client.get_model_config(MODEL).config.max_batch_size, 4)

    def test_who_is_not_there(self):
        error = self.refused('no model "other" is routed here', self.client.infer, "other", inputs(self.wire))
        self.assertEqual(error.status(), "StatusCode.NOT_FOUND")

    def test_compressed_requests(self):
        error = self.refused("send them uncompressed", self.infer, compression_algorithm="gzip")
        self.assertEqual(error.status(), "StatusCode.UNIMPLEMENTED")


class TestRest(Wire, unittest.TestCase):
    wire, address = tritonclient.http, REST

    def setUp(self):
        super().setUp()
        with tritonclient.grpc.InferenceServerClient(GRPC) as other:
            self.expected = other.infer(MODEL, inputs(tritonclient.grpc)).as_numpy("output")

    def test_the_model_is_told(self):
        about = self.client.get_server_metadata()
        self.assertIn("binary_tensor_data", about["extensions"])
        metadata = self.client.get_model_metadata(MODEL)
        tensor, encoded = metadata["inputs"]
        self.assertEqual(tensor, {"name": "input", "datatype": "FP32", "shape": [-1, 1, 8, 8]})
        self.assertEqual(encoded, {"name": "encoded", "datatype": "BYTES", "shape": [-1, 1]})
        config = self.client.get_model_config(MODEL)
        tensor, encoded = config["input"]
        self.assertEqual(tensor, {"name": "input", "data_type": "TYPE_FP32", "dims": [1, 8, 8], "optional": False})
        self.assertTrue(encoded["optional"])
        index = self.client.get_model_repository_index()
        self.assertEqual([(model["name"], model["state"]) for model in index], [(MODEL, "READY")])

    def test_statistics_grow(self):
        def model():
            return self.client.get_inference_statistics(MODEL)["model_stats"][0]

        before = model()
        self.infer()
        after = model()
        self.assertEqual(after["inference_count"], before["inference_count"] + 2)
        self.assertEqual(self.client.get_inference_statistics()["model_stats"][0]["name"], MODEL)

    def test_json_and_binary_either_way(self):
        for given in False, True:
            for wanted in False, True:
                outputs = [self.wire.InferRequestedOutput("output", binary_data=wanted)]
                result = self.client.infer(MODEL, inputs(self.wire, binary_data=given), outputs=outputs)
                self.assertEqual("data" in result.get_output("output"), not wanted)
                np.testing.assert_array_equal(result.as_numpy("output"), self.expected)

    def test_classes_as_json(self):
        outputs = [self.wire.InferRequestedOutput("output", binary_data=False, class_count=1)]
        best = self.infer(outputs=outputs).get_output("output")
        self.assertEqual((best["datatype"], best["shape"]), ("BYTES", [2, 1]))
        self.assertIn(best["data"][0].split(":")[2], "abc")

    def test_compressed_either_way(self):
        for algorithm in "gzip", "deflate":
            result = self.infer(request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)
            np.testing.assert_array_equal(result.as_numpy("output"), self.expected)

    def test_bodies_made_and_read_by_hand(self):
        body, length = self.wire.InferenceServerClient.generate_request_body(inputs(self.wire))
        headers = {"Inference-Header-Content-Length": str(length)}
        response = self.client._post(f"v2/models/{MODEL}/infer", body, headers, None)
        self.assertEqual(response.status_code, 200)
        length = int(response.get("inference-header-content-length"))
        result = self.wire.InferenceServerClient.parse_response_body(response.read(), header_length=length)
        np.testing.assert_array_equal(result.as_numpy("output"), self.expected)

    def test_codes(self):
        for status, call in [
            ("404", lambda: self.client.infer("other", inputs(self.wire))),
            ("403", lambda: self.client.load_model("other")),
            ("403", lambda: self.client.update_log_settings({"log_info": False})),
            ("501", self.client.get_trace_settings),
            ("501", self.client.get_system_shared_memory_status),
            ("503", lambda: self.infer(timeout=1)),
        ]:
            self.assertEqual(self.refused("", call).status(), status)

    def test_aio(self):
        async def ask():
            async with tritonclient.http.aio.InferenceServerClient(REST) as client:
                assert await client.is_server_ready()
                compressed = client.infer(MODEL, inputs(self.wire), request_compression_algorithm="gzip")
                return await asyncio.gather(compressed, *(client.infer(MODEL, inputs(self.wire)) for _ in range(8)))

        for answer in asyncio.run(ask()):
            np.testing.assert_allclose(answer.as_numpy("output"), self.expected, rtol=1e-5)


if __name__ == "__main__":
    unittest.main()
