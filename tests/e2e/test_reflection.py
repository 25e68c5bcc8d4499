"""Every gRPC port of a node lists what it serves, describes it, and says how each of it stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.nodes import PartyNode

pytestmark = pytest.mark.usefixtures("transport")

FIRST = "grpc.reflection.v1.ServerReflection"
EVERYWHERE = {"grpc.health.v1.Health", FIRST, "grpc.reflection.v1alpha.ServerReflection"}
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


class _First(ProtoReflectionDescriptorDatabase):
    """Asks by v1, whose messages are those of v1alpha."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(channel)
        self._stub.ServerReflectionInfo = channel.stream_stream(
            f"/{FIRST}/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )


VERSIONS = pytest.mark.parametrize("version", [_First, ProtoReflectionDescriptorDatabase], ids=["v1", "v1alpha"])


@VERSIONS
@pytest.mark.parametrize("port", list(PORTS))
def test_a_port_lists_what_it_serves(link: grpc.Channel, port: str, version: Any) -> None:
    assert set(version(link).get_services()) == PORTS[port] | EVERYWHERE


@VERSIONS
@pytest.mark.parametrize("port", list(PORTS))
def test_every_service_is_described_with_its_messages(link: grpc.Channel, port: str, version: Any) -> None:
    pool = DescriptorPool(version(link))
    for name in PORTS[port] | EVERYWHERE:
        service = pool.FindServiceByName(name)
        assert service.methods
        for method in service.methods:
            assert method.input_type.full_name
            assert method.output_type.full_name
    assert pool.FindServiceByName(FIRST).methods[0].input_type.full_name == "grpc.reflection.v1.ServerReflectionRequest"


@VERSIONS
@pytest.mark.parametrize("port", list(PORTS))
def test_what_there_is_not_is_not_found(link: grpc.Channel, port: str, version: Any) -> None:
    with pytest.raises(KeyError):
        DescriptorPool(version(link)).FindServiceByName("tessera.v1.Nothing")


@pytest.mark.parametrize("port", list(PORTS))
def test_health_of_the_services_of_a_port_is_checked_and_watched_there(link: grpc.Channel, port: str) -> None:
    stub = health_pb2_grpc.HealthStub(link)
    for name in ("", *PORTS[port], *EVERYWHERE):
        request = health_pb2.HealthCheckRequest(service=name)
        assert stub.Check(request, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
        watch = stub.Watch(request, timeout=5)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
    for name in {"nothing", *PORTS["service"], *PORTS["party"], *PORTS["admin"]} - PORTS[port]:
        request = health_pb2.HealthCheckRequest(service=name)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(request, timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        unknown = stub.Watch(request, timeout=5)
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
