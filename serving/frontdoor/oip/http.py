"""The protocol's routes on the HTTP port: `/v2/...`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec
from google.protobuf.json_format import MessageToDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.errors import InvalidRequestError
from serving.frontdoor.http_call import JSON, Answer, answering, body_of, caller_of, remaining_s
from serving.frontdoor.oip.door import Figures, Terms
from serving.frontdoor.oip.json_messages import asked_of, body_parts, encoded, with_id
from serving.frontdoor.oip.messages import config, statistics
from serving.frontdoor.oip.service import OipNode, server_metadata
from serving.telemetry.requests import RequestFigures
from serving.transport import Code

HEADER_LENGTH = "Inference-Header-Content-Length"
MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"

S = TypeVar("S", bound=msgspec.Struct)


class _IndexBody(msgspec.Struct):
    ready: bool = False


class _LoadBody(msgspec.Struct):
    parameters: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class OipHttp:
    node: OipNode
    figures: RequestFigures
    max_request_bytes: int

    def routes(self) -> list[Route]:
        models = [
            self._route("GET", path + end, answer)
            for path in (MODEL, VERSION)
            for end, answer in (
                ("", self._metadata),
                ("/ready", self._ready),
                ("/config", self._config),
                ("/stats", self._statistics),
            )
        ]
        return [
            self._route("GET", "/v2", self._server),
            self._route("GET", "/v2/health/live", self._live),
            self._route("GET", "/v2/health/ready", self._server_ready),
            *models,
            self._route("POST", MODEL + "/infer", self._infer),
            self._route("POST", VERSION + "/infer", self._infer),
            self._route("POST", "/v2/repository/index", self._index),
            self._route("POST", "/v2/repository/models/{name}/load", self._load),
            self._route("POST", "/v2/repository/models/{name}/unload", self._unload),
        ]

    def _route(self, verb: str, path: str, answer: Answer) -> Route:
        return Route(path, answering(answer, self.figures.of("oip-http", f"{verb} {path}"), _error), methods=[verb])

    async def _server(self, request: Request) -> Response:
        del request
        return _json(server_metadata())

    async def _live(self, request: Request) -> Response:
        del request
        return _json({"live": True})

    async def _server_ready(self, request: Request) -> Response:
        del request
        ready = self.node.readiness().ready
        return Response(msgspec.json.encode({"ready": ready}), 200 if ready else 503, media_type=JSON)

    async def _ready(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        view = self.node.door.models.find(*_named(request))
        return _json({"name": view.name, "ready": True})

    async def _metadata(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        view = self.node.door.models.find(*_named(request))
        return _json(
            {
                "name": view.name,
                "versions": view.versions,
                "platform": view.platform,
                "inputs": [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in view.inputs()],
                "outputs": [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in view.outputs()],
            }
        )

    async def _config(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        view = self.node.door.models.find(*_named(request))
        return _json(MessageToDict(config(view, self.node.max_rows), preserving_proto_field_name=True))

    async def _statistics(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        view = self.node.door.models.find(*_named(request))
        figures = self.node.door.figures.get(view.name, Figures())
        shown = MessageToDict(statistics(view, figures), preserving_proto_field_name=True)
        return _json({"model_stats": [shown]})

    async def _infer(self, request: Request) -> Response:
        raw = await body_of(request, self.max_request_bytes)
        header_length = request.headers.get(HEADER_LENGTH)
        body, binary = body_parts(raw, header_length)
        asked = asked_of(*_named(request), body, binary)
        wanted = body.binary_outputs()
        form = f"oip-http {header_length} " + ("*" if wanted is None else ",".join(sorted(wanted)))
        terms = Terms(remaining_s(request), caller_of(request, self.node.access))
        reply = await self.node.door.infer(form, asked, lambda one: encoded(one, wanted), raw, terms)
        content, json_length = with_id(reply, asked.id)
        if json_length is None:
            return Response(content, media_type=JSON)
        return Response(content, headers={HEADER_LENGTH: str(json_length)}, media_type="application/octet-stream")

    async def _index(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        raw = await body_of(request, self.max_request_bytes)
        return _json(self.node.repository.index(_parsed(_IndexBody, raw).ready))

    def _operator(self, request: Request) -> str:
        """Who wants to control models. Raises NotAllowedError or UnauthenticatedError."""
        return self.node.access.operator_named((), request.headers.get("authorization", ""))

    async def _load(self, request: Request) -> Response:
        who = self._operator(request)
        parameters = _parsed(_LoadBody, await body_of(request, self.max_request_bytes)).parameters
        name = request.path_params["name"]
        async with self.node.audit.change(who, "RepositoryModelLoad", name):
            await self.node.repository.load(name, parameters, parameters.keys())
        return Response()

    async def _unload(self, request: Request) -> Response:
        who = self._operator(request)
        name = request.path_params["name"]
        async with self.node.audit.change(who, "RepositoryModelUnload", name):
            await self.node.repository.unload(name)
        return Response()


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.path_params.get("version", "")


def _parsed(kind: type[S], raw: bytes) -> S:
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(f"the body cannot be used: {error}") from None


def _json(shown: object) -> Response:
    return Response(msgspec.json.encode(shown), media_type=JSON)


def _error(code: Code, text: str) -> object:
    del code
    return {"error": text}
