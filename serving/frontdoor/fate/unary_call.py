"""`DataTransferService/unaryCall` on the party port: a guest that runs FATE-Serving asks this host for its part.

FATE-Serving leaves a call that it does not understand without an answer; here every call gets a packet with a code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from apps.app import PartyStatus
from loaders.fate.component import ComponentError
from loaders.fate.export import ExportError
from loaders.fate.names import FateName, FateNameError
from loaders.fate.partner import PartnerError, PartnerHalf, partner_half
from serving.admission import Asker
from serving.errors import ConflictError, InvalidRequestError, LimitError, NotAllowedError, UnknownNameError
from serving.features.source import FeatureSourceError
from serving.frontdoor.fate.codes import FateCode, failure
from serving.frontdoor.fate.descriptions import named, resource_of
from serving.frontdoor.fate.features import user_id_in
from serving.frontdoor.fate.rules import Flow
from serving.frontdoor.fate.served import GRPC
from serving.host import HostSide, Partials
from serving.peers.fate import BATCH, BITS_ON_THE_LOOP, SINGLE, UNARY_CALL
from serving.peers.signing import Signatures
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.settings import Settings
from serving.telemetry.requests import MethodFigures, RequestFigures
from serving.transport import Call, Code, Server
from tessera.compat import fate_proxy_pb2 as wire

SERVICE = "com.webank.ai.fate.api.networking.proxy.DataTransferService"
RESOURCE = "I_unaryCall"
"""For flow rules and figures."""
TREE = "federatedInference4Tree"
FIRST_LINE_BELOW = 200
"""Callers with a lower version, or none, are of the first line: they name the guest's model, and read flat replies."""

Caller = Callable[[Call], str]
Read = Callable[[wire.Packet], Awaitable[str]]


class _Row(msgspec.Struct, rename="camel"):
    index: int = 0
    send_to_remote_feature_data: dict[str, Any] = {}


class _PartnerModel(msgspec.Struct):
    name: str
    namespace: str


class _Asked(msgspec.Struct, rename="camel"):
    """Bodies of all commands. The first line names the guest's model and the user in two fields of their own."""

    send_to_remote_feature_data: dict[str, Any] = {}
    feature_id_map: dict[str, Any] = {}
    batch_data_list: list[_Row] = []
    partner_model_info: _PartnerModel | None = None


@dataclass(frozen=True, slots=True)
class PartnerSide:
    """What the protocol asks of a host."""

    host: HostSide
    pool: ModelPool
    settings: Settings
    signatures: Signatures
    caller: Caller
    flow: Flow


def register(server: Server, door: UnaryCall, figures: RequestFigures) -> None:
    """Serve the protocol on `server`."""
    counted = figures.of(GRPC, UNARY_CALL)

    async def handle(raw: bytes, call: Call) -> bytes:
        async def read(packet: wire.Packet) -> str:
            _parse(packet, raw)
            return door.caller(call)

        return (await door.replied(read, counted)).SerializeToString()

    server.add_bytes_handler(UNARY_CALL, handle)


class UnaryCall:
    """One host's answers to guests that run FATE-Serving, whatever carries their packets."""

    def __init__(self, side: PartnerSide) -> None:
        self._side = side
        self._halves: dict[str, PartnerHalf] = {}

    def caller(self, call: Call) -> str:
        return self._side.caller(call)

    def signer(self, packet: wire.Packet) -> str:
        """Who calls, where nothing but the signature can tell: it counts once `answer` has checked it. Raises
        NotAllowedError."""
        party = packet.header.src.partyId
        if not self._side.signatures.are_asked_for or party not in self._side.settings.peers:
            raise NotAllowedError("only packets that a known party has signed are taken here")
        return party

    async def replied(self, read: Read, counted: MethodFigures) -> wire.Packet:
        """The packet that goes back, whatever happens. `read` fills the one that came and tells who sent it."""
        began, code, packet, flow = counted.start(), Code.CANCELLED, wire.Packet(), self._side.flow
        try:
            reply = await self.answer(packet, await read(packet))
            flow.succeeded(RESOURCE)
            code = Code.OK
        except Exception as error:  # noqa: BLE001 - the outermost frame of a call
            flow.refused(RESOURCE, error)
            fate, code, text = _failure(error)
            reply = _body(retcode=fate, retmsg=text)
        finally:
            counted.finish(began, code)
        return wire.Packet(header=packet.header, body=wire.Data(key=packet.body.key, value=reply))

    async def answer(self, packet: wire.Packet, caller: str) -> bytes:
        """Raises what the caller did wrong."""
        await self._side.signatures.take(packet)
        header, party = packet.header, self._side.settings.party
        if header.src.partyId != caller:
            raise NotAllowedError(f"the packet says it is from party {header.src.partyId!r}, it comes from {caller!r}")
        self._side.flow.take(RESOURCE, 1)  # not before: strangers reach the HTTP port, and would use up the rule
        if header.dst.partyId != party:
            raise _ElsewhereError(f"the packet is for party {header.dst.partyId!r}, this is {party!r}")
        if header.command.name not in {SINGLE, BATCH, TREE}:
            raise _UnsupportedError(f"command {header.command.name!r} is none of {SINGLE}, {BATCH}, {TREE}")
        asked = _asked(packet.body.value)
        first_line = _is_first_line(header.operator)
        handle = self._handle(_name(packet, asked, first_line))
        self._side.host.check_guest(handle.id, caller)
        if header.command.name == BATCH:
            return await self._batch(handle, asked.batch_data_list, caller)
        sent = asked.feature_id_map if first_line and asked.feature_id_map else asked.send_to_remote_feature_data
        return await self._single(handle, sent, first_line, caller)

    def _handle(self, name: FateName) -> ModelHandle:
        handle = self._side.pool.find(ModelId(name.model, name.version))
        if handle is None:
            raise UnknownNameError(f"model {name.namespace} {name.table} is not loaded at this party")
        return handle

    async def _single(self, handle: ModelHandle, sent: dict[str, Any], first_line: bool, caller: str) -> bytes:
        half, partials = await self._asked(handle, [sent], caller)
        [status], [payload] = partials.statuses, half.payloads(partials.values)
        if status is not PartyStatus.OK:
            code, text = _row_code(status)
            return _body(retcode=code, retmsg=text)
        flat = {**payload, "prob": payload["score"]} if "score" in payload else payload
        data = {half.component: payload, **(flat if first_line else {}), "retcode": int(FateCode.OK)}
        return _body(data=data)

    async def _batch(self, handle: ModelHandle, rows: Sequence[_Row], caller: str) -> bytes:
        limit = self._side.settings.limits.max_batch_rows
        if not 0 < len(rows) <= limit:
            raise LimitError(f"{len(rows)} users in one call, this party answers 1 to {limit}")
        half, partials = await self._asked(handle, [row.send_to_remote_feature_data for row in rows], caller)
        indices = [row.index for row in rows]
        if len(rows) * half.spec.width > BITS_ON_THE_LOOP:
            return await asyncio.to_thread(_batch_body, indices, half, partials)
        return _batch_body(indices, half, partials)

    async def _asked(
        self, handle: ModelHandle, sent: Sequence[dict[str, Any]], caller: str
    ) -> tuple[PartnerHalf, Partials]:
        half = await self._half(handle)
        users = [user_id_in(one, self._side.settings.fate.user_id) for one in sent]
        return half, await self._counted(handle, users, caller)

    async def _counted(self, handle: ModelHandle, users: Sequence[str], caller: str) -> Partials:
        """Each user is a row of the model, for its flow rule and its figures."""
        flow, resource, rows = self._side.flow, resource_of(named(handle)), len(users)
        try:
            flow.take(resource, rows)
            partials = await self._side.host.infer(handle.id, handle.artifact.binding_digest, users, Asker(caller))
        except Exception as error:
            flow.refused(resource, error, rows)
            raise
        answered = partials.statuses.count(PartyStatus.OK)
        flow.succeeded(resource, answered)
        flow.refused(resource, _RowError(), rows - answered)
        return partials

    async def _half(self, handle: ModelHandle) -> PartnerHalf:
        """Read once: a half never changes."""
        digest = handle.artifact.half_digest
        if digest not in self._halves:
            try:
                self._halves[digest] = await asyncio.to_thread(partner_half, handle.artifact)
            except (PartnerError, ExportError, ComponentError) as error:
                raise ConflictError(f"{handle.id}: {error}") from None
        return self._halves[digest]


class _UnsupportedError(InvalidRequestError):
    """A command that there is not."""


class _RowError(InvalidRequestError):
    """A user for whom there is no part."""


class _ElsewhereError(InvalidRequestError):
    """A packet for another party, to which there is no way from here."""


def _parse(packet: wire.Packet, raw: bytes) -> None:
    try:
        packet.ParseFromString(raw)
    except DecodeError:
        raise InvalidRequestError("the request is no Packet") from None


def _asked(raw: bytes) -> _Asked:
    try:
        return msgspec.json.decode(raw, type=_Asked)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body cannot be used: {error}") from None


def _is_first_line(operator: str) -> bool:
    version = operator.strip()
    return not (version.isascii() and version.isdigit()) or int(version[:9]) < FIRST_LINE_BELOW


def _name(packet: wire.Packet, asked: _Asked, first_line: bool) -> FateName:
    """Of this party's half, or of the guest's: both lead to one model here."""
    model, partner = packet.header.task.model, asked.partner_model_info
    try:
        if first_line and partner is not None:
            return FateName(partner.namespace, partner.name)
        return FateName(model.namespace, model.tableName)
    except FateNameError as error:
        raise InvalidRequestError(str(error)) from None


def _batch_body(indices: Sequence[int], half: PartnerHalf, partials: Partials) -> bytes:
    answers = zip(indices, partials.statuses, half.payloads(partials.values), strict=True)
    shown = [_row(index, half, status, payload) for index, status, payload in answers]
    return _body(batchDataList=shown, singleInferenceResultMap={str(row["index"]): row for row in shown})


def _row(index: int, half: PartnerHalf, status: PartyStatus, payload: Mapping[str, Any]) -> dict[str, Any]:
    if status is PartyStatus.OK:
        return {"index": index, "retcode": int(FateCode.OK), "data": {half.component: payload}}
    code, text = _row_code(status)
    return {"index": index, "retcode": code, "retmsg": text}


def _row_code(status: PartyStatus) -> tuple[int, str]:
    if status is PartyStatus.NOT_FOUND:
        return int(FateCode.HOST_FEATURE_MISSING), "the user is not known here"
    if status is PartyStatus.REJECTED:
        return int(FateCode.PROXY_AUTH), "this party may not ask about the user"
    return int(FateCode.SYSTEM), "the user's features cannot be used"


def _failure(error: Exception) -> tuple[int, Code, str]:
    fate, status, text = failure(error)
    if isinstance(error, _UnsupportedError):
        fate = int(FateCode.UNSUPPORTED)
    elif isinstance(error, _ElsewhereError):
        fate = int(FateCode.PROXY_ROUTER)
    elif isinstance(error, NotAllowedError):
        fate = int(FateCode.PROXY_AUTH)
    elif isinstance(error, FeatureSourceError):
        fate = int(FateCode.FEATURE_ADAPTOR)
    return fate, status, text


def _body(**fields: Any) -> bytes:
    return msgspec.json.encode({"retcode": 0, "retmsg": "", "caseid": "", "data": {}, "flag": 0, **fields})
