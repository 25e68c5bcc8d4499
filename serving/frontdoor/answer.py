"""Every front door answers errors alike: what goes wrong becomes a status and a public text, in this one place."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from enum import IntEnum
from functools import partial, wraps
from typing import Any, TypeVar

from serving.errors import LimitError, public
from serving.telemetry.requests import MethodFigures
from serving.transport import BytesHandler, Call, Code, Metadata, RpcError

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
        if isinstance(reply, asyncio.Future):
            told: asyncio.Future[bytes] = reply.get_loop().create_future()
            reply.add_done_callback(partial(_tell, told, figures, began))
            told.add_done_callback(partial(_left, reply))
            return told
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


def _tell(told: asyncio.Future[bytes], figures: MethodFigures, began: float, reply: asyncio.Future[bytes]) -> None:
    """As `_counted`, without a task."""
    if reply.cancelled():
        figures.finish(began, Code.CANCELLED)
        told.cancel()
        return
    error = reply.exception()
    if error is None:
        figures.finish(began)
        if not told.done():
            told.set_result(reply.result())
        return
    status = _status(error) if isinstance(error, Exception) else error
    figures.finish(began, status.code if isinstance(status, RpcError) else Code.UNKNOWN)
    if not told.done():
        status.__cause__ = error
        told.set_exception(status)


def _left(reply: asyncio.Future[bytes], told: asyncio.Future[bytes]) -> None:
    if told.cancelled():
        reply.cancel()


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
