import asyncio

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving import ports_file
from serving.node import Node, NodeState, Part, Port
from serving.settings import Limits, Settings
from serving.transport import Code, RpcError, Transport, channel, server

SERVICE = "tessera.v1.Inference"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Story:
    """A node with one port and one part, whose models load when `loaded` is set; it notes what happens."""

    def __init__(self, tmp_path, address="127.0.0.1:0", drain_s=5.0) -> None:
        self.events = []
        self.loaded = asyncio.Event()
        self.entered, self.release = asyncio.Event(), asyncio.Event()
        self.settings = Settings(
            party="bank", state_dir=str(tmp_path), registry=str(tmp_path), limits=Limits(drain_s=drain_s)
        )
        self.server = server(Transport.NATIVE)
        self.server.add_bytes_handler("/test.Slow/Call", self.slow)
        part = Part(start=self.note("started"), stop=self.note("stopped"))
        self.node = Node(self.settings, (Port("service", self.server, address, (SERVICE,)),), (part,), self.loaded.wait)

    def note(self, event):
        async def hook():
            self.events.append(event)

        return hook

    async def slow(self, payload, call):
        self.entered.set()
        await self.release.wait()
        self.events.append("answered")
        return payload

    async def state(self, wanted):
        async with asyncio.timeout(5):
            while self.node.state is not wanted:
                await asyncio.sleep(0.001)


async def health(address, name=""):
    link = channel(Transport.NATIVE, address)
    try:
        stub = health_pb2_grpc.HealthStub(link.stub_channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status
    finally:
        await link.close()


async def test_a_node_is_ready_when_its_models_are_loaded(tmp_path):
    story = Story(tmp_path)
    running = asyncio.create_task(story.node.run())
    await story.state(NodeState.LOADING)
    address = story.node.addresses["service"]
    assert await asyncio.to_thread(ports_file.read, tmp_path) == {"service": address}
    assert await health(address) == NOT_SERVING
    assert await health(address, SERVICE) == NOT_SERVING
    story.loaded.set()
    await story.state(NodeState.READY)
    assert await health(address) == SERVING
    assert await health(address, SERVICE) == SERVING
    with pytest.raises(RpcError) as unknown:
        await health(address, "nobody.Knows")
    assert unknown.value.code is Code.NOT_FOUND
    story.node.ask_to_stop()
    await running
    assert story.node.state is NodeState.STOPPED


async def test_a_drain_lets_the_running_call_finish_before_parts_stop(tmp_path):
    story = Story(tmp_path)
    story.loaded.set()
    running = asyncio.create_task(story.node.run())
    await story.state(NodeState.READY)
    link = channel(Transport.NATIVE, story.node.addresses["service"])
    call = asyncio.create_task(link.unary("/test.Slow/Call", b"x", 10))
    await story.entered.wait()
    story.node.ask_to_stop()
    await story.state(NodeState.DRAINING)
    story.release.set()
    assert await call == b"x"
    await running
    assert story.events == ["started", "answered", "stopped"]
    await link.close()


async def test_watchers_learn_that_the_node_drains_whoever_else_has_left_and_hold_nothing_up(tmp_path):
    story = Story(tmp_path, drain_s=600.0)
    story.loaded.set()
    running = asyncio.create_task(story.node.run())
    await story.state(NodeState.READY)
    link = channel(Transport.NATIVE, story.node.addresses["service"])
    watch = health_pb2_grpc.HealthStub(link.stub_channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    unknown = health_pb2_grpc.HealthStub(link.stub_channel).Watch(health_pb2.HealthCheckRequest(service="nothing"))
    left = health_pb2_grpc.HealthStub(link.stub_channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert [(await one.read()).status for one in (left, watch, unknown)] == [SERVING, SERVING, SERVICE_UNKNOWN]
    left.cancel()
    assert await left.code() is Code.CANCELLED
    story.node.ask_to_stop()
    assert (await watch.read()).status == NOT_SERVING
    async with asyncio.timeout(10):
        await running
    await link.close()


async def test_a_stop_while_models_load_is_a_clean_stop(tmp_path):
    story = Story(tmp_path)
    running = asyncio.create_task(story.node.run())
    await story.state(NodeState.LOADING)
    story.node.ask_to_stop()
    await running
    assert (story.node.state, story.events) == (NodeState.STOPPED, ["started", "stopped"])


async def test_a_port_in_use_ends_the_start_before_any_part_starts(tmp_path):
    first = Story(tmp_path)
    running = asyncio.create_task(first.node.run())
    await first.state(NodeState.LOADING)
    address = first.node.addresses["service"]
    second = Story(tmp_path / "second", address)
    with pytest.raises(OSError, match=f"cannot bind {address}"):
        await second.node.run()
    assert (second.node.state, second.events) == (NodeState.STOPPED, [])
    first.node.ask_to_stop()
    await running


async def test_a_part_that_cannot_start_stops_those_before_it(tmp_path):
    story = Story(tmp_path)

    async def fail():
        raise OSError("no features")

    parts = (
        Part(start=story.note("started"), stop=story.note("stopped")),
        Part(start=fail, stop=story.note("never started")),
    )
    port = Port("service", story.server, "127.0.0.1:0")
    node = Node(story.settings, (port,), parts, story.loaded.wait)
    with pytest.raises(OSError, match="no features"):
        await node.run()
    assert (node.state, story.events) == (NodeState.STOPPED, ["started", "stopped"])
    assert await asyncio.to_thread(ports_file.read, tmp_path) == {}


async def test_a_failure_while_loading_stops_the_node(tmp_path):
    story = Story(tmp_path)

    async def fail():
        raise OSError("control store is gone")

    port = Port("service", story.server, "127.0.0.1:0")
    node = Node(story.settings, (port,), (Part(stop=story.note("stopped")),), fail)
    with pytest.raises(OSError, match="control store is gone"):
        await node.run()
    assert (node.state, story.events) == (NodeState.STOPPED, ["stopped"])


async def test_a_node_runs_once(tmp_path):
    story = Story(tmp_path)
    story.node.ask_to_stop()
    await story.node.run()
    with pytest.raises(RuntimeError, match="node cannot go from STOPPED to STARTING"):
        await story.node.run()
