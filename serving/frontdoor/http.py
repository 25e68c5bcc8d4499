"""The HTTP port: figures for Prometheus, probes, and inference in JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.errors import InvalidRequestError, LimitError, public
from serving.frontdoor.json_inference import JsonBatchPredict, JsonPredict
from serving.pipeline import Codec, Pipeline
from serving.readiness import Readiness
from serving.telemetry.exposition import CONTENT_TYPE, Exposition
from serving.telemetry.requests import MethodFigures, RequestFigures
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
TIMEOUT_HEADER = "x-timeout-ms"

Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """What the port shows. `readiness` is asked at every probe."""

    pipeline: Pipeline
    exposition: Exposition
    readiness: Callable[[], Readiness]
    figures: RequestFigures
    max_request_bytes: int

    def application(self) -> Starlette:
        codecs: tuple[Codec, ...] = (JsonPredict(), JsonBatchPredict())
        return Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                *(self._inference(codec) for codec in codecs),
            ]
        )

    async def _metrics(self, request: Request) -> Response:
        del request
        return Response(self.exposition.text(), headers={"content-type": CONTENT_TYPE})

    async def _healthz(self, request: Request) -> Response:
        """The process lives and its event loop turns."""
        del request
        return Response("ok\n", media_type="text/plain")

    async def _readyz(self, request: Request) -> Response:
        del request
        report = self.readiness()
        return Response(msgspec.json.encode(report), 200 if report.ready else 503, media_type=JSON)

    def _inference(self, codec: Codec) -> Route:
        verb, _, path = codec.name.partition(" ")
        figures = self.figures.of("http", path)

        async def answer(request: Request) -> Response:
            return await self._answer(codec, figures, request)

        return Route(path, answer, methods=[verb])

    async def _answer(self, codec: Codec, figures: MethodFigures, request: Request) -> Response:
        began = figures.start()
        code = Code.CANCELLED
        try:
            raw = await _body(request, self.max_request_bytes)
            reply = self.pipeline.answer(codec, raw, _remaining_s(request))
            body = reply if isinstance(reply, bytes) else await reply
            code = Code.OK
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            code, text = public(error)
            body = msgspec.json.encode({"error": {"code": code.name, "message": text}})
        finally:
            figures.finish(began, code)
        return Response(body, HTTP_STATUS.get(code, 500), media_type=JSON)


async def _body(request: Request, max_bytes: int) -> bytes:
    """Raises LimitError before more than `max_bytes` are kept."""
    kept = bytearray()
    async for chunk in request.stream():
        kept += chunk
        if len(kept) > max_bytes:
            raise LimitError(f"the body has more than {max_bytes} bytes (limits.max_request_bytes)")
    return bytes(kept)


def _remaining_s(request: Request) -> float | None:
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 9:
        raise InvalidRequestError(f"{TIMEOUT_HEADER} is a whole number of milliseconds")
    return int(text) / 1_000
