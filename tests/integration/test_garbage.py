"""Calls leave no cycles at any door of a node: what a call held is gone with its answer, and the collector, which would
answer nobody meanwhile, has nothing to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bench.harness.population import SERVICE, user
from serving.transport import Code, RpcError, Transport
from tessera.compat import fate_inference_pb2, fate_inference_pb2_grpc, open_inference_pb2_grpc
from tessera.compat import open_inference_pb2 as oip
from tessera.v1 import admin_pb2, federation_pb2, federation_pb2_grpc
from tessera.v1 import inference_pb2 as wire
from tests.collector import Collector
from tests.ground import CHOSEN, FEATURES, LOCAL, MEAN, NARROW, ONE, SHADOWED, STALE, TOGETHER, Ground, making
from tests.leavings import FEW, leavings
from tests.redis_server import redis_server

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("thawed")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(transport: Transport, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with making(tmp_path_factory.mktemp("ground"), "[cache]\nstale_s = 600\n", transport) as one:
        yield one


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector().running() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def equipped(
    transport: Transport, redis: str, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ground]:
    """With a shared level, and all calls traced."""
    folder = tmp_path_factory.mktemp("equipped")
    settings = f"[cache]\nurl = '{redis}'\nstale_s = 600\n[traces]\nendpoint = '{collector.endpoint}'\nshare = 1.0\n"
    async with making(folder, settings, transport) as one:
        yield one


async def refused(call: Awaitable[object], *codes: Code) -> None:
    try:
        await call
    except RpcError as error:
        assert error.code in codes
    else:
        raise AssertionError("it was answered")


Kind = Callable[[Ground, int], Awaitable[object]]
KINDS: dict[str, Kind] = {}
DOWN: dict[str, Kind] = {}
"""While a host cannot be reached."""
SILENT: dict[str, Kind] = {}
"""While it does not answer."""


def kind(name: str, where: dict[str, Kind] = KINDS) -> Callable[[Kind], Kind]:
    def named(call: Kind) -> Kind:
        where[name] = call
        return call

    return named


@kind("new users")
async def _(ground: Ground, number: int) -> None:
    assert (await ground.predict()).complete


@kind("new users of one host")
async def _(ground: Ground, number: int) -> None:
    assert (await ground.predict(ONE)).attribution


@kind("a user seen before")
async def _(ground: Ground, number: int) -> None:
    reply = await ground.predict(user_id=user(1))
    assert not number or reply.parties[0].level == wire.CACHE_LEVEL_L2


@kind("a case repeated")
async def _(ground: Ground, number: int) -> None:
    reply = await ground.predict(user_id=user(1), case_id="c")
    assert not number or reply.cache == wire.CACHE_LEVEL_L1


@kind("new users together")
async def _(ground: Ground, number: int) -> None:
    await asyncio.gather(*(ground.predict() for _ in range(TOGETHER)))


@kind("users seen before together")
async def _(ground: Ground, number: int) -> None:
    await asyncio.gather(*(ground.predict(user_id=user(one)) for one in range(TOGETHER)))


def columns(rows: int, features: dict[str, float] = FEATURES) -> dict[str, wire.NumberColumn]:
    return {name: wire.NumberColumn(values=[value] * rows) for name, value in features.items()}


@kind("a batch")
async def _(ground: Ground, number: int) -> None:
    request = wire.BatchPredictRequest(
        service=SERVICE, user_ids=ground.new_users(), numbers=columns(TOGETHER), attributed=bool(number % 2)
    )
    assert not any((await ground.inference.BatchPredict(request, timeout=5)).statuses)


@kind("a batch of which one is not known")
async def _(ground: Ground, number: int) -> None:
    users = [*ground.new_users(), f"b{number}"]
    request = wire.BatchPredictRequest(service=SERVICE, user_ids=users, numbers=columns(len(users)))
    assert (await ground.inference.BatchPredict(request, timeout=5)).statuses[-1]


@kind("a local model")
async def _(ground: Ground, number: int) -> None:
    assert (await ground.predict(LOCAL, numbers={"a": 1.0, "b": 2.0})).complete


@kind("a long batch of a local model")
async def _(ground: Ground, number: int) -> None:
    request = wire.BatchPredictRequest(
        service=LOCAL, user_ids=[""] * 999, numbers=columns(999, {"a": 1.0, "b": number})
    )
    await ground.inference.BatchPredict(request, timeout=5)


@kind("a user whom no host knows")
async def _(ground: Ground, number: int) -> None:
    await refused(ground.predict(user_id=f"x{number}"), Code.FAILED_PRECONDITION)


@kind("a user whom no host knows, under other policies")
async def _(ground: Ground, number: int) -> None:
    for policy in (MEAN, CHOSEN):
        assert not (await ground.predict(policy, user_id=f"x{policy}{number}")).complete


@kind("together with a user whom no host knows")
async def _(ground: Ground, number: int) -> None:
    stranger = refused(ground.predict(user_id=f"t{number}"), Code.FAILED_PRECONDITION)
    await asyncio.gather(stranger, *(ground.predict() for _ in range(TOGETHER)))


@kind("beyond a limit")
async def _(ground: Ground, number: int) -> None:
    await refused(ground.predict(NARROW), Code.RESOURCE_EXHAUSTED)


@kind("a wrong feature")
async def _(ground: Ground, number: int) -> None:
    await refused(ground.predict(numbers={"a": 1.0}), Code.INVALID_ARGUMENT)


@kind("together with a wrong feature")
async def _(ground: Ground, number: int) -> None:
    wrong = refused(ground.predict(numbers={"a": 1.0}), Code.INVALID_ARGUMENT)
    await asyncio.gather(wrong, *(ground.predict() for _ in range(TOGETHER)))


@kind("an unknown service")
async def _(ground: Ground, number: int) -> None:
    await refused(ground.predict("nothing"), Code.NOT_FOUND)


@kind("a shadow")
async def _(ground: Ground, number: int) -> None:
    await ground.predict(SHADOWED)


@kind("feedback")
async def _(ground: Ground, number: int) -> None:
    reply = await ground.predict(ONE)
    outcomes = [
        admin_pb2.Outcome(attribution=reply.attribution, label=1.0),
        admin_pb2.Outcome(attribution=b"?", label=1.0),
    ]
    said = await ground.admin.Feedback(admin_pb2.FeedbackRequest(outcomes=outcomes), timeout=5)
    assert (said.accepted, list(said.refused)) == (1, [1])


@kind("a warm-up")
async def _(ground: Ground, number: int) -> None:
    request = admin_pb2.PrefetchRequest(service=SERVICE, user_ids=ground.new_users())
    await ground.admin.Prefetch(request, timeout=5)


@kind("partials, of a known user and of others, and for another protocol")
async def _(ground: Ground, number: int) -> None:
    stub = federation_pb2_grpc.FederationStub(ground.host.stub_channel)
    request = federation_pb2.InferRequest(
        protocol=federation_pb2.Protocol(major=1), model=ONE, version="1", binding_digest=ground.digest,
        user_ids=[user(1), "nobody"],
    )  # fmt: skip
    assert list((await stub.Infer(request, timeout=5)).statuses) == [0, 1]
    request.protocol.major = 9
    await refused(stub.Infer(request, timeout=5), Code.FAILED_PRECONDITION)


@kind("a check of health, and a watch that its caller ends")
async def _(ground: Ground, number: int) -> None:
    stub = health_pb2_grpc.HealthStub(ground.service.stub_channel)
    await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=5)
    assert await watching.read()
    watching.cancel()


def tensors(name: str, **features: float) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=SERVICE)
    tensor = request.inputs.add(name="user_id", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(name.encode())
    for feature, value in (features or FEATURES).items():
        request.inputs.add(name=feature, datatype="FP64", shape=[1, 1]).contents.fp64_contents.append(value)
    return request


@kind("OIP")
async def _(ground: Ground, number: int) -> None:
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(ground.service.stub_channel)
    await stub.ModelInfer(tensors(ground.new_user()), timeout=5)
    await refused(stub.ModelInfer(tensors(user(1), a=1.0), timeout=5), Code.INVALID_ARGUMENT)


@kind("a stream of OIP")
async def _(ground: Ground, number: int) -> None:
    stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(ground.service.stub_channel)
    asked = [tensors(ground.new_user()), tensors(ground.new_user()), tensors(user(1), a=1.0)]
    said = [one.error_message async for one in stub.ModelStreamInfer(iter(asked), timeout=5)]
    assert said[:2] == ["", ""] and said[2]


def fate_body(name: str) -> dict[str, Any]:
    return {"featureData": FEATURES, "sendToRemoteFeatureData": {"id": name}}


@kind("FATE")
async def _(ground: Ground, number: int) -> None:
    stub = fate_inference_pb2_grpc.InferenceServiceStub(ground.service.stub_channel)
    rows = [{"index": place, **fate_body(name)} for place, name in enumerate(ground.new_users())]
    for method, more, code in (
        (stub.inference, fate_body(ground.new_user()), 0),
        (stub.inference, fate_body(f"f{number}"), 2113),
        (stub.batchInference, {"batchDataList": rows}, 0),
    ):
        body = json.dumps({"serviceId": SERVICE, **more}).encode()
        reply = await method(fate_inference_pb2.InferenceMessage(body=body), timeout=5)
        assert json.loads(reply.body)["retcode"] == code


@kind("JSON")
async def _(ground: Ground, number: int) -> None:
    good = {"service": SERVICE, "user_id": ground.new_user(), "features": FEATURES}
    assert await ground.http.ask("POST", "/v1/predict", good) == 200
    assert await ground.http.ask("POST", "/v1/predict", {**good, "features": {"a": 1.0}}) == 400
    assert await ground.http.ask("POST", "/v1/predict", {**good, "service": NARROW}) == 429


@kind("OIP and FATE over HTTP")
async def _(ground: Ground, number: int) -> None:
    inputs = [{"name": name, "datatype": "FP64", "shape": [1, 1], "data": [value]} for name, value in FEATURES.items()]
    asked = {"name": "user_id", "datatype": "BYTES", "shape": [1, 1], "data": [ground.new_user()]}
    assert await ground.http.ask("POST", "/v2/models/s/infer", {"inputs": [*inputs, asked]}) == 200
    assert await ground.http.ask("POST", "/v2/models/s/infer", {"inputs": inputs}) == 400
    body = {"head": {"serviceId": SERVICE}, "body": fate_body(ground.new_user())}
    assert await ground.http.ask("POST", "/federation/v1/inference", body) == 200


@kind("squeezed, over HTTP")
async def _(ground: Ground, number: int) -> None:
    inputs = [
        {"name": name, "datatype": "FP64", "shape": [9, 1], "data": [value] * 9}
        for name, value in (("a", 1.0), ("b", 2.0))
    ]
    assert await ground.http.ask("POST", f"/v2/models/{LOCAL}/infer", {"inputs": inputs}, squeezed=True) == 200


@kind("reflection")
async def _(ground: Ground, number: int) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(ground.service.stub_channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    assert len([one async for one in stub.ServerReflectionInfo(asked, timeout=5)]) == 1


@kind("figures, readiness, the console, and no page")
async def _(ground: Ground, number: int) -> None:
    for path, status in (("/metrics", 200), ("/readyz", 200), ("/console", 200), ("/nothing", 404)):
        assert await ground.http.ask("GET", path) == status


@kind("a deadline that passes", SILENT)
async def _(ground: Ground, number: int) -> None:
    await refused(ground.predict(ONE, timeout_s=0.01), Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE)


@kind("a call that its caller gives up", SILENT)
async def _(ground: Ground, number: int) -> None:
    asking = asyncio.ensure_future(ground.predict(ONE))
    for _ in range(20):
        await asyncio.sleep(0)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking


@kind("no host", DOWN)
async def _(ground: Ground, number: int) -> None:
    await refused(ground.predict(ONE), Code.UNAVAILABLE)


@kind("no host, together", DOWN)
async def _(ground: Ground, number: int) -> None:
    await asyncio.gather(*(refused(ground.predict(), Code.UNAVAILABLE) for _ in range(TOGETHER)))


@kind("no host, under other policies", DOWN)
async def _(ground: Ground, number: int) -> None:
    for policy in (MEAN, CHOSEN):
        assert not (await ground.predict(policy)).complete
    await refused(ground.predict(STALE), Code.UNAVAILABLE)


@contextmanager
def silence(ground: Ground) -> Iterator[None]:
    ground.parties.proxy.freeze(new_ones_too=True)
    try:
        yield
    finally:
        ground.parties.proxy.thaw()


def judge(left: Counter[str], transport: Transport) -> None:
    """What grpc leaves of each call by itself cannot be mended here."""
    foreign = ("grpc.", "_cython", "importlib._bootstrap._Metadatum", "builtins.tuple")
    ours = {
        name: number for name, number in left.items() if transport is Transport.NATIVE or not name.startswith(foreign)
    }
    assert sum(ours.values()) < FEW, ours


@pytest.mark.parametrize("name", list(KINDS))
async def test_calls_leave_nothing(ground: Ground, transport: Transport, name: str) -> None:
    judge(await leavings(lambda number: KINDS[name](ground, number)), transport)


@pytest.mark.parametrize(
    "name", ["new users", "a user seen before", "a batch", "a user whom no host knows", "a shadow"]
)
async def test_nor_with_traces_and_a_shared_level(equipped: Ground, transport: Transport, name: str) -> None:
    judge(await leavings(lambda number: KINDS[name](equipped, number)), transport)


@pytest.mark.parametrize("name", list(SILENT))
async def test_nor_while_a_host_is_silent(ground: Ground, transport: Transport, name: str) -> None:
    with silence(ground):
        judge(await leavings(lambda number: SILENT[name](ground, number)), transport)


@pytest.mark.parametrize("name", list(DOWN))
async def test_nor_while_a_host_is_down(ground: Ground, transport: Transport, name: str) -> None:
    ground.parties.proxy.kill()
    judge(await leavings(lambda number: DOWN[name](ground, number)), transport)
