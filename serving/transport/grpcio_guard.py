"""Turns what servicer methods and bytes handlers raise into gRPC statuses, for all cardinalities.

RpcError keeps its code, text and trailing metadata; a method that a servicer leaves out is UNIMPLEMENTED; anything else
is INTERNAL without text, and goes to the log.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio

from serving.transport.interception import intercepted, reader
from serving.transport.port import Interceptor
from serving.transport.status import RpcError, let_go

logger = logging.getLogger(__name__)

_STATUSES = {status.value[0]: status for status in grpc.StatusCode}


class GuardedHandlers(grpc.GenericRpcHandler):
    """The handlers of one service, each guarded when first called."""

    def __init__(self, handlers: grpc.GenericRpcHandler) -> None:
        self._handlers = handlers
        self._guarded: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        if path not in self._guarded:
            handler = self._handlers.service(handler_call_details)
            if handler is None:
                return None
            self._guarded[path] = guarded(handler)
        return self._guarded[path]


class GuardedChain(grpc.aio.ServerInterceptor):
    """All interceptors as one, with a guard around them and around the handler they settle on."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = tuple(interceptors)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        try:
            handler = await intercepted(self._interceptors, continuation, handler_call_details)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            return _refusal(error)
        return None if handler is None else guarded(handler)


def _refusal(error: Exception) -> Any:
    """A handler, right for every cardinality, that ends the call with this error."""

    async def refuse(requests: Any, context: Any) -> None:
        await _end(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse)


def guarded(handler: Any) -> Any:
    """The same method handler with a guard around its behaviour."""
    if handler.request_streaming and handler.response_streaming:
        behaviour, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
    elif handler.request_streaming:
        behaviour, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
    elif handler.response_streaming:
        behaviour, make = handler.unary_stream, grpc.unary_stream_rpc_method_handler
    else:
        behaviour, make = handler.unary_unary, grpc.unary_unary_rpc_method_handler
    read = partial(_reads if handler.request_streaming else _reads_one, reader(handler.request_deserializer))
    return make(_guard(behaviour)(behaviour, read), None, handler.response_serializer)


_Read = Callable[[Any, Any], tuple[Any, Any]]
"""From what grpc gives a method to what it takes: a message or an iterator of messages, and the context."""


def _reads_one(read: Callable[[bytes], Any], request: bytes, context: Any) -> tuple[Any, Any]:
    return read(request), context


def _reads(read: Callable[[bytes], Any], requests: Any, context: Any) -> tuple[Any, Any]:
    if hasattr(requests, "__aiter__"):
        return _each(read, requests), _Reading(read, context)
    return map(read, requests), context


async def _each(read: Callable[[bytes], Any], requests: AsyncIterable[bytes]) -> AsyncIterator[Any]:
    async for request in requests:
        yield read(request)


class _Reading:
    """grpc's context of a stream, for methods that read from it. Everything else is grpc's."""

    def __init__(self, read: Callable[[bytes], Any], context: Any) -> None:
        self._read = read
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        request = await self._context.read()
        return request if request is grpc.aio.EOF else self._read(request)


def _guard(behaviour: Any) -> Any:
    if inspect.isasyncgenfunction(behaviour):
        return _async_generator
    if inspect.iscoroutinefunction(behaviour):
        return _coroutine
    if inspect.isgeneratorfunction(behaviour):
        return _generator
    return _function


def _async_generator(behaviour: Any, read: _Read) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(behaviour(*read(request, context))) as messages:
                async for message in messages:
                    yield message
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            await _end(context, error)

    return call


def _coroutine(behaviour: Any, read: _Read) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await behaviour(*read(request, context))
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            await _end(context, error)

    return call


def _generator(behaviour: Any, read: _Read) -> Any:
    def call(request: Any, context: Any) -> Iterator[Any]:
        try:
            yield from behaviour(*read(request, context))
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            _end_in_thread(context, error)

    return call


def _function(behaviour: Any, read: _Read) -> Any:
    def call(request: Any, context: Any) -> Any:
        try:
            return behaviour(*read(request, context))
        except grpc.aio.AbortError:
            raise
        except NotImplementedError:  # the body that generated servicers have
            return context.abort(grpc.StatusCode.UNIMPLEMENTED, "method not implemented")
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            return _end_in_thread(context, error)

    return call


async def _end(context: Any, error: Exception) -> None:
    """The call with the error's status, as soon as its handler returns."""
    with _once():
        await context.abort(*_verdict(error, context))


def _end_in_thread(context: Any, error: Exception) -> None:
    with _once():
        context.abort(*_verdict(error, context))


@contextlib.contextmanager
def _once() -> Iterator[None]:
    """grpc keeps what `abort` raises, and raises it again when the handler has returned. The frames here know the
    context, which knows where it is kept."""
    try:
        yield
    except grpc.aio.AbortError as kept:
        let_go(kept)


def _verdict(error: Exception, context: Any) -> tuple[grpc.StatusCode, str, tuple[Any, ...]]:
    """Status, text and trailing metadata for the caller. In threads grpc does not tell what metadata was set before."""
    if not isinstance(error, RpcError):
        logger.error("a handler failed", exc_info=error)
    let_go(error)
    before = context.trailing_metadata() if hasattr(context, "trailing_metadata") else ()
    if isinstance(error, RpcError):
        return _STATUSES[error.code], error.details, (*before, *error.trailing_metadata)
    return grpc.StatusCode.INTERNAL, "internal error", tuple(before)
