"""Every front door answers errors alike: what goes wrong becomes a status and a public text, in this one place.

A caller's `x-request-id` goes back to it in the trailing metadata, whatever comes of the call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Coroutine, Generator
from enum import IntEnum
from functools import partial, wraps
from inspect import CORO_CREATED, getcoroutinestate
from typing import Any, TypeVar

from serving.errors import LimitError, public
from serving.telemetry.requests import MethodFigures
from serving.transport import BytesHandler, Call, Code, Metadata, Promise, RpcError, call_of

PUSHBACK = "grpc-retry-pushback-ms"
REQUEST_ID = "x-request-id"
_OF_USE = re.compile(r"[!-~]{1,128}")

T = TypeVar("T")


def answering(handler: BytesHandler, figures: MethodFigures) -> BytesHandler:
    """Wrap and count a bytes handler, synchronous or not. A reply that is at hand stays at hand: no task is made for
    it."""

    @wraps(handler)
    def answer(raw: bytes, call: Call) -> bytes | Awaitable[bytes]:
        began, request_id = figures.start(), _echoed(call)
        try:
            reply = handler(raw, call)
        except Exception as error:
            status = _status(error, request_id)
            figures.finish(began, status.code)
            raise status from error
        if isinstance(reply, bytes):
            figures.finish(began)
            return reply
        if isinstance(reply, Promise):
            reply.translate(partial(_as_status, request_id) if request_id else _AS_STATUS)
            reply.add_done_callback(partial(_count, figures, began))
            return reply
        return _Counted(reply, figures, began, request_id)

    return answer


def answering_method(method: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Wrap an async method of a generated servicer."""

    @wraps(method)
    async def answer(*arguments: object) -> T:
        return await _awaited(method(*arguments), _echoed(call_of(arguments[-1])))

    return answer


def request_id_in(text: str) -> str:
    """What a caller calls its request; "" where that is of no use to anybody."""
    return text if _OF_USE.fullmatch(text) else ""


def _echoed(call: Call) -> str:
    sent = call.value_of(REQUEST_ID)
    if not sent:
        return ""
    request_id = request_id_in(sent)
    if request_id:
        call.set_trailing_metadata(((REQUEST_ID, request_id),))
    return request_id


def enum_value(value: IntEnum) -> Any:
    """For an enum field of a message: the stubs ask for the message's own enum, the wire for its number."""
    return value.value


def _count(figures: MethodFigures, began: float, reply: Promise[bytes]) -> None:
    """As `_Counted`, without a task."""
    if reply.cancelled():
        figures.finish(began, Code.CANCELLED)
        return
    error = reply.exception()
    figures.finish(began, Code.OK if error is None else error.code if isinstance(error, RpcError) else Code.UNKNOWN)


def _as_status(request_id: str, error: BaseException) -> BaseException:
    if not isinstance(error, Exception) or isinstance(error, RpcError):
        return error
    status = _status(error, request_id)
    status.__cause__ = error
    return status


_AS_STATUS = partial(_as_status, "")


class _Counted(Coroutine[Any, Any, bytes]):
    """A handler that runs and is counted once, also when its call is over before it begins: then it is closed."""

    __slots__ = ("_began", "_figures", "_reply", "_request_id", "_running")

    def __init__(self, reply: Awaitable[bytes], figures: MethodFigures, began: float, request_id: str) -> None:
        self._reply = reply
        self._figures = figures
        self._began = began
        self._request_id = request_id
        self._running = self._run()

    def __await__(self) -> Generator[Any, Any, bytes]:
        return self._running.__await__()

    def send(self, value: Any) -> Any:
        return self._running.send(value)

    def throw(self, *error: Any) -> Any:
        return self._running.throw(*error)

    def close(self) -> None:
        if getcoroutinestate(self._running) == CORO_CREATED:
            self._figures.finish(self._began, Code.CANCELLED)
            if isinstance(self._reply, Coroutine):
                self._reply.close()
        self._running.close()

    async def _run(self) -> bytes:
        code = Code.CANCELLED
        try:
            answer = await self._reply
            code = Code.OK
        except Exception as error:
            status = _status(error, self._request_id)
            code = status.code
            raise status from error
        finally:
            self._figures.finish(self._began, code)
        return answer


async def _awaited(reply: Awaitable[T], request_id: str) -> T:
    try:
        return await reply
    except Exception as error:
        raise _status(error, request_id) from error


def _status(error: Exception, request_id: str) -> RpcError:
    if isinstance(error, RpcError):
        return error
    code, text = public(error, request_id)
    return RpcError(code, text, _retry_hint(error))


def _retry_hint(error: Exception) -> Metadata:
    """https://github.com/grpc/proposal/blob/master/A6-client-retries.md, pushback."""
    if isinstance(error, LimitError) and error.retry_after_s is not None:
        return ((PUSHBACK, str(math.ceil(1_000 * error.retry_after_s))),)
    return ()
