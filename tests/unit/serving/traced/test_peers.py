"""Calls merged on their way to a party: whose trace the call on the wire is in, and what the party is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from apps.app import PartyStatus
from serving.peers.peer import PeerAnswer, failed
from serving.pool import ModelId
from serving.settings import BatchSettings, TraceSettings
from serving.telemetry.spans import HERE, Context, Kind, Span, within
from serving.telemetry.tracer import Sampling, Tracer
from serving.traced.peers import TracedBatcher, TracedChannel
from serving.transport import Call, Channel, Promise, Transport, channel, server
from tests.unit.serving.peers.test_batching import MODEL, ONE, Party, settle

SETTINGS = TraceSettings(share=1)


class PlacedParty(Party):
    """Remembers under which span each call came."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Span | None] = []

    async def infer(self, *arguments: Any) -> PeerAnswer:
        self.places.append(HERE.get())
        return await super().infer(*arguments)


class Asking:
    def __init__(self) -> None:
        self.tracer = Tracer(SETTINGS, Sampling(SETTINGS))
        self.party = PlacedParty()
        self.batcher = TracedBatcher("shop", self.party, BatchSettings(in_flight=1))

    def ask(self, user: str, traced: bool = True, digest: str = "ab") -> tuple[Span | None, Promise[PeerAnswer]]:
        span = self.tracer.begin(user, Kind.SERVER, None) if traced else None
        with within(span):
            deadline = asyncio.get_running_loop().time() + 10
            return span, self.batcher.infer(MODEL, digest, [user], ONE, deadline)


@pytest.fixture
async def asking() -> Asking:
    return Asking()


async def test_a_call_for_several_is_of_the_first_and_links_to_the_others(asking: Asking) -> None:
    (_, nobody), (first, one), (second, two) = asking.ask("u0", traced=False), asking.ask("u1"), asking.ask("u2")
    await settle()
    [wire] = asking.party.calls
    wire.answer()
    await asyncio.gather(nobody, one, two)
    [call] = asking.tracer.take(10)
    assert first is not None
    assert second is not None
    assert (call.name, call.kind, call.parent, call.links) == (
        "call shop",
        Kind.CLIENT,
        first.context,
        [second.context],
    )
    assert asking.party.places == [call]
    assert call.attributes == {"tessera.party": "shop", "tessera.rows": 3, "tessera.calls": 3}


async def test_the_next_call_is_not_in_the_trace_of_the_one_before(asking: Asking) -> None:
    """The end of one sends the other, in the midst of what belongs to the first."""
    asking.ask("u1")
    await settle()
    asking.ask("u2", traced=False)
    asking.party.calls[0].answer()
    await settle()
    assert asking.party.places[1] is None
    asking.party.calls[1].answer()


async def test_a_call_that_failed_says_how(asking: Asking) -> None:
    _, answer = asking.ask("u1")
    await settle()
    asking.party.calls[0].reply.set_result(failed(PartyStatus.UNREACHABLE, 1, ONE, "unreachable"))
    await answer
    assert [one.failure for one in asking.tracer.take(10)] == ["unreachable"]


async def test_calls_that_a_breaker_refuses_at_once_all_end(asking: Asking) -> None:
    async def refuse(model: ModelId, digest: str, users: list[str], *_: Any) -> PeerAnswer:
        return failed(PartyStatus.UNREACHABLE, len(users), ONE, "not asked")

    asking.party.infer = refuse  # type: ignore[method-assign]
    answers = [asking.ask("u1", digest=digest)[1] for digest in ("ab", "cd")]
    await settle()
    assert [answer.result().reason for answer in answers] == ["not asked"] * 2
    assert [one.failure for one in asking.tracer.take(10)] == ["unreachable"] * 2


async def test_whoever_leaves_before_the_call_is_forgotten(asking: Asking) -> None:
    asking.ask("u1")
    await settle()
    _, waiting = asking.ask("u2")
    waiting.cancel()
    await settle()
    assert len(asking.batcher._spans) == 1
    asking.party.calls[0].answer()
    await settle()
    assert asking.batcher._spans == {}


@pytest.mark.parametrize("transport", Transport)
async def test_a_party_is_told_of_the_trace_and_of_nothing_without_one(transport: Transport, tmp_path: Path) -> None:
    def told(raw: bytes, call: Call) -> bytes:
        return f"{call.value_of('traceparent')} {call.value_of('tracestate')}".encode()

    port = server(transport)
    port.add_bytes_handler("/a.B/C", told)
    address = f"unix:{tmp_path}/port"
    port.add_port(address)
    await port.start()
    link: Channel = TracedChannel(channel(transport, address))
    tracer = Tracer(SETTINGS, Sampling(SETTINGS))
    try:
        assert await link.unary("/a.B/C", b"", 5) == b" "
        for parent, state in ((None, ""), (Context(1, 2, "a=1,b= 2"), "a=1,b= 2")):
            span = tracer.begin("call", Kind.CLIENT, parent)
            with within(span):
                assert await link.unary("/a.B/C", b"", 5) == f"{span.context.traceparent()} {state}".encode()
    finally:
        await link.close()
        await port.stop(0)
