"""What every channel does, whatever carries it."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from serving import transport
from training.channel import (
    Channel,
    ChannelError,
    IntegrityError,
    PeerLostError,
    ReceiveTimeoutError,
    SpecMismatchError,
    Tag,
)
from training.channels.chunk import Chunk
from training.channels.exchange import Exchange
from training.channels.grpc import GrpcChannel, GrpcChannelOptions
from training.channels.inbox import InboxLimits
from training.channels.meeting import Meeting
from training.channels.memory import MemoryHub

DIGEST = hashlib.sha256(b"job").hexdigest()
MIB = 1 << 20


def tag(name: str, number: int = 0, attempt: int = 1, job: str = "job") -> Tag:
    return Tag(job, "task", attempt, name, number)


class MemoryWorld:
    def __init__(self, limits: InboxLimits) -> None:
        self._hub = MemoryHub(limits)

    async def channel(self, party: str, peer: str, attempt: int = 1) -> Channel:
        return self._hub.channel(Meeting("job", party, peer, attempt))

    async def stop(self) -> None: ...


class GrpcWorld:
    """A server per party, as in earnest."""

    def __init__(self, limits: InboxLimits) -> None:
        self._options = GrpcChannelOptions(lost_after_s=5, close_timeout_s=5, limits=limits)
        self._parties: dict[str, tuple[Exchange, transport.Server, str]] = {}

    async def _party(self, name: str) -> tuple[Exchange, transport.Server, str]:
        if name not in self._parties:
            exchange, server = Exchange(name), transport.server(transport.Transport.GRPCIO)
            exchange.register(server)
            self._parties[name] = exchange, server, f"127.0.0.1:{server.add_port('127.0.0.1:0')}"
            await server.start()
        return self._parties[name]

    async def channel(self, party: str, peer: str, attempt: int = 1) -> Channel:
        exchange, _, _ = await self._party(party)
        _, _, target = await self._party(peer)
        return GrpcChannel(exchange, Meeting("job", party, peer, attempt), target, self._options)

    async def stop(self) -> None:
        for _, server, _ in self._parties.values():
            await server.stop(1)


WORLDS = [MemoryWorld, GrpcWorld]
SMALL = InboxLimits(buffer_bytes=4 * MIB, max_bytes=64 * MIB)


@pytest.fixture(params=WORLDS, ids=["memory", "grpc"])
async def world(request) -> AsyncIterator[MemoryWorld | GrpcWorld]:
    made = request.param(SMALL)
    yield made
    await made.stop()


@asynccontextmanager
async def opened(world, parties=("guest", "host"), attempt=1) -> AsyncIterator[tuple[Channel, Channel]]:
    one, other = parties
    pair = await world.channel(one, other, attempt), await world.channel(other, one, attempt)
    await asyncio.gather(*(channel.open(DIGEST, 5) for channel in pair))
    async with AsyncExitStack() as stack:
        for channel in pair:
            stack.push_async_callback(channel.close)
        yield pair


async def test_a_message_arrives_under_its_tag_in_any_order_of_receiving(world) -> None:
    async with opened(world) as (guest, host):
        for number in range(5):
            await guest.send(tag("a", number), b"a%d" % number)
            await guest.send(tag("b", number), b"b%d" % number)
        for number in reversed(range(5)):
            assert await host.receive(tag("b", number), 5) == b"b%d" % number
            assert await host.receive(tag("a", number), 5) == b"a%d" % number


async def test_both_directions_at_once_are_apart(world) -> None:
    async with opened(world) as (guest, host):
        await guest.send(tag("x"), b"from guest")
        await host.send(tag("x"), b"from host")
        assert await guest.receive(tag("x"), 5) == b"from host"
        assert await host.receive(tag("x"), 5) == b"from guest"


async def test_a_receiver_may_be_there_first(world) -> None:
    async with opened(world) as (guest, host):
        waiting = asyncio.create_task(host.receive(tag("x"), 5))
        await asyncio.sleep(0)
        await guest.send(tag("x"), b"late")
        assert await waiting == b"late"


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 20 * MIB])
async def test_any_size_arrives_whole_even_past_the_buffer(world, size) -> None:
    payload = secrets.token_bytes(size)
    async with opened(world) as (guest, host):
        await guest.send(tag("x"), payload)
        assert await host.receive(tag("x"), 20) == payload


async def test_both_sides_may_send_a_large_message_before_they_receive(world) -> None:
    payload = secrets.token_bytes(20 * MIB)
    async with opened(world) as (guest, host):
        await asyncio.gather(guest.send(tag("x"), payload), host.send(tag("x"), payload))
        assert await asyncio.gather(guest.receive(tag("x"), 20), host.receive(tag("x"), 20)) == [payload, payload]


async def test_many_small_messages(world) -> None:
    async with opened(world) as (guest, host):
        numbers = range(2000)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.wait_for(_send_all(guest, numbers), 20))
            received = group.create_task(_receive_all(host, numbers))
        assert received.result() == [str(number).encode() for number in numbers]


async def _send_all(channel, numbers) -> None:
    for number in numbers:
        await channel.send(tag("small", number), str(number).encode())


async def _receive_all(channel, numbers) -> list[bytes]:
    return [await channel.receive(tag("small", number), 20) for number in numbers]


async def test_many_names_are_received_at_once(world) -> None:
    async with opened(world) as (guest, host):
        names = [f"name {number}" for number in range(50)]
        waiting = [asyncio.create_task(host.receive(tag(name), 5)) for name in reversed(names)]
        await asyncio.gather(*(guest.send(tag(name), name.encode()) for name in names))
        assert await asyncio.gather(*waiting) == [name.encode() for name in reversed(names)]


async def test_the_payload_is_a_copy(world) -> None:
    async with opened(world) as (guest, host):
        buffer = bytearray(b"before")
        await guest.send(tag("x"), buffer)
        buffer[:] = b"after!"
        assert await host.receive(tag("x"), 5) == b"before"


async def test_a_tag_sent_twice_is_delivered_once(world) -> None:
    async with opened(world) as (guest, host):
        await guest.send(tag("x"), b"first")
        await guest.send(tag("x"), b"second")
        await guest.send(tag("end"), b"")
        assert await host.receive(tag("end"), 5) == b""
        assert await host.receive(tag("x"), 5) == b"first"
        with pytest.raises(ChannelError, match=r"job/task#1/x\[0\] was received before"):
            await host.receive(tag("x"), 5)


async def test_a_message_that_never_comes_times_out_with_peer_and_tag(world) -> None:
    async with opened(world) as (_, host):
        with pytest.raises(ReceiveTimeoutError, match=r"job/task#1/gradient\[7\] from party guest within 0.05 s"):
            await host.receive(tag("gradient", 7), 0.05)


async def test_after_a_timeout_the_message_can_still_be_received(world) -> None:
    async with opened(world) as (guest, host):
        with pytest.raises(ReceiveTimeoutError):
            await host.receive(tag("x"), 0.01)
        await guest.send(tag("x"), b"late")
        assert await host.receive(tag("x"), 5) == b"late"


async def test_one_message_has_one_receiver(world) -> None:
    async with opened(world) as (guest, host):
        first = asyncio.create_task(host.receive(tag("x"), 5))
        await asyncio.sleep(0)
        with pytest.raises(ChannelError, match="is being received already"):
            await host.receive(tag("x"), 5)
        await guest.send(tag("x"), b"once")
        assert await first == b"once"


async def test_another_specification_is_found_by_both_sides(world) -> None:
    guest, host = await world.channel("guest", "host"), await world.channel("host", "guest")
    results = await asyncio.gather(guest.open(DIGEST, 5), host.open("f" * 64, 5), return_exceptions=True)
    assert [type(result) for result in results] == [SpecMismatchError, SpecMismatchError]
    assert "party host runs another specification of job job" in str(results[0])
    await asyncio.gather(guest.close(), host.close())


async def test_a_peer_that_comes_later_is_waited_for(world) -> None:
    guest, host = await world.channel("guest", "host"), await world.channel("host", "guest")
    waiting = asyncio.create_task(guest.open(DIGEST, 5))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await host.open(DIGEST, 5)
    await waiting
    await asyncio.gather(guest.close(), host.close())


async def test_a_peer_that_never_comes_is_named(world) -> None:
    guest = await world.channel("guest", "host")
    with pytest.raises(PeerLostError, match="party host did not join job job"):
        await guest.open(DIGEST, 0.1)
    await guest.close()


async def test_messages_of_an_old_attempt_of_a_task_are_rejected(world) -> None:
    async with opened(world) as (guest, host):
        await guest.send(tag("x", attempt=1), b"old")
        await guest.send(tag("x", attempt=2), b"new")
        await guest.send(tag("y", attempt=1), b"straggler")
        await guest.send(tag("end", attempt=2), b"")
        assert await host.receive(tag("end", attempt=2), 5) == b""
        assert await host.receive(tag("x", attempt=2), 5) == b"new"
        with pytest.raises(ChannelError, match="old attempt; attempt 2 of this task runs"):
            await host.receive(tag("y", attempt=1), 5)


async def test_a_receiver_of_an_old_attempt_is_told_of_the_new_one(world) -> None:
    async with opened(world) as (guest, host):
        waiting = asyncio.create_task(host.receive(tag("x", attempt=1), 5))
        await asyncio.sleep(0)
        await guest.send(tag("x", attempt=2), b"new")
        with pytest.raises(ChannelError, match="attempt 2 of this task has begun"):
            await waiting


async def test_a_new_attempt_of_the_job_ends_the_channels_of_the_old_one(world) -> None:
    async with opened(world) as (guest, _):
        waiting = asyncio.create_task(guest.receive(tag("x"), 5))
        await asyncio.sleep(0)
        async with opened(world, attempt=2) as (newer, other):
            with pytest.raises(ChannelError, match="attempt 2 of job job has begun"):
                await waiting
            await newer.send(tag("x"), b"again")
            assert await other.receive(tag("x"), 5) == b"again"


async def test_a_second_channel_to_the_same_peer_is_refused(world) -> None:
    async with opened(world):
        second = await world.channel("guest", "host")
        with pytest.raises(ChannelError, match="has a channel to party host in job job already"):
            await second.open(DIGEST, 1)


async def test_a_changed_chunk_is_an_integrity_error_for_its_receiver_only(world) -> None:
    async with opened(world) as (guest, host):
        declared = hashlib.sha256(b"what was meant").digest()
        host.endpoint._outbox._current = iter([Chunk(0, tag("x"), 0, True, declared, b"what came")])
        host.endpoint.outgoing.set()
        with pytest.raises(IntegrityError, match=r"job/task#1/x\[0\] does not have the SHA-256"):
            await guest.receive(tag("x"), 5)
        await host.send(tag("y"), b"fine")
        assert await guest.receive(tag("y"), 5) == b"fine"


async def test_what_nobody_receives_is_held_back_at_the_sender(world) -> None:
    payloads = [secrets.token_bytes(MIB) for _ in range(40)]
    async with opened(world) as (guest, host):
        sending = asyncio.create_task(_send_payloads(guest, payloads))
        held = [0]
        calm = 0
        while held[-1] < 2 * MIB or calm < 20:  # until it fills up no further
            await asyncio.sleep(0.005)
            calm = calm + 1 if host.endpoint.held_bytes == held[-1] else 0
            held.append(host.endpoint.held_bytes)
        assert not sending.done(), "the queue of the sender is bounded too"
        assert max(held) <= SMALL.buffer_bytes
        for number, payload in enumerate(payloads):
            assert await host.receive(tag("bulk", number), 10) == payload
            held.append(host.endpoint.held_bytes)
        await sending
        assert max(held) <= SMALL.buffer_bytes + 16 * MIB


async def _send_payloads(channel, payloads) -> None:
    for number, payload in enumerate(payloads):
        await channel.send(tag("bulk", number), payload)


async def test_an_awaited_message_behind_a_full_buffer_arrives(world) -> None:
    async with opened(world) as (guest, host):
        for number in range(12):
            await guest.send(tag("bulk", number), bytes(MIB))
        await guest.send(tag("x"), b"behind")
        assert await host.receive(tag("x"), 10) == b"behind"
        for number in range(12):
            assert len(await host.receive(tag("bulk", number), 10)) == MIB


async def test_closing_sends_everything_first(world) -> None:
    async with opened(world) as (guest, host):
        payload = secrets.token_bytes(3 * MIB)
        await guest.send(tag("x"), payload)
        await guest.close()
        await guest.close()
        assert await host.receive(tag("x"), 5) == payload
        with pytest.raises(ChannelError, match="the channel to party host in job job is closed"):
            await guest.send(tag("y"), b"")


async def test_a_closed_peer_ends_waiting_and_sending(world) -> None:
    async with opened(world) as (guest, host):
        waiting = asyncio.create_task(host.receive(tag("x"), 5))
        await asyncio.sleep(0)
        await guest.close()
        with pytest.raises(PeerLostError, match="party guest has closed its channel of job job"):
            await waiting
        with pytest.raises(PeerLostError, match="party guest has closed"):
            await host.send(tag("y"), b"too late")


async def test_a_tag_of_another_job_is_refused(world) -> None:
    async with opened(world) as (guest, _):
        with pytest.raises(ChannelError, match="does not fit the channel to party host"):
            await guest.send(tag("x", job="other"), b"")


async def test_three_parties_have_three_channels(world) -> None:
    async with opened(world) as (guest, host), opened(world, ("guest", "second")) as (guest_too, second):
        await host.send(tag("x"), b"host")
        await second.send(tag("x"), b"second")
        assert await guest_too.receive(tag("x"), 5) == b"second"
        assert await guest.receive(tag("x"), 5) == b"host"
