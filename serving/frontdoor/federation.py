"""tessera.v1.Federation on the party port: other parties ask for partials, loads and holds."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import lru_cache, partial

from google.protobuf.message import DecodeError

from serving import control
from serving.admission import Asker
from serving.audit import AuditLog
from serving.errors import ConflictError, InvalidRequestError, LimitError, NotAllowedError, UnknownNameError
from serving.frontdoor.answer import answering, answering_method, enum_value
from serving.holds import hold_model
from serving.host import HostSide, Partials
from serving.lifecycle import LoadState, ReplicaOutcome
from serving.peers.peer import FIELDS, PROTOCOL
from serving.pool import ModelId
from serving.publishing import Publishing
from serving.settings import Purpose, Settings
from serving.telemetry.requests import RequestFigures
from serving.transport import Call, Server, call_of
from serving.version import SOFTWARE
from tessera.v1 import federation_pb2 as wire
from tessera.v1 import federation_pb2_grpc

INFER = "/tessera.v1.Federation/Infer"
MAX_TTL_S = 86_400
MAX_NAME = 256
"""Characters of what a party names that is kept here."""

PURPOSES = {int(wire.Purpose.Value(f"PURPOSE_{one.name}")): one for one in Purpose}

Caller = Callable[[Call], str]
"""The party that calls, known from the transport. Raises NotAllowedError."""


@dataclass(frozen=True, slots=True)
class FederationNode:
    """What other parties ask of."""

    host: HostSide
    publishing: Publishing
    settings: Settings
    audit: AuditLog
    caller: Caller


def register(server: Server, node: FederationNode, figures: RequestFigures) -> None:
    """Serve the protocol on `server`."""
    door = FederationDoor(node.host, node.settings, node.caller)
    server.add_bytes_handler(INFER, answering(door.infer, figures.of("tessera.v1", INFER)))
    servicer = FederationServicer(node)
    federation_pb2_grpc.add_FederationServicer_to_server(servicer, server.registry)


class FederationDoor:
    """The hot method."""

    def __init__(self, host: HostSide, settings: Settings, caller: Caller) -> None:
        self._host = host
        self._max_rows = settings.limits.max_batch_rows
        self._caller = caller

    def infer(self, raw: bytes, call: Call) -> bytes | Awaitable[bytes]:
        caller = self._caller(call)
        try:
            request = wire.InferRequest.FromString(raw)
        except DecodeError:
            raise InvalidRequestError("the request is not a tessera.v1.InferRequest") from None
        if request.protocol.major != PROTOCOL.major:
            raise ConflictError(f"protocol {request.protocol.major} was asked for, this party speaks {PROTOCOL.major}")
        if not 0 < len(request.user_ids) <= self._max_rows:
            raise LimitError(f"{len(request.user_ids)} users in one call, this party answers 1 to {self._max_rows}")
        purpose = PURPOSES.get(request.purpose)
        if purpose is None:
            raise NotAllowedError(f"this party knows no purpose {request.purpose}")
        model = ModelId(request.model, request.version)
        self._host.check_guest(model, caller)
        asked = (model, request.binding_digest.hex(), request.user_ids, Asker(caller, purpose))
        partials = self._host.infer_now(*asked)
        return self._infer(*asked) if partials is None else _reply(asked[1], partials)

    async def _infer(self, model: ModelId, binding_digest: str, user_ids: Sequence[str], asker: Asker) -> bytes:
        return _reply(binding_digest, await self._host.infer(model, binding_digest, user_ids, asker))


def _reply(binding_digest: str, partials: Partials) -> bytes:
    head, ages = _head(binding_digest, partials.spec.width), _ages(partials.max_age_ms, len(partials.codes))
    own = wire.InferReply(statuses=partials.codes.tobytes())
    setattr(own, FIELDS[partials.spec.form], partials.values.tobytes())
    return head + own.SerializeToString() + ages


@lru_cache(maxsize=256)
def _head(binding_digest: str, width: int) -> bytes:
    """What all replies of one half have in common. The parts of a message, one after the other, are the message."""
    reply = wire.InferReply(protocol=PROTOCOL, binding_digest=bytes.fromhex(binding_digest), width=width)
    return reply.SerializeToString()


@lru_cache(maxsize=256)
def _ages(max_age_ms: int | None, rows: int) -> bytes:
    """What a reply says of the age of its rows."""
    return b"" if max_age_ms is None else wire.InferReply(max_age_ms=[max_age_ms] * rows).SerializeToString()


class FederationServicer(federation_pb2_grpc.FederationServicer):
    """Loads and holds: only for parties that the settings allow. What they change is in the audit log."""

    def __init__(self, node: FederationNode) -> None:
        self._publishing = node.publishing
        self._host = node.host
        self._settings = node.settings
        self._audit = node.audit
        self._caller = node.caller

    @answering_method
    async def Load(self, request: wire.LoadRequest, context: object) -> wire.LoadReply:
        model = ModelId(request.model, request.version)
        party, caller_s = self._allowed(context, model), call_of(context).time_remaining()
        try:
            async with self._changing(party, "Federation/Load", model, self._model_state):
                outcomes, _ = await self._publishing.load_here(model, request.binding_digest.hex(), caller_s)
                await self._host.check_features(model)
        except (ConflictError, UnknownNameError) as error:
            outcomes = [ReplicaOutcome(self._settings.party, self._publishing.replica, LoadState.FAILED, str(error))]
        return wire.LoadReply(replicas=[replica_message(outcome) for outcome in outcomes])

    @answering_method
    async def Hold(self, request: wire.HoldRequest, context: object) -> wire.HoldReply:
        model = ModelId(request.model, request.version)
        party = self._allowed(context, model)
        if not 0 < request.ttl_s <= MAX_TTL_S:
            raise InvalidRequestError(f"ttl_s is {request.ttl_s}, it must be from 1 to {MAX_TTL_S}")
        for key in ("service", "publish"):
            if len(getattr(request, key)) > MAX_NAME:
                raise InvalidRequestError(f"{key} has more than {MAX_NAME} characters")
        hold, replaces = self._wanted_hold(request, party), request.replaces if request.HasField("replaces") else None
        digest = request.binding_digest.hex()
        if replaces is None and self._publishing.holds.renews(hold):
            await self._hold(hold, digest, replaces)
        else:
            async with self._changing(party, "Federation/Hold", model, self._holds):
                await self._hold(hold, digest, replaces)
        return wire.HoldReply()

    @answering_method
    async def Release(self, request: wire.ReleaseRequest, context: object) -> wire.ReleaseReply:
        party = self._caller(call_of(context))
        hold = control.Hold(
            party=party,
            service=request.service,
            model=request.model,
            version=request.version,
            revision=0,
            expires_s=0,
            publish=request.publish,
        )
        model = ModelId(request.model, request.version)
        if self._publishing.holds.has(hold):
            async with self._changing(party, "Federation/Release", model, self._holds):
                await self._publishing.holds.release(hold)
        return wire.ReleaseReply()

    @answering_method
    async def Status(self, request: wire.StatusRequest, context: object) -> wire.StatusReply:
        party = self._caller(call_of(context))
        models = [(ModelId(ref.model, ref.version), ref.binding_digest.hex()) for ref in request.models]
        return wire.StatusReply(
            protocol=PROTOCOL,
            software=SOFTWARE,
            time_ms=time.time_ns() // 1_000_000,
            caller=party,
            halves=[enum_value(await self._host.half_state(party, model, digest)) for model, digest in models],
        )

    async def _hold(self, hold: control.Hold, digest: str, replaces: str | None) -> None:
        await self._host.check_features(hold_model(hold))
        await self._publishing.hold_here(hold, digest, replaces)

    def _changing(
        self, party: str, what: str, model: ModelId, state: Callable[[ModelId], object]
    ) -> AbstractAsyncContextManager[None]:
        return self._audit.change(f"party {party}", what, str(model), partial(state, model))

    def _model_state(self, model: ModelId) -> object:
        life = self._publishing.life(model)
        return "NEW" if life is None else life.state.value

    def _holds(self, model: ModelId) -> object:
        return self._publishing.holds.of(model)

    def _wanted_hold(self, request: wire.HoldRequest, party: str) -> control.Hold:
        return control.Hold(
            party=party,
            service=request.service,
            model=request.model,
            version=request.version,
            revision=request.revision,
            expires_s=time.time() + request.ttl_s,
            publish=request.publish,
        )

    def _allowed(self, context: object, model: ModelId) -> str:
        """The calling party, if it may load this model here."""
        party = self._caller(call_of(context))
        peer = self._settings.peers.get(party)
        if peer is None or not {"*", model.model} & set(peer.may_load):
            raise NotAllowedError(
                f"party {self._settings.party!r} lets {party!r} not load {model.model!r}: see peers.{party}.may_load"
            )
        return party


def replica_message(outcome: ReplicaOutcome) -> wire.ReplicaOutcome:
    return wire.ReplicaOutcome(
        party=outcome.party, replica=outcome.replica, state=enum_value(outcome.state), reason=outcome.reason
    )
