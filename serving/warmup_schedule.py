"""The nightly warm-up by the service itself: of all replicas one runs it, and another goes on where that one stopped.

A lease in the control store says who. What it has come to stands beside the lease after every batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import msgspec

from serving import warmup
from serving.errors import TesseraError
from serving.leases import Lease, LeaseLostError
from serving.prefetch import Prefetched
from serving.replicas import Replicas
from serving.settings import WarmupSettings
from serving.timetable import Timetable
from serving.warming import Warming
from serving.warmup import Pace, Progress

logger = logging.getLogger(__name__)

WORK = "warmup"
LEASE_S = 10.0
RENEW_S = LEASE_S / 3
LOOK_S = 5.0
"""Between looks while another replica runs it, or the control store does not answer."""
LONGEST_S = 60.0
"""Between other looks: the machine's clock may be set."""
MAKE_UP_S = 3_600.0
"""A time that came while no replica ran is made up for so long."""
GO_ON_S = 86_400.0
"""A run that did not come to its end is gone on with so long, whatever times have come since."""
BATCH = 200
DAY_S = 86_400

Change = msgspec.structs.replace


class ServiceRun(msgspec.Struct, frozen=True, kw_only=True):
    planned: int = 0
    progress: Progress = Progress(plan="")
    ended: bool = False


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as kept beside the lease. `due`: the time of the timetable that it is for; `by`: the replica that began
    it or went on with it last. Unix seconds; `ended_s` is 0 until it came to its end."""

    due: int = 0
    by: str = ""
    began_s: float = 0.0
    ended_s: float = 0.0
    services: dict[str, ServiceRun] = {}

    @property
    def stopped(self) -> dict[str, str]:
        """Services that were not warmed to the end, and why."""
        return {name: one.progress.stopped for name, one in self.services.items() if one.progress.stopped}


def next_run(last: Run, due: int, now_s: float) -> Run | None:
    """The run to begin or go on with, or None. `last`: as it is kept; `due`: the last time that has come."""
    if last.due and not last.ended_s and due - last.due < GO_ON_S:
        return last
    if due > last.due and now_s - due <= MAKE_UP_S:
        return Run(due=due, began_s=now_s)
    return None


class WarmupSchedule:
    """`start` once the models are loaded; `stop` lets another replica go on. Without `settings.schedule` it does
    nothing. `services`: all that are online, for settings that name none. `clock` is Unix seconds; `pause` waits for
    some."""

    def __init__(
        self,
        settings: WarmupSettings,
        replicas: Replicas,
        warming: Warming,
        services: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._timetable = Timetable(settings.schedule, settings.time_zone) if settings.schedule else None
        self._leases = replicas.store.leases
        self._name = replicas.name
        self._warming = warming
        self._services = services
        self._clock = clock
        self._pause = pause
        self._task: asyncio.Task[None] | None = None
        self.last = Run()
        """As this replica has seen it last."""
        self.running = False
        """Whether this replica is at it."""
        self.users: Counter[str] = Counter()
        """Users that this replica asked for, by outcome."""

    @property
    def is_on(self) -> bool:
        return self._timetable is not None

    def start(self) -> None:
        if self._timetable is not None:
            self._task = asyncio.create_task(self._keep(self._timetable))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def problems(self) -> Iterable[str]:
        for service, reason in self.last.stopped.items():
            yield f"the last warm-up of service {service!r} did not come to its end: {reason}"

    async def look(self, timetable: Timetable) -> float:
        """Run what is due unless another replica is at it; seconds until the next look. Raises OSError."""
        if await self._due(timetable) is not None:
            lease = await asyncio.to_thread(self._leases.acquire, WORK, f"{self._name} ({os.getpid()})", LEASE_S)
            if lease is None:
                return LOOK_S
            await self._hold(lease, timetable)
        now_s = self._clock()
        return min(timetable.next(now_s) - now_s, LONGEST_S)

    # ---

    async def _keep(self, timetable: Timetable) -> None:
        while True:
            pause_s = LOOK_S
            try:
                pause_s = await self.look(timetable)
            except OSError as error:
                logger.error("the warm-up waits: %s", error.strerror or error)
            except Exception:
                logger.exception("the warm-up failed; it is tried again")
            await self._pause(pause_s)

    async def _due(self, timetable: Timetable) -> Run | None:
        notes = await asyncio.to_thread(self._leases.notes, WORK)
        self.last = _decoded(notes)
        now_s = self._clock()
        return next_run(self.last, timetable.latest(now_s), now_s)

    async def _hold(self, lease: Lease, timetable: Timetable) -> None:
        """Renew the lease while the run lasts; a lease that is lost ends the run."""
        self.running = True
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(lease))
                run = await self._due(timetable)  # another may have ended it before this one got the lease
                if run is not None:
                    await self._run(lease, Change(run, by=self._name))
                renewing.cancel()
        except* LeaseLostError as lost:
            logger.warning("the warm-up ends here: %s", lost.exceptions[0])
        except* OSError as errors:
            logger.error("the warm-up waits: %s", errors.exceptions[0])
        finally:
            self.running = False
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._leases.release, lease)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await self._pause(RENEW_S)
            await asyncio.to_thread(self._leases.renew, lease, LEASE_S)

    async def _run(self, lease: Lease, run: Run) -> None:
        begun = any(one.planned for one in run.services.values())
        logger.info("the warm-up %s", "goes on where another run of it ended" if begun else "begins")
        names = run.services or dict.fromkeys(self._settings.services or sorted(self._services()))
        run = Change(run, services={name: run.services.get(name, ServiceRun()) for name in names})
        for name, one in run.services.items():
            if not one.ended:
                run = await self._warm(lease, run, name)
        await self._note(lease, Change(run, ended_s=self._clock()))

    async def _warm(self, lease: Lease, run: Run, service: str) -> Run:
        """One service, as far as it goes."""
        one = run.services[service]

        async def save(progress: Progress) -> None:
            nonlocal one
            one = Change(one, progress=progress)
            await self._note(lease, _with(run, service, one))

        try:
            plan = await warmup.most_active(partial(self._warming.activity.top, service), *self._window(run))
            one = Change(one, planned=len(plan.user_ids))
            progress = await warmup.run(plan, partial(self._prefetch, service), self._pace, one.progress, save)
        except TesseraError as error:
            progress = Change(one.progress, stopped=str(error))
        one = Change(one, progress=progress, ended=True)
        _tell(service, one)
        run = _with(run, service, one)
        await self._note(lease, run)
        return run

    def _window(self, run: Run) -> tuple[tuple[int, int], float]:
        """The whole UTC days before the run was due, whose counts do not change any more: who goes on has the same
        plan."""
        last_day = run.due // DAY_S - 1
        return (last_day - self._settings.days + 1, last_day), self._settings.share

    @property
    def _pace(self) -> Pace:
        batch = min(BATCH, self._warming.prefetching.max_rows)
        return Pace(self._settings.users_per_s, batch, pause=self._pause)

    async def _prefetch(self, service: str, user_ids: Sequence[str]) -> Prefetched:
        answer = await self._warming.prefetching.prefetch((service, "", ""), user_ids)
        self.users.update(outcome.name.lower() for outcome in answer.outcomes)
        return answer

    async def _note(self, lease: Lease, run: Run) -> None:
        await asyncio.to_thread(self._leases.note, lease, msgspec.json.encode(run))
        self.last = run


def _with(run: Run, service: str, one: ServiceRun) -> Run:
    return Change(run, services={**run.services, service: one})


def _decoded(notes: bytes) -> Run:
    """What another version wrote and this one cannot read counts as nothing."""
    try:
        return msgspec.json.decode(notes, type=Run) if notes else Run()
    except msgspec.MsgspecError:
        logger.warning("what the last warm-up kept cannot be read; the next one starts anew")
        return Run()


def _tell(service: str, one: ServiceRun) -> None:
    progress = one.progress
    level = logging.WARNING if progress.stopped else logging.INFO
    logger.log(
        level,
        "warm-up of %s: %d of %d users done, %d fetched, %d there already%s",
        *(service, progress.done, one.planned, progress.fetched, progress.cached),
        f"; stopped: {progress.stopped}" if progress.stopped else "",
    )
