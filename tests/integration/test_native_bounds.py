"""What the native server may cost: memory of connections and messages, and objects left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from serving.certificates import make_authority, make_certificate
from serving.transport import Channel, ChannelOptions, ServerOptions, Transport, channel, frames
from tests.integration.http2_peer import ECHO, HELLO, serving

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
IDLE = 1_000
IDLE_BYTES = 40_000


@asynccontextmanager
async def client_of(port: int, options: ChannelOptions | None = None) -> AsyncIterator[Channel]:
    made = channel(Transport.NATIVE, f"127.0.0.1:{port}", options)
    try:
        yield made
    finally:
        await made.close()


# --- memory ---


async def test_a_message_of_64_mib_goes_both_ways_in_memory_proportional_to_it() -> None:
    size = 64 * MIB
    limits = {"max_receive_bytes": size + 100, "max_send_bytes": size + 100}
    body = bytes(size)
    async with serving(ServerOptions(**limits)) as (_, port), client_of(port, ChannelOptions(**limits)) as client:
        assert await client.unary(ECHO, b"x", 5) == b"x"
        tracemalloc.start()
        try:
            reply = await client.unary(ECHO, body, 50)
            _, peak = tracemalloc.get_traced_memory()
            assert len(reply) == size
            del reply
            assert await client.unary(ECHO, b"x", 5) == b"x"  # nobody holds the one before any more
            gc.collect()
            left, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 6 * size  # both ends in one process: sent, received, answered, and received again
    assert left < MIB


SERVER = """
import asyncio, sys, uvloop
from pathlib import Path
from serving.transport import ServerCredentials, Transport, server

async def main(folder):
    tls = ServerCredentials(folder / "shop.pem", folder / "shop.key") if folder else None
    made = server(Transport.NATIVE)
    made.add_bytes_handler("/test.Echo/Echo", lambda payload, call: payload)
    print(made.add_port("127.0.0.1:0", tls), flush=True)
    await made.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

run = {"asyncio": asyncio.run, "uvloop": uvloop.run}[sys.argv[1]]
run(main(Path(sys.argv[2]) if sys.argv[2:] else None))
"""


@contextlib.contextmanager
def server_process(*arguments: str) -> Iterator[tuple[int, psutil.Process]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), psutil.Process(process.pid)
    finally:
        process.communicate(timeout=20)


async def greeted(port: int, tls: ssl.SSLContext | None, count: int, kept: list[asyncio.StreamWriter]) -> None:
    async def one() -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(HELLO + frames.frame(frames.SETTINGS, frames.ACK, 0))
        await reader.readexactly(9)
        return writer

    for _ in range(count // 50):
        kept += await asyncio.gather(*(one() for _ in range(50)))


@pytest.mark.parametrize(("loop", "secured"), [("asyncio", False), ("uvloop", False), ("uvloop", True)])
async def test_idle_connections_are_cheap(tmp_path: Path, loop: str, secured: bool) -> None:
    tls = None
    if secured:
        await asyncio.to_thread(make_authority, tmp_path, "test")
        await asyncio.to_thread(make_certificate, tmp_path, "shop", ["127.0.0.1"])
        tls = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        tls.set_alpn_protocols(["h2"])
    kept: list[asyncio.StreamWriter] = []
    with server_process(loop, *([str(tmp_path)] if secured else [])) as (port, process):
        await greeted(port, tls, 100, kept)
        before = process.memory_info().rss
        await greeted(port, tls, IDLE, kept)
        each = (process.memory_info().rss - before) / IDLE
        for writer in kept:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in kept), return_exceptions=True)
    assert each < IDLE_BYTES


# --- what stays behind ---


def census() -> Counter[str]:
    gc.collect()
    return Counter(type(item).__qualname__ for item in gc.get_objects())


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.soak)])
@pytest.mark.timeout(300)
async def test_calls_leave_no_objects(count: int) -> None:
    async with serving() as (made, port), client_of(port) as client:

        async def calls(number: int) -> None:
            for turn in range(number // 50):
                deadlines = [5 + turn / 1000 + place / 10 for place in range(50)]
                paths = (ECHO, "/test.Echo/Later")
                await asyncio.gather(
                    *(client.unary(paths[i % 2], b"x" * 300, s, (("k", f"{i}"),)) for i, s in enumerate(deadlines))
                )

        await calls(2_000)
        before = census()
        await calls(count)
        grown = census() - before
        assert sum(grown.values()) < 500, grown.most_common(5)
        assert not made.calls


async def test_a_pool_spreads_calls_over_its_connections() -> None:
    async with serving() as (made, port), client_of(port, ChannelOptions(connections=3)) as client:
        await asyncio.gather(*(client.unary("/test.Echo/Later", b"x", 5) for _ in range(300)))
        assert len(made._connections) == 3
