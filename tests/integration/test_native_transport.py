"""The native server and channel on real sockets: deadlines where nothing else moves, and what stays behind."""

import gc
import time

import pytest

from serving.transport import Code, RpcError, Transport, channel, frames
from serving.transport.call import Head
from serving.transport.hpack import Decoder, encode
from tests.integration.http2_peer import ECHO, HELLO, LATER, opening, raw, serving


async def test_a_request_that_never_ends_is_given_up_at_its_deadline():
    async with serving() as (made, port), raw(port) as peer:
        begun = time.perf_counter()
        peer.send(HELLO, opening(1, ECHO, encode(((b"grpc-timeout", b"200m"),))))
        answer = await peer.until(frames.HEADERS)
        assert time.perf_counter() - begun > 0.19
        assert Head(Decoder(tuple).decode(answer.payload)).status().code is Code.DEADLINE_EXCEEDED
        assert not made.calls


@pytest.mark.parametrize("path", [ECHO, LATER])
async def test_calls_end_without_work_for_the_garbage_collector(path):
    async with serving() as (_, port):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        stub = client.stub_channel.unary_unary(path)
        await client.unary(path, b"x", 5)
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                assert await client.unary(path, b"x", 5) == await stub(b"x", timeout=5) == b"x"
            assert gc.collect() < 100
        finally:
            gc.enable()
        await client.close()


async def test_a_deadline_passes_while_a_connection_is_full():
    async with serving() as (_, port):
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}")
        await client.unary(ECHO, b"", 5)
        client._links[0].protocol.connection.peer_max_streams = 0
        with pytest.raises(RpcError) as caught:
            await client.unary(ECHO, b"", 0.05)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        await client.close()
