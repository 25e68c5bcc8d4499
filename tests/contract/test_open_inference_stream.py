"""ModelStreamInfer on both transports: requests of one stream side by side, answers in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.access import Access
from serving.features.memory import MemoryFeatureSource
from serving.frontdoor.oip.door import Door
from serving.frontdoor.oip.models import Models
from serving.frontdoor.oip.service import MODEL_STREAM_INFER, OipNode, OipServicer
from serving.settings import Limits, Settings, TraceSettings
from serving.telemetry.requests import RequestFigures
from serving.telemetry.spans import Context, Kind
from serving.telemetry.tracer import Sampling, Tracer
from serving.traced.servers import watching
from serving.transport import Channel, Code, RpcError, ServerOptions, Transport, channel, server
from tessera.compat import open_inference_pb2 as wire
from tessera.compat import open_inference_pb2_grpc
from tests.unit.serving.test_pipeline import USERS, expected, make_world

AT_ONCE = 16


class GatedSource(MemoryFeatureSource):
    """A host's: every look-up waits until its gate is open."""

    def __init__(self) -> None:
        super().__init__(USERS)
        self.gates: list[asyncio.Event] = []
        self.cancelled = 0

    async def lookup(self, user_ids: Any, signature: Any) -> Any:
        gate = asyncio.Event()
        self.gates.append(gate)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().lookup(user_ids, signature)

    def at_hand(self, signature: Any) -> None:
        return None


@dataclass
class Streaming:
    source: GatedSource
    client: Channel
    tracer: Tracer

    def talk(self, *metadata: tuple[str, str]) -> Any:
        return self.client.stub_channel.stream_stream(MODEL_STREAM_INFER)(timeout=20, metadata=metadata)


async def once(reached: Any) -> None:
    """Without a pause: what is waited for takes its turns on this loop and at its sockets."""
    async with asyncio.timeout(10):
        while not reached():
            await asyncio.sleep(0)


@pytest.fixture(params=list(Transport), ids=lambda kind: kind.value)
async def streaming(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Streaming]:
    source = GatedSource()
    world = await asyncio.to_thread(make_world, tmp_path, source, Limits(peer_timeout_s=20.0))
    settings = Settings(party="bank", state_dir=str(tmp_path), registry=str(tmp_path))
    door = Door(world.pipeline, Models(world.table, world.pool))
    nobody: Any = None  # asks for the rest of the node here
    traces = TraceSettings(share=0)
    tracer = Tracer(traces, Sampling(traces))
    watch = watching(MODEL_STREAM_INFER, tracer)
    node = OipNode(door, nobody, nobody, 50, nobody, Access(settings), nobody, nobody, watch=watch)
    made = server(request.param, ServerOptions())
    servicer = OipServicer(node, nobody, RequestFigures().of("oip", MODEL_STREAM_INFER))
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, made.registry)
    client = channel(Transport.NATIVE, f"127.0.0.1:{made.add_port('127.0.0.1:0')}")
    await made.start()
    try:
        yield Streaming(source, client, tracer)
    finally:
        await client.close()
        await made.stop(0)


def infer(user: str, id_: str, model: str = "s") -> bytes:
    message = wire.ModelInferRequest(model_name=model, id=id_)
    tensor = wire.ModelInferRequest.InferInputTensor
    message.inputs.append(
        tensor(name="user_id", datatype="BYTES", shape=[1, 1], contents={"bytes_contents": [user.encode()]})
    )
    message.inputs.append(tensor(name="a", datatype="FP64", shape=[1, 1], contents={"fp64_contents": [1.0]}))
    return message.SerializeToString()


async def told(call: Any) -> wire.ModelStreamInferResponse:
    return wire.ModelStreamInferResponse.FromString(await call.read())


async def test_two_requests_at_once_are_answered_in_their_order(streaming: Streaming) -> None:
    call = streaming.talk()
    for user, id_ in (("u1", "first"), ("u2", "second")):
        await call.write(infer(user, id_))
    await once(lambda: len(streaming.source.gates) == 2)
    for gate in reversed(streaming.source.gates):
        gate.set()
    for user, id_ in (("u1", "first"), ("u2", "second")):
        reply = (await told(call)).infer_response
        [score] = [one for one in reply.outputs if one.name == "score"]
        assert (reply.id, list(score.contents.fp64_contents)) == (id_, [pytest.approx(expected(user, 1.0))])
    await call.done_writing()
    assert await call.read() is None


async def test_an_error_is_the_answer_of_its_request_in_its_place(streaming: Streaming) -> None:
    call = streaming.talk()
    for id_, model in (("first", "s"), ("second", "none"), ("third", "s")):
        await call.write(infer("u1", id_, model))
    await call.done_writing()
    await once(lambda: len(streaming.source.gates) == 2)
    for gate in streaming.source.gates:
        gate.set()
    replies = [await told(call) for _ in range(3)]
    assert [reply.infer_response.id for reply in replies] == ["first", "second", "third"]
    assert ["unknown model" in reply.error_message for reply in replies] == [False, True, False]
    assert await call.read() is None


async def test_every_request_has_a_span_under_the_one_of_its_stream(streaming: Streaming) -> None:
    above = Context(0xAB, 0xCD, "a=1")
    call = streaming.talk(*above.metadata())
    for id_, model in (("first", "s"), ("second", "none"), ("third", "s")):
        await call.write(infer("u1", id_, model))
    await once(lambda: len(streaming.source.gates) == 2)
    streaming.source.gates[0].set()
    assert (await told(call)).infer_response.id == "first"
    assert (await told(call)).error_message
    call.cancel()
    await once(lambda: streaming.source.cancelled)
    await once(lambda: streaming.tracer.waiting == 3)
    spans = streaming.tracer.take(10)
    assert sorted((span.failure, span.attributes["rpc.grpc.status_code"]) for span in spans) == [
        ("", 0),
        ("CANCELLED", 1),
        ("NOT_FOUND", 5),
    ]
    for span in spans:
        assert (span.name, span.kind) == (MODEL_STREAM_INFER.removeprefix("/"), Kind.SERVER)
        assert (span.parent, span.context.state) == (above, "a=1")
        assert (span.attributes["rpc.system"], span.attributes["rpc.method"]) == ("grpc", "ModelStreamInfer")


async def test_requests_of_a_stream_that_is_not_traced_have_none(streaming: Streaming) -> None:
    call = streaming.talk()
    await call.write(infer("u1", "first", "none"))
    assert (await told(call)).error_message
    assert not streaming.tracer.waiting


async def test_further_requests_wait(streaming: Streaming) -> None:
    call, gates = streaming.talk(), streaming.source.gates
    for number in range(AT_ONCE + 4):
        await call.write(infer("u1", str(number)))
    await once(lambda: len(gates) == AT_ONCE)
    gates[0].set()
    assert (await told(call)).infer_response.id == "0"
    await once(lambda: len(gates) > AT_ONCE)
    gates[2].set()  # the second is still being answered
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(gates) == AT_ONCE + 1
    call.cancel()
    await once(lambda: streaming.source.cancelled == AT_ONCE - 1)


async def test_a_message_that_is_no_request_ends_it_after_the_answers(streaming: Streaming) -> None:
    call = streaming.talk()
    await call.write(infer("u1", "first"))
    await call.write(b"\xff\xff")
    await once(lambda: streaming.source.gates)
    streaming.source.gates[0].set()
    assert (await told(call)).infer_response.id == "first"
    with pytest.raises(RpcError) as failed:
        await call.read()
    assert failed.value.code is Code.INVALID_ARGUMENT
