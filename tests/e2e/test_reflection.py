"""Every gRPC port of a node lists what it serves, describes it, and says how each of it stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.nodes import PartyNode

pytestmark = pytest.mark.usefixtures("transport")

EVERYWHERE = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
OIP = "inference.GRPCInferenceService"
FATE = "com.webank.ai.fate.api"
PORTS = {
    "service": {"tessera.v1.Inference", OIP, f"{FATE}.serving.InferenceService"},
    "party": {"tessera.v1.Federation", f"{FATE}.networking.proxy.DataTransferService"},
    "admin": {
        "tessera.v1.Admin",
        OIP,
        f"{FATE}.mlmodel.manager.ModelService",
        f"{FATE}.networking.common.CommonService",
    },
}


@pytest.fixture(scope="module")
def node(transport: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PartyNode]:
    alone = PartyNode(tmp_path_factory.mktemp("reflection"), "bank", "[cache]\nembedded = false\n")
    alone.start()
    try:
        yield alone
    finally:
        alone.stop()


@pytest.fixture
def link(node: PartyNode, port: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(node.address(port)) as opened:
        yield opened


@pytest.mark.parametrize("port", list(PORTS))
def test_a_port_lists_what_it_serves(link: grpc.Channel, port: str) -> None:
    assert set(ProtoReflectionDescriptorDatabase(link).get_services()) == PORTS[port] | EVERYWHERE


@pytest.mark.parametrize("port", list(PORTS))
def test_every_service_is_described_with_its_messages(link: grpc.Channel, port: str) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(link))
    for name in PORTS[port] | EVERYWHERE:
        service = pool.FindServiceByName(name)
        assert service.methods
        for method in service.methods:
            assert method.input_type.full_name
            assert method.output_type.full_name


@pytest.mark.parametrize("port", list(PORTS))
def test_what_there_is_not_is_not_found(link: grpc.Channel, port: str) -> None:
    with pytest.raises(KeyError):
        DescriptorPool(ProtoReflectionDescriptorDatabase(link)).FindServiceByName("tessera.v1.Nothing")


@pytest.mark.parametrize("port", list(PORTS))
def test_health_of_every_service_is_checked_and_watched(link: grpc.Channel, port: str) -> None:
    stub = health_pb2_grpc.HealthStub(link)
    for name in ("", *PORTS[port]):
        request = health_pb2.HealthCheckRequest(service=name)
        assert stub.Check(request, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(request, timeout=5)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=5)
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


def test_a_watch_hears_of_the_end(transport: object, tmp_path: Path) -> None:
    node = PartyNode(tmp_path, "bank", "[cache]\nembedded = false\n")
    node.start()
    try:
        with grpc.insecure_channel(node.address("service")) as link:
            watch = health_pb2_grpc.HealthStub(link).Watch(health_pb2.HealthCheckRequest(service=OIP), timeout=20)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            worker = node.worker()
            worker.terminate()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
    finally:
        node.stop()
