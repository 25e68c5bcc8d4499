"""The routes of FATE-Serving's proxy on the HTTP port: `/federation/{version}/inference` and `/batchInference`, by POST
and, as there, by GET with a body."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.access import Access
from serving.errors import InvalidRequestError
from serving.frontdoor.fate.inference import Ask, FateInference
from serving.frontdoor.http_call import JSON, body_of, caller_of, remaining_s
from serving.telemetry.requests import RequestFigures
from serving.transport import Code
from tessera.compat import fate_inference_pb2 as wire

UNSHOWN = ("log", "warn", "caseid")
"""Keys of a reply that the proxy keeps to itself."""


class _Body(msgspec.Struct):
    """`head` holds serviceId and applyId; what stands in `body` too counts as it stands there."""

    head: dict[str, Any] = {}
    body: dict[str, Any] = {}


def routes(door: FateInference, access: Access, figures: RequestFigures, max_bytes: int) -> list[Route]:
    def route(method: str, ask: Ask) -> Route:
        path = f"/federation/{{version}}/{method}"
        counted = figures.of(door.protocol, path)

        async def answer(request: Request) -> Response:
            began, code, message = counted.start(), Code.CANCELLED, b""
            try:
                caller = caller_of(request, access)
                message = _message(await body_of(request, max_bytes), request.headers.get("caseId", ""))
                reply = ask(message, remaining_s(request), caller)
                shown = _shown(reply if isinstance(reply, bytes) else await reply)
                code = Code.OK
            except Exception as error:  # noqa: BLE001 - the outermost frame of a call
                refusal, code = door.refusal(message, error)
                shown = _shown(refusal)
            finally:
                counted.finish(began, code)
            return Response(shown, media_type=JSON)

        return Route(path, answer, methods=["POST", "GET"])

    return [route("inference", door.single), route("batchInference", door.batch)]


def _message(raw: bytes, case_id: str) -> bytes:
    """Head and body in one, as the proxy passes them on. Raises InvalidRequestError."""
    try:
        parts = msgspec.json.decode(raw, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body cannot be used: {error}") from None
    named = {"caseId": case_id} if case_id else {}
    merged = {**named, **parts.head, **parts.body}
    return wire.InferenceMessage(body=msgspec.json.encode(merged)).SerializeToString()


def _shown(reply: bytes) -> bytes:
    found = msgspec.json.decode(wire.InferenceMessage.FromString(reply).body)
    return msgspec.json.encode(_without_nulls({key: value for key, value in found.items() if key not in UNSHOWN}))


def _without_nulls(shown: Any) -> Any:
    """As the proxy writes JSON: what is not there has no key."""
    if isinstance(shown, dict):
        return {key: _without_nulls(value) for key, value in shown.items() if value is not None}
    return list(map(_without_nulls, shown)) if isinstance(shown, list) else shown
