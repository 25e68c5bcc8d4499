"""`CommonService` on the admin port: figures, flow rules, settings, health.

There is no Java machine to describe, no registry to change weights in, and settings come from their file alone: the
calls for these are answered with the code that says so.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from serving.frontdoor.answer import answering_method
from serving.frontdoor.fate.codes import FateCode, failure
from serving.frontdoor.fate.model_service import FateAdmin
from serving.frontdoor.fate.rules import Flow
from serving.limit_kind import LimitKind
from serving.readiness import Readiness
from serving.settings import RateLimit, Role
from serving.transport import Server, call_of
from tessera.compat import fate_common_service_pb2 as wire
from tessera.compat import fate_common_service_pb2_grpc

SERVICE = "com.webank.ai.fate.api.networking.common.CommonService"
_SECRET = re.compile(r"token|secret|password", re.IGNORECASE)
_USER_IN_URL = re.compile(r"//[^/@]*@")


def register(server: Server, admin: FateAdmin, flow: Flow, readiness: Callable[[], Readiness]) -> None:
    """Serve the protocol on `server`."""
    servicer = OperationsServicer(admin, flow, readiness)
    fate_common_service_pb2_grpc.add_CommonServiceServicer_to_server(servicer, server.registry)


class OperationsServicer(fate_common_service_pb2_grpc.CommonServiceServicer):
    def __init__(self, admin: FateAdmin, flow: Flow, readiness: Callable[[], Readiness]) -> None:
        self._admin = admin
        self._flow = flow
        self._readiness = readiness

    @answering_method
    async def queryMetrics(self, request: wire.QueryMetricRequest, context: object) -> wire.CommonResponse:
        self._allow(context, Role.VIEWER)
        prefix = "M_" if request.type == wire.MODEL else "I_"
        source = request.source if not request.source or request.source.startswith(prefix) else prefix + request.source
        rows = await self._flow.between(request.beginMs, request.endMs, source)
        shown = [
            {
                "timestamp": at_ms,
                "resource": resource,
                "passQps": second.passed,
                "successQps": second.succeeded,
                "blockQps": second.blocked,
                "exceptionQps": second.failed,
            }
            for at_ms, resource, second in rows
            if resource.startswith(prefix)
        ]
        return _answered(shown)

    @answering_method
    async def updateFlowRule(self, request: wire.UpdateFlowRuleRequest, context: object) -> wire.CommonResponse:
        self._allow(context, Role.OPERATOR)
        who = self._admin.access.who(call_of(context))
        limits = self._admin.publishing.limits

        async def work() -> None:
            before = partial(limits.wanted, LimitKind.RESOURCE, request.source)
            async with self._admin.audit.change(who, "updateFlowRule", request.source, before):
                await limits.set(LimitKind.RESOURCE, request.source, RateLimit(per_s=request.allowQps))

        return await _tried(work)

    @answering_method
    async def listProps(self, request: wire.QueryPropsRequest, context: object) -> wire.CommonResponse:
        self._allow(context, Role.VIEWER)
        tree = msgspec.to_builtins(self._admin.settings)
        return _answered({key: value for key, value in _flat(tree, "") if request.keyword in key})

    @answering_method
    async def queryJvmInfo(self, request: wire.QueryJvmInfoRequest, context: object) -> wire.CommonResponse:
        self._allow(context, Role.VIEWER)
        return _refused(FateCode.UNSUPPORTED, "this node is no Java process; /metrics on the HTTP port describes it")

    @answering_method
    async def updateService(self, request: wire.UpdateServiceRequest, context: object) -> wire.CommonResponse:
        self._allow(context, Role.OPERATOR)
        return _refused(FateCode.NOT_REGISTERED, "this node is in no registry; weights are those of PublishOnline")

    @answering_method
    async def updateConfig(self, request: wire.UpdateConfigRequest, context: object) -> wire.CommonResponse:
        self._allow(context, Role.OPERATOR)
        return _refused(FateCode.UNSUPPORTED, "settings come from their file and from the environment alone")

    @answering_method
    async def checkHealthService(self, request: wire.HealthCheckRequest, context: object) -> wire.CommonResponse:
        self._allow(context, Role.VIEWER)
        report = self._readiness()
        node = _record("node state", report.state, "ok" if report.ready else "error")
        loaded, urls = len(self._admin.store.loaded()), self._admin.settings.fate.transfer_urls
        model = _record("model loaded", f"{loaded} models", _well(bool(loaded)))
        flow = _record("default FATE-Flow config", " ".join(urls) or "fate.transfer_urls is not set", _well(bool(urls)))
        problems = [_record("problem", one, "warn") for one in report.problems]
        return _answered({"records": [node, model, flow, *problems]})

    def _allow(self, context: object, role: Role) -> None:
        self._admin.access.admin(call_of(context), role)


async def _tried(work: Callable[[], Awaitable[None]]) -> wire.CommonResponse:
    try:
        await work()
    except Exception as error:  # noqa: BLE001 - the outermost frame of a call
        code, _, text = failure(error)
        return wire.CommonResponse(statusCode=code, message=text)
    return _answered({})


def _answered(shown: object) -> wire.CommonResponse:
    return wire.CommonResponse(statusCode=0, message="success", data=msgspec.json.encode(shown))


def _refused(code: FateCode, text: str) -> wire.CommonResponse:
    return wire.CommonResponse(statusCode=int(code), message=text)


def _well(there: bool) -> str:
    return "ok" if there else "warn"


def _record(name: str, text: str, status: str) -> dict[str, str]:
    return {"checkItemName": name, "msg": text, "healthCheckStatus": status}


def _flat(tree: Any, key: str) -> Iterator[tuple[str, str]]:
    """Settings as `a.b.c`, without what is secret."""
    if isinstance(tree, dict):
        for name, below in tree.items():
            yield from _flat(below, f"{key}.{name}" if key else name)
    elif _SECRET.search(key):
        yield key, "***" if tree else ""
    else:
        yield key, _USER_IN_URL.sub("//***@", str(tree))
