"""A `Call` over a servicer context with the surface of grpc.aio's, and bytes handlers served through one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from serving.transport.port import BytesHandler, Call
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

    def value_of(self, key: str) -> str:
        return next((str(value) for name, value in self._context.invocation_metadata() or () if name == key), "")

    def peer(self) -> str:
        return str(self._context.peer())

    def peer_identities(self) -> tuple[str, ...]:
        return tuple(identity.decode(errors="replace") for identity in self._context.peer_identities() or ())

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._context.set_trailing_metadata(tuple(metadata))


def call_of(context: Any) -> Call:
    """What a generated servicer's context says about its call."""
    return ContextCall(context)


def bytes_behaviour(handler: BytesHandler) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """The behaviour of a unary method without serialisation that a bytes handler serves."""

    async def behave(request: bytes, context: Any) -> bytes:
        reply = handler(request, ContextCall(context))
        return reply if isinstance(reply, bytes) else await reply

    return behave
