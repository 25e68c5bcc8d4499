"""grpc.reflection on every port: each lists, and describes, what it serves.

In versions v1 and v1alpha, whose messages are the same but for the name of their package.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from serving.transport import Server

ALPHA, FIRST = "grpc.reflection.v1alpha", "grpc.reflection.v1"
SERVICES = (f"{FIRST}.ServerReflection", f"{ALPHA}.ServerReflection")


def register(server: Server, services: Iterable[str]) -> None:
    """`services`: the full names of all that are registered on `server` beside reflection."""
    _describe_first()
    servicer = reflection.aio.ReflectionServicer((*services, *SERVICES))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server.registry)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, _AsFirst(server.registry))


class _AsFirst:
    """What generated code registers for v1alpha is registered for v1."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """They know the service by its name alone."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        name = service.replace(ALPHA, FIRST)
        self._registry.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _describe_first() -> None:
    """Have v1 among what can be described, unless another package has brought it."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileContainingSymbol(SERVICES[0])
    except KeyError:
        alpha = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
        text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
        pool.Add(text_format.Parse(text, FileDescriptorProto()))
