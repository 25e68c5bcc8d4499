"""Server interceptors with the surface of grpc.aio's: each may replace the handler of a call, the first outermost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from serving.transport.port import Interceptor
from serving.transport.status import Code, Metadata, RpcError


class Metadatum(NamedTuple):
    """A metadata field, as grpc shows it to servicers and interceptors."""

    key: str
    value: str | bytes


def metadata_of(fields: Metadata) -> tuple[Metadatum, ...]:
    return tuple(Metadatum(key, value) for key, value in fields)


class CallDetails(NamedTuple):
    """What interceptors and generic handlers are told of a call."""

    method: str
    invocation_metadata: tuple[Metadatum, ...]


async def intercepted(interceptors: Sequence[Interceptor], find: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
    """The handler that the interceptors settle on; `find` knows the one registered. None: nobody serves it."""
    if not interceptors:
        return await find(details)
    return await interceptors[0].intercept_service(partial(intercepted, interceptors[1:], find), details)


def reader(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """What reads a method's requests. One that cannot be read is its caller's fault, and ends the call as such; gRPC's
    own servers say INTERNAL, and log it."""
    if deserialize is None:
        return _same

    def read(payload: bytes) -> Any:
        try:
            return deserialize(payload)
        except Exception as error:
            raise RpcError(Code.INVALID_ARGUMENT, "the request is no message of the method's type") from error

    return read


def _same(payload: bytes) -> bytes:
    return payload
