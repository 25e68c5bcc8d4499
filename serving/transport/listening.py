"""Sockets that listen, at `host:port` or `unix:PATH`."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Any

UNIX = "unix:"
_BACKLOG = 1024


def check_free(address: str) -> None:
    """Raises OSError when a server listens at this path."""
    if _is_served(address.removeprefix(UNIX)):
        raise OSError(errno.EADDRINUSE, f"cannot bind {address}: {os.strerror(errno.EADDRINUSE)}")


def listen(address: str, shared: bool = False) -> socket.socket:
    """Listens when it returns, so that a second server on the address fails here, unless both are `shared` (then the
    kernel spreads connections over them). Raises OSError that names it."""
    made = bind(address, shared)
    try:
        begin(made)
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"cannot bind {address}: {os.strerror(error.errno or 0)}") from None
    return made


def begin(bound: socket.socket) -> None:
    """Have the kernel give it connections; one that listens already goes on."""
    bound.listen(_BACKLOG)


def bind(address: str, shared: bool = False) -> socket.socket:
    """As `listen`, but it gets no connections yet."""
    try:
        return _unix(address.removeprefix(UNIX)) if address.startswith(UNIX) else _tcp(address, shared)
    except OSError as error:
        # Resolvers have texts and numbers of their own.
        reason = str(error.strerror) if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise OSError(error.errno, f"cannot bind {address}: {reason}") from None


def bound_port(listening: socket.socket) -> int:
    """0 for a path."""
    return 0 if listening.family == socket.AF_UNIX else int(listening.getsockname()[1])


def peer_of(address: Any) -> str:
    """The peer's address as grpc writes it, from what the socket says."""
    if not isinstance(address, tuple):
        return UNIX
    host, port = address[:2]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


def remove_path(listening: socket.socket) -> None:
    """Call before closing it for good."""
    if listening.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            Path(listening.getsockname()).unlink()


def _tcp(address: str, shared: bool) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio lets small writes wait
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return _bound(made, (host, int(port)))


def _unix(path: str) -> socket.socket:
    try:
        return _bound(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or _is_served(path) or not Path(path).is_socket():
            raise
    Path(path).unlink()  # left behind by a server that was killed
    return _bound(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path)


def _bound(made: socket.socket, address: tuple[str, int] | str) -> socket.socket:
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) in {0, errno.EAGAIN}
