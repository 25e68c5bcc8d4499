"""The servers that are compared, and how each is started in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import psutil

from bench.compare.build import BuildError, callback_server
from bench.load.processes import ROOT
from bench.transport.certificates import Certificate

METHOD = "/bench.Echo/Echo"


class Kind(Enum):
    """What is served. Bytes: the handler sees serialised messages. Message: protobuf parses and builds them."""

    GRPC_AIO = "grpc.aio"
    GRPC_AIO_MESSAGE = "grpc.aio, message"
    GRPC_AIO_TLS = "grpc.aio, TLS"
    GRPCIO_SYNC = "grpcio sync"
    PYGRPC = "pygrpc-native"
    CALLBACK = "C++ callback"
    NATIVE = "native"
    NATIVE_ASYNCIO = "native, asyncio"
    NATIVE_MESSAGE = "native, message"
    NATIVE_TLS = "native, TLS"

    @property
    def tls(self) -> bool:
        return self in {Kind.GRPC_AIO_TLS, Kind.NATIVE_TLS}

    @property
    def reference(self) -> Kind:
        """The server of grpc.aio that does the same work."""
        if self.tls:
            return Kind.GRPC_AIO_TLS
        return Kind.GRPC_AIO_MESSAGE if self in {Kind.NATIVE_MESSAGE, Kind.CALLBACK} else Kind.GRPC_AIO


@dataclass(frozen=True, slots=True)
class Placement:
    """Which cores run what."""

    server: frozenset[int]
    load: tuple[int, ...]


def apart() -> Placement:
    """One core for all servers and the others for the load, where there are two: how much a core can do."""
    first, *rest = sorted(os.sched_getaffinity(0))
    return Placement(frozenset({first}), tuple(rest) or (first,))


def anywhere() -> Placement:
    """Servers with several threads spread over the cores and compete with the load."""
    free = os.sched_getaffinity(0)
    return Placement(frozenset(free), tuple(sorted(free)))


@dataclass(frozen=True, slots=True)
class Contender:
    """A running server. `process` is its only process."""

    kind: Kind
    port: int
    process: psutil.Process
    placement: Placement
    certificate: Certificate

    @property
    def authority(self) -> str:
        """The file that a client needs, or nothing."""
        return str(self.certificate.chain_file) if self.kind.tls else ""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        return int(self.process.memory_info().rss)


def why_not(kind: Kind) -> str | None:
    """Why a server cannot run here; None when it can."""
    if kind is Kind.PYGRPC and importlib.util.find_spec("pygrpc_native") is None:
        return "pygrpc-native is not installed: pip install pygrpc-native"
    if kind is Kind.CALLBACK:
        try:
            callback_server()
        except BuildError as error:
            return str(error)
    return None


@contextlib.contextmanager
def started(kind: Kind, certificate: Certificate, placement: Placement) -> Iterator[Contender]:
    """Until the end of the block."""
    with _pinned(placement.server):
        process = subprocess.Popen(
            _command(kind, certificate),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"},
        )
    try:
        line = "" if process.stdout is None else process.stdout.readline()
        if not line.strip().isdigit():
            raise RuntimeError(f"{kind.value} did not start; its reason is above")
        yield Contender(kind, int(line), psutil.Process(process.pid), placement, certificate)
    finally:
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _command(kind: Kind, certificate: Certificate) -> list[str]:
    if kind is Kind.CALLBACK:
        return [str(callback_server())]
    return [sys.executable, "-m", "bench.transport.serve", kind.name, str(certificate.folder)]


@contextlib.contextmanager
def _pinned(allowed: frozenset[int]) -> Iterator[None]:
    """Children started in the block inherit it, and so do all their threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, allowed)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
