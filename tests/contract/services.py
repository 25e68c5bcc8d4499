"""A service of plain bytes whose methods a test writes, on any server."""

from contextlib import asynccontextmanager

import grpc

from serving.transport import Transport, channel, server

MAKERS = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


def registers(made, behaviours):
    """Register behaviours given as `{cardinality: function}`; the method has the name of the cardinality."""
    handlers = {name: MAKERS[name](behaviour) for name, behaviour in behaviours.items()}
    made.registry.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))


@asynccontextmanager
async def address_of(kind, behaviours, options=None, interceptors=(), port=0):
    made = server(kind, options, interceptors)
    registers(made, behaviours)
    port = made.add_port(f"127.0.0.1:{port}")
    await made.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await made.stop(0)


@asynccontextmanager
async def stub_of(kind, behaviours, options=None, interceptors=()):
    """A function from cardinality to the stub's method, on the native client."""
    async with address_of(kind, behaviours, options, interceptors) as address:
        client = channel(Transport.NATIVE, address)
        try:
            yield lambda name: getattr(client.stub_channel, name)(f"/test.Service/{name}")
        finally:
            await client.close()
