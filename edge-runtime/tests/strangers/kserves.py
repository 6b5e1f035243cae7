"""KServe's public clients against a server of the tiny model: a second reading of the protocol, beside Triton's."""

import asyncio
import os
import unittest

import httpx
import numpy as np
from grpc import StatusCode
from grpc.aio import AioRpcError
from kserve import InferInput, InferRequest, InferenceGRPCClient, InferenceRESTClient, RESTConfig

GRPC, REST, MODEL = (os.environ[name] for name in ("SCONCE_GRPC", "SCONCE_REST", "SCONCE_MODEL"))
URL = f"http://{REST}"
IMAGES = (np.arange(2 * 64, dtype=np.float32).reshape(2, 1, 8, 8) % 11) / 11


def request(binary, images=IMAGES, model=MODEL, **more):
    tensor = InferInput("input", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], **more)


def rest():
    return InferenceRESTClient(RESTConfig(protocol="v2"))


def grpc():
    return InferenceGRPCClient(GRPC)


def ask(client, *arguments, **more):
    """One question by a client of its own."""

    async def asked():
        async with client() as open_client:
            return await open_client.infer(*arguments, **more)

    return asyncio.run(asked())


def answer(of):
    return of.outputs[0].as_numpy()


class KServesClients(unittest.TestCase):
    def test_health(self):
        async def all_of_it():
            async with rest() as client, grpc() as other:
                return [
                    await client.is_server_live(URL),
                    await client.is_server_ready(URL),
                    await client.is_model_ready(URL, MODEL),
                    not await client.is_model_ready(URL, "other"),
                    await other.is_server_live(),
                    await other.is_server_ready(),
                    await other.is_model_ready(MODEL),
                ]

        self.assertEqual(asyncio.run(all_of_it()), [True] * 7)

    def test_both_wires_and_both_forms_say_the_same(self):
        answers = [answer(ask(rest, URL, request(binary), model_name=MODEL)) for binary in (False, True)]
        answers += [answer(ask(grpc, request(binary))) for binary in (False, True)]
        np.testing.assert_allclose(answers[0].sum(axis=1), 1, rtol=1e-5)
        for other in answers:
            self.assertEqual(other.dtype, np.float32)
            np.testing.assert_array_equal(other, answers[0])

    def test_an_id_and_free_parameters_come_with_a_request(self):
        marked = request(True, request_id="7", parameters={"note": "seven"})
        over_rest, over_grpc = ask(rest, URL, marked, model_name=MODEL), ask(grpc, marked)
        for got in over_rest, over_grpc:
            self.assertEqual((got.id, got.model_name), ("7", MODEL))
        # Its client of REST reads no version.
        self.assertEqual(over_grpc.model_version, "1")

    def test_binary_answers_where_they_are_asked_for(self):
        wanted = request(True, parameters={"binary_data_output": True})
        headers = {}
        got = ask(rest, URL, wanted, model_name=MODEL, response_headers=headers)
        self.assertIn("inference-header-content-length", headers)
        np.testing.assert_array_equal(answer(got), answer(ask(grpc, request(True))))

    def test_refusals_say_why(self):
        small = np.zeros((1, 8, 8), np.float32)
        for given, code, status, why in [
            (request(True, small), StatusCode.INVALID_ARGUMENT, 400, "the model takes [-1, 1, 8, 8]"),
            (request(True, model="other"), StatusCode.NOT_FOUND, 404, 'no model "other" here'),
        ]:
            with self.assertRaises(AioRpcError) as caught:
                ask(grpc, given)
            self.assertEqual(caught.exception.code(), code)
            self.assertIn(why, caught.exception.details())
            with self.assertRaises(httpx.HTTPStatusError) as caught:
                ask(rest, URL, given, model_name=given.model_name)
            self.assertEqual(caught.exception.response.status_code, status)
            self.assertIn(why, caught.exception.response.json()["error"])


if __name__ == "__main__":
    unittest.main()
