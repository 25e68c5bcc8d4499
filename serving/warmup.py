"""One warm-up: the most active users go through Prefetch in batches, at a bounded rate, and can be gone on with."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from serving.activity import MAX_PAGE, Active
from serving.prefetch import Prefetched, PrefetchOutcome

TRIES = 3
"""Of a batch that no host answers, with a pause between two."""
RETRY_S = 1.0

Prefetch = Callable[[Sequence[str]], Awaitable[Prefetched]]


@dataclass(frozen=True, slots=True)
class Plan:
    """Users in the order in which they are fetched. `counts`: how often each was asked about, empty when nobody knows;
    `total_count`: that of all users, planned or not."""

    user_ids: Sequence[str]
    counts: Sequence[int] = ()
    total_count: int = 0

    @property
    def digest(self) -> str:
        """Says whether a cursor belongs to this plan."""
        digest = hashlib.sha256()
        for user_id in self.user_ids:
            raw = user_id.encode()
            digest.update(len(raw).to_bytes(4, "big") + raw)
        return digest.hexdigest()

    def count(self, rows: range) -> int:
        return sum(self.counts[row] for row in rows) if self.counts else 0


def top_share(users: int, share: float) -> int:
    """How many of so many users are the top share; at least one of any."""
    return min(users, max(1, math.ceil(share * users)))


Top = Callable[[tuple[int, int], int, int], Awaitable[Active]]
"""The most active users of the UTC days from the first to the last: from an offset, so many."""


async def most_active(top: Top, days: tuple[int, int], share: float) -> Plan:
    """The top share of the users counted on these days."""
    user_ids: list[str] = []
    counts: list[int] = []
    total_count, planned = 0, 1
    while len(user_ids) < planned:
        page = await top(days, len(user_ids), MAX_PAGE)
        user_ids += page.user_ids
        counts += page.counts
        total_count = total_count or page.total_count
        planned = top_share(page.total_users, share)
        if not page.user_ids:
            break
    return Plan(user_ids[:planned], counts[:planned], total_count)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a plan has come, and what came of its users so far. `covered_count`: calls about those now covered,
    `covered_before_count`: about those that had been."""

    plan: str
    done: int = 0
    cached: int = 0
    fetched: int = 0
    not_found: int = 0
    missing: int = 0
    failed: int = 0
    refused: int = 0
    covered_before_count: int = 0
    covered_count: int = 0
    stopped: str = ""
    """Why it did not come to its end."""


Save = Callable[[Progress], Awaitable[None]]
"""Keeps a cursor; raises what must end the run, such as a lease that was lost."""


async def _nowhere(progress: Progress) -> None: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """`clock` is monotonic seconds; `pause` waits for some."""

    users_per_s: float
    batch: int
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


async def run(
    plan: Plan, prefetch: Prefetch, pace: Pace, begun: Progress | None = None, save: Save = _nowhere
) -> Progress:
    """Goes on from `begun` when that belongs to this plan. Stops, and says why, when a host refuses or none answers;
    the batch that ended it is not done and comes first the next time."""
    digest = plan.digest
    progress = begun if begun is not None and begun.plan == digest else Progress(plan=digest)
    progress = msgspec.structs.replace(progress, stopped="")
    started_s, sent = pace.clock(), 0
    while progress.done < len(plan.user_ids):
        rows = range(progress.done, min(len(plan.user_ids), progress.done + pace.batch))
        answer = await _asked(prefetch, [plan.user_ids[row] for row in rows], pace)
        after = _added(progress, plan, rows, answer.outcomes)
        if _has_ended(answer):
            return msgspec.structs.replace(after, done=progress.done, stopped=answer.reason)
        progress = after
        await save(progress)
        sent += len(rows)
        early_s = started_s + sent / pace.users_per_s - pace.clock()
        if early_s > 0 and progress.done < len(plan.user_ids):
            await pace.pause(early_s)
    return progress


async def _asked(prefetch: Prefetch, user_ids: Sequence[str], pace: Pace) -> Prefetched:
    for _ in range(TRIES - 1):
        answer = await prefetch(user_ids)
        if answer.count(PrefetchOutcome.FAILED) < len(user_ids):
            return answer
        await pace.pause(RETRY_S)
    return await prefetch(user_ids)


def _has_ended(answer: Prefetched) -> bool:
    """Whether it makes no sense to go on. Some users may be refused for themselves; when nobody is fetched beside them,
    it is the asking that is refused."""
    refused = answer.count(PrefetchOutcome.REFUSED) > 0 and answer.count(PrefetchOutcome.FETCHED) == 0
    return refused or answer.count(PrefetchOutcome.FAILED) == len(answer.outcomes)


def _added(progress: Progress, plan: Plan, rows: range, outcomes: Sequence[PrefetchOutcome]) -> Progress:
    tally = {
        name: getattr(progress, name) for name in ("cached", "fetched", "not_found", "missing", "failed", "refused")
    }
    before, covered = progress.covered_before_count, progress.covered_count
    for row, outcome in zip(rows, outcomes, strict=True):
        tally[outcome.name.lower()] += 1
        count = plan.counts[row] if plan.counts else 0
        before += count * (outcome is PrefetchOutcome.CACHED)
        covered += count * (outcome in {PrefetchOutcome.CACHED, PrefetchOutcome.FETCHED})
    return msgspec.structs.replace(
        progress, done=rows.stop, covered_before_count=before, covered_count=covered, **tally
    )


@dataclass(frozen=True, slots=True)
class Report:
    """Shares are of the users planned; of the calls where counts are known, else None. `expected_hit_share`: of the
    calls, if users stay as active as they were."""

    planned: int
    progress: Progress
    coverage_before: float
    coverage_after: float
    hit_share_before: float | None
    expected_hit_share: float | None


def report(plan: Plan, progress: Progress, dry_run: bool = False) -> Report:
    """A dry run is reported as what a run without refusals would come to."""
    planned, total = len(plan.user_ids), plan.total_count
    covered, count = progress.cached + progress.fetched, progress.covered_count
    if dry_run:
        covered, count = planned, plan.count(range(planned))
    return Report(
        planned=planned,
        progress=progress,
        coverage_before=progress.cached / planned if planned else 0.0,
        coverage_after=covered / planned if planned else 0.0,
        hit_share_before=progress.covered_before_count / total if total else None,
        expected_hit_share=count / total if total else None,
    )
