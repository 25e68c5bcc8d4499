"""`POST /unary` on the HTTP port, as FATE-Serving's proxies call each other over HTTP: `unaryCall` with its packets in
the JSON form of protobuf. Certificates do not reach as far as here: who asks is who signed."""

from __future__ import annotations

from google.protobuf import json_format
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.errors import InvalidRequestError
from serving.frontdoor.fate.served import HTTP
from serving.frontdoor.fate.unary_call import UnaryCall
from serving.frontdoor.http_call import JSON, body_of
from serving.telemetry.requests import RequestFigures
from tessera.compat import fate_proxy_pb2 as wire

PATH = "/unary"


def route(door: UnaryCall, figures: RequestFigures, max_bytes: int) -> Route:
    counted = figures.of(HTTP, PATH)

    async def answer(request: Request) -> Response:
        async def read(packet: wire.Packet) -> str:
            _parse(packet, await body_of(request, max_bytes))
            return door.signer(packet)

        reply = await door.replied(read, counted)
        return Response(json_format.MessageToJson(reply, indent=None), media_type=JSON)

    return Route(PATH, answer, methods=["POST"])


def _parse(packet: wire.Packet, raw: bytes) -> None:
    """Raises InvalidRequestError."""
    try:
        json_format.Parse(raw, packet, ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError, RecursionError):
        packet.Clear()
        raise InvalidRequestError("the body is no Packet in JSON") from None
