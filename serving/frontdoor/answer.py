"""Every front door answers errors alike: what goes wrong becomes a status and a public text, in this one place."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from enum import IntEnum
from functools import partial, wraps
from typing import Any, TypeVar

from serving.errors import LimitError, public
from serving.telemetry.requests import MethodFigures
from serving.transport import BytesHandler, Call, Code, Metadata, Promise, RpcError

PUSHBACK = "grpc-retry-pushback-ms"

T = TypeVar("T")


def answering(handler: BytesHandler, figures: MethodFigures) -> BytesHandler:
    """Wrap and count a bytes handler, synchronous or not. A reply that is at hand stays at hand: no task is made for
    it."""

    @wraps(handler)
    def answer(raw: bytes, call: Call) -> bytes | Awaitable[bytes]:
        began = figures.start()
        try:
            reply = handler(raw, call)
        except Exception as error:
            status = _status(error)
            figures.finish(began, status.code)
            raise status from error
        if isinstance(reply, bytes):
            figures.finish(began)
            return reply
        if isinstance(reply, Promise):
            reply.translate(_as_status)
            reply.add_done_callback(partial(_count, figures, began))
            return reply
        return _counted(reply, figures, began)

    return answer


def answering_method(method: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Wrap an async method of a generated servicer."""

    @wraps(method)
    async def answer(*arguments: object) -> T:
        return await _awaited(method(*arguments))

    return answer


def enum_value(value: IntEnum) -> Any:
    """For an enum field of a message: the stubs ask for the message's own enum, the wire for its number."""
    return value.value


def _count(figures: MethodFigures, began: float, reply: Promise[bytes]) -> None:
    """As `_counted`, without a task."""
    if reply.cancelled():
        figures.finish(began, Code.CANCELLED)
        return
    error = reply.exception()
    figures.finish(began, Code.OK if error is None else error.code if isinstance(error, RpcError) else Code.UNKNOWN)


def _as_status(error: BaseException) -> BaseException:
    if not isinstance(error, Exception) or isinstance(error, RpcError):
        return error
    status = _status(error)
    status.__cause__ = error
    return status


async def _counted(reply: Awaitable[bytes], figures: MethodFigures, began: float) -> bytes:
    code = Code.CANCELLED
    try:
        answer = await reply
        code = Code.OK
    except Exception as error:
        status = _status(error)
        code = status.code
        raise status from error
    finally:
        figures.finish(began, code)
    return answer


async def _awaited(reply: Awaitable[T]) -> T:
    try:
        return await reply
    except Exception as error:
        raise _status(error) from error


def _status(error: Exception) -> RpcError:
    if isinstance(error, RpcError):
        return error
    code, text = public(error)
    return RpcError(code, text, _retry_hint(error))


def _retry_hint(error: Exception) -> Metadata:
    """https://github.com/grpc/proposal/blob/master/A6-client-retries.md, pushback."""
    if isinstance(error, LimitError) and error.retry_after_s is not None:
        return ((PUSHBACK, str(math.ceil(1_000 * error.retry_after_s))),)
    return ()
