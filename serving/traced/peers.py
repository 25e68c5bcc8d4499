"""What asking other parties, and the caches before them, leave of spans; and how parties learn the trace of a call.

Several calls share one call to a party: it belongs to the first of them that is traced, and links to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from loaders.loader import PartialSpec
from serving.peers.asked import Asked
from serving.peers.batching import Batcher, Lane, Waiter
from serving.peers.hosts import Hosts
from serving.peers.partials import HostPartials, Lookup
from serving.peers.peer import PeerAnswer
from serving.pool import ModelHandle, ModelId
from serving.settings import BatchSettings, Purpose
from serving.telemetry.spans import HERE, Kind, Span, within
from serving.transport import Channel, Metadata, Promise


class TracedHosts:
    """`shared`: whether there is a shared cache level."""

    def __init__(self, hosts: Hosts, shared: bool) -> None:
        self._hosts = hosts
        self._shared = shared

    def look(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> Lookup:
        span = HERE.get()
        if span is None:
            return self._hosts.look(party, handle, user_ids)
        with span.step("cache l2") as step:
            lookup = self._hosts.look(party, handle, user_ids)
            _tell(step, lookup, len(user_ids))
        return lookup

    async def find(self, lookup: Lookup) -> None:
        span = HERE.get()
        if span is None or not self._shared:
            await self._hosts.find(lookup)
            return
        with span.step("cache l3") as step:
            asked = len(lookup.missing())
            await self._hosts.find(lookup)
            _tell(step, lookup, asked)

    async def ask(self, lookup: Lookup, deadline: float) -> None:
        span = HERE.get()
        if span is None:
            await self._hosts.ask(lookup, deadline)
            return
        with span.step(f"peer {lookup.party}") as step, within(step):
            asked = lookup.missing()
            step.attributes |= {"tessera.party": lookup.party, "tessera.rows": len(asked)}
            await self._hosts.ask(lookup, deadline)
            for row in asked:
                piece = lookup.pieces[row]
                if piece is not None and piece[0].status:
                    step.failure = piece[0].status.name.lower()

    async def ask_aside(self, lookup: Lookup, deadline: float) -> None:
        await self._hosts.ask_aside(lookup, deadline)

    async def stale(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials:
        return await self._hosts.stale(party, handle, user_ids)


def _tell(step: Span, lookup: Lookup, rows: int) -> None:
    """How many of the rows that were looked for are there now."""
    hits = rows - len(lookup.missing())
    step.attributes |= {"tessera.party": lookup.party, "tessera.rows": rows, "tessera.hits": hits}


class TracedBatcher(Batcher):
    def __init__(self, party: str, peer: Asked, settings: BatchSettings) -> None:
        super().__init__(peer, settings)
        self._party = party
        self._spans: dict[Promise[PeerAnswer], Span] = {}

    def infer(
        self,
        model: ModelId,
        binding_digest: str,
        user_ids: Sequence[str],
        wanted: PartialSpec,
        deadline: float,
        purpose: Purpose = Purpose.INFER,
    ) -> Promise[PeerAnswer]:
        answer = super().infer(model, binding_digest, user_ids, wanted, deadline, purpose)
        span = HERE.get()
        if span is not None and not answer.done():
            self._spans[answer] = span
            answer.add_done_callback(self._forget)
        return answer

    def _forget(self, answer: Promise[PeerAnswer]) -> None:
        del self._spans[answer]

    def _send(self, lane: Lane, waiters: list[Waiter]) -> None:
        spans = list(dict.fromkeys(self._spans[one.promise] for one in waiters if one.promise in self._spans))
        if not spans:
            with within(None):
                super()._send(lane, waiters)
            return
        call = spans[0].child(f"call {self._party}", Kind.CLIENT, [other.context for other in spans[1:]])
        rows = sum(len(one.user_ids) for one in waiters)
        call.attributes |= {"tessera.party": self._party, "tessera.rows": rows, "tessera.calls": len(waiters)}
        first = waiters[0]
        with within(call):
            super()._send(lane, waiters)
        batch = first.batch
        if batch is not None:
            batch.call.add_done_callback(partial(_called, call))


def _called(call: Span, answer: Promise[PeerAnswer]) -> None:
    if answer.cancelled():
        call.end("cancelled")
    elif (error := answer.exception()) is not None:
        call.end(type(error).__name__)
    else:
        said = answer.result()
        call.end(said.statuses[0].name.lower() if said.reason and not said.reasons else "")


class TracedChannel(Channel):
    """To a party that is told to which trace a call belongs."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def stub_channel(self) -> Any:
        return self._channel.stub_channel

    async def unary(self, path: str, request: bytes, timeout_s: float | None, metadata: Metadata = ()) -> bytes:
        span = HERE.get()
        if span is not None:
            metadata = (*metadata, *span.context.metadata())
        return await self._channel.unary(path, request, timeout_s, metadata)

    async def close(self, grace_s: float = 0.0) -> None:
        await self._channel.close(grace_s)
