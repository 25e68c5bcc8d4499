"""Which handler serves which path: bytes handlers, and servicers registered by generated code."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from serving.transport.port import BytesHandler


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


class _Details(NamedTuple):
    """What a generic handler is asked with."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class Registry:
    """The server that generated `add_XServicer_to_server` functions see."""

    def __init__(self) -> None:
        self._generic: list[Any] = []
        self._methods: dict[str, Method] = {}
        self.bytes_handlers: dict[str, BytesHandler] = {}

    def add_generic_rpc_handlers(self, handlers: tuple[Any, ...]) -> None:
        self._generic.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        for name, handler in handlers.items():
            self._methods[f"/{service}/{name}"] = _method(handler)

    def find(self, path: str) -> Method | None:
        known = self._methods.get(path)
        if known is not None:
            return known
        for handlers in self._generic:
            handler = handlers.service(_Details(path, ()))
            if handler is not None:
                return self._methods.setdefault(path, _method(handler))
        return None


def _method(handler: Any) -> Method:
    kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
    behaviour = getattr(handler, kinds[2 * handler.request_streaming + handler.response_streaming])
    threaded = not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour))
    return Method(
        behaviour,
        handler.request_streaming,
        handler.response_streaming,
        handler.request_deserializer or _same,
        handler.response_serializer or _same,
        threaded,
    )


def _same(message: Any) -> Any:
    return message
