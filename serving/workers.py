"""The supervisor of a node: owns its sockets and its embedded cache server, and keeps its workers running."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import msgspec

from serving import ports_file
from serving.exit_code import ExitCode
from serving.settings import Settings
from serving.settings_file import SettingsError, load
from serving.shared_counts import Seats
from serving.slots import Listening, Worker, start_worker
from serving.telemetry import logs

logger = logging.getLogger(__name__)

WORKER = (sys.executable, "-P", "-m", "serving", "--worker")
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0
"""A worker that lived this long starts the count of failures anew."""


_SPARE_SEATS = 2
"""For workers that still drain while they are replaced once more."""
_TUNABLES, _HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_THREADS = {"OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}


class Wish(Enum):
    """What the operator's last signal asked for."""

    RUN = "run"
    RESTART = "restart"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended. `listened`: it, or one before it under this supervisor, had its ports open."""

    code: int
    lived_s: float
    listened: bool
    wish: Wish


@dataclass(frozen=True, slots=True)
class Again:
    """Start the next worker after a pause."""

    pause_s: float
    failures: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    code: int


def after(ended: Ended, failures: int) -> Again | GiveUp:
    """What to do when a worker has ended, after so many failures in a row."""
    if ended.wish is Wish.STOP:
        return GiveUp(ExitCode.OK if ended.code in {0, -signal.SIGTERM, -signal.SIGINT} else ExitCode.FAILED)
    if ended.wish is Wish.RESTART:
        return Again(0.0, 0)
    if not ended.listened:
        return GiveUp(ended.code if ended.code > 0 else ExitCode.FAILED)
    if ended.lived_s >= STEADY_AFTER_S:
        failures = 0
    return Again(min(FIRST_PAUSE_S * 2.0 ** min(failures, 30), LONGEST_PAUSE_S), failures + 1)


class InUseError(Exception):
    """Another node runs on this state folder."""


@contextlib.contextmanager
def exclusive(state_dir: Path) -> Iterator[None]:
    """Hold the state folder's lock; the kernel drops it with the process. Raises InUseError naming the holder."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "node.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise InUseError(
                f"process {lock.read().strip()} already runs a node on {state_dir}; stop it or set another state_dir"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


class Supervisor:
    """Runs `command` in every slot. Signals: SIGTERM and SIGINT stop; SIGHUP replaces the workers one by one with new
    ones that read the settings as they are then, if they are in order. No call is refused meanwhile, except on grpcio,
    where the old worker must have let go of the ports first."""

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str],
        environ: Mapping[str, str],
        reload: Callable[[], Settings],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._command = command
        self._environ = environ
        self._reload = reload
        self._clock = clock
        self._listening = Listening(settings.workers)
        self._seats = Seats(2 * settings.workers + _SPARE_SEATS)
        self._workers: dict[int, Worker] = {}
        self._restarting: set[int] = set()
        self._replaced: set[Worker] = set()
        """Those that still drain."""
        self._listened = False
        self._stopping = asyncio.Event()
        self._rolling: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """The exit code for this process. Raises OSError when a port is taken."""
        self._listen_for_signals()
        ports_file.remove(self._state_dir)  # of a node that was killed
        self._listening.follow(self._settings)
        try:
            codes = await asyncio.gather(*(self._keep(slot) for slot in range(self._settings.workers)))
        finally:
            if self._rolling is not None:
                self._rolling.cancel()
                await asyncio.wait({self._rolling})
            await asyncio.gather(*(worker.stop(self._settings.limits.drain_s) for worker in self._replaced))
            self._listening.close()
            self._seats.close()
            ports_file.remove(self._state_dir)
        return next((code for code in codes if code), ExitCode.OK)

    @property
    def _state_dir(self) -> Path:
        return Path(self._settings.state_dir)

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._roll)

    async def _keep(self, slot: int) -> int:
        """Keep one worker running in a slot until the supervisor stops; its exit code."""
        failures, worker = 0, None
        while not self._stopping.is_set():
            await self._fill(slot, worker)
            worker = await self._end(slot)
            self._listened = self._listened or worker.listening.is_set()
            ended = Ended(worker.ended.result(), self._clock() - worker.started_s, self._listened, self._wish(slot))
            if all(other.ended.done() for other in self._workers.values()):
                ports_file.remove(self._state_dir)
            step = after(ended, failures)
            if isinstance(step, GiveUp):
                self._stopping.set()
                return step.code
            failures = step.failures
            if ended.wish is Wish.RUN:
                self._leave_to_the_others(slot)
            await self._pause(ended.code, step.pause_s)
        return ExitCode.OK

    async def _fill(self, slot: int, ended: Worker | None) -> None:
        """A worker for a slot whose last one has ended, unless a replacement has taken the slot meanwhile."""
        if self._workers.get(slot) is not ended:
            return
        worker = await self._start(slot)
        if self._workers.get(slot) is ended:
            self._workers[slot] = worker
        else:
            await worker.stop(0)

    def _leave_to_the_others(self, slot: int) -> None:
        try:
            self._listening.renew(slot)
        except OSError as error:
            logger.error("connections wait for the next worker of slot %d: %s", slot, error.strerror)

    async def _start(self, slot: int) -> Worker:
        environ = self._environ
        if self._settings.workers > 1:
            name = self._settings.replica or socket.gethostname()
            environ = {**environ, "TESSERA_REPLICA": f"{name}/{slot}"}
        seat = self._seats.take()
        try:
            worker = await start_worker(self._command, environ, self._listening.of(slot), self._clock(), seat)
        except BaseException:
            self._seats.leave(seat)
            raise
        worker.ended.add_done_callback(lambda _: self._seats.leave(seat))
        return worker

    async def _end(self, slot: int) -> Worker:
        """The worker of the slot that has ended: by itself, because all are to stop, or for a restart. One that has
        been replaced does not count."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while True:
                worker = self._workers[slot]
                await asyncio.wait({worker.ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if self._workers[slot] is not worker:
                    continue
                if not worker.ended.done():
                    await worker.stop(self._settings.limits.drain_s)
                return worker
        finally:
            stopping.cancel()

    def _wish(self, slot: int) -> Wish:
        if self._stopping.is_set():
            return Wish.STOP
        if slot in self._restarting:
            self._restarting.discard(slot)
            return Wish.RESTART
        return Wish.RUN

    async def _pause(self, code: int, pause_s: float) -> None:
        if pause_s:
            logger.warning("worker ended with code %d, the next one starts in %g s", code, pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    # --- SIGHUP ---

    def _roll(self) -> None:
        """A replacement that is under way is given up for the new one: its worker may never become ready."""
        try:
            settings = self._reload()
            self._check_same_node(settings)
            self._listening.follow(settings)
        except (SettingsError, OSError) as error:
            logger.error("not restarting, the settings are wrong: %s", error)
            return
        if settings.workers != self._settings.workers:
            logger.warning("the number of workers changes when the node is stopped and started, not before")
        self._settings = msgspec.structs.replace(settings, workers=self._settings.workers)
        self._rolling = asyncio.create_task(self._replace_all(self._rolling))

    def _check_same_node(self, settings: Settings) -> None:
        """Old and new workers are one node while both run. Raises SettingsError."""
        for key in ("party", "state_dir"):
            if getattr(settings, key) != getattr(self._settings, key):
                raise SettingsError([f"{key}: changes when the node is stopped and started, not before"])

    async def _replace_all(self, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            logger.warning("the replacement of the workers is given up and begins anew")
            before.cancel()
            await asyncio.wait({before})
        for slot in range(self._settings.workers):
            old = self._workers.get(slot)
            if old is None or old.ended.done():
                continue  # its successor reads the new settings anyway
            if not self._listening.of(slot):
                self._restarting.add(slot)
                await old.stop(self._settings.limits.drain_s)
            elif not await self._replace(slot):
                logger.error("the new worker did not become ready; the others stay as they are")
                return

    async def _replace(self, slot: int) -> bool:
        """The old worker serves until the new one is ready; then both take from the same sockets until it has gone. One
        that ended meanwhile may have a successor, which is an old one then."""
        new = await self._start(slot)
        try:
            if not await new.becomes_ready():
                return False
            old, self._workers[slot] = self._workers[slot], new
        finally:
            if self._workers[slot] is not new:
                await new.stop(0)
        self._replaced.add(old)
        old.ended.add_done_callback(lambda _: self._replaced.discard(old))
        await old.stop(self._settings.limits.drain_s)
        return True


def supervise(config: Path, worker: Sequence[str] = WORKER, workers: int | None = None) -> int:
    """`tessera serve`. Raises SettingsError, InUseError, and OSError when a port is taken."""
    if workers is not None:
        os.environ["TESSERA_WORKERS"] = str(workers)  # for the workers' settings too
    settings = load(config, os.environ)
    logs.set_up(settings.log_level, settings.log_format)
    command = [*worker, "--config", str(config), "--parent", str(os.getpid())]
    with exclusive(Path(settings.state_dir)):
        return asyncio.run(_supervise(settings, config, command))


async def _supervise(settings: Settings, config: Path, command: Sequence[str]) -> int:
    async with _shared_cache(settings) as extra:
        environ = for_workers({**os.environ, **extra})

        def reload() -> Settings:
            if _has_own_cache(load(config, os.environ)) is not _has_own_cache(settings):
                raise SettingsError(["cache.url, cache.embedded: a server of the node's own begins and ends with it"])
            return load(config, environ)

        return await Supervisor(settings, command, environ, reload).run()


def _has_own_cache(settings: Settings) -> bool:
    return settings.cache.embedded and not settings.cache.url


def for_workers(environ: Mapping[str, str]) -> dict[str, str]:
    """What libraries of workers read before any code of ours runs, unless the operator says something about it.

    glibc asks for huge pages (madvise): whoever frees a large model holds the interpreter while the kernel lets go of
    its pages, of which there are then 512 times fewer. numpy's OpenBLAS has one thread: others would help with
    products that take microseconds, and wait for the next one by turning in a loop, on a core that parties need;
    polars reads a file of features on one as well, beside calls, where it would take all cores from them."""
    said = environ.get(_TUNABLES, "")
    tunables = said if _HUGE_PAGES in said else ":".join(filter(None, (said, f"{_HUGE_PAGES}=1")))
    return {**_THREADS, **environ, _TUNABLES: tunables}


@contextlib.asynccontextmanager
async def _shared_cache(settings: Settings) -> AsyncIterator[dict[str, str]]:
    """The environment that points workers to the node's own cache server; empty where it has none."""
    if not _has_own_cache(settings):
        yield {}
        return
    from serving.cache.embedded import EmbeddedRedis  # noqa: PLC0415 - only a node with its own server needs it

    redis = EmbeddedRedis(Path(settings.state_dir), settings.cache.embedded_max_bytes)
    await redis.start()
    try:
        yield {"TESSERA_CACHE__URL": redis.url} if redis.url else {}
    finally:
        await redis.stop()
