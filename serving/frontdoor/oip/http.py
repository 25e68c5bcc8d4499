"""The protocol's routes on the HTTP port: `/v2/...`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.errors import InvalidRequestError
from serving.frontdoor.http_call import JSON, Answer, answering, body_of, caller_of, remaining_s
from serving.frontdoor.http_encoding import squeezed
from serving.frontdoor.oip.door import HTTP, Form, Terms
from serving.frontdoor.oip.json_described import described
from serving.frontdoor.oip.json_messages import asked_of, body_parts, encoded, with_id
from serving.frontdoor.oip.messages import config
from serving.frontdoor.oip.rows import NotOfferedError
from serving.frontdoor.oip.service import OipNode, server_metadata
from serving.frontdoor.oip.trace_settings import LEVEL
from serving.telemetry.requests import RequestFigures
from serving.transport import Code

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Of the body before it is compressed."""
BINARY = "application/octet-stream"
MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"
TRACES = ("/v2/trace/setting", MODEL + "/trace/setting")
SHARED_MEMORY = ("/v2/systemsharedmemory", "/v2/cudasharedmemory")

S = TypeVar("S")


class _IndexBody(msgspec.Struct):
    ready: bool = False


_LogBody = dict[str, bool | int | str]
_TraceBody = dict[str, str | list[str] | None]


class _LoadBody(msgspec.Struct):
    parameters: dict[str, Any] = {}


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
            self._route("GET", "/v2/models/stats", self._statistics),  # before a model of that name
            *models,
            self._route("POST", MODEL + "/infer", self._infer),
            self._route("POST", VERSION + "/infer", self._infer),
            self._route("POST", "/v2/repository/index", self._index),
            self._route("POST", "/v2/repository/models/{name}/load", self._load),
            self._route("POST", "/v2/repository/models/{name}/unload", self._unload),
            self._route("GET", "/v2/logging", self._log),
            self._route("POST", "/v2/logging", self._log),
            *(self._route(verb, path, self._traces) for path in TRACES for verb in ("GET", "POST")),
            *self._not_offered(),
        ]

    def _not_offered(self) -> list[Route]:
        regions = [
            (verb, kind + region + action)
            for kind in SHARED_MEMORY
            for region in ("", "/region/{region}")
            for verb, action in (("GET", "/status"), ("POST", "/register"), ("POST", "/unregister"))
        ]
        return [self._route(verb, path, self._shared_memory) for verb, path in regions]

    def _route(self, verb: str, path: str, answer: Answer) -> Route:
        return Route(path, answering(answer, self.figures.of(HTTP, f"{verb} {path}"), _error), methods=[verb])

    async def _server(self, request: Request) -> Response:
        del request
        return _json(server_metadata())

    async def _live(self, request: Request) -> Response:
        del request
        return _json({"live": True})

    async def _server_ready(self, request: Request) -> Response:
        del request
        return _readiness(self.node.readiness().ready)

    async def _ready(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        models, named = self.node.door.models, _named(request)
        return _readiness(not models.lacks(*named), name=models.find(*named).name)

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
                "properties": view.properties,
            }
        )

    async def _config(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        view = self.node.door.models.find(*_named(request))
        return _json(described(config(view, self.node.max_rows)))

    async def _statistics(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        name, version = request.path_params.get("name", ""), request.path_params.get("version", "")
        return _json(described(await self.node.statistics(name, version)))

    async def _infer(self, request: Request) -> Response:
        terms = Terms(remaining_s(request), caller_of(request, self.node.access))
        raw = await body_of(request, self.max_request_bytes)
        header_length = request.headers.get(HEADER_LENGTH)
        body, binary = body_parts(raw, header_length)
        asked = await asked_of(*_named(request), body, binary, self.node.max_rows)
        wanted = body.binary_outputs()
        shape = f"{HTTP} {header_length} " + ("*" if wanted is None else ",".join(sorted(wanted)))
        reply = await self.node.door.infer(Form(HTTP, shape), asked, lambda one: encoded(one, wanted), raw, terms)
        content, json_length = with_id(reply, asked.id)
        content, headers = await squeezed(content, request.headers.get("accept-encoding", ""))
        if json_length is None:
            return Response(content, headers=headers, media_type=JSON)
        return Response(content, headers={**headers, HEADER_LENGTH: str(json_length)}, media_type=BINARY)

    async def _index(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        raw = await body_of(request, self.max_request_bytes)
        return _json(await self.node.repository.index(_parsed(_IndexBody, raw).ready))

    def _operator(self, request: Request) -> str:
        """Who wants to control models. Raises NotAllowedError or UnauthenticatedError."""
        return self.node.access.operator_named((), request.headers.get("authorization", ""))

    async def _load(self, request: Request) -> Response:
        who = self._operator(request)
        parameters = _parsed(_LoadBody, await body_of(request, self.max_request_bytes)).parameters
        name = request.path_params["name"]
        state = partial(self.node.repository.states, name)
        async with self.node.audit.change(who, "RepositoryModelLoad", name, state):
            await self.node.repository.load(name, parameters)
        return Response()

    async def _unload(self, request: Request) -> Response:
        who = self._operator(request)
        name = request.path_params["name"]
        state = partial(self.node.repository.states, name)
        async with self.node.audit.change(who, "RepositoryModelUnload", name, state):
            await self.node.repository.unload(name)
        return Response()

    async def _log(self, request: Request) -> Response:
        who = self._operator(request)
        given = _parsed(_LogBody, await body_of(request, self.max_request_bytes))
        return _json(await self.node.set_log(who, given))

    async def _traces(self, request: Request) -> Response:
        who = self._operator(request)
        body = _parsed(_TraceBody, await body_of(request, self.max_request_bytes))
        given = {name: (value,) if isinstance(value, str) else tuple(value or ()) for name, value in body.items()}
        shown = await self.node.set_traces(who, request.path_params.get("name", ""), given)
        return _json({name: values if name == LEVEL else values[0] for name, values in shown.items()})

    async def _shared_memory(self, request: Request) -> Response:
        caller_of(request, self.node.access)
        raise NotOfferedError("shared memory is not supported")


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.path_params.get("version", "")


def _parsed(kind: type[S], raw: bytes) -> S:
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body cannot be used: {error}") from None


def _json(shown: object) -> Response:
    return Response(msgspec.json.encode(shown), media_type=JSON)


def _readiness(ready: bool, **named: str) -> Response:
    return Response(msgspec.json.encode({**named, "ready": ready}), 200 if ready else 503, media_type=JSON)


def _error(code: Code, text: str) -> object:
    del code
    return {"error": text}
