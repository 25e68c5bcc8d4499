"""Spans of calls as servers see them: how each kind of reply ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from serving.settings import TraceSettings
from serving.telemetry.spans import HERE, Span
from serving.telemetry.tracer import Sampling, Tracer
from serving.traced.servers import TracedHttp, traced
from serving.transport import Code, Metadata, Promise, RpcError

PATH = "/a.B/C"
PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


class Asking:
    """A call with a context, or none, and the fields of its state."""

    def __init__(self, traceparent: str = PARENT, *states: str) -> None:
        self._metadata = (("traceparent", traceparent), *(("tracestate", state) for state in states))

    def time_remaining(self) -> float | None:
        return None

    def metadata(self) -> Metadata:
        assert len(self._metadata) > 1, "nobody asked for all of it"
        return self._metadata

    def value_of(self, key: str) -> str:
        return next((value for one, value in self._metadata if one == key), "")

    def peer(self) -> str:
        return ""

    def peer_identities(self) -> tuple[str, ...]:
        return ()

    def set_trailing_metadata(self, metadata: Metadata) -> None: ...


@pytest.fixture
def tracer() -> Tracer:
    settings = TraceSettings(share=0)
    return Tracer(settings, Sampling(settings))


def kept(tracer: Tracer) -> Span:
    [span] = tracer.take(10)
    return span


async def run(reply: bytes | Awaitable[bytes]) -> bytes:
    return reply if isinstance(reply, bytes) else await reply


def refused() -> RpcError:
    return RpcError(Code.NOT_FOUND, "nobody of this name")


async def later(error: Exception | None) -> bytes:
    assert HERE.get() is not None
    await asyncio.sleep(0)
    if error is not None:
        raise error
    return b"later"


def promised(error: Exception | None) -> Promise[bytes]:
    reply: Promise[bytes] = Promise()
    call = asyncio.get_running_loop().call_soon
    call(reply.set_result, b"later") if error is None else call(reply.set_exception, error)
    return reply


@pytest.mark.parametrize("kind", [later, promised])
@pytest.mark.parametrize("error", [None, refused(), ZeroDivisionError()])
async def test_a_later_reply_ends_the_span(tracer: Tracer, kind: Any, error: Exception | None) -> None:
    reply = traced(PATH, lambda raw, call: kind(error), tracer)(b"", Asking())
    assert not tracer.take(10)
    if error is None:
        assert await run(reply) == b"later"
    else:
        with pytest.raises(type(error)):
            await run(reply)
    span = kept(tracer)
    assert (span.name, span.failure) == (
        "a.B/C",
        "" if error is None else "NOT_FOUND" if isinstance(error, RpcError) else "UNKNOWN",
    )
    assert span.attributes["rpc.service"] == "a.B"
    assert HERE.get() is None


async def test_a_reply_at_hand_stays_at_hand(tracer: Tracer) -> None:
    places = []
    assert traced(PATH, lambda raw, call: places.append(HERE.get()) or b"now", tracer)(b"", Asking()) == b"now"
    [span] = places
    assert span is not None
    assert span.ended
    assert HERE.get() is None
    assert kept(tracer).attributes["rpc.grpc.status_code"] == 0


@pytest.mark.parametrize(
    ("states", "state"), [((), ""), (("a=1", "b=2,c=3"), "a=1,b=2,c=3"), (("a=1", "a=2"), ""), (("\xff",), "")]
)
async def test_the_fields_of_a_state_are_one(tracer: Tracer, states: tuple[str, ...], state: str) -> None:
    assert traced(PATH, lambda raw, call: b"now", tracer)(b"", Asking(PARENT, *states)) == b"now"
    assert kept(tracer).context.state == state


async def test_what_a_handler_raises_at_once_ends_the_span(tracer: Tracer) -> None:
    def handler(raw: bytes, call: object) -> bytes:
        raise refused()

    with pytest.raises(RpcError):
        traced(PATH, handler, tracer)(b"", Asking())
    assert kept(tracer).failure == "NOT_FOUND"


@pytest.mark.parametrize("kind", ["coroutine", "promise"])
async def test_a_call_that_is_given_up_says_so(tracer: Tracer, kind: str) -> None:
    promise: Promise[bytes] = Promise()

    async def waits() -> bytes:
        return await promise

    reply = traced(PATH, lambda raw, call: promise if kind == "promise" else waits(), tracer)(b"", Asking())
    if kind == "promise":
        promise.cancel()
        await asyncio.sleep(0)
    else:
        task = asyncio.ensure_future(run(reply))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    assert kept(tracer).failure == "CANCELLED"


async def test_a_call_that_is_not_traced_goes_straight_to_its_handler(tracer: Tracer) -> None:
    reply = promised(None)
    assert traced(PATH, lambda raw, call: reply, tracer)(b"", Asking("")) is reply
    await reply
    assert not tracer.take(10)


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [("POST", "/v1/predict", True), ("GET", "/v1/predict", False), ("POST", "/metrics", False)],
)
async def test_http_calls_of_inference_are_traced(tracer: Tracer, method: str, path: str, known: bool) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert (HERE.get() is not None) is known
        await send({"type": "http.response.start", "status": 503})

    async def send(message: Any) -> None: ...

    headers = [(b"traceparent", PARENT.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")]
    await TracedHttp(application, tracer)(
        {"type": "http", "method": method, "path": path, "headers": headers}, None, send
    )
    spans = tracer.take(10)
    assert [(span.failure, span.attributes["http.response.status_code"]) for span in spans] == [("503", 503)] * known
    assert [span.context.state for span in spans] == ["a=1,b=2"] * known
