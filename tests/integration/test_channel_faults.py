"""What the gRPC channel does when the network or the peer fails."""

import asyncio
import contextlib
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving import transport
from tests.proxy import Proxy
from training.channel import Channel, ChannelError, PeerLostError, Tag
from training.channels.exchange import Exchange
from training.channels.grpc import GrpcChannel, GrpcChannelOptions
from training.channels.inbox import InboxLimits
from training.channels.meeting import Meeting

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20


def tag(name: str, number: int = 0) -> Tag:
    return Tag("job", "task", 1, name, number)


class Party:
    def __init__(self, name: str) -> None:
        self.exchange = Exchange(name)
        self._server = transport.server(transport.Transport.NATIVE)
        self.exchange.register(self._server)
        self.port = self._server.add_port("127.0.0.1:0")

    async def start(self) -> "Party":
        await self._server.start()
        return self

    async def stop(self) -> None:
        await self._server.stop(0.2)

    def channel(self, peer: str, port: int, options: GrpcChannelOptions) -> GrpcChannel:
        return GrpcChannel(self.exchange, Meeting("job", self.exchange.party, peer), f"127.0.0.1:{port}", options)


@asynccontextmanager
async def proxied(options: GrpcChannelOptions) -> AsyncIterator[tuple[Channel, Channel, Proxy, int]]:
    """Guest and host; what the guest sends goes through the proxy. The last is the port of the host."""
    guest, host = await Party("guest").start(), await Party("host").start()
    proxy = Proxy(host.port)
    await proxy.start()
    channels = guest.channel("host", proxy.port, options), host.channel("guest", guest.port, options)
    try:
        await asyncio.gather(*(channel.open("digest", 10) for channel in channels))
        yield *channels, proxy, host.port
    finally:
        await asyncio.gather(*(channel.close() for channel in channels), return_exceptions=True)
        await proxy.stop()
        await asyncio.gather(guest.stop(), host.stop())


async def test_a_cut_connection_loses_and_doubles_nothing() -> None:
    payloads = [secrets.token_bytes(20 * MIB), *(secrets.token_bytes(1000) for _ in range(50))]
    async with proxied(GrpcChannelOptions(lost_after_s=20)) as (guest, host, proxy, _):

        async def break_it() -> None:
            for _ in range(3):
                proxy.cut_after_bytes = proxy.forwarded_bytes + 4 * MIB
                await proxy.cut.wait()
                proxy.cut.clear()
                await asyncio.sleep(0.1)
                await proxy.start()

        breaking = asyncio.create_task(break_it())
        for number, payload in enumerate(payloads):
            await guest.send(tag("x", number), payload)
        for number, payload in enumerate(payloads):
            assert await host.receive(tag("x", number), 30) == payload
        await breaking
        assert proxy.connections >= 4
        for number in range(len(payloads)):
            with pytest.raises(ChannelError, match="was received before"):
                await host.receive(tag("x", number), 1)
        await host.send(tag("back"), b"still there")
        assert await guest.receive(tag("back"), 5) == b"still there"


async def test_a_node_that_starts_later_is_waited_for() -> None:
    guest, host = Party("guest"), Party("host")
    await guest.start()
    channels = (
        guest.channel("host", host.port, GrpcChannelOptions()),
        host.channel("guest", guest.port, GrpcChannelOptions()),
    )
    opening = asyncio.create_task(channels[0].open("digest", 20))
    await asyncio.sleep(0.2)
    assert not opening.done()
    await host.start()
    await channels[1].open("digest", 20)
    await opening
    await asyncio.gather(*(channel.close() for channel in channels))
    await asyncio.gather(guest.stop(), host.stop())


async def test_an_old_attempt_is_refused_by_a_peer_that_runs_a_newer_one() -> None:
    guest, host = await Party("guest").start(), await Party("host").start()
    newer = GrpcChannel(host.exchange, Meeting("job", "host", "guest", 2), f"127.0.0.1:{guest.port}")
    opening = asyncio.create_task(newer.open("digest", 20))
    await asyncio.sleep(0)
    with pytest.raises(ChannelError, match=r"(refuses job job: .* runs attempt 2)|(attempt 2 of job job has begun)"):
        await guest.channel("host", host.port, GrpcChannelOptions()).open("digest", 20)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await asyncio.gather(guest.stop(), host.stop())


async def test_a_connection_that_stays_cut_loses_the_peer_within_the_limit() -> None:
    async with proxied(GrpcChannelOptions(lost_after_s=1)) as (guest, _, proxy, _):
        waiting = asyncio.create_task(guest.receive(tag("never"), 30))
        await guest.send(tag("x"), b"there")
        proxy.kill()
        begun = time.monotonic()
        with pytest.raises(PeerLostError, match=r"party host at .* is lost: no connection for 1 s"):
            await waiting
        assert 0.9 < time.monotonic() - begun < 5
        with pytest.raises(PeerLostError, match="party host"):
            await guest.send(tag("y"), b"")


async def test_a_silent_connection_is_noticed_by_keepalive() -> None:
    options = GrpcChannelOptions(lost_after_s=1, keepalive_s=0.5)
    async with proxied(options) as (guest, host, proxy, _):
        waiting = asyncio.create_task(guest.receive(tag("never"), 40))
        await guest.send(tag("x"), b"there")
        assert await host.receive(tag("x"), 5) == b"there"
        proxy.freeze(new_ones_too=True)
        with pytest.raises(PeerLostError, match="party host"):
            await waiting


async def test_a_silent_connection_is_replaced_if_a_new_one_works() -> None:
    async with proxied(GrpcChannelOptions(lost_after_s=5, keepalive_s=0.2)) as (guest, host, proxy, _):
        await guest.send(tag("x"), b"before")
        assert await host.receive(tag("x"), 5) == b"before"
        proxy.freeze()
        await guest.send(tag("y"), b"after")
        assert await host.receive(tag("y"), 5) == b"after"


async def test_patience_starts_anew_after_every_reconnection() -> None:
    async with proxied(GrpcChannelOptions(lost_after_s=2)) as (guest, host, proxy, _):
        for number in range(5):
            proxy.kill()
            await asyncio.sleep(0.4)
            await proxy.start()
            await guest.send(tag("x", number), b"there")
            assert await host.receive(tag("x", number), 5) == b"there"


async def test_a_living_peer_without_news_or_credit_is_not_disconnected() -> None:
    options = GrpcChannelOptions(keepalive_s=0.5, limits=InboxLimits(buffer_bytes=MIB, max_bytes=64 * MIB))
    async with proxied(options) as (guest, host, _, _):
        await guest.send(tag("ready"), b"")
        await host.receive(tag("ready"), 5)
        stream = host._seat.reader
        for number in range(40):  # the first take up the credit
            await guest.send(tag("x", number), bytes(MIB // 4))
            await asyncio.sleep(0.06)
        assert host.endpoint.held_bytes < 30 * MIB // 4, "credit did not run out"
        assert host._seat.reader is stream is not None
        for number in range(40):
            assert len(await host.receive(tag("x", number), 5)) == MIB // 4


@asynccontextmanager
async def peer_process(guest_port: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "tests.integration.channel_peer", str(guest_port)]
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT)
    try:
        yield process, int(await process.stdout.readline())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process.stdin.close()


async def test_a_killed_peer_is_named_within_the_limit() -> None:
    guest = await Party("guest").start()
    async with peer_process(guest.port) as (process, port):
        channel = guest.channel("host", port, GrpcChannelOptions(lost_after_s=1))
        await channel.open("digest", 20)
        await channel.send(tag("call", 0), b"alive")
        assert await channel.receive(tag("answer", 0), 10) == b"alive"
        waiting = asyncio.create_task(channel.receive(tag("answer", 1), 30))
        await asyncio.sleep(0)
        process.kill()
        begun = time.monotonic()
        with pytest.raises(PeerLostError, match="party host at"):
            await waiting
        assert time.monotonic() - begun < 5
        await channel.close()
    await guest.stop()


async def test_a_peer_that_comes_back_without_its_memory_is_not_trusted() -> None:
    """A restarted process has lost what it acknowledged: the attempt cannot go on, and says so."""
    guest = await Party("guest").start()
    options = GrpcChannelOptions(lost_after_s=10)
    first = await Party("host").start()
    proxy = Proxy(first.port)
    await proxy.start()
    before, channel = first.channel("guest", guest.port, options), guest.channel("host", proxy.port, options)
    await asyncio.gather(before.open("digest", 5), channel.open("digest", 5))
    await channel.send(tag("x"), b"lost")
    assert await before.receive(tag("x"), 5) == b"lost"
    await channel.endpoint.flush(5)  # the guest knows that its message was taken
    second = await Party("host").start()
    after = second.channel("guest", guest.port, options)
    opening = asyncio.create_task(after.open("digest", 5))
    await asyncio.sleep(0)
    proxy.kill()
    proxy._target = second.port
    await proxy.start()
    with pytest.raises(PeerLostError, match="party host: the peer lost what it had received"):
        await channel.receive(tag("y"), 10)
    await opening
    await asyncio.gather(*(end.close() for end in (before, after, channel)), return_exceptions=True)
    await proxy.stop()
    await asyncio.gather(*(party.stop() for party in (guest, first, second)))


GARBAGE = [
    secrets.token_bytes(4096),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + secrets.token_bytes(1000),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00",
]


async def test_garbage_does_not_disturb_others() -> None:
    async with proxied(GrpcChannelOptions()) as (guest, host, _, port):

        async def annoy(garbage: bytes) -> None:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(garbage)
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(), 0.5)
                writer.close()

        payload = secrets.token_bytes(20 * MIB)
        annoying = [asyncio.create_task(annoy(garbage)) for garbage in GARBAGE * 5]
        await guest.send(tag("x"), payload)
        assert await host.receive(tag("x"), 20) == payload
        await asyncio.gather(*annoying)
        await guest.send(tag("y"), b"after")
        assert await host.receive(tag("y"), 5) == b"after"
