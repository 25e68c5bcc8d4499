"""A `Call` over a servicer context with the surface of grpc.aio's."""

from __future__ import annotations

from typing import Any

from serving.transport.port import Call
from serving.transport.status import Metadata


class ContextCall:
    """Asks the context only when asked itself."""

    __slots__ = ("_context",)

    def __init__(self, context: Any) -> None:
        self._context = context

    def time_remaining(self) -> float | None:
        remaining = self._context.time_remaining()
        return None if remaining is None or remaining == float("inf") else float(remaining)

    def metadata(self) -> Metadata:
        return tuple((key, value) for key, value in self._context.invocation_metadata() or ())

    def peer(self) -> str:
        return str(self._context.peer())

    def peer_identities(self) -> tuple[str, ...]:
        return tuple(identity.decode(errors="replace") for identity in self._context.peer_identities() or ())

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._context.set_trailing_metadata(tuple(metadata))


def call_of(context: Any) -> Call:
    """What a generated servicer's context says about its call."""
    return ContextCall(context)
