"""Two addresses of one party, both real ports."""

import asyncio
from contextlib import AsyncExitStack

from apps.app import PartyStatus
from serving.peers.hedging import Hedging
from serving.peers.peer import Peer
from serving.settings import Purpose
from serving.transport import Code, RpcError
from tessera.v1 import federation_pb2 as wire
from tests.unit.serving.peers.host_party import served
from tests.unit.serving.peers.test_peer import DIGEST, MODEL, ONE, good_reply, soon

OK, NOT_FOUND, TIMEOUT, REJECTED, UNREACHABLE, MISMATCH, INTERNAL = PartyStatus
NEVER = 60.0


class Address:
    """Answers every call with `reply`, an error, or not at all when it is None."""

    def __init__(self, reply):
        self.reply = reply
        self.requests = []
        self.given_up = asyncio.Event()

    async def __call__(self, raw, call):
        self.requests.append(wire.InferRequest.FromString(raw))
        if isinstance(self.reply, Exception):
            raise self.reply
        if self.reply is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up.set()
        return self.reply


async def asked(first, second, after_s=0.01, purpose=Purpose.INFER, left_s=5.0):
    async with AsyncExitStack() as stack:
        links = [(await stack.enter_async_context(served(address)))[0] for address in (first, second)]
        hedging = Hedging(*(Peer("shop", link) for link in links), after_s)
        answer = await hedging.infer(MODEL, DIGEST, ["u1", "u2"], ONE, soon(left_s), purpose)
        for address in (first, second):
            if address.requests and address.reply is None:
                await asyncio.wait_for(address.given_up.wait(), 5)
        return answer, hedging.hedged


async def test_an_answer_in_time_asks_nobody_else():
    first, second = Address(good_reply()), Address(good_reply())
    answer, hedged = await asked(first, second, NEVER)
    assert (answer.statuses, hedged, second.requests) == ([OK, OK], 0, [])


async def test_a_slow_address_is_left_for_the_other_and_its_call_is_cancelled():
    first, second = Address(None), Address(good_reply())
    answer, hedged = await asked(first, second)
    assert (answer.statuses, hedged) == ([OK, OK], 1)
    one, two = first.requests[0], second.requests[0]
    assert (one.purpose, two.purpose) == (wire.PURPOSE_INFER, wire.PURPOSE_HEDGE)
    assert one.attempt_id == two.attempt_id
    assert len(one.attempt_id) == 16


async def test_an_address_that_is_unreachable_is_left_at_once():
    answer, _ = await asked(Address(RpcError(Code.UNAVAILABLE, "")), Address(good_reply()), NEVER)
    assert answer.statuses == [OK, OK]


async def test_a_refusal_is_not_evaded_at_the_other_address():
    second = Address(good_reply())
    answer, _ = await asked(Address(RpcError(Code.RESOURCE_EXHAUSTED, "budget")), second, NEVER)
    assert answer.statuses == [REJECTED, REJECTED]
    assert second.requests == []


async def test_when_neither_has_an_answer_the_first_counts():
    answer, _ = await asked(Address(RpcError(Code.UNAVAILABLE, "")), Address(RpcError(Code.PERMISSION_DENIED, "no")))
    assert answer.statuses == [UNREACHABLE, UNREACHABLE]


async def test_both_end_at_the_deadline():
    answer, _ = await asked(Address(None), Address(None), left_s=0.1)
    assert answer.statuses == [TIMEOUT, TIMEOUT]


async def test_other_purposes_are_not_doubled():
    first, second = Address(RpcError(Code.UNAVAILABLE, "")), Address(good_reply())
    answer, hedged = await asked(first, second, purpose=Purpose.SHADOW)
    assert (answer.statuses, hedged, second.requests) == ([UNREACHABLE] * 2, 0, [])
