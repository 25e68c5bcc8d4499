"""Calls of one version that run as one batch, and what becomes of them step by step."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from apps.app import CacheLevel, PartyOutcome, PartyStatus, Request, Response, Result
from loaders.loader import Outputs
from loaders.signature import Batch
from serving import scoring
from serving.calls import Waiting, together
from serving.errors import InvalidRequestError
from serving.peers.partials import HostPartials, Lookup
from serving.pool import ModelHandle
from serving.routing import Target
from serving.settings import FallbackSettings
from serving.threads import ModelThreads

_TURNS = 3
"""Of the event loop, until a question is in the socket: it is merged with others, then written."""


class Round:
    """`calls` of one row each, or one call of several. `batch`: their rows as the local half takes them; `lookups`: one
    for each host; `outputs`: the local half's, once it ran. `app_s`, `local_s`, `merge_s`: what app, local half (here,
    not on a thread) and merge took so far."""

    __slots__ = (
        "_request",
        "app_s",
        "batch",
        "calls",
        "clock",
        "handle",
        "local_s",
        "lookups",
        "merge_s",
        "outputs",
        "target",
        "users",
    )

    def __init__(
        self, target: Target, handle: ModelHandle, calls: Sequence[Waiting[Any]], clock: Callable[[], float]
    ) -> None:
        self.clock = clock
        self.target = target
        self.handle = handle
        self.calls = calls
        self.users: Sequence[str] = [user for call in calls for user in call.request.user_ids]
        self.batch = _NOTHING
        self.lookups: Sequence[Lookup] = ()
        self.outputs: Outputs | None = None
        self.app_s = self.local_s = self.merge_s = 0.0
        self._request: Request | None = None

    @classmethod
    def joined(cls, each: Sequence[Round]) -> Round | None:
        """Rounds of one call each, as one; None for none."""
        if not each:
            return None
        whole = cls(each[0].target, each[0].handle, [call for one in each for call in one.calls], each[0].clock)
        whole.batch = Batch(
            *(np.concatenate([getattr(one.batch, part) for one in each]) for part in ("numbers", "texts"))
        )
        whole.app_s = sum(one.app_s for one in each)
        whole.lookups = [Lookup.joined(lookups) for lookups in zip(*(one.lookups for one in each), strict=True)]
        return whole

    @property
    def deadline(self) -> float:
        return min(call.deadline for call in self.calls)

    @property
    def request(self) -> Request:
        """Of all rows."""
        if self._request is None:
            self._request = together([call.request for call in self.calls])
        return self._request

    def partials(self) -> list[HostPartials]:
        return [lookup.partials() for lookup in self.lookups]

    def take(self, places: Sequence[int]) -> Round:
        """Some of the calls, which have one row each."""
        rows = np.asarray(places, dtype=np.intp)
        taken = type(self)(self.target, self.handle, [self.calls[place] for place in places], self.clock)
        taken.batch = self.batch.take(rows)
        taken.lookups = [lookup.take(places) for lookup in self.lookups]
        if self.outputs is not None:
            taken.outputs = {name: values[rows] for name, values in self.outputs.items()}
        share = len(places) / len(self.calls)
        taken.app_s, taken.local_s = share * self.app_s, share * self.local_s
        return taken

    def by_lacking(self) -> list[Round]:
        """Calls that lack the same hosts' partials together, so that none waits for a host that it does not need."""
        if len(self.calls) == 1:
            return [self]
        missing = [set(lookup.missing()) for lookup in self.lookups]
        if not any(missing):
            return [self]
        groups: dict[tuple[bool, ...], list[int]] = {}
        for place in range(len(self.calls)):
            groups.setdefault(tuple([place in rows for rows in missing]), []).append(place)
        return [self] if len(groups) == 1 else [self.take(places) for places in groups.values()]

    def parted(self) -> tuple[Round | None, Round | None]:
        """The calls for which nothing is missing, and the others."""
        if all(lookup.is_whole for lookup in self.lookups):
            return self, None
        if len(self.calls) == 1:
            return None, self
        lacking = {row for lookup in self.lookups for row in lookup.missing()}
        if len(lacking) == len(self.calls):
            return None, self
        whole = [place for place in range(len(self.calls)) if place not in lacking]
        return self.take(whole), self.take(sorted(lacking))

    def result(self, remote: Sequence[HostPartials], fallback: FallbackSettings) -> Result:
        """What is answered, once the hosts' parts are there."""
        if not all(part.complete for part in remote):
            scoring.refuse_failed(remote)  # before anything is computed for nothing
        outputs, began = self.run(), self.clock()
        merged = self._merged(outputs, remote, fallback)
        then = self.clock()
        answer = self._finished(merged, outputs, remote)
        self.merge_s = then - began
        self.app_s += self.clock() - then
        return answer

    def _merged(self, outputs: Outputs, remote: Sequence[HostPartials], fallback: FallbackSettings) -> Result:
        return scoring.merged(self.handle, (self.batch, outputs), remote, fallback)

    def _finished(self, merged: Result, outputs: Outputs, remote: Sequence[HostPartials]) -> Result:
        return scoring.finished(self.target.app, self.request, merged, outputs, remote)

    def prepare(self) -> None:
        """Raises what is wrong with one of the calls."""
        if self.handle.hosts and "" in self.users:
            raise InvalidRequestError(f"user_id is required: model {self.handle.id} has hosts")
        began = self.clock()
        self.batch = scoring.prepared(self.target.app, self.request, self.handle)
        self.app_s = self.clock() - began

    def run(self) -> Outputs:
        """The local half, if it did not run."""
        if self.outputs is None:
            began = self.clock()
            self.outputs = self.handle.servable.predict(self.batch)
            self.local_s = self.clock() - began
        return self.outputs

    def run_meanwhile(self, turns: int = _TURNS) -> None:
        """The local half, once the questions to hosts, which are about to be put, have left; not yet where one was
        refused by then, and the calls perhaps with it. What is wrong with it shows when its outputs are needed."""
        if turns:
            asyncio.get_running_loop().call_soon(self.run_meanwhile, turns - 1)
        elif not (any([one.reason for one in self.lookups]) or all([call.reply.done() for call in self.calls])):
            with contextlib.suppress(Exception):
                self.run()

    def run_on(self, threads: ModelThreads) -> asyncio.Future[Outputs]:
        """The local half, of which nothing is kept here."""
        return threads.run(self.handle.servable, self.batch)


_NOTHING = Batch(np.empty((0, 0)), np.empty((0, 0), dtype=np.object_))


def response(
    target: Target, result: Result, remote: Sequence[HostPartials], attributions: tuple[bytes, ...]
) -> Response:
    """Of all rows."""
    return Response(
        scores=result.scores,
        model=target.model.model,
        version=target.model.version,
        variants=(target.variant,) if target.variant else (),
        complete=all(part.complete for part in remote),
        parties=tuple([PartyOutcome(part.party, tuple(part.statuses), tuple(part.levels)) for part in remote]),
        labels=result.labels,
        attributions=attributions,
        outputs=result.outputs,
    )


def interleave(rows: int, groups: Sequence[Sequence[int]], parts: Sequence[Response]) -> Response:
    """One response in request order. A party that a variant does not need counts as OK for its rows."""
    scores = np.empty((rows, parts[0].scores.shape[1]))
    variants, labels, attributions = [""] * rows, [""] * rows, [b""] * rows
    statuses = {outcome.party: [PartyStatus.OK] * rows for part in parts for outcome in part.parties}
    levels = {party: [CacheLevel.NONE] * rows for party in statuses}
    for indices, part in zip(groups, parts, strict=True):
        scores[indices] = part.scores
        for position, row in enumerate(indices):
            variants[row] = part.variants[0]
            labels[row] = part.labels[position] if part.labels else ""
            attributions[row] = part.attributions[position] if part.attributions else b""
            for outcome in part.parties:
                statuses[outcome.party][row] = outcome.statuses[position]
                levels[outcome.party][row] = outcome.levels[position]
    return Response(
        scores=scores,
        model="",
        version="",
        variants=tuple(variants),
        complete=all(part.complete for part in parts),
        parties=tuple(PartyOutcome(party, tuple(statuses[party]), tuple(levels[party])) for party in statuses),
        labels=tuple(labels) if any(labels) else (),
        attributions=tuple(attributions) if any(attributions) else (),
        outputs=_interleaved_outputs(groups, parts),
    )


def _interleaved_outputs(groups: Sequence[Sequence[int]], parts: Sequence[Response]) -> Outputs:
    """Those that every variant gives, alike but for the rows."""
    order = np.argsort(np.concatenate([np.asarray(rows) for rows in groups]))
    shared = [
        name
        for name, first in parts[0].outputs.items()
        if all(name in part.outputs and part.outputs[name].shape[1:] == first.shape[1:] for part in parts)
    ]
    return {name: np.concatenate([part.outputs[name] for part in parts])[order] for name in shared}
