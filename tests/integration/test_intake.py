"""What peers can make a native server keep: bombs, and requests that never come to their end. Others are served."""

import asyncio
import gzip
import time
import tracemalloc

import pytest

from serving.transport import ChannelOptions, Code, Compression, RpcError, ServerOptions, Transport, channel, frames
from serving.transport.call import Head, frame_message
from serving.transport.frames import frame
from serving.transport.hpack import Decoder, encode
from tests.contract.services import registers
from tests.integration.http2_peer import ECHO, HELLO, LATER, NEVER, opening, polite, raw, serving

MIB = 1 << 20
GZIP = encode(((b"grpc-encoding", b"gzip"),))
BOMB = gzip.compress(bytes(4 * MIB - 100))
PIECE = 16_384
SIZE = "/test.Service/Size"


def squeezed(message):
    return b"\1" + len(message).to_bytes(4, "big") + message


def bombs(numbers, path):
    return b"".join(
        opening(number, path, GZIP) + frame(frames.DATA, frames.END_STREAM, number, squeezed(BOMB))
        for number in numbers
    )


async def status(peer, number):
    *_, last = [item for item in await peer.until_ended(number) if item.kind == frames.HEADERS]
    return Head(Decoder(tuple).decode(last.payload)).status()


async def test_gzip_bombs_delay_nobody_else():
    taken = []

    async def take(payload, call):
        taken.append(len(payload))
        return b""

    async with serving(ServerOptions(max_kept_bytes=16 << 30)) as (made, port), raw(port) as peer:
        made.add_bytes_handler(SIZE, take)
        client = polite(port)
        assert await client.unary(ECHO, b"x", 5) == b"x"
        peer.send(HELLO, bombs(range(1, 801, 2), SIZE))
        slowest = 0.0
        while len(taken) < 400:
            begun = time.perf_counter()
            await client.unary(ECHO, b"x", 30)
            slowest = max(slowest, time.perf_counter() - begun)
        await client.close()
    assert slowest < 0.5  # all of them take more than a second


async def test_bombs_that_wait_for_their_handlers_are_bounded():
    async with serving(ServerOptions(max_kept_bytes=64 * MIB)) as (made, port), raw(port) as peer:
        peer.send(HELLO, bombs(range(1, 41, 2), NEVER))
        refused = await status(peer, 9)  # four have taken the connection's share
        assert refused.code is Code.RESOURCE_EXHAUSTED
        assert 0 < made.store.kept_bytes <= 16 * MIB
    assert made.store.kept_bytes == 0


async def test_messages_of_a_stream_are_inflated_one_by_one_as_they_are_taken():
    took, go_on = asyncio.Event(), asyncio.Event()

    async def count(requests, context):
        total = 0
        async for request in requests:
            total += len(request)
            took.set()
            await go_on.wait()
        return b"%d" % total

    async with serving() as (made, port), raw(port) as peer:
        registers(made, {"stream_unary": count})
        peer.send(HELLO, opening(1, "/test.Service/stream_unary", GZIP))
        tracemalloc.start()
        try:
            for _ in range(12):
                peer.send(frame(frames.DATA, 0, 1, squeezed(BOMB)))
            await peer.alive()
            await took.wait()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 16 * MIB
        assert made.store.kept_bytes == 4 * MIB - 100
        go_on.set()
        peer.send(frame(frames.DATA, frames.END_STREAM, 1))
        answer = await peer.until(frames.DATA)
        assert answer.payload == frame_message(b"%d" % (12 * (4 * MIB - 100)))


@pytest.mark.parametrize("size", [10, 1000, 3 * MIB])
@pytest.mark.parametrize("path", [ECHO, LATER, "/test.Service/unary_unary"])
async def test_compressed_requests_of_our_own_client_are_served(size, path):
    async def echo(request, context):
        return request

    body = bytes(range(250)) * (size // 250 + 1)
    async with serving(ServerOptions(compression=Compression.GZIP)) as (made, port):
        registers(made, {"unary_unary": echo})
        client = channel(Transport.NATIVE, f"127.0.0.1:{port}", ChannelOptions(compression=Compression.GZIP))
        assert await client.unary(path, body, 10) == body
        assert await client.stub_channel.unary_unary(path)(body, timeout=10) == body
        await client.close()
        assert made.store.kept_bytes == 0


# --- requests that have not come to their end ---


async def upload(peer, number, size, path=SIZE):
    """All but the last bytes of a request."""
    peer.send(opening(number, path), frame(frames.DATA, 0, number, b"\0" + size.to_bytes(4, "big")))
    sent, window = 0, 65_535 - 5
    while sent < size - 10:
        piece = min(PIECE, size - 10 - sent)
        while window < piece:
            update = await peer.until(frames.WINDOW_UPDATE, stream_id=number)
            window += frames.word(update.payload)
        peer.send(frame(frames.DATA, 0, number, bytes(piece)))
        sent += piece
        window -= piece


async def test_uploads_that_do_not_end_take_turns_and_are_bounded():
    """Sixty of a megabyte: with windows that always open, all of them would be kept."""
    async with serving(ServerOptions(max_kept_bytes=32 * MIB)) as (made, port), raw(port) as peer:
        made.add_bytes_handler(SIZE, lambda payload, call: b"%d" % len(payload))
        client = polite(port)
        peer.send(HELLO)
        numbers = range(1, 121, 2)
        await upload(peer, 1, MIB)
        peer.send(*[opening(number, SIZE) for number in numbers[1:]])
        head = b"\0" + MIB.to_bytes(4, "big")
        for number in numbers[1:]:
            peer.send(frame(frames.DATA, 0, number, head + bytes(16_000)))
            peer.send(*[frame(frames.DATA, 0, number, bytes(16_000)) for _ in range(3)])
        await peer.alive()
        assert made.store.kept_bytes <= 8 * MIB
        updated = {item.stream_id for item in peer.frames_received if item.kind == frames.WINDOW_UPDATE}
        assert {1, 3} <= updated
        assert numbers[-1] not in updated
        assert await client.unary(ECHO, b"x", 5) == b"x"
        peer.send(frame(frames.DATA, frames.END_STREAM, 1, bytes(10)))
        await peer.until(frames.HEADERS, stream_id=1)
        await client.close()
    assert made.store.kept_bytes == 0


async def test_uploads_over_many_connections_are_bounded():
    async with serving(ServerOptions(max_kept_bytes=2 * MIB)) as (made, port):
        made.add_bytes_handler(SIZE, lambda payload, call: b"%d" % len(payload))
        client = polite(port)
        async with raw(port) as one, raw(port) as two, raw(port) as three:
            for peer in (one, two):
                peer.send(HELLO)
                await upload(peer, 1, MIB)
                await peer.alive()
            three.send(HELLO, opening(1, ECHO), frame(frames.DATA, 0, 1, b"\0" + MIB.to_bytes(4, "big") + bytes(40)))
            assert (await status(three, 1)).code is Code.RESOURCE_EXHAUSTED
            assert await client.unary(ECHO, b"x", 5) == b"x"
            one.send(frame(frames.DATA, frames.END_STREAM, 1, bytes(10)))
            await one.until_ended(1)
            await upload(three, 3, MIB)
        with pytest.raises(RpcError):
            await client.unary(NEVER, b"x", 0.01)
        await client.close()
        assert made.store.kept_bytes == 0


async def test_a_request_that_does_not_go_on_is_given_up_after_a_minute():
    async def joined(requests, context):
        return b"".join([request async for request in requests])

    streaming = "/test.Service/stream_unary"
    timeout = encode(((b"grpc-timeout", b"1H"),))
    async with serving(ServerOptions(keepalive_s=1000)) as (made, port), raw(port) as peer:
        registers(made, {"stream_unary": joined})
        peer.send(HELLO, opening(1), opening(3, ECHO, timeout), opening(5, streaming), opening(7, streaming))
        peer.send(frame(frames.DATA, 0, 5, b"\0\0\0\0\x0aabc"), frame(frames.DATA, 0, 7, frame_message(b"abc")))
        await peer.alive()
        begun = asyncio.get_running_loop().time()
        for second in range(63):
            made.tick(begun + second)
        for number in (1, 5):
            assert (await status(peer, number)).code is Code.DEADLINE_EXCEEDED
        assert {call.stream.id for call in made.calls} == {3, 7}
        peer.send(frame(frames.DATA, frames.END_STREAM, 3, frame_message(b"x")), frame(frames.DATA, 1, 7, b""))
        assert await status(peer, 3) is None
        assert await status(peer, 7) is None
