"""What every call has back beside its answer: a status, a public text, the id that its caller gave it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from serving.errors import ConflictError, LimitError
from serving.frontdoor.answer import PUSHBACK, REQUEST_ID, answering, answering_method
from serving.telemetry.requests import RequestFigures
from serving.transport import Promise, Transport, server
from tessera.v1 import inference_pb2 as wire
from tessera.v1 import inference_pb2_grpc

PATH = "/test.Door/Ask"
WAYS = ("at once", "by promise", "by coroutine")


def came_to(what: bytes) -> bytes:
    match what:
        case b"defect":
            raise ZeroDivisionError("a secret")
        case b"conflict":
            raise ConflictError("it is bound")
        case b"limit":
            raise LimitError("too much", 0.5)
    return what


def handler(way: str) -> Any:
    async def later(raw: bytes) -> bytes:
        await asyncio.sleep(0)
        return came_to(raw)

    def handle(raw: bytes, call: object) -> Any:
        if way == "at once":
            return came_to(raw)
        return later(raw) if way == "by coroutine" else Promise.of(asyncio.ensure_future(later(raw)))

    return handle


class Tagged(inference_pb2_grpc.InferenceServicer):
    @answering_method
    async def Predict(self, request: wire.PredictRequest, context: object) -> wire.PredictReply:
        came_to(request.service.encode())
        return wire.PredictReply()


@asynccontextmanager
async def served(way: str, kind: Transport = Transport.NATIVE) -> AsyncIterator[grpc.aio.Channel]:
    made = server(kind)
    made.add_bytes_handler(PATH, answering(handler(way), RequestFigures().of("test", PATH)))
    inference_pb2_grpc.add_InferenceServicer_to_server(Tagged(), made.registry)
    port = made.add_port("127.0.0.1:0")
    await made.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await made.stop(0)


async def told(call: Any) -> tuple[str, str, dict[str, str]]:
    """Status, text and trailing metadata."""
    return (await call.code()).name, await call.details(), dict(await call.trailing_metadata() or ())


@pytest.mark.parametrize("kind", list(Transport))
@pytest.mark.parametrize("way", WAYS)
async def test_a_callers_id_goes_back_whatever_comes_of_the_call(
    way: str, kind: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(way, kind) as channel:
        ask = channel.unary_unary(PATH)
        said = {what: await told(ask(what, metadata=((REQUEST_ID, "r-1"),))) for what in (b"ok", b"conflict", b"limit")}
        assert said[b"ok"] == ("OK", "", {REQUEST_ID: "r-1"})
        assert said[b"conflict"] == ("FAILED_PRECONDITION", "it is bound", {REQUEST_ID: "r-1"})
        assert said[b"limit"] == ("RESOURCE_EXHAUSTED", "too much", {REQUEST_ID: "r-1", PUSHBACK: "500"})
        caplog.clear()
        defect = await told(ask(b"defect", metadata=((REQUEST_ID, "r-2"),)))
    assert defect == ("INTERNAL", "internal error, request id r-2", {REQUEST_ID: "r-2"})
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR] == ["request r-2 failed"]


@pytest.mark.parametrize("kind", list(Transport))
async def test_methods_of_a_servicer_do_the_same(kind: Transport) -> None:
    async with served(WAYS[0], kind) as channel:
        predict = inference_pb2_grpc.InferenceStub(channel).Predict
        metadata = ((REQUEST_ID, "r-1"),)
        assert (await told(predict(wire.PredictRequest(), metadata=metadata)))[2] == {REQUEST_ID: "r-1"}
        code, text, trailing = await told(predict(wire.PredictRequest(service="defect"), metadata=metadata))
    assert (code, text, trailing) == ("INTERNAL", "internal error, request id r-1", {REQUEST_ID: "r-1"})


@pytest.mark.parametrize("sent", [(), ((REQUEST_ID, ""),), ((REQUEST_ID, "a b"),), ((REQUEST_ID, "r" * 129),)])
async def test_without_an_id_of_use_there_is_one_of_ours_for_defects_alone(sent: Any) -> None:
    async with served(WAYS[0]) as channel:
        ask = channel.unary_unary(PATH)
        assert (await told(ask(b"ok", metadata=sent)))[2] == {}
        code, text, trailing = await told(ask(b"defect", metadata=sent))
    assert (code, trailing) == ("INTERNAL", {})
    start, id_ = text[:-16], text[-16:]
    assert start == "internal error, request id "
    assert int(id_, 16) >= 0
