"""What `grpc.aio.server()` is told, as options of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from serving.transport.compression import compression_of
from serving.transport.port import ServerOptions

Arguments = Sequence[tuple[str, Any]]
"""Channel arguments as grpc names them. Those that have no meaning here are left out of account, as grpc does."""

_WITHOUT_LIMIT = (1 << 31) - 1
"""The largest number that grpc takes back."""


def _size(value: int) -> int:
    return _WITHOUT_LIMIT if value < 0 else value


_KNOWN = {
    "grpc.max_receive_message_length": ("max_receive_bytes", _size),
    "grpc.max_send_message_length": ("max_send_bytes", _size),
    "grpc.keepalive_time_ms": ("keepalive_s", lambda value: value / 1000),
}


def server_options(
    options: ServerOptions | Arguments | None, maximum_concurrent_rpcs: int | None, compression: Any
) -> ServerOptions:
    """`compression` is grpc's or ours. What is given beside options takes their place."""
    changes: dict[str, Any] = {}
    if not isinstance(options, ServerOptions | None):
        for name, value in options:
            if name in _KNOWN:
                ours, convert = _KNOWN[name]
                changes[ours] = convert(value)
        options = None
    if maximum_concurrent_rpcs is not None:
        changes["max_concurrent_calls"] = maximum_concurrent_rpcs
    if compression is not None:
        changes["compression"] = compression_of(compression)
    return dataclasses.replace(options or ServerOptions(), **changes)
