"""Which handler serves which path: bytes handlers, and servicers registered by generated code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from serving.transport.aio_server import AioServer
from serving.transport.context import bytes_behaviour
from serving.transport.interception import CallDetails, intercepted, reader
from serving.transport.port import BytesHandler, Interceptor, Server

_MAX_REMEMBERED = 1024  # a generic handler may serve any path a caller makes up


@dataclass(frozen=True, slots=True)
class Method:
    """A servicer's method. `behaviour` takes a request, or an iterator of them, and a context."""

    behaviour: Callable[..., Any]
    request_streaming: bool
    response_streaming: bool
    deserialize: Callable[[bytes], Any]
    serialize: Callable[[Any], bytes]
    threaded: bool
    """A plain function or generator, which may block."""


class Registry(AioServer):
    """The server that generated `add_XServicer_to_server` functions see, and what they registered."""

    def __init__(self, server: Server, interceptors: Sequence[Interceptor]) -> None:
        super().__init__(server)
        self.interceptors = tuple(interceptors)
        self.bytes_handlers: dict[str, BytesHandler] = {}
        self._generic: list[Any] = []
        self._handlers: dict[str, Any] = {}
        self._methods: dict[str, Method] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        self._generic.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self._handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def add_bytes_handler(self, path: str, handler: BytesHandler) -> None:
        """Once more as a method, for interceptors and for replies that are compressed."""
        self.bytes_handlers[path] = handler
        self._handlers[path] = grpc.unary_unary_rpc_method_handler(bytes_behaviour(handler))

    def find(self, path: str) -> Method | None:
        known = self._methods.get(path)
        if known is None and (handler := self._handler(CallDetails(path, ()))) is not None:
            known = method_of(handler)
            if path in self._handlers or len(self._methods) < _MAX_REMEMBERED:
                self._methods[path] = known
        return known

    async def intercepted(self, details: CallDetails) -> Any:
        async def registered(asked: CallDetails) -> Any:
            return self._handler(asked)

        return await intercepted(self.interceptors, registered, details)

    def _handler(self, details: Any) -> Any:
        known = self._handlers.get(details.method)
        if known is not None:
            return known
        found = (handlers.service(details) for handlers in self._generic)
        return next((handler for handler in found if handler is not None), None)


def method_of(handler: Any) -> Method:
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    behaviour = getattr(handler, kinds[2 * handler.request_streaming + handler.response_streaming])
    threaded = not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour))
    return Method(
        behaviour,
        handler.request_streaming,
        handler.response_streaming,
        reader(handler.request_deserializer),
        handler.response_serializer or _same,
        threaded,
    )


def _same(message: Any) -> Any:
    return message
