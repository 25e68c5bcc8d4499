"""The h2spec cases once more: what the native server says does not depend on how the bytes were cut on their way,
though requests that come whole in one read take another path."""

import asyncio

import pytest

from serving.transport import ServerOptions, frames
from serving.transport.frames import FrameReader
from serving.transport.native_server import NativeServer
from serving.transport.server_socket import ServerProtocol
from tests.integration.http2_peer import ECHO, HELLO, NEVER
from tests.integration.test_fuzzing import Wire, never
from tests.integration.test_http2_conformance import CASES

_TURNS = 10
"""Of the loop, in which everything that was caused has happened."""
_ASIDE = {frames.WINDOW_UPDATE, frames.SETTINGS, frames.PING}
STORIES = {name: [HELLO, *(step for step in steps if isinstance(step, bytes))] for name, (steps, _) in CASES.items()}


class Kept(Wire):
    """A wire that keeps what the server says."""

    def __init__(self, protocol):
        self.said = b""
        super().__init__(protocol)

    def write(self, data):
        super().write(data)
        self.said += data


async def turns():
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def answer(parts, step):
    """Why the connection ended, if it did, and what was said on each stream."""
    made = NativeServer(ServerOptions())
    made.add_bytes_handler(ECHO, lambda payload, call: payload)
    made.add_bytes_handler(NEVER, never)
    protocol = ServerProtocol(made)
    wire = Kept(protocol)
    for part in parts:
        for start in range(0, len(part), step):
            if not wire.closed:
                protocol.data_received(part[start : start + step])
        await turns()
    reason = protocol.connection.closed_reason
    wire.close()
    await turns()
    return reason, by_stream(wire.said)


def by_stream(said):
    streams = {}
    for kind, flags, number, payload in FrameReader(frames.MAX_FRAME_BYTES, 1 << 20).feed(said):
        if kind not in _ASIDE:
            last_seen = 4 if kind == frames.GOAWAY else 0  # of a GOAWAY, which may have come sooner
            streams.setdefault(number, []).append((kind, flags, payload[last_seen:]))
    return streams


@pytest.mark.parametrize("parts", STORIES.values(), ids=STORIES.keys())
async def test_it_makes_no_difference_how_requests_are_cut(parts):
    largest = max(map(len, parts))
    steps = (1, 13) if largest < 10_000 else (997,)
    expected = await answer(parts, largest)
    for step in steps:
        assert await answer(parts, step) == expected
    assert await answer([b"".join(parts)], sum(map(len, parts))) == expected
