"""What every call over HTTP has in common: its body, its deadline, its count, its errors."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serving.access import Access
from serving.errors import InvalidRequestError, LimitError, public
from serving.frontdoor.answer import REQUEST_ID, request_id_in
from serving.frontdoor.http_encoding import inflated
from serving.telemetry.requests import MethodFigures
from serving.transport import Code

HTTP_STATUS = {
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
"""As google.rpc.Code maps them; 500 for the rest."""
JSON = "application/json"
HTTP = "http"
"""As figures call the protocol of the paths that are our own."""
IDENTITY = "identity"
TIMEOUT_HEADER = "x-timeout-ms"

Answer = Callable[[Request], Awaitable[Response]]
ErrorBody = Callable[[Code, str], object]
"""How a protocol words an error: code and public text to what stands in its JSON."""


def answering(answer: Answer, figures: MethodFigures, error_body: ErrorBody) -> Answer:
    """Count a route, and turn what goes wrong into a status and a public text. A caller's `x-request-id` goes back to
    it in the headers."""

    async def counted(request: Request) -> Response:
        began, request_id = figures.start(), request_id_in(request.headers.get(REQUEST_ID, ""))
        code = Code.CANCELLED
        try:
            response = await answer(request)
            code = Code.OK
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            code, text = public(error, request_id)
            body = msgspec.json.encode(error_body(code, text))
            response = Response(body, HTTP_STATUS.get(code, 500), _retry_header(error), JSON)
        finally:
            figures.finish(began, code)
        if request_id:
            response.headers[REQUEST_ID] = request_id
        return response

    return counted


def _retry_header(error: Exception) -> dict[str, str]:
    """RFC 9110, section 10.2.3: whole seconds."""
    wait_s = error.retry_after_s if isinstance(error, LimitError) else None
    return {} if wait_s is None else {"retry-after": str(math.ceil(wait_s))}


async def body_of(request: Request, max_bytes: int) -> bytes:
    """As it was before it was compressed. Raises InvalidRequestError, and LimitError before more than `max_bytes` are
    kept."""
    kept = bytearray()
    async for chunk in request.stream():
        kept += chunk
        if len(kept) > max_bytes:
            raise LimitError(f"the body has more than {max_bytes} bytes (limits.max_request_bytes)")
    encoding = request.headers.get("content-encoding", IDENTITY).strip().lower()
    return bytes(kept) if encoding == IDENTITY else await inflated(bytes(kept), encoding, max_bytes)


def caller_of(request: Request, access: Access) -> str:
    """By its token: certificates do not reach as far as here. Raises UnauthenticatedError."""
    return access.caller_named((), request.headers.get("authorization", ""))


def remaining_s(request: Request) -> float | None:
    """The caller's deadline, from its header."""
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise InvalidRequestError(f"{TIMEOUT_HEADER} is a whole number of milliseconds")
    return int(text) / 1_000
