"""A party of three replicas, real processes: workers of one node, and nodes that share a control store."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from serving.pool import ModelId
from serving.transport import Code, RpcError
from tessera.compat import fate_common_service_pb2 as operations
from tessera.compat import fate_common_service_pb2_grpc as operations_grpc
from tessera.compat import fate_inference_pb2 as fate
from tessera.compat import fate_inference_pb2_grpc as fate_grpc
from tessera.compat import open_inference_pb2 as oip
from tessera.compat import open_inference_pb2_grpc as oip_grpc
from tessera.v1 import admin_pb2 as wire
from tests.nodes import PartyNode, free_port
from tests.proxy import proxy_process
from tests.redis_server import DURABLE, launch, redis_server, url_of
from tests.unit.serving.halves import publish

pytestmark = pytest.mark.usefixtures("untraced")

V1, V2 = ModelId("m", "1"), ModelId("m", "2")
HONOURED_S, NOTICED_S = 2.0, 5.0
LOADED, ALREADY_LOADED = 0, 1
NO_CACHE = "[cache]\nembedded = false\n"

T = TypeVar("T")


def until(what: Callable[[], T], timeout_s: float = 20.0) -> T:
    """The first true value of `what()`; refusals count as none."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            if value := what():
                return value
        except RpcError:
            pass
        assert time.monotonic() < end, f"nothing came of {what}"


def version(node: PartyNode, service: str = "s") -> str:
    return node.predict(service=service, numbers={"x": 0.0}).version


def versions(node: PartyNode, service: str = "s") -> set[str]:
    """Over new connections, which the kernel spreads over the workers."""
    return {version(node, service) for _ in range(30)}


def outcomes(node: PartyNode, model: ModelId) -> dict[str, int]:
    return {one.replica: one.state for one in node.load(model.model, model.version).replicas}


def three_loaded(node: PartyNode, model: ModelId) -> set[str]:
    """The replicas, once a load has reached three."""
    found = until(lambda: found if len(found := outcomes(node, model)) == 3 else None)
    assert set(found.values()) <= {LOADED, ALREADY_LOADED}
    return set(found)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PartyNode]:
    """Three workers; V1 and V2 in the registry."""
    made = PartyNode(tmp_path_factory.mktemp("workers"), "bank", f"workers = 3\nreplica = 'here'\n{NO_CACHE}")
    for model in (V1, V2):
        publish({"bank": made.registry}, model)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def worker_ids(node: PartyNode) -> list[psutil.Process]:
    assert node.process is not None
    return [child for child in psutil.Process(node.process.pid).children() if "--worker" in child.cmdline()]


def test_workers_of_one_node(node: PartyNode) -> None:
    assert three_loaded(node, V1) == {"here/0", "here/1", "here/2"}
    three_loaded(node, V2)
    node.online("s", "m", "1")
    assert versions(node) == {"1"}
    node.online("s", "m", "2", 1)
    assert versions(node) == {"2"}

    def counted() -> set[str]:
        shown = node.http("GET", "/metrics").text.splitlines()
        predicted = [line for line in shown if line.startswith("tessera_requests_total{")]
        return {word for line in predicted for word in ("here/0", "here/1", "here/2") if word in line}

    assert until(lambda: counted() == {"here/0", "here/1", "here/2"})

    killed = worker_ids(node)[0]
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    node.wait_until_serving()
    assert until(lambda: len(worker_ids(node)) == 3)
    assert until(lambda: versions(node) == {"2"})

    unload = wire.UnloadRequest(model="m", version="2")
    with pytest.raises(RpcError, match="is needed by service 's'"):
        node.admin("Unload", unload)


def test_two_operators_at_two_workers(node: PartyNode) -> None:
    """Whatever worker a call lands on, one of two changes at the same revision wins."""
    for model in (V1, V2):
        three_loaded(node, model)
    for revision in range(10):
        node.online("contested", "m", str(revision % 2 + 1), revision)
        with pytest.raises(RpcError) as refused:
            node.online("contested", "m", "1", revision)
        assert refused.value.code is Code.FAILED_PRECONDITION
    assert versions(node, "contested") == {"2"}


def test_no_call_meets_a_switch(node: PartyNode) -> None:
    """Versions take turns, and all are answered: from the acknowledgement on by the new one, at all workers."""
    for model in (V1, V2):
        three_loaded(node, model)
    node.online("switched", "m", "1")
    met: list[str] = []
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            met.append(version(node, "switched"))

    with ThreadPoolExecutor(3) as callers:
        running = [callers.submit(call) for _ in range(3)]
        try:
            for revision in range(1, 4):
                node.online("switched", "m", "12"[revision % 2], revision)
                at = len(met)
                until(lambda at=at: len(met) > at + 6)  # type: ignore[misc]
                assert set(met[at + 3 :]) == {"12"[revision % 2]}  # three were under way
        finally:
            over.set()
        for one in running:
            one.result(20)


def test_a_limit_counts_at_all_workers_until_it_is_cleared(node: PartyNode) -> None:
    three_loaded(node, V1)
    if not revision(node):
        node.online("s", "m", "1")
    limit(node, per_s=0)
    assert all(is_refused(node) for _ in range(30))
    limit(node, per_s=0.001, burst=7)
    assert let_in(node, 30) == 7
    limit(node, per_s=0.002, burst=7, across_nodes=True)  # they are one node
    assert let_in(node, 30) == 7
    limit(node)
    assert not any(is_refused(node) for _ in range(30))


def limit(node: PartyNode, **bounds: float) -> None:
    """Of service `s`; none for that of the settings."""
    kind, name = wire.LIMIT_KIND_SERVICE, "s"
    if bounds:
        request = wire.SetLimitRequest(kind=kind, name=name, limit=wire.Limit(**bounds))  # type: ignore[arg-type]
        node.admin("SetLimit", request)
    else:
        node.admin("ClearLimit", wire.ClearLimitRequest(kind=kind, name=name))


def let_in(node: PartyNode, calls: int) -> int:
    return sum(not is_refused(node) for _ in range(calls))


def is_refused(node: PartyNode) -> bool:
    try:
        version(node)
    except RpcError as error:
        return error.code is Code.RESOURCE_EXHAUSTED
    return False


def ask(node: PartyNode, port: str, stub: Callable[[object], object], method: str, request: object) -> Any:
    """Over a connection of its own."""
    return node.call(port, lambda link: getattr(stub(link.stub_channel), method)(request, timeout=5))


def test_foreign_figures_are_of_all_workers(node: PartyNode) -> None:
    """Whatever worker is asked."""
    three_loaded(node, V1)
    if not revision(node):
        node.online("s", "m", "1")
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=[1, 1])
    tensor.contents.fp64_contents.append(0.5)
    infer = oip.ModelInferRequest(model_name="s", inputs=[tensor])
    case = fate.InferenceMessage(body=json.dumps({"serviceId": "s", "featureData": {"x": 0.5}}).encode())
    for _ in range(12):
        ask(node, "service", oip_grpc.GRPCInferenceServiceStub, "ModelInfer", infer)
        reply = ask(node, "service", fate_grpc.InferenceServiceStub, "inference", case)
        assert json.loads(reply.body)["retcode"] == 0, reply

    def inferences() -> int:
        request = oip.ModelStatisticsRequest(name="s")
        found = ask(node, "service", oip_grpc.GRPCInferenceServiceStub, "ModelStatistics", request)
        return sum(one.inference_count for one in found.model_stats)

    def passed() -> int:
        request = operations.QueryMetricRequest(endMs=1 << 60, source="I_inference")
        found = ask(node, "admin", operations_grpc.CommonServiceStub, "queryMetrics", request)
        return sum(second["passQps"] for second in json.loads(found.data))

    assert until(lambda: {(inferences(), passed()) for _ in range(10)} == {(12, 12)})


def revision(node: PartyNode) -> int:
    """Of service `s`; 0 without one."""
    services = node.admin("ListServices", wire.ListServicesRequest()).services  # type: ignore[attr-defined]
    return {one.service: one.revision for one in services}.get("s", 0)


class Fleet:
    """Nodes of one party on one control store, each with a state folder of its own, all with one registry. The last of
    the first three reaches the store through a proxy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = folder / "registry"
        for model in (V1, V2):
            publish({"bank": self.registry}, model)
        self.nodes: list[PartyNode] = []
        self._redis_folder = folder / "redis"
        self._redis_folder.mkdir()
        self._port = free_port()
        self.store = self.launch_store()
        self.proxy, proxied = proxy_process(self._port)
        for url in (self.url, self.url, f"redis://127.0.0.1:{proxied}"):
            self.add(url).launch()
        for node in self.nodes:
            node.wait_until_serving()

    @property
    def url(self) -> str:
        return url_of(self._redis_folder)

    def launch_store(self) -> subprocess.Popen[bytes]:
        self.store = launch(self._redis_folder, port=str(self._port), **DURABLE)
        return self.store

    def add(self, url: str) -> PartyNode:
        name = f"node{len(self.nodes)}"
        made = PartyNode(self.folder / name, "bank", f"replica = '{name}'\n[control]\nurl = '{url}'\n{NO_CACHE}")
        made.registry.rmdir()
        made.registry.symlink_to(self.registry)
        self.nodes.append(made)
        return made

    def until_bound(self, model: ModelId) -> None:
        """Service `s` is at this version, everywhere."""
        one = self.nodes[0]
        for each in (V1, V2):
            three_loaded(one, each)
        one.online("s", model.model, model.version, revision(one))
        assert {version(node) for node in self.nodes} == {model.version}

    def stop(self) -> None:
        for process in (self.store, self.proxy):
            process.send_signal(signal.SIGCONT)
        for node in self.nodes:
            node.stop()
        for process in (self.store, self.proxy):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        yield made
    finally:
        made.stop()


def is_cut_off(node: PartyNode) -> bool:
    """Whether a replica that is ready says that the control store is out of reach."""
    shown = node.http("GET", "/readyz")
    assert shown.status_code == 200, shown.text
    said = any("the control store does not answer" in problem for problem in shown.json()["problems"])
    return said and "tessera_control_store_up 0.0" in node.http("GET", "/metrics").text


def test_nodes_that_share_a_control_store(fleet: Fleet) -> None:
    one, two, three = fleet.nodes
    assert three_loaded(one, V1) == {"node0", "node1", "node2"}
    two.online("s", "m", "1")
    began = time.monotonic()
    assert until(lambda: {version(node) for node in (one, two, three)} == {"1"})
    assert time.monotonic() - began < HONOURED_S

    limit(three, per_s=0)
    assert all(is_refused(node) for node in (one, two, three))
    late = fleet.add(fleet.url)
    late.start()  # ready: it has caught up
    assert is_refused(late)
    limit(late, per_s=0.001, burst=24, across_nodes=True)
    assert [let_in(node, 10) for node in (one, two, three, late)] == [6, 6, 6, 6]
    late.stop()
    limit(one, per_s=0.002, burst=24, across_nodes=True)
    assert [let_in(node, 10) for node in (one, two, three)] == [8, 8, 8]
    late.start()
    limit(late)
    assert {version(node) for node in fleet.nodes} == {"1"}

    fleet.store.kill()
    fleet.store.wait()
    assert until(lambda: is_cut_off(one))
    assert {version(node) for node in (one, two, three, late)} == {"1"}
    with pytest.raises(RpcError):
        one.online("s", "m", "1", 1)
    two.stop()
    two.start()  # from what it kept by itself
    assert version(two) == "1"

    fleet.launch_store()
    assert until(lambda: not is_cut_off(one))
    until(lambda: len(outcomes(one, V2)) == 4)
    until(lambda: one.online("s", "m", "2", 1))
    assert until(lambda: {version(node) for node in (one, two, three, late)} == {"2"}, HONOURED_S)
    fleet.nodes.pop().stop()


def test_a_control_store_that_hangs_stops_changes_and_nothing_else(fleet: Fleet) -> None:
    fleet.until_bound(V1)
    before = revision(fleet.nodes[0])
    with ThreadPoolExecutor() as operators, stopped(fleet.store):
        changes = [operators.submit(set_log_level, node) for node in fleet.nodes]
        assert until(lambda: all(map(is_cut_off, fleet.nodes)), NOTICED_S)
        assert {version(node) for node in fleet.nodes} == {"1"}
        for change in changes:
            with pytest.raises(RpcError, match="the change is not kept: the control store does not answer") as refused:
                change.result()
            assert refused.value.code is Code.UNAVAILABLE
    assert until(lambda: not any(map(is_cut_off, fleet.nodes)), HONOURED_S)
    fleet.nodes[1].online("s", "m", "2", before)
    assert until(lambda: {version(node) for node in fleet.nodes} == {"2"}, HONOURED_S)


def test_a_replica_that_alone_is_cut_off_serves_on_and_follows_when_it_is_back(fleet: Fleet) -> None:
    fleet.until_bound(V1)
    one, two, three = fleet.nodes
    with ThreadPoolExecutor() as operators, stopped(fleet.proxy):
        change = operators.submit(one.online, "s", "m", "2", revision(one))
        assert until(lambda: is_cut_off(three), NOTICED_S)
        change.result()
        assert [version(node) for node in fleet.nodes] == ["2", "2", "1"]
        assert not is_cut_off(one)
        assert not is_cut_off(two)
    assert until(lambda: version(three) == "2", HONOURED_S)
    assert until(lambda: not is_cut_off(three), HONOURED_S)


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """It neither answers nor ends connections meanwhile."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def set_log_level(node: PartyNode) -> None:
    node.admin("SetLogLevel", wire.SetLogLevelRequest(level="warning"), NOTICED_S)


def test_a_server_that_may_lose_state_is_refused(tmp_path: Path) -> None:
    with redis_server(tmp_path, **{**DURABLE, "maxmemory-policy": "allkeys-lru", "appendfsync": "everysec"}) as url:
        node = PartyNode(tmp_path, "bank", f"[control]\nurl = '{url}'\n{NO_CACHE}")
        node.launch()
        assert node.process is not None
        assert node.process.wait(20) == 2
        wanted = "control.url: the server may lose state; set maxmemory-policy noeviction, appendfsync always"
        assert f"tessera: {wanted}" in node.log
