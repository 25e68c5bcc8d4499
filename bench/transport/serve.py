"""One of the compared servers as a process: prints its port, serves until its standard input closes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import uvloop
from google.protobuf.wrappers_pb2 import BytesValue

from bench.transport.certificates import Certificate
from bench.transport.contenders import METHOD, Kind
from serving.transport import Call, Transport, server
from serving.worker import die_with

_SERVICE, _NAME = METHOD[1:].split("/")
_ANY_PORT = "127.0.0.1:0"
_THREADS = 4


async def echo(request: Any, context: Any) -> Any:
    return request


async def echo_message(request: BytesValue, context: Any) -> BytesValue:
    return BytesValue(value=request.value)


def echo_sync(request: bytes, context: Any) -> bytes:
    return request


def echo_bytes(payload: bytes, call: Call) -> bytes:
    return payload


def handlers(behaviour: Callable[..., Any], message: bool = False) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    codec: dict[str, Any] = {}
    if message:
        codec = {"request_deserializer": BytesValue.FromString, "response_serializer": BytesValue.SerializeToString}
    return {_NAME: grpc.unary_unary_rpc_method_handler(behaviour, **codec)}


async def grpc_aio(kind: Kind, certificate: Certificate) -> int:
    made = grpc.aio.server()
    message = kind is Kind.GRPC_AIO_MESSAGE
    served = handlers(echo_message if message else echo, message)
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, served),))
    if kind.tls:
        credentials = grpc.ssl_server_credentials([(certificate.key, certificate.chain)])
        port = made.add_secure_port(_ANY_PORT, credentials)
    else:
        port = made.add_insecure_port(_ANY_PORT)
    await made.start()
    _KEPT.append(made)
    return int(port)


async def grpcio_sync(kind: Kind, certificate: Certificate) -> int:
    made = grpc.server(ThreadPoolExecutor(_THREADS))
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers(echo_sync)),))
    port = made.add_insecure_port(_ANY_PORT)
    made.start()
    _KEPT.append(made)
    return int(port)


async def pygrpc(kind: Kind, certificate: Certificate) -> int:
    import pygrpc_native.aio as aio  # noqa: PLC0415, PLR0402 - a plain `from` import of it never ends

    made = aio.server()
    made.add_registered_method_handlers(_SERVICE, handlers(echo))
    port = made.add_insecure_port(_ANY_PORT)
    await made.start()
    _KEPT.append(made)
    return int(port)


async def native(kind: Kind, certificate: Certificate) -> int:
    made = server(Transport.NATIVE)
    if kind is Kind.NATIVE_MESSAGE:
        made.registry.add_registered_method_handlers(_SERVICE, handlers(echo_message, message=True))
    else:
        made.add_bytes_handler(METHOD, echo_bytes)
    port = made.add_port(_ANY_PORT, certificate.credentials() if kind.tls else None)
    await made.start()
    _KEPT.append(made)
    return port


_KEPT: list[Any] = []
_STARTERS: dict[Kind, Callable[[Kind, Certificate], Awaitable[int]]] = {
    Kind.GRPC_AIO: grpc_aio,
    Kind.GRPC_AIO_MESSAGE: grpc_aio,
    Kind.GRPC_AIO_TLS: grpc_aio,
    Kind.GRPCIO_SYNC: grpcio_sync,
    Kind.PYGRPC: pygrpc,
    Kind.NATIVE: native,
    Kind.NATIVE_ASYNCIO: native,
    Kind.NATIVE_MESSAGE: native,
    Kind.NATIVE_TLS: native,
}


async def serve(kind: Kind, certificate: Certificate) -> None:
    port = await _STARTERS[kind](kind, certificate)
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), closed.set)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await closed.wait()
    os._exit(0)  # a benchmark's server has nothing to finish


def main() -> None:
    die_with(os.getppid())
    kind, certificate = Kind[sys.argv[1]], Certificate(Path(sys.argv[2]))
    run = asyncio.run if kind is Kind.NATIVE_ASYNCIO else uvloop.run
    run(serve(kind, certificate))


if __name__ == "__main__":
    main()
