"""The calls of generated stubs and the end of channels, of every client against every server."""

import asyncio
import itertools
from contextlib import asynccontextmanager

import pytest

from serving.transport import ChannelOptions, Code, RpcError, Transport, channel
from tests.contract.services import address_of

PAIRS = list(itertools.product(Transport, Transport))
PIECE = bytes(30_000)
PIECES = 400
"""Together much more than what windows and sockets hold."""
_SOON_S = 10


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0].value}-serves-{pair[1].value}")
def pair(request):
    return request.param


@asynccontextmanager
async def connected(pair, **behaviours):
    """A client and a function from cardinality to its stub's method."""
    async with address_of(pair[0], behaviours) as address:
        client = channel(pair[1], address)
        try:
            yield client, lambda name: getattr(client.stub_channel, name)(f"/test.Service/{name}")
        finally:
            await client.close()


async def failure(running):
    with pytest.raises(RpcError) as caught:
        async with asyncio.timeout(_SOON_S):
            await running
    return caught.value


async def quiet(count, since):
    """Once a counter has stopped: what it has come to."""
    async with asyncio.timeout(_SOON_S):
        while (now := count()) == 0 or now != since:
            since = now
            await asyncio.sleep(0.1)
    return since


class Runs:
    """A behaviour that tells when it began, and ends when it is let."""

    def __init__(self):
        self.begun, self.let, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, request, context):
        self.begun.set()
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        await context.send_initial_metadata((("begin", "1"),))
        context.set_trailing_metadata((("end", "2"),))
        return request


async def test_a_call_tells_how_it_is(pair):
    runs = Runs()
    async with connected(pair, unary_unary=runs.__call__) as (_, stub):
        told = []
        call = stub("unary_unary")(b"x", timeout=30)
        call.add_done_callback(told.append)
        await asyncio.wait_for(runs.begun.wait(), _SOON_S)
        assert 0 < call.time_remaining() <= 30
        assert (call.done(), call.cancelled(), told) == (False, False, [])
        runs.let.set()
        assert await call == b"x"
        assert dict(await call.initial_metadata())["begin"] == "1"
        assert dict(await call.trailing_metadata())["end"] == "2"
        code = await call.code()
        assert (getattr(code, "name", code), await call.details()) == ("OK", "")
        assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
        await asyncio.sleep(0)
        assert len(told) == 1


async def test_a_call_without_a_deadline_has_no_time_to_tell(pair):
    async with connected(pair, unary_unary=echo) as (_, stub):
        call = stub("unary_unary")(b"x")
        assert call.time_remaining() is None
        assert await call == b"x"


async def test_a_cancelled_call_tells_so_and_its_handler_hears_it(pair):
    runs = Runs()
    async with connected(pair, unary_unary=runs.__call__) as (_, stub):
        call = stub("unary_unary")(b"x", timeout=30)
        await asyncio.wait_for(runs.begun.wait(), _SOON_S)
        assert call.cancel()
        assert (await call.code()).name == "CANCELLED"
        assert (call.done(), call.cancelled()) == (True, True)
        await asyncio.wait_for(runs.cancelled.wait(), _SOON_S)


PATH = "/test.Service/unary_unary"
AWAITED = {
    "unary": lambda client: client.unary(PATH, b"x", 30),
    "stub": lambda client: client.stub_channel.unary_unary(PATH)(b"x", timeout=30),
}


@pytest.mark.parametrize("call", AWAITED.values(), ids=AWAITED.keys())
async def test_who_stops_waiting_for_a_call_ends_it(pair, call):
    runs = Runs()
    async with connected(pair, unary_unary=runs.__call__) as (client, _):

        async def wait():
            return await call(client)

        waiting = asyncio.ensure_future(wait())
        await asyncio.wait_for(runs.begun.wait(), _SOON_S)
        waiting.cancel()
        await asyncio.wait_for(runs.cancelled.wait(), _SOON_S)


async def test_requests_may_come_from_any_iterator(pair):
    async def joined(requests, context):
        return b"".join([request async for request in requests])

    async def letters():
        for letter in (b"a", b"b"):
            yield letter

    async with connected(pair, stream_unary=joined) as (_, stub):
        for requests in (letters(), [b"a", b"b"], iter((b"a", b"b"))):
            assert await stub("stream_unary")(requests, timeout=10) == b"ab"


async def test_requests_that_fail_end_their_call(pair):
    ended = asyncio.Event()

    async def gather(requests, context):
        try:
            return b"".join([request async for request in requests])
        finally:
            ended.set()

    async def broken():
        yield b"a"
        raise ValueError("not to be sent")

    async with connected(pair, stream_unary=gather) as (_, stub):
        call = stub("stream_unary")(broken(), timeout=30)
        assert (await failure(call)).code is Code.CANCELLED
        assert (await call.code()).name == "CANCELLED"
        await asyncio.wait_for(ended.wait(), _SOON_S)


async def test_a_reply_that_is_too_large_ends_its_stream(pair):
    async def send(request, context):
        for size in (10, 2000):
            yield bytes(size)

    async with address_of(pair[0], {"unary_stream": send}) as address:
        client = channel(pair[1], address, ChannelOptions(max_receive_bytes=1000))
        call = client.stub_channel.unary_stream("/test.Service/unary_stream")(b"", timeout=10)
        assert await call.read() == bytes(10)
        assert (await failure(call.read())).code is Code.RESOURCE_EXHAUSTED
        await client.close()


# --- back-pressure: of one call, beside which the others of its connection go on ---


async def echo(request, context):
    return request


class Sending:
    """How many pieces a handler got rid of."""

    def __init__(self):
        self.sent = 0

    async def pieces(self, request, context):
        for _ in range(PIECES):
            yield PIECE
            self.sent += 1


@pytest.mark.parametrize("kind", list(Transport), ids=lambda kind: kind.value)
async def test_a_stream_of_replies_waits_for_a_slow_reader(kind):
    """Of ours: grpcio's client reads ahead as far as it likes."""
    sending = Sending()
    async with connected((kind, Transport.NATIVE), unary_stream=sending.pieces, unary_unary=echo) as (_, stub):
        call = stub("unary_stream")(b"", timeout=60)
        assert await call.read() == PIECE
        assert await quiet(lambda: sending.sent, 0) < PIECES // 2
        assert await stub("unary_unary")(PIECE, timeout=_SOON_S) == PIECE
        received = 1
        while (reply := await call.read()) is not None:
            assert reply == PIECE
            received += 1
        assert (received, sending.sent) == (PIECES, PIECES)


@pytest.mark.parametrize("kind", list(Transport), ids=lambda kind: kind.value)
async def test_who_waits_for_the_end_of_a_stream_does_not_hoard_it(kind):
    """Unread replies stay where they are, as far as windows reach."""
    sending = Sending()
    async with connected((kind, Transport.NATIVE), unary_stream=sending.pieces) as (_, stub):
        call = stub("unary_stream")(b"", timeout=60)
        ending = asyncio.ensure_future(call.code())
        assert await quiet(lambda: sending.sent, 0) < PIECES // 2
        assert not ending.done()
        assert [len(reply) async for reply in call] == [len(PIECE)] * PIECES
        assert await ending is Code.OK


@pytest.mark.parametrize("kind", list(Transport), ids=lambda kind: kind.value)
async def test_a_stream_of_requests_waits_for_a_slow_handler(kind):
    """Of ours."""
    sent, go_on = 0, asyncio.Event()

    async def take(requests, context):
        await go_on.wait()
        return b"%d" % sum([len(request) async for request in requests])

    async def requests():
        nonlocal sent
        for _ in range(PIECES):
            yield PIECE
            sent += 1

    async with connected((Transport.NATIVE, kind), stream_unary=take, unary_unary=echo) as (_, stub):
        call = stub("stream_unary")(requests(), timeout=60)
        assert await quiet(lambda: sent, 0) < PIECES // 2
        assert await stub("unary_unary")(PIECE, timeout=_SOON_S) == PIECE
        go_on.set()
        assert await call == b"%d" % (PIECES * len(PIECE))


# --- the beginning and the end of a channel ---


@pytest.mark.parametrize("kind", list(Transport), ids=lambda kind: kind.value)
async def test_a_call_may_wait_for_a_server(kind):
    async with address_of(Transport.NATIVE, {"unary_unary": echo}) as address:
        pass
    client = channel(kind, address, ChannelOptions(backoff_max_s=0.1))
    method = client.stub_channel.unary_unary(PATH)
    assert (await failure(method(b"x", timeout=_SOON_S))).code is Code.UNAVAILABLE
    assert (await failure(method(b"x", timeout=0.3, wait_for_ready=True))).code is Code.DEADLINE_EXCEEDED
    waiting = asyncio.ensure_future(wait_for(method(b"x", timeout=30, wait_for_ready=True)))
    await asyncio.sleep(0)
    async with address_of(Transport.NATIVE, {"unary_unary": echo}, port=int(address.rpartition(":")[2])):
        assert await waiting == b"x"
    await client.close()


async def wait_for(call):
    return await call


async def test_a_channel_that_closes_lets_running_calls_end(pair):
    runs = Runs()
    async with connected(pair, unary_unary=runs.__call__) as (client, _):
        running = asyncio.ensure_future(client.unary(PATH, b"x", 30))
        await asyncio.wait_for(runs.begun.wait(), _SOON_S)
        closing = asyncio.ensure_future(client.close(30))
        await asyncio.sleep(0)
        runs.let.set()
        assert await running == b"x"
        await asyncio.wait_for(closing, _SOON_S)
        for call in AWAITED.values():

            async def refused(call=call):
                return await call(client)

            assert (await failure(refused())).code is Code.CANCELLED


@pytest.mark.parametrize("call", AWAITED.values(), ids=AWAITED.keys())
@pytest.mark.parametrize("grace_s", [0.0, 0.05])
async def test_a_channel_that_closes_ends_the_calls_that_outlive_its_grace(pair, call, grace_s):
    runs = Runs()
    async with connected(pair, unary_unary=runs.__call__) as (client, _):

        async def run():
            return await call(client)

        running = asyncio.ensure_future(run())
        await asyncio.wait_for(runs.begun.wait(), _SOON_S)
        await client.close(grace_s)
        assert (await failure(running)).code is Code.CANCELLED
        await asyncio.wait_for(runs.cancelled.wait(), _SOON_S)
