"""The HTTP port: figures for Prometheus, probes, and inference in JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from serving.access import Access
from serving.codec import Codec
from serving.frontdoor.http_call import HTTP_STATUS, JSON, answering, body_of, caller_of, remaining_s
from serving.frontdoor.json_inference import JsonBatchPredict, JsonPredict
from serving.pipeline import Pipeline
from serving.readiness import Readiness
from serving.telemetry.exposition import CONTENT_TYPE
from serving.telemetry.requests import RequestFigures
from serving.transport import Code

V2 = "/v2"
"""What the paths of the Open Inference Protocol begin with."""


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """What the port shows. `readiness` is asked at every probe; `protocols` are routes of other protocols."""

    pipeline: Pipeline
    metrics: Callable[[], Awaitable[bytes]]
    readiness: Callable[[], Readiness]
    figures: RequestFigures
    max_request_bytes: int
    access: Access
    protocols: Sequence[BaseRoute] = ()

    def application(self) -> Starlette:
        codecs: tuple[Codec, ...] = (JsonPredict(), JsonBatchPredict())
        return Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                *(self._inference(codec) for codec in codecs),
                *self.protocols,
            ],
            exception_handlers={HTTPException: _no_route},
        )

    async def _metrics(self, request: Request) -> Response:
        del request
        return Response(await self.metrics(), headers={"content-type": CONTENT_TYPE})

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

        async def answer(request: Request) -> Response:
            caller = caller_of(request, self.access)
            raw = await body_of(request, self.max_request_bytes)
            reply = self.pipeline.answer(codec, raw, remaining_s(request), caller)
            return Response(reply if isinstance(reply, bytes) else await reply, media_type=JSON)

        return Route(path, answering(answer, self.figures.of(codec.protocol, path), _error), methods=[verb])


async def _no_route(request: Request, error: Any) -> Response:
    """For an HTTPException: no such path, or no such verb for it. As JSON, in the form of the path's protocol."""
    code = Code.NOT_FOUND if error.status_code == HTTP_STATUS[Code.NOT_FOUND] else Code.UNIMPLEMENTED
    text = f"{request.method} {request.url.path}: {error.detail.lower()}"
    body = {"error": text} if request.url.path.startswith(f"{V2}/") else _error(code, text)
    return Response(msgspec.json.encode(body), error.status_code, error.headers, JSON)


def _error(code: Code, text: str) -> object:
    return {"error": {"code": code.name, "message": text}}
