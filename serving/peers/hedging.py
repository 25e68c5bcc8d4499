"""Asks a second address of a party when the first is slow; the first answer wins, the other call is cancelled."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace

from apps.app import PartyStatus
from loaders.loader import PartialSpec
from serving.peers.peer import Ask, Peer, PeerAnswer
from serving.pool import ModelId
from serving.settings import Purpose


class Hedging:
    """Stands in front of one party with two addresses. When the first took `after_s`, or is unreachable, a call for an
    answer goes to the second too, as the same attempt with purpose HEDGE; the party may refuse that or count it. Calls
    for other purposes are never doubled."""

    def __init__(self, first: Peer, second: Peer, after_s: float) -> None:
        self._first = first
        self._second = second
        self._after_s = after_s
        self.hedged = 0
        """How often the second was asked."""

    async def infer(
        self,
        model: ModelId,
        binding_digest: str,
        user_ids: Sequence[str],
        wanted: PartialSpec,
        deadline: float,
        purpose: Purpose = Purpose.INFER,
    ) -> PeerAnswer:
        ask = Ask(model, binding_digest, user_ids, wanted, purpose, secrets.token_bytes(16))
        if purpose is not Purpose.INFER:
            return await self._first.attempt(ask, deadline)
        first = asyncio.ensure_future(self._first.attempt(ask, deadline))
        calls = [first]
        try:
            await asyncio.wait(calls, timeout=self._after_s)
            if first.done() and _answered(first.result()):
                return first.result()
            self.hedged += 1
            calls.append(asyncio.ensure_future(self._second.attempt(replace(ask, purpose=Purpose.HEDGE), deadline)))
            return await _first_answer(calls)
        finally:
            for call in calls:
                call.cancel()

    async def close(self) -> None:
        await self._first.close()
        await self._second.close()


async def _first_answer(calls: Sequence[asyncio.Future[PeerAnswer]]) -> PeerAnswer:
    """Of either; when neither has one, what the first address said. A refusal of the second is of the hedge."""
    first, _ = calls
    waiting = set(calls)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for call in done:
            refused = call is not first and call.result().statuses[0] is PartyStatus.REJECTED
            if _answered(call.result()) and not refused:
                return call.result()
    return first.result()


def _answered(answer: PeerAnswer) -> bool:
    return not answer.reason or answer.statuses[0] not in _NO_ANSWER


_NO_ANSWER = {PartyStatus.TIMEOUT, PartyStatus.UNREACHABLE}
"""A refusal is an answer: what one address may not say, the other is not asked for."""
