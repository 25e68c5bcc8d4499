"""The places of a supervisor's workers, and the listening sockets that outlive them.

Every slot has a socket of its own per port (SO_REUSEPORT): the kernel spreads connections over the slots, and those
that wait for a worker that was replaced are taken by its successor. A worker that ended by itself leaves nobody who
takes them for a while: its successor's sockets listen when it is ready, and until then all go to the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from socket import socket

from serving.handover import Handover, Progress
from serving.settings import Settings
from serving.shared_counts import Seat
from serving.transport import Transport
from serving.transport.listening import bind, bound_port, listen

logger = logging.getLogger(__name__)

KILL_MARGIN_S = 5.0
"""What a worker gets beyond its own draining time before it is killed."""


class Listening:
    """One socket per port and slot, by the addresses in the settings."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._addresses: dict[str, str] = {}
        self._sockets: dict[str, list[socket]] = {}

    def follow(self, settings: Settings) -> None:
        """Bind ports that are new or have moved; let go of the others. grpcio binds by itself: nothing is bound for it.
        Raises OSError naming the address; then nothing has changed."""
        wanted = settings.ports.bound() if settings.transport is Transport.NATIVE else {}
        moved = {name: address for name, address in wanted.items() if self._addresses.get(name) != address}
        bound: dict[str, list[socket]] = {}
        try:
            for name, address in moved.items():
                bound[name] = []
                _bind_all(address, self._slots, bound[name])
        except OSError:
            _close(bound)
            raise
        _close({name: sockets for name, sockets in self._sockets.items() if name in moved or name not in wanted})
        self._sockets = {name: sockets for name, sockets in self._sockets.items() if name in wanted} | bound
        self._addresses = wanted

    def renew(self, slot: int) -> None:
        """Sockets that do not listen yet, in place of a slot's that do, where other slots have theirs. Raises OSError;
        then nothing has changed."""
        if self._slots == 1:
            return
        fresh: dict[str, socket] = {}
        try:
            for name, sockets in self._sockets.items():
                host, _, _ = self._addresses[name].rpartition(":")
                fresh[name] = bind(f"{host}:{bound_port(sockets[slot])}", shared=True)
        except OSError:
            _close({name: [one] for name, one in fresh.items()})
            raise
        for name, one in fresh.items():
            self._sockets[name][slot].close()
            self._sockets[name][slot] = one

    def of(self, slot: int) -> dict[str, int]:
        """Descriptors by port."""
        return {name: sockets[slot].fileno() for name, sockets in self._sockets.items()}

    def close(self) -> None:
        _close(self._sockets)
        self._sockets = {}


def _bind_all(address: str, count: int, into: list[socket]) -> None:
    """The first may take any free port; the others share it."""
    into.append(listen(address, shared=count > 1))
    host, _, _ = address.rpartition(":")
    port = into[0].getsockname()[1]
    into.extend(listen(f"{host}:{port}", shared=True) for _ in range(count - 1))


def _close(sockets: Mapping[str, Sequence[socket]]) -> None:
    for group in sockets.values():
        for one in group:
            one.close()


@dataclass(eq=False)
class Worker:
    """One worker process, from its start to its end. `ended` gives its exit code, negative for a signal."""

    process: asyncio.subprocess.Process
    started_s: float
    ended: asyncio.Task[int] = field(init=False)
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.ended = asyncio.create_task(self.process.wait())

    @property
    def pid(self) -> int:
        return self.process.pid

    async def becomes_ready(self) -> bool:
        """False when it ends first."""
        ready = asyncio.create_task(self.ready.wait())
        try:
            await asyncio.wait({ready, self.ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        return self.ready.is_set() and not self.ended.done()

    async def stop(self, drain_s: float) -> int:
        """SIGTERM; SIGKILL when it takes longer than it should."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(asyncio.shield(self.ended), drain_s + KILL_MARGIN_S)
        except TimeoutError:
            logger.warning("worker %d did not stop in time", self.pid)
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            return await self.ended


async def start_worker(
    command: Sequence[str],
    environ: Mapping[str, str],
    sockets: Mapping[str, int],
    started_s: float,
    seat: Seat | None = None,
) -> Worker:
    """A worker that gets these sockets, and this seat."""
    read_end, write_end = os.pipe()
    handover = Handover(dict(sockets), write_end, seat)
    memory = () if seat is None else (seat.memory,)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            "--handover",
            handover.encoded(),
            env=environ,
            pass_fds=(*sockets.values(), write_end, *memory),
        )
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    worker = Worker(process, started_s)
    asyncio.get_running_loop().add_reader(read_end, _heard, read_end, worker)
    logger.info("worker %d started", worker.pid)
    return worker


def _heard(pipe: int, worker: Worker) -> None:
    said = os.read(pipe, 64)
    if Progress.LISTENING.value in said:
        worker.listening.set()
    if Progress.READY.value in said:
        worker.ready.set()
    if not said:
        asyncio.get_running_loop().remove_reader(pipe)
        os.close(pipe)
