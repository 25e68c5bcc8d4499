"""`inference.GRPCInferenceService`: the protocol over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from serving.access import Access
from serving.audit import AuditLog
from serving.errors import InvalidRequestError, UnauthenticatedError, UnknownNameError, public
from serving.frontdoor.answer import answering, answering_method
from serving.frontdoor.oip import trace_settings
from serving.frontdoor.oip.control import Repository
from serving.frontdoor.oip.door import GRPC, Door, Form, Terms
from serving.frontdoor.oip.figures import Figures, summed
from serving.frontdoor.oip.in_order import in_order
from serving.frontdoor.oip.log_settings import LogSettings, Values
from serving.frontdoor.oip.messages import asked, config, parse, raw_reply, statistics, typed_reply
from serving.frontdoor.wire_fields import delimited
from serving.readiness import Readiness
from serving.telemetry.requests import MethodFigures, RequestFigures
from serving.telemetry.spans import Watch, unwatched
from serving.telemetry.worker_files import Others, nobody
from serving.transport import Call, Code, RpcError, Server, call_of
from serving.version import SOFTWARE
from tessera.compat import open_inference_pb2 as wire
from tessera.compat import open_inference_pb2_grpc

SERVICE = "inference.GRPCInferenceService"
MODEL_INFER = f"/{SERVICE}/ModelInfer"
MODEL_STREAM_INFER = f"/{SERVICE}/ModelStreamInfer"
EXTENSIONS = (
    "model_repository",
    "model_configuration",
    "statistics",
    "parameters",
    "classification",
    "binary_tensor_data",
    "logging",
    "trace",
)
ASKS_FOR_LAST, LAST = "triton_enable_empty_final_response", "triton_final_response"
"""Clients of streams that wait for the last answer to a request say so. Here it is the only one."""
_STREAMED_AT_ONCE = 16
"""Requests of one stream."""
_ID = 3
"""Of ModelInferResponse. Fields of a message may come in any order."""

_LOG_KINDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}

Authorise = Callable[[Call], None]
"""Lets operators pass. Raises NotAllowedError or UnauthenticatedError."""


@dataclass(frozen=True, slots=True)
class OipNode:
    """What the protocol asks of a node beside inference. `max_rows` of one call. `others`: the figures of the other
    workers, as `encoded`. `watch`: every request of streams."""

    door: Door
    repository: Repository
    readiness: Callable[[], Readiness]
    max_rows: int
    audit: AuditLog
    access: Access
    log: LogSettings
    traces: trace_settings.TraceChoices
    others: Others = nobody
    watch: Watch = unwatched

    async def set_log(self, who: str, given: Values) -> Values:
        """What is in force afterwards; nothing changes where nothing is given. Raises InvalidRequestError."""
        if given:
            async with self.audit.change(who, "LogSettings", "log_level", lambda: self.log.level.value):
                await self.log.change(given)
        return self.log.shown

    async def set_traces(self, who: str, model: str, given: trace_settings.Values) -> trace_settings.Values:
        """As `set_log`. A `model`, "" for none, may only look. Raises InvalidRequestError, ConflictError and
        UnknownNameError."""
        if model:
            self.door.models.find(model, "")
        if model and given:
            raise InvalidRequestError("trace settings are those of the whole node: give no model")
        if given:
            async with self.audit.change(who, "TraceSetting", "traces", lambda: dict(self.traces.shown)):
                await self.traces.change(given)
        return self.traces.shown

    async def statistics(self, name: str, version: str) -> wire.ModelStatisticsResponse:
        """Of one version, of all versions of a name, or of all names when it is "": of all workers together. Raises
        UnknownNameError."""
        models = self.door.models
        views = models.by_version(name, version) if name else models.all_by_version()
        figures = summed(self.door.figures, await self.others())
        shown = [statistics(one, figures.get((one.name, one.versions[0]), Figures())) for one in views]
        return wire.ModelStatisticsResponse(model_stats=shown)


def register(server: Server, node: OipNode, figures: RequestFigures, authorise: Authorise) -> None:
    """Serve the protocol on `server`. `authorise` guards model control and settings."""
    # First, since the servicer registers a ModelInfer too.
    server.add_bytes_handler(MODEL_INFER, answering(_handler(node), figures.of(GRPC, MODEL_INFER)))
    servicer = OipServicer(node, authorise, figures.of(GRPC, MODEL_STREAM_INFER))
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server.registry)


def _handler(node: OipNode) -> Callable[[bytes, Call], Awaitable[bytes]]:
    def handle(raw: bytes, call: Call) -> Awaitable[bytes]:
        terms = Terms(call.time_remaining(), node.access.caller(call))
        return _infer(node.door, parse(raw), raw, terms)

    return handle


def _infer(door: Door, message: wire.ModelInferRequest, raw: bytes, terms: Terms) -> Awaitable[bytes]:
    is_raw = bool(message.raw_input_contents)
    call = asked(message)
    form = Form(GRPC, MODEL_INFER + (" raw" if is_raw else ""))
    reply = door.infer(form, call, raw_reply if is_raw else typed_reply, raw, terms)
    return _with_id(reply, message.id)


async def _with_id(reply: Awaitable[bytes], id_: str) -> bytes:
    encoded = id_.encode()
    return await reply + (delimited(_ID, encoded) if encoded else b"")


class OipServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """All but ModelInfer, which is a bytes handler. `streamed` counts the requests of streams, one by one."""

    def __init__(self, node: OipNode, authorise: Authorise, streamed: MethodFigures) -> None:
        self._node = node
        self._models = node.door.models
        self._authorise = authorise
        self._streamed = streamed

    @answering_method
    async def ServerLive(self, request: wire.ServerLiveRequest, context: object) -> wire.ServerLiveResponse:
        return wire.ServerLiveResponse(live=True)

    @answering_method
    async def ServerReady(self, request: wire.ServerReadyRequest, context: object) -> wire.ServerReadyResponse:
        return wire.ServerReadyResponse(ready=self._node.readiness().ready)

    @answering_method
    async def ModelReady(self, request: wire.ModelReadyRequest, context: object) -> wire.ModelReadyResponse:
        self._node.access.caller(call_of(context))
        try:
            self._models.find(request.name, request.version)
        except UnknownNameError:
            return wire.ModelReadyResponse(ready=False)
        return wire.ModelReadyResponse(ready=not self._models.lacks(request.name, request.version))

    @answering_method
    async def ServerMetadata(self, request: wire.ServerMetadataRequest, context: object) -> wire.ServerMetadataResponse:
        return wire.ServerMetadataResponse(**server_metadata())

    @answering_method
    async def ModelMetadata(self, request: wire.ModelMetadataRequest, context: object) -> wire.ModelMetadataResponse:
        self._node.access.caller(call_of(context))
        view = self._models.find(request.name, request.version)
        tensor = wire.ModelMetadataResponse.TensorMetadata
        return wire.ModelMetadataResponse(
            name=view.name,
            versions=view.versions,
            platform=view.platform,
            inputs=[tensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in view.inputs()],
            outputs=[tensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in view.outputs()],
            properties=view.properties,
        )

    @answering_method
    async def ModelConfig(self, request: wire.ModelConfigRequest, context: object) -> wire.ModelConfigResponse:
        self._node.access.caller(call_of(context))
        view = self._models.find(request.name, request.version)
        return wire.ModelConfigResponse(config=config(view, self._node.max_rows))

    @answering_method
    async def ModelStatistics(
        self, request: wire.ModelStatisticsRequest, context: object
    ) -> wire.ModelStatisticsResponse:
        self._node.access.caller(call_of(context))
        return await self._node.statistics(request.name, request.version)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[wire.ModelInferRequest], context: object
    ) -> AsyncIterator[wire.ModelStreamInferResponse]:
        """Up to `_STREAMED_AT_ONCE` requests are answered side by side, and told in their order; further ones wait in
        the transport. Errors of one request are its answer; the stream goes on. A message that is no request ends it,
        after the answers to those before. A stream of nobody we know is refused."""
        call = call_of(context)
        caller = self._stream_caller(call)

        def answer(request: wire.ModelInferRequest) -> Coroutine[Any, Any, wire.ModelStreamInferResponse]:
            return self._streamed_one(request, call, caller)

        async with aclosing(in_order(requests, answer, _STREAMED_AT_ONCE)) as replies:
            async for reply in replies:
                yield reply

    def _stream_caller(self, call: Call) -> str:
        try:
            return self._node.access.caller(call)
        except UnauthenticatedError as error:
            self._streamed.finish(self._streamed.start(), error.code)
            raise RpcError(error.code, str(error)) from None

    async def _streamed_one(
        self, request: wire.ModelInferRequest, call: Call, caller: str
    ) -> wire.ModelStreamInferResponse:
        began, code = self._streamed.start(), Code.CANCELLED
        terms = Terms(call.time_remaining(), caller)
        try:
            begin = partial(_infer, self._node.door, request, request.SerializeToString(), terms)
            reply = await self._node.watch(call, begin)
            code, answer = Code.OK, wire.ModelInferResponse.FromString(reply)
            if ASKS_FOR_LAST in request.parameters:
                answer.parameters[LAST].bool_param = True
            return wire.ModelStreamInferResponse(infer_response=answer)
        except Exception as error:  # noqa: BLE001 - the outermost frame of one request
            code, text = public(error)
            failed = wire.ModelInferResponse(id=request.id, model_name=request.model_name)
            return wire.ModelStreamInferResponse(error_message=text, infer_response=failed)
        finally:
            self._streamed.finish(began, code)

    @answering_method
    async def RepositoryIndex(
        self, request: wire.RepositoryIndexRequest, context: object
    ) -> wire.RepositoryIndexResponse:
        self._node.access.caller(call_of(context))
        entries = await self._node.repository.index(request.ready)
        entry = wire.RepositoryIndexResponse.ModelIndex
        return wire.RepositoryIndexResponse(
            models=[entry(name=one.name, version=one.version, state=one.state, reason=one.reason) for one in entries]
        )

    @answering_method
    async def RepositoryModelLoad(
        self, request: wire.RepositoryModelLoadRequest, context: object
    ) -> wire.RepositoryModelLoadResponse:
        self._authorise(call_of(context))
        given = {name: _parameter(one) for name, one in request.parameters.items()}
        async with self._changing(context, "RepositoryModelLoad", request.model_name):
            await self._node.repository.load(request.model_name, given)
        return wire.RepositoryModelLoadResponse()

    @answering_method
    async def RepositoryModelUnload(
        self, request: wire.RepositoryModelUnloadRequest, context: object
    ) -> wire.RepositoryModelUnloadResponse:
        self._authorise(call_of(context))
        async with self._changing(context, "RepositoryModelUnload", request.model_name):
            await self._node.repository.unload(request.model_name)
        return wire.RepositoryModelUnloadResponse()

    def _changing(self, context: object, what: str, model: str) -> AbstractAsyncContextManager[None]:
        state = partial(self._node.repository.states, model)
        return self._node.audit.change(self._node.access.who(call_of(context)), what, model, state)

    @answering_method
    async def LogSettings(self, request: wire.LogSettingsRequest, context: object) -> wire.LogSettingsResponse:
        call = call_of(context)
        self._authorise(call)
        given = {name: _parameter(one) for name, one in request.settings.items()}
        shown = await self._node.set_log(self._node.access.who(call), given)
        reply = wire.LogSettingsResponse()
        for name, value in shown.items():
            setattr(reply.settings[name], _LOG_KINDS[type(value)], value)
        return reply

    @answering_method
    async def TraceSetting(self, request: wire.TraceSettingRequest, context: object) -> wire.TraceSettingResponse:
        call = call_of(context)
        self._authorise(call)
        given = {name: tuple(one.value) for name, one in request.settings.items()}
        shown = await self._node.set_traces(self._node.access.who(call), request.model_name, given)
        value = wire.TraceSettingRequest.SettingValue
        return wire.TraceSettingResponse(settings={name: value(value=values) for name, values in shown.items()})


def _parameter(given: wire.ModelRepositoryParameter | wire.LogSettingsRequest.SettingValue) -> Any:
    return getattr(given, given.WhichOneof("parameter_choice") or "string_param")


def server_metadata() -> dict[str, Any]:
    return {"name": "tessera", "version": SOFTWARE, "extensions": list(EXTENSIONS)}
