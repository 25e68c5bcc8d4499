"""The supervisor of a node: owns the embedded cache server and keeps one worker process running."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from serving import ports_file
from serving.exit_code import ExitCode
from serving.settings import Settings
from serving.settings_file import SettingsError, load
from serving.telemetry import logs

logger = logging.getLogger(__name__)

WORKER = (sys.executable, "-P", "-m", "serving", "--worker")
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0
"""A worker that lived this long starts the count of failures anew."""
KILL_MARGIN_S = 5.0
"""What a worker gets beyond its own draining time before it is killed."""


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
    """Runs `command` as the worker. Signals: SIGTERM and SIGINT stop, SIGHUP starts a new worker with the settings
    as they are now, if they are in order."""

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str],
        environ: Mapping[str, str],
        check: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state_dir = Path(settings.state_dir)
        self._drain_s = settings.limits.drain_s
        self._command = command
        self._environ = environ
        self._check = check
        self._clock = clock
        self._wish = Wish.RUN
        self._asked = asyncio.Event()

    async def run(self) -> int:
        """The exit code for this process."""
        self._listen_for_signals()
        failures, listened = 0, False
        ports_file.remove(self._state_dir)  # of a node that was killed
        while True:
            started_s = self._clock()
            code = await self._one_worker()
            listened = listened or bool(ports_file.read(self._state_dir))
            ports_file.remove(self._state_dir)
            step = after(Ended(code, self._clock() - started_s, listened, self._wish), failures)
            if isinstance(step, GiveUp):
                return step.code
            failures = step.failures
            if not await self._pause(code, step.pause_s):
                return ExitCode.OK

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask, Wish.STOP)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _ask(self, wish: Wish) -> None:
        if self._wish is not Wish.STOP:
            self._wish = wish
        self._asked.set()

    def _reload(self) -> None:
        try:
            self._check()
        except SettingsError as error:
            logger.error("not restarting, the settings are wrong: %s", error)
        else:
            self._ask(Wish.RESTART)

    async def _one_worker(self) -> int:
        """From its start to its end; its exit code, negative for a signal."""
        if self._wish is Wish.RESTART:
            self._wish = Wish.RUN
            self._asked.clear()
        process = await asyncio.create_subprocess_exec(*self._command, env=self._environ)
        logger.info("worker %d started", process.pid)
        ended = asyncio.ensure_future(process.wait())
        asked = asyncio.ensure_future(self._asked.wait())
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not ended.done():
            await self._stop(process)
        return await ended

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._drain_s + KILL_MARGIN_S)
        except TimeoutError:
            logger.warning("worker %d did not stop in time", process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _pause(self, code: int, pause_s: float) -> bool:
        """False when asked to stop meanwhile."""
        if pause_s:
            logger.warning("worker ended with code %d, the next one starts in %g s", code, pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), pause_s)
        return self._wish is not Wish.STOP


def supervise(config: Path, worker: Sequence[str] = WORKER) -> int:
    """`tessera serve`. Raises SettingsError, InUseError."""
    settings = load(config, os.environ)
    logs.set_up(settings.log_level, settings.log_format)
    command = [*worker, "--config", str(config), "--parent", str(os.getpid())]
    with exclusive(Path(settings.state_dir)):
        return asyncio.run(_supervise(settings, config, command))


async def _supervise(settings: Settings, config: Path, command: Sequence[str]) -> int:
    async with _shared_cache(settings) as extra:
        environ = {**os.environ, **extra}
        return await Supervisor(settings, command, environ, lambda: load(config, environ)).run()


@contextlib.asynccontextmanager
async def _shared_cache(settings: Settings) -> AsyncIterator[dict[str, str]]:
    """The environment that points workers to the node's own cache server; empty where it has none."""
    if settings.cache.url or not settings.cache.embedded:
        yield {}
        return
    from serving.cache.embedded import EmbeddedRedis  # noqa: PLC0415 - only a node with its own server needs it

    redis = EmbeddedRedis(Path(settings.state_dir), settings.cache.embedded_max_bytes)
    await redis.start()
    try:
        yield {"TESSERA_CACHE__URL": redis.url} if redis.url else {}
    finally:
        await redis.stop()
