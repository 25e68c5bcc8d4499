"""The effect check: every answer is counted under its variant and carries an attribution; outcomes come back with it.

Counting happens in memory, on the event loop; the counts are added to the party's sum every second.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from serving.errors import InvalidRequestError, NotReadyError
from serving.figures import counts
from serving.figures.attribution import Attributed, AttributionError, Seal, head
from serving.figures.counts import Subject, Tally, VariantFigures
from serving.figures.scores import Scores
from serving.figures.store import FEEDBACK_DAYS, FigureStore, Outcome
from serving.routing import Target

logger = logging.getLogger(__name__)

FLUSH_S = 1.0
READ_EVERY = 10
"""Flushes; in between, metrics show what was read last."""
MAX_OUTCOMES = 10_000
"""In one call."""
_DAY_S = 86_400
_MAX_HEADS = 1_024


class Feedback:
    """What became of the outcomes of one call: `refused` are positions of those that are not this party's, or too
    old."""

    __slots__ = ("accepted", "known", "refused")

    def __init__(self, accepted: int, known: int, refused: Sequence[int]) -> None:
        self.accepted = accepted
        self.known = known
        self.refused = refused


class Effects:
    """`start` and `stop` once. `clock` is Unix seconds; `pause` waits for some."""

    def __init__(
        self,
        store: FigureStore,
        secret: bytes,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._seal = Seal(secret)
        self._clock = clock
        self._pause = pause
        self._tallies: dict[Subject, Tally] = {}
        self._heads: dict[tuple[str, int, str], tuple[bytes, Tally]] = {}
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._summed: list[VariantFigures] = []

    async def start(self) -> None:
        await self._read_or_say()
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._flush_or_say()
        await asyncio.to_thread(self._store.close)

    # --- on the path of a request ---

    def answered(self, target: Target, scores: Scores, seconds: Sequence[float], attributed: bool) -> tuple[bytes, ...]:
        """Count answers of one variant: `scores` (rows, width), NaN where a row has none; `seconds` that each row took.
        Returns the attribution of each row when they are wanted. Of several scores the largest counts."""
        prefix, tally = self._of(target)
        column = _counted(scores).tolist()
        tally.answers(column, seconds)
        if not attributed:
            return ()
        now_s, make = self._clock(), self._seal.make
        if len(column) == 1:
            return (make(prefix, column[0], now_s),)
        return tuple([make(prefix, score, now_s) if score == score else b"" for score in column])  # noqa: PLR0124 - NaN

    def shadowed(self, service: str, variant: str, scores: Scores, answers: Scores, seconds: float) -> None:
        """Count what a shadow would have answered, beside what was answered."""
        column, given = _counted(scores), _counted(answers)
        both = ~(np.isnan(column) | np.isnan(given))
        tally = self._tally(Subject(service, variant, shadow=True))
        tally.answers(column.tolist(), [seconds] * len(column))
        tally.paired(column[both] - given[both])

    # --- for operators ---

    async def feedback(self, outcomes: Sequence[tuple[bytes, float]]) -> Feedback:
        """Take outcomes: attribution and label, 1 or 0. Each attribution counts once, whenever it comes. Raises
        InvalidRequestError, with nothing taken, or NotReadyError when they cannot be kept now."""
        if len(outcomes) > MAX_OUTCOMES:
            raise InvalidRequestError(f"{len(outcomes)} outcomes in one call, at most {MAX_OUTCOMES} are taken")
        for place, (_, label) in enumerate(outcomes):
            if label not in {0.0, 1.0}:
                raise InvalidRequestError(f"outcomes[{place}].label is {label:g}, it must be 0 or 1")
        today = int(self._clock()) // _DAY_S
        found: dict[bytes, Outcome] = {}
        refused = []
        for place, (attribution, label) in enumerate(outcomes):
            outcome = self._outcome(attribution, positive=label == 1.0)
            if outcome is None or outcome.day < today - FEEDBACK_DAYS:
                refused.append(place)
            else:
                found.setdefault(outcome.id, outcome)
        try:
            accepted = await asyncio.to_thread(self._store.take, list(found.values()), today)
        except OSError as error:
            logger.error("outcomes could not be kept: %s", error)
            raise NotReadyError("outcomes cannot be kept now; send them again later") from None
        return Feedback(accepted, len(outcomes) - len(refused) - accepted, refused)

    async def figures(self, service: str | None = None) -> list[VariantFigures]:
        """Of one service or of all, over all replicas: own counts as they are now, the others' as of a second ago."""
        await self._flush_or_say()
        try:
            self._summed = await asyncio.to_thread(self._read)
        except OSError as error:
            logger.error("figures cannot be read: %s", error)
            raise NotReadyError("figures cannot be read now; ask again later") from None
        return [one for one in self._summed if service is None or one.subject.service == service]

    @property
    def rows(self) -> dict[Subject, int]:
        """That this replica has answered since it began."""
        return {subject: tally.rows for subject, tally in self._tallies.items()}

    @property
    def last(self) -> Sequence[VariantFigures]:
        """As they were read last."""
        return self._summed

    # ---

    def _outcome(self, attribution: bytes, positive: bool) -> Outcome | None:
        try:
            said: Attributed = self._seal.open(attribution)
        except AttributionError:
            return None
        if math.isnan(said.score):  # there was no answer
            return None
        cell = counts.outcome_cell(said.score, positive)
        return Outcome(said.id, int(said.time_s) // _DAY_S, Subject(said.service, said.variant), cell)

    def _of(self, target: Target) -> tuple[bytes, Tally]:
        variant = target.variant or f"{target.model.model}:{target.model.version}"
        key = (target.service, target.revision, variant)
        found = self._heads.get(key)
        if found is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()  # revisions come and go
            tally = self._tally(Subject(target.service, variant))
            found = self._heads[key] = (head(target.service, target.revision, variant), tally)
        return found

    def _tally(self, subject: Subject) -> Tally:
        tally = self._tallies.get(subject)
        if tally is None:
            tally = self._tallies[subject] = Tally()
        return tally

    def _read(self) -> list[VariantFigures]:
        return [counts.read(subject, cells) for subject, cells in sorted(self._store.read().items())]

    async def _keep(self) -> None:
        while True:
            for _ in range(READ_EVERY):
                await self._pause(FLUSH_S)
                await self._flush_or_say()
            await self._read_or_say()

    async def _read_or_say(self) -> None:
        try:
            self._summed = await asyncio.to_thread(self._read)
        except OSError as error:
            logger.error("figures cannot be read: %s", error)

    async def _flush_or_say(self) -> None:
        try:
            async with self._flushing:
                await self._flush()
        except OSError as error:
            logger.error("figures wait in memory: %s", error)

    async def _flush(self) -> None:
        taken = {subject: cells for subject, tally in self._tallies.items() if (cells := tally.take())}
        if not taken:
            return
        try:
            await asyncio.to_thread(self._store.add, taken)
        except OSError:
            for subject, cells in taken.items():
                self._tallies[subject].give_back(cells)
            raise


def _counted(scores: Scores) -> Scores:
    """One score a row: of several the largest."""
    column: Scores = scores[:, 0] if scores.shape[1] == 1 else scores.max(axis=1)
    return column
