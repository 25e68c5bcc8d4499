"""Compressed messages: what they claim, what they are, and who waits for whom while they are inflated."""

import asyncio
import gzip
from concurrent.futures import Executor, Future

import pytest

from serving.transport import Code, RpcError
from serving.transport.inflation import AT_ONCE_BYTES, Inflation, Squeezed, Turn

MOST = 100_000


def squeezed(plain: bytes) -> Squeezed:
    return Squeezed.of(gzip.compress(plain), 1 << 30)


def claiming(size: int, plain: bytes) -> bytes:
    return gzip.compress(plain)[:-4] + size.to_bytes(4, "little")


class Threads(Executor):
    """Runs what it was given when told to."""

    def __init__(self):
        self.given = []

    def submit(self, work, /, *args):
        outcome = Future()
        self.given.append((outcome, work))
        return outcome

    def run(self):
        outcome, work = self.given.pop(0)
        if outcome.set_running_or_notify_cancel():
            outcome.set_result(work())


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (gzip.compress(b"x" * (MOST + 1)), Code.RESOURCE_EXHAUSTED),
        (gzip.compress(b"x")[:17], Code.INTERNAL),
        (claiming(10, b"x" * 1_000_000), Code.INTERNAL),
        (claiming(MOST, b"x" * 10), Code.INTERNAL),
        (gzip.compress(b"x") + gzip.compress(b"x"), Code.INTERNAL),
        (gzip.compress(b"x" * 500)[:-5] + b"x\xf4\1\0\0", Code.INTERNAL),
        (b"no gzip at all" + bytes(10), Code.INTERNAL),
    ],
    ids=["too large", "short", "claims too little", "claims too much", "two members", "checksum", "rubbish"],
)
def test_what_is_not_what_it_claims_is_refused(message, code):
    with pytest.raises(RpcError) as caught:
        Squeezed.of(message, MOST).inflated()
    assert caught.value.code is code


@pytest.mark.parametrize("plain", [b"", b"x", b"x" * MOST])
def test_messages_are_inflated(plain):
    assert Squeezed.of(gzip.compress(plain), MOST).inflated() == plain


async def test_a_turn_of_the_loop_inflates_a_little_for_all_connections():
    turn, threads = Turn(), Threads()
    one, other = Inflation(turn, threads), Inflation(turn, threads)
    half = b"x" * (AT_ONCE_BYTES // 2)
    begun = [asyncio.ensure_future(inflation.inflated(squeezed(half))) for inflation in (one, other)]
    waiting = asyncio.ensure_future(other.inflated(squeezed(b"y")))
    await turns(1)
    assert [task.result() for task in begun] == [half, half]
    assert len(threads.given) == 1
    threads.run()
    assert await waiting == b"y"
    assert await one.inflated(squeezed(half)) == half  # a later turn


async def test_connections_take_turns_in_the_threads():
    turn, threads = Turn(), Threads()
    one, other = Inflation(turn, threads), Inflation(turn, threads)
    large = b"x" * (AT_ONCE_BYTES + 1)
    many = [asyncio.ensure_future(one.inflated(squeezed(large))) for _ in range(50)]
    single = asyncio.ensure_future(other.inflated(squeezed(large)))
    await turns()
    assert len(threads.given) == 2
    threads.run()
    threads.run()
    await turns()
    assert single.done()
    assert [task.done() for task in many].count(True) == 1
    many[1].cancel()
    for _ in range(50):
        await turns()
        if threads.given:
            threads.run()
    await turns()
    assert [task.done() for task in many].count(True) == 50
