"""The whole story of one inference request. The only file that knows the order of the steps.

result cache -> route -> app.preprocess -> hosts asked, local half meanwhile -> merge -> app.postprocess
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from apps.app import App, AppError, CacheLevel, PartyOutcome, PartyStatus, Request, Response, Result
from loaders.loader import Partial, PartialError, Scores
from loaders.signature import Batch, FeatureError
from serving.cache.result import ResultCache
from serving.cache.tier import MISS
from serving.errors import DeadlineError, InvalidRequestError, LimitError, PeerUnavailableError, UnknownUserError
from serving.limits import Limiter
from serving.peers.fallback import FAIL, Fallbacks, filled, own_scores, scored
from serving.peers.partials import HostPartials
from serving.pool import ModelHandle, ModelPool
from serving.routing import RouteTable, Target
from serving.settings import FallbackSettings, Limits
from serving.shadows import Comparing, Shadows


class Codec(Protocol):
    """One method of one public protocol: wire bytes to a request, a response to wire bytes."""

    @property
    def name(self) -> str:
        """Protocol and method; part of the keys of the result cache."""

    def decode(self, raw: bytes) -> Request: ...

    def encode(self, response: Response, level: CacheLevel) -> bytes: ...


class Hosts(Protocol):
    """Asks other parties for their partials; never raises for what a party does."""

    def cached(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials | None:
        """What is at hand without waiting, if that is all of it."""

    def fetch(
        self, party: str, handle: ModelHandle, user_ids: Sequence[str], deadline: float
    ) -> Awaitable[HostPartials]: ...

    def shadow(
        self, party: str, handle: ModelHandle, user_ids: Sequence[str], deadline: float
    ) -> Awaitable[HostPartials]:
        """The same for a version that answers nobody; no answer ever waits for it."""

    async def stale(self, party: str, handle: ModelHandle, user_ids: Sequence[str]) -> HostPartials:
        """What was kept, fresh or not; nobody is asked."""


Fetch = Callable[..., Awaitable[HostPartials]]
"""`fetch` or `shadow` of Hosts."""


class Counting(Comparing, Protocol):
    """Counts what each variant answers."""

    def answered(self, target: Target, scores: Scores, seconds: float, attributed: bool) -> tuple[bytes, ...]:
        """The attribution of each row when they are wanted. `seconds`: how long it took; NaN: no score."""


def _unseen(service: str, user_ids: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Answers:
    """What becomes of answers: repeated from memory, counted. `seen` is told of the users of each call; `fallbacks`:
    what stands in when a party fails."""

    repeated: ResultCache
    counted: Counting
    seen: Callable[[str, Sequence[str]], None] = _unseen
    fallbacks: Fallbacks = field(default_factory=lambda: Fallbacks({}))


class Pipeline:
    """Answers inference requests of every protocol. `clock` is monotonic seconds, as deadlines are."""

    def __init__(
        self,
        routes: RouteTable,
        pool: ModelPool,
        hosts: Hosts,
        answers: Answers,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._pool = pool
        self._hosts = hosts
        self._results = answers.repeated
        self._counting = answers.counted
        self._seen = answers.seen
        self._fallbacks = answers.fallbacks
        self._limits = limits
        self._limiter = Limiter(limits, clock)
        self._clock = clock
        self.shadows = Shadows(self._shadow, answers.counted, clock)

    def answer(self, codec: Codec, raw: bytes, remaining_s: float | None, caller: str = "") -> bytes | Awaitable[bytes]:
        """The reply to serialised request bytes; a repeated case is answered at once, without a task. `caller`: who
        asks, for limits."""
        hit = self._results.by_raw(codec.name, raw, self._routes.current.epoch)
        if hit is not MISS:
            service = self._routes.current.service_name(hit.address)
            self._limiter.take(service, caller, 1)
            self._seen(service, (hit.user,))
            return hit.reply
        return self._answer(codec, raw, remaining_s, caller)

    async def _answer(self, codec: Codec, raw: bytes, remaining_s: float | None, caller: str) -> bytes:
        request = codec.decode(raw)
        routes = self._routes.current
        service = routes.service_name(request.address)
        self._limiter.take(service, caller, request.rows)
        self._seen(service, request.user_ids)
        epoch = routes.epoch(request.address)
        hit = self._results.by_case(codec.name, request, routes.epoch)
        if hit is not MISS:
            return hit.reply
        with self._limiter.running(service, caller):
            response = await self.predict(request, remaining_s)
        if request.case_id and response.complete:
            self._results.store(codec.name, raw, request, epoch, codec.encode(response, CacheLevel.L1))
        return codec.encode(response, CacheLevel.NONE)

    async def predict(self, request: Request, remaining_s: float | None) -> Response:
        """Answer all rows. Users of one call may meet different variants; each variant's rows run as one batch."""
        if request.rows > self._limits.max_batch_rows:
            raise LimitError(f"{request.rows} rows in one call, the limit is {self._limits.max_batch_rows}")
        if remaining_s is not None and remaining_s <= 0:
            raise DeadlineError("the deadline was spent before the request was read")
        deadline = self._clock() + self._limits.peer_timeout_s
        if remaining_s is not None:
            deadline = min(deadline, self._clock() + remaining_s)
        shadowed = self._routes.current.shadowed(request.address)
        response = await self._answered(request, deadline)
        if shadowed is not None:
            self.shadows.follow(shadowed, request, response)
        return response

    async def _answered(self, request: Request, deadline: float) -> Response:
        groups = self._by_target(request)
        if len(groups) == 1:
            [target] = groups
            return await self._run(target, request, deadline)
        parts = [self._run(target, request.select(rows), deadline) for target, rows in groups.items()]
        return _interleave(request.rows, list(groups.values()), await asyncio.gather(*parts))

    def _by_target(self, request: Request) -> dict[Target, list[int]]:
        routes = self._routes.current
        groups: dict[Target, list[int]] = {}
        for row, user_id in enumerate(request.user_ids):
            groups.setdefault(routes.target(request.address, user_id or request.case_id), []).append(row)
        if not groups:
            raise InvalidRequestError("the call has no rows: send at least one user id")
        return groups

    async def _run(self, target: Target, request: Request, deadline: float) -> Response:
        began = self._clock()
        with self._limiter.model(target.model.model, request.rows):
            fallback = self._fallbacks.of(target.service)
            result, remote = await self._execute(target, request, deadline, self._hosts.fetch, fallback)
        seconds = self._clock() - began
        attributions = self._counting.answered(target, own_scores(result.scores, remote), seconds, request.attributed)
        return _response(target, result, remote, attributions)

    async def _shadow(self, target: Target, request: Request) -> Response:
        """No limit counts it, and it has a deadline of its own."""
        deadline = self._clock() + self._limits.peer_timeout_s
        result, remote = await self._execute(target, request, deadline, self._hosts.shadow)
        return _response(target, result, remote, ())

    async def _execute(
        self, target: Target, request: Request, deadline: float, fetch: Fetch, fallback: FallbackSettings = FAIL
    ) -> tuple[Result, Sequence[HostPartials]]:
        """The score of a row that lacks a party is NaN."""
        with self._pool.acquire(target.model) as handle:
            batch = _preprocess(target.app, request, handle)
            async with AsyncExitStack() as stack:
                asked = self._ask_hosts(stack, handle, request, partial(fetch, deadline=deadline))
                outputs = handle.servable.predict(batch)
                remote = [part if isinstance(part, HostPartials) else await part for part in asked]
            if not all(part.complete for part in remote):
                remote = await filled(fallback, handle, request.user_ids, remote, self._hosts)
                _refuse_failed(remote)
            score, *further = (spec.name for spec in handle.servable.signature.outputs)
            merged = scored(fallback, _merge(handle, outputs[score], remote), remote)
            answer = Result(merged, _labels(handle, merged), batch, handle.servable.signature)
            result = _postprocess(target.app, request, answer)
        result = replace(result, outputs={name: outputs[name] for name in further}) if further else result
        return _without_incomplete(result, remote), remote

    def _ask_hosts(
        self, stack: AsyncExitStack, handle: ModelHandle, request: Request, fetch: Fetch
    ) -> list[HostPartials | asyncio.Future[HostPartials]]:
        """Start one look-up per host whose partials are not at hand; what still runs when the request ends early is
        cancelled."""
        if handle.hosts and "" in request.user_ids:
            raise InvalidRequestError(f"user_id is required: model {handle.id} has hosts")
        asked: list[HostPartials | asyncio.Future[HostPartials]] = []
        for party in handle.hosts:
            known = self._hosts.cached(party, handle, request.user_ids)
            if known is None:
                task = asyncio.ensure_future(fetch(party, handle, request.user_ids))
                stack.callback(task.cancel)
                asked.append(task)
            else:
                asked.append(known)
        return asked


def _merge(handle: ModelHandle, local: Partial, remote: Sequence[HostPartials]) -> Scores:
    try:
        return handle.merge([local, *(part.values for part in remote)])
    except PartialError as error:
        raise PeerUnavailableError(f"a host of {handle.id} sent what its guest's half cannot use: {error}") from None


def _labels(handle: ModelHandle, scores: Scores) -> tuple[str, ...]:
    """The name of each row's largest score, for models that name their scores."""
    labels = handle.artifact.manifest.merge.labels
    return tuple(labels[place] for place in scores.argmax(axis=1)) if labels else ()


def _preprocess(app: App, request: Request, handle: ModelHandle) -> Batch:
    try:
        return app.preprocess(request, handle.servable.signature)
    except FeatureError:
        raise
    except Exception as error:
        raise AppError(f"app {app.name!r} failed in preprocess") from error


def _postprocess(app: App, request: Request, result: Result) -> Result:
    try:
        return app.postprocess(request, result)
    except Exception as error:
        raise AppError(f"app {app.name!r} failed in postprocess") from error


def _refuse_failed(remote: Sequence[HostPartials]) -> None:
    """Policy `fail`: no score without every party. A single row, or a batch of which no row has all parties, is an
    error; in other batches the rows that lack a party say so one by one."""
    rows = len(remote[0].statuses)
    if any(all(part.usable(row) for part in remote) for row in range(rows)):
        return
    for part in remote:
        worst = max((part.statuses[row] for row in range(rows) if not part.usable(row)), default=PartyStatus.OK)
        if worst is PartyStatus.NOT_FOUND:
            raise UnknownUserError(f"party {part.party!r} does not know the user")
        if worst is not PartyStatus.OK:
            reason = f": {part.reason}" if part.reason else ""
            if part.retry_after_s is not None:
                raise LimitError(f"party {part.party!r}: {worst.name.lower()}{reason}", part.retry_after_s)
            raise PeerUnavailableError(f"party {part.party!r}: {worst.name.lower()}{reason}")


def _without_incomplete(result: Result, remote: Sequence[HostPartials]) -> Result:
    scores = result.scores
    for part in remote:
        if not part.complete:
            usable = np.array([part.usable(row) for row in range(len(scores))])
            scores = np.where(usable[:, None], scores, np.nan)
    return result if scores is result.scores else replace(result, scores=scores)


def _response(
    target: Target, result: Result, remote: Sequence[HostPartials], attributions: tuple[bytes, ...]
) -> Response:
    return Response(
        scores=result.scores,
        model=target.model.model,
        version=target.model.version,
        variants=(target.variant,) if target.variant else (),
        complete=all(part.complete for part in remote),
        parties=tuple(PartyOutcome(part.party, tuple(part.statuses), tuple(part.levels)) for part in remote),
        labels=result.labels,
        attributions=attributions,
        outputs=result.outputs,
    )


def _interleave(rows: int, groups: Sequence[Sequence[int]], parts: Sequence[Response]) -> Response:
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


def _interleaved_outputs(groups: Sequence[Sequence[int]], parts: Sequence[Response]) -> dict[str, npt.NDArray[Any]]:
    """Those that every variant gives, alike but for the rows."""
    order = np.argsort(np.concatenate([np.asarray(rows) for rows in groups]))
    shared = [
        name
        for name, first in parts[0].outputs.items()
        if all(name in part.outputs and part.outputs[name].shape[1:] == first.shape[1:] for part in parts)
    ]
    return {name: np.concatenate([part.outputs[name] for part in parts])[order] for name in shared}
