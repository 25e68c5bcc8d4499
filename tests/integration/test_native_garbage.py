"""What ends otherwise than it should leaves no cycles either: calls of the native transport, and its connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import uvloop

from serving.transport import Channel, Code, Promise, RpcError, Transport, channel, frames
from serving.transport.call import OK_TRAILERS, RESPONSE_HEAD
from serving.transport.compression import GZIP_FIELD
from tests.contract.services import registers
from tests.integration.http2_peer import (
    ECHO,
    HELLO,
    NEVER,
    opening,
    over,
    polite,
    raw,
    request,
    scripted,
    serving,
    tls_wire,
)
from tests.leavings import FEW, leavings

pytestmark = pytest.mark.usefixtures("thawed")

PROMISED, WRONG, BROKEN, LATER_WRONG, CANCELLED = (
    f"/test.Ends/{name}" for name in ("Promised", "Wrong", "Broken", "LaterWrong", "Cancelled")
)
CARDINALITIES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def wrong(payload: bytes, call: object) -> bytes:
    raise RpcError(Code.INVALID_ARGUMENT, "wrong")


def broken(payload: bytes, call: object) -> bytes:
    raise ValueError("broken")


async def later_wrong(payload: bytes, call: object) -> bytes:
    await asyncio.sleep(0)
    try:
        return wrong(payload, call)
    except RpcError as error:
        raise ValueError("wrong") from error


async def cancelled(payload: bytes, call: object) -> bytes:
    raise asyncio.CancelledError


async def waits(request: Any, context: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


async def streams(request: Any, context: Any) -> AsyncIterator[bytes]:
    yield b"1"
    await asyncio.Event().wait()


async def aborts(request: Any, context: Any) -> bytes:
    await context.abort(Code.NOT_FOUND, "not here")


def thread_aborts(request: Any, context: Any) -> bytes:
    context.abort(Code.NOT_FOUND, "not here")


@contextlib.asynccontextmanager
async def answering(behaviour: Any = waits, streaming: Any = streams) -> AsyncIterator[Channel]:
    """A client of a server whose methods end as their names say."""
    async with serving() as (made, port):
        for path, handler in ((WRONG, wrong), (BROKEN, broken), (LATER_WRONG, later_wrong), (CANCELLED, cancelled)):
            made.add_bytes_handler(path, handler)
        made.add_bytes_handler(PROMISED, lambda payload, call: Promise())
        registers(made, {name: streaming if name.endswith("stream") else behaviour for name in CARDINALITIES})
        client = polite(port)
        try:
            yield client
        finally:
            await client.close()


async def judged(call: Callable[[int], Awaitable[object]]) -> None:
    left = await leavings(call)
    assert left.total() < FEW, left.most_common()


async def ended(call: Awaitable[object]) -> None:
    with contextlib.suppress(RpcError, asyncio.CancelledError):
        await call
    del call  # a task keeps the error, which keeps this frame


def stub_call(client: Channel, path: str, cardinality: str = "unary_unary", **how: Any) -> Any:
    request = iter([b""]) if cardinality.startswith("stream") else b""
    return getattr(client.stub_channel, cardinality)(path)(request, **how)


CALLERS: dict[str, Callable[..., Awaitable[bytes]]] = {
    "channel": lambda client, path, timeout_s: client.unary(path, b"", timeout_s),
    "stub": lambda client, path, timeout_s: stub_call(client, path, timeout=timeout_s),
}


@pytest.mark.parametrize("caller", list(CALLERS))
@pytest.mark.parametrize("path", [WRONG, BROKEN, LATER_WRONG, CANCELLED, "/test.Ends/None"])
async def test_calls_that_fail(caller: str, path: str) -> None:
    async with answering() as client:
        await judged(lambda _: ended(CALLERS[caller](client, path, 5)))


@pytest.mark.parametrize("caller", list(CALLERS))
@pytest.mark.parametrize("path", [NEVER, PROMISED, "/test.Service/unary_unary"])
async def test_calls_that_are_late(caller: str, path: str) -> None:
    async with answering() as client:
        await judged(lambda _: ended(CALLERS[caller](client, path, 0.003)))


@pytest.mark.parametrize("caller", list(CALLERS))
@pytest.mark.parametrize("path", [NEVER, PROMISED, "/test.Service/unary_unary"])
async def test_calls_that_are_given_up(caller: str, path: str) -> None:
    async def given_up(_: int) -> None:
        calling = asyncio.ensure_future(CALLERS[caller](client, path, 5))
        for _ in range(10):
            await asyncio.sleep(0)
        calling.cancel()
        await ended(calling)

    async with answering() as client:
        await judged(given_up)


@pytest.mark.parametrize("path", [NEVER, "/test.Service/unary_unary"])
async def test_calls_that_are_given_up_before_they_begin(path: str) -> None:
    streams_of_peer = count(1, 2)

    async def given_up(_: int) -> None:
        number = next(streams_of_peer)
        peer.send(request(number, path, b""), frames.rst_stream(number, frames.ErrorCode.CANCEL))
        await peer.alive()

    async with serving() as (made, port), raw(port) as peer:
        registers(made, {"unary_unary": waits})
        peer.send(HELLO)
        await judged(given_up)


@pytest.mark.parametrize("cardinality", CARDINALITIES)
async def test_streams_that_are_given_up(cardinality: str) -> None:
    async def given_up(_: int) -> None:
        call = stub_call(client, f"/test.Service/{cardinality}", cardinality, timeout=5)
        if cardinality.endswith("stream"):
            assert await call.read() == b"1"
        else:
            await call.wait_for_connection()
        call.cancel()
        await ended(call.read())
        await ended(call.write(b""))

    async with answering() as client:
        await judged(given_up)


@pytest.mark.parametrize("behaviour", [aborts, thread_aborts])
async def test_calls_that_their_servicer_aborts(behaviour: Any) -> None:
    async with answering(behaviour) as client:
        await judged(lambda _: ended(stub_call(client, "/test.Service/unary_unary", timeout=5)))


MALFORMED = {
    "squeezed, unannounced": (RESPONSE_HEAD, b"\1\0\0\0\0", b""),
    "no gzip": (RESPONSE_HEAD + GZIP_FIELD, b"\1\0\0\0\x16" + bytes(18) + b"\5\0\0\0", b""),
    "no gzip, whole": (RESPONSE_HEAD + GZIP_FIELD, b"\1\0\0\0\x16" + bytes(18) + b"\5\0\0\0", OK_TRAILERS),
}
"""Head, data and trailers."""


@pytest.mark.parametrize("answer", list(MALFORMED))
async def test_malformed_answers(answer: str) -> None:
    head, data, last = MALFORMED[answer]

    async def meet(peer: Any) -> None:
        await peer.preface()
        peer.send(frames.settings({}))
        while (asked := await peer.next_frame()) is not None:
            if asked.kind == frames.DATA and asked.payload:
                peer.send(frames.headers(asked.stream_id, head, False))
                peer.send(frames.frame(frames.DATA, 0, asked.stream_id, data))
                if last:
                    peer.send(frames.headers(asked.stream_id, last, True))

    async def asks(_: int) -> None:
        await ended(client.unary(ECHO, b"", 0.005))
        await ended(stub_call(client, ECHO, "unary_stream", timeout=5).read())

    async with scripted(meet) as port:
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        await judged(asks)
        await client.close()


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """As nodes are: asyncio's own sockets leave cycles."""

    @wraps(test)
    def run(**arguments: Any) -> None:
        uvloop.run(test(**arguments))

    return run


@pytest.fixture(params=["plain", "TLS"])
def wire(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    if request.param == "plain":
        yield
    else:
        with over(tls_wire(tmp_path)):
            yield


@pytest.mark.usefixtures("wire")
@on_uvloop
async def test_connections_that_end_with_their_channel() -> None:
    async def come_and_go(_: int) -> None:
        client = polite(port)
        await client.unary(ECHO, b"", 5)
        await client.close()

    async with serving() as (_, port):
        await judged(come_and_go)


@on_uvloop
async def test_connections_that_end_with_calls_on_them() -> None:
    async def come_and_go(_: int) -> None:
        client = polite(port)
        calls = [asyncio.ensure_future(CALLERS[caller](client, NEVER, 5)) for caller in CALLERS]
        await client.unary(ECHO, b"", 5)
        await client.close()
        await asyncio.gather(*map(ended, calls))

    async with serving() as (_, port):
        await judged(come_and_go)


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n\r\n", HELLO + frames.frame(frames.DATA, 0, 0, b""), HELLO + opening(1, NEVER), b""],
    ids=["HTTP/1", "a wrong frame", "a call", "nothing"],
)
@on_uvloop
async def test_connections_of_other_peers(sent: bytes) -> None:
    async def come_and_go(_: int) -> None:
        async with raw(port) as peer:
            peer.send(sent)
            peer.end()
            await peer.until_closed()

    async with serving() as (_, port):
        await judged(come_and_go)


@on_uvloop
async def test_connections_that_their_server_ends() -> None:
    async with serving() as (made, port):

        async def come_and_go(_: int) -> None:
            client = polite(port)
            await client.unary(ECHO, b"", 5)
            for protocol in list(made._connections):
                protocol.connection.last_call()
            await client._links[0].protocol.lost.wait()
            await client.close()

        await judged(come_and_go)


@pytest.mark.parametrize("caller", list(CALLERS))
@on_uvloop
async def test_connections_that_do_not_come_to_be(caller: str) -> None:
    async def refused(_: int) -> None:
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        await asyncio.gather(*(ended(CALLERS[caller](client, ECHO, 5)) for _ in range(2)))
        await client.close()

    with socket.socket() as nobody:  # bound, so that nobody else is
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        await judged(refused)


def test_handshakes_that_fail(tmp_path: Path) -> None:
    with over(tls_wire(tmp_path)):
        uvloop.run(_handshakes_that_fail())


async def _handshakes_that_fail() -> None:
    async def come_and_go(_: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"no TLS")
        await reader.read()
        writer.close()

    async with serving() as (_, port):
        await judged(come_and_go)
