"""An end of a channel without a wire: the test carries the chunks."""

import asyncio

import pytest

from training.channel import PeerLostError, Tag
from training.channels.chunk import Chunk, split
from training.channels.endpoint import QUEUE_BYTES, Endpoint
from training.channels.inbox import InboxLimits


def tag(number: int = 0) -> Tag:
    return Tag("job", "task", 1, "x", number)


def endpoint() -> Endpoint:
    return Endpoint("host", InboxLimits())


def drain(end: Endpoint) -> list[Chunk]:
    chunks = []
    while (chunk := end.next_chunk()) is not None:
        chunks.append(chunk)
    return chunks


async def test_sending_waits_only_while_much_stands_before_it() -> None:
    end = endpoint()
    await end.send(tag(0), bytes(QUEUE_BYTES + 1))
    second = asyncio.create_task(end.send(tag(1), b"x"))
    await asyncio.sleep(0)
    assert not second.done()
    end.resume(0, 1)
    drain(end)
    await second


async def test_a_failure_ends_all_who_wait() -> None:
    end = endpoint()
    await end.send(tag(0), bytes(QUEUE_BYTES + 1))
    waiting = [
        asyncio.create_task(end.send(tag(1), b"x")),
        asyncio.create_task(end.receive(tag(2), 5)),
        asyncio.create_task(end.receive(tag(3), 5)),
    ]
    await asyncio.sleep(0)
    end.fail(PeerLostError("gone"))
    end.fail(PeerLostError("a later reason does not count"))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [(type(result), str(result)) for result in results] == [(PeerLostError, "gone")] * 3
    assert end.has_failed


async def test_what_arrived_before_a_failure_can_be_received() -> None:
    end = endpoint()
    end.acknowledgement()
    end.deliver(next(split(tag(), b"in time", 0)))
    end.fail(PeerLostError("gone"))
    assert await end.receive(tag(), 5) == b"in time"


async def test_flushing_waits_for_the_acknowledgement() -> None:
    end = endpoint()
    await end.send(tag(), b"x")
    flushing = asyncio.create_task(end.flush(5))
    end.resume(0, 9)
    drain(end)
    await asyncio.sleep(0)
    assert not flushing.done()
    end.acknowledge(1, 9)
    await flushing


async def test_flushing_says_what_did_not_arrive() -> None:
    end = endpoint()
    await end.send(tag(), b"x")
    with pytest.raises(PeerLostError, match=r"party host did not get everything .* no acknowledgement within 0.01 s"):
        await end.flush(0.01)
    end.fail(PeerLostError("gone"))
    with pytest.raises(PeerLostError, match=r"party host did not get everything .* gone"):
        await end.flush(5)


async def test_flushing_does_not_repeat_a_reason_already_raised() -> None:
    end = endpoint()
    await end.send(tag(), b"x")
    end.fail(PeerLostError("gone"))
    with pytest.raises(PeerLostError):
        await end.send(tag(1), b"y")
    await end.flush(5)
