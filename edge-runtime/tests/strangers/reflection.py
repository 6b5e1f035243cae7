"""gRPC's own reflection client: all that a stranger knows is the address, as with grpcurl."""

import os
import unittest

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

GRPC, MODEL = (os.environ[name] for name in ("SCONCE_GRPC", "SCONCE_MODEL"))
SERVICE = "inference.GRPCInferenceService"


class Reflection(unittest.TestCase):
    def setUp(self):
        self.channel = grpc.insecure_channel(GRPC)
        self.addCleanup(self.channel.close)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.service = DescriptorPool(self.database).FindServiceByName(SERVICE)

    def call(self, procedure, **fields):
        method = self.service.methods_by_name[procedure]
        ask = self.channel.unary_unary(
            f"/{SERVICE}/{procedure}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return ask(GetMessageClass(method.input_type)(**fields), timeout=10)

    def test_all_services_are_listed(self):
        self.assertLessEqual({SERVICE, "grpc.health.v1.Health"}, set(self.database.get_services()))

    def test_a_model_is_found_and_asked_by_what_is_told(self):
        [name] = {model.name for model in self.call("RepositoryIndex").models}
        self.assertEqual(name, MODEL)
        [tensor, *_] = self.call("ModelMetadata", name=name).inputs
        self.assertEqual(list(tensor.shape), [-1, 1, 8, 8])
        shape = [1, *tensor.shape[1:]]
        given = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "contents": {"fp32_contents": [0.5] * 64}}
        [output] = self.call("ModelInfer", model_name=name, inputs=[given]).outputs
        self.assertAlmostEqual(sum(output.contents.fp32_contents), 1, places=5)

    def test_a_name_that_is_not_there_is_not_found(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.database.FindFileContainingSymbol("inference.Nothing")
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)


if __name__ == "__main__":
    unittest.main()
