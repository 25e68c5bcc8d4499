"""This replica among those of its party: it follows the state that they share, reports, and waits for the others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from serving.control import ControlStore
from serving.errors import ConflictError
from serving.lifecycle import LoadState, ModelState, ReplicaOutcome
from serving.load_time import LoadTime
from serving.pool import ModelHandle, ModelId
from serving.reports import ReplicaModel, ReplicaReport
from serving.uninterrupted import to_the_end

logger = logging.getLogger(__name__)

PASS_S = 0.25
"""Between looks at the state: a change is honoured by all replicas within two of these."""
HEARTBEAT_S = 1.0
FOLLOW_S = 2.0
"""How long an acknowledgement waits for the other replicas to honour the change; they do so anyway."""
SETTLED = frozenset({ModelState.READY.value, ModelState.FAILED.value})

Reported = Callable[[], dict[str, ReplicaModel]]
Look = Callable[[ReplicaReport], ReplicaModel | None]
"""What a report says of one thing."""


class Replicas:
    """`start` once with what to report and what to do when the state has changed; `stop` once. `name` is shown to
    people, and another process may have it too; `node` is the same for all workers of one. `clock` is monotonic
    seconds; `pause` waits for some."""

    def __init__(
        self,
        party: str,
        name: str,
        store: ControlStore,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        node: str = "",
    ) -> None:
        self.party = party
        self.name = name
        self._node = node or name
        self.generation = f"{time.time_ns():016x}"
        """Of this process: greater than those of processes that began before."""
        self.store = store
        self.problem = ""
        """Why the shared state is out of reach, or is not followed; this replica goes on with what it has."""
        self._clock = clock
        self._pause = pause
        self._models: Reported = dict
        self._apps: Reported = dict
        self._follow: Callable[[], None] = _nothing
        self._followed = store.read().revision
        self._told: ReplicaReport | None = None
        self._told_at = 0.0
        self._others: list[ReplicaReport] = []
        self._nodes = 1
        self._nodes_changed: Callable[[int], None] = _nobody
        self._looked_at = 0.0
        self._passes = 0
        self._passed = asyncio.Condition()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, models: Reported, follow: Callable[[], None], apps: Reported = dict) -> None:
        self._models, self._apps, self._follow = models, apps, follow
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """The others no longer count on this replica."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            try:
                await asyncio.to_thread(self.store.withdraw, self._own())
            except OSError as error:
                logger.warning("the other replicas will take this one for a living one for a moment: %s", error)
        await asyncio.to_thread(self.store.close)

    def watch_nodes(self, watcher: Callable[[int], None]) -> None:
        """Have it called with the number of living nodes of the party, this one among them, whenever it has changed.
        While the shared state is out of reach it stays."""
        self._nodes_changed = watcher

    @property
    def followed(self) -> int:
        """The revision of the state that this replica serves."""
        return self._followed

    def problems(self) -> Iterable[str]:
        if self.problem:
            yield f"{self.problem}; this replica serves the state of revision {self._followed}"

    def heard(self) -> list[ReplicaReport]:
        """What every replica says of itself: this one now, then the others, as old as their `age_s`."""
        since_s = self._clock() - self._looked_at
        others = [msgspec.structs.replace(report, age_s=report.age_s + since_s) for report in self._others]
        return [self._own(), *others]

    async def look(self) -> None:
        """One pass: follow the state, report, see the others."""
        try:
            await asyncio.to_thread(self.store.refresh)
            refusal = self._follow_newest()
            await self._report()
            reports = await asyncio.to_thread(self.store.reports)
            own = self._own().key
            self._others, self._looked_at = [report for report in reports if report.key != own], self._clock()
            self._count_nodes()
        except OSError as error:
            refusal = str(error.strerror or error)
        if refusal and refusal != self.problem:
            logger.error("%s", refusal)
        elif self.problem and not refusal:
            logger.info("this replica follows the shared state again")
        self.problem = refusal
        async with self._passed:
            self._passes += 1
            self._passed.notify_all()

    # --- what publishing asks ---

    async def load(self, model: ModelId, revision: int, time: LoadTime) -> list[ReplicaOutcome]:
        """What came of a load at the other replicas; a replica that takes longer has FAILED."""
        return await self._settled(str(model), _model_named(str(model)), revision, time)

    def failed(self, model: ModelId) -> bool:
        """Whether another replica says that it could not load it."""
        look = _model_named(str(model))
        states = [found.state for report in self._others if (found := look(report))]
        return ModelState.FAILED.value in states

    async def load_app(self, app: str, revision: int, time: LoadTime) -> list[ReplicaOutcome]:
        """As `load`, of an app by `name:version`."""
        return await self._settled(f"app {app}", lambda report: report.apps.get(app), revision, time)

    async def require(self, handles: Sequence[ModelHandle], within_s: float) -> None:
        """Raises ConflictError unless every replica has these versions, with the binding that they have here."""
        for handle in handles:
            await self._require(str(handle.id), _model_named(str(handle.id)), handle.artifact.binding_digest, within_s)

    async def require_app(self, app: str, digest: str, within_s: float) -> None:
        """Raises ConflictError unless every replica has this app, with the digest that it has here."""
        await self._require(f"app {app}", lambda report: report.apps.get(app), digest, within_s)

    async def catch_up(self) -> None:
        """Returns when this replica is seen by the others and follows the state as it was after that: a change that
        comes later waits for it. Two passes, since one may be under way, and each reports after it has looked."""
        for _ in range(2):
            await self._until(lambda report: True, FOLLOW_S)

    async def follow(self, revision: int, within_s: float) -> None:
        """Wait until the other replicas honour a change, or this long."""
        await self._until(lambda report: report.revision >= revision, within_s)

    # ---

    async def _settled(self, name: str, look: Look, revision: int, time: LoadTime) -> list[ReplicaOutcome]:
        reports = await self._until(lambda report: _has_settled(report, look, revision), time.left_s)
        return [self._outcome(report, look(report), report.revision >= revision, time.late(name)) for report in reports]

    async def _require(self, name: str, look: Look, digest: str, within_s: float) -> None:
        reports = await self._until(lambda report: _has(look(report), digest), within_s)
        lacking = [report.replica for report in reports if not _has(look(report), digest)]
        if lacking:
            raise ConflictError(f"{name} is not loaded at replica {', '.join(lacking)} of {self.party!r}")

    async def _keep(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("following the shared state failed; it is tried again")
            pausing = asyncio.ensure_future(self._pause(PASS_S))
            hurried = asyncio.create_task(self._hurry.wait())
            try:
                await asyncio.wait({pausing, hurried}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pausing.cancel()
                hurried.cancel()
            self._hurry.clear()

    def _follow_newest(self) -> str:
        """Why that failed; it is tried again at the next look."""
        revision = self.store.read().revision
        if revision == self._followed:
            return ""
        try:
            self._follow()
        except Exception as error:
            if not self.problem:
                logger.exception("the state of revision %d cannot be followed", revision)
            return f"the state of revision {revision} cannot be followed ({type(error).__name__}, see the log)"
        self._followed = revision
        return ""

    def _count_nodes(self) -> None:
        nodes = len({self._node, *(report.node or report.replica for report in self._others)})
        if nodes != self._nodes:
            self._nodes = nodes
            self._nodes_changed(nodes)

    def _own(self) -> ReplicaReport:
        return ReplicaReport(
            replica=self.name,
            generation=self.generation,
            node=self._node,
            revision=self._followed,
            models=self._models(),
            apps=self._apps(),
        )

    async def _report(self) -> None:
        report, now = self._own(), self._clock()
        if report != self._told or now - self._told_at >= HEARTBEAT_S:
            # A report that is under way when this replica stops must not come after its withdrawal.
            await to_the_end(asyncio.to_thread(self.store.report, report))
            self._told, self._told_at = report, now

    async def _until(self, reached: Callable[[ReplicaReport], bool], within_s: float) -> list[ReplicaReport]:
        """The others' reports once they all have got there; as they are when time is up. Looks at least once."""
        seen = self._passes
        self._hurry.set()
        try:
            async with asyncio.timeout(within_s), self._passed:
                await self._passed.wait_for(
                    lambda: self._task is None or (self._passes > seen and all(map(reached, self._others)))
                )
        except TimeoutError:
            pass
        return self._others

    def _outcome(self, report: ReplicaReport, found: ReplicaModel | None, follows: bool, late: str) -> ReplicaOutcome:
        """`found`: what the replica says; `follows`: whether it knows that it was asked."""
        if found is not None and found.state == ModelState.READY.value:
            return ReplicaOutcome(self.party, report.replica, LoadState.LOADED)
        if follows and found is not None and found.state == ModelState.FAILED.value:
            return ReplicaOutcome(self.party, report.replica, LoadState.FAILED, found.reason)
        stands = f"it is {found.state} there" if follows and found is not None else "the replica has not begun"
        return ReplicaOutcome(self.party, report.replica, LoadState.FAILED, f"{late}; {stands}")


def _nothing() -> None: ...


def _nobody(nodes: int) -> None: ...


def _model_named(name: str) -> Look:
    return lambda report: report.models.get(name)


def _has(found: ReplicaModel | None, digest: str) -> bool:
    return found is not None and found.state == ModelState.READY.value and found.binding_digest == digest


def _has_settled(report: ReplicaReport, look: Look, revision: int) -> bool:
    found = look(report)
    return report.revision >= revision and found is not None and found.state in SETTLED
