"""A host that runs FATE-Serving: `DataTransferService/unaryCall`, single and batch.

It loads its half by itself and holds it for as long as it likes; nothing that it sends shows which half answered.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np
from google.protobuf.message import DecodeError

from apps.app import PartyStatus
from loaders.fate.component import ComponentError
from loaders.fate.export import ExportError
from loaders.fate.names import FateName, name_in
from loaders.fate.partner import PartnerError, PayloadReader, payload_reader
from loaders.loader import LoadError, PartialSpec
from serving.errors import PeerUnavailableError
from serving.holds import Holder
from serving.lifecycle import LoadState, ReplicaOutcome
from serving.peers.occasions import Occasion, Occasions
from serving.peers.peer import LATE, MAX_REASON, Peer, PeerAnswer, failed, failed_call, first_of
from serving.peers.signing import sign
from serving.peers.status import PeerStatus
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.settings import Purpose
from serving.transport import Channel, RpcError
from tessera.compat import fate_proxy_pb2 as wire

logger = logging.getLogger(__name__)

UNARY_CALL = "/com.webank.ai.fate.api.networking.proxy.DataTransferService/unaryCall"
SINGLE, BATCH = "federatedInference", "batch"
VERSION = "216"
"""That of FATE-Serving 2.1.6, whose packets these are."""
ROWS_AT_ONCE = 300
"""What FATE-Serving's hosts answer in one call, as they are shipped."""
BITS_ON_THE_LOOP = 2_000
"""Longer replies are read in a thread: JSON has a word per bit."""
_SAID = re.compile(r"host return code (\d{1,6}) host msg :")
_UNUSABLE = (DecodeError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, PartnerError)
UNMANAGED = "it speaks FATE's protocol and loads its half by itself"

_STATUSES: Mapping[int, PartyStatus] = {
    0: PartyStatus.OK,
    104: PartyStatus.MISMATCH,
    105: PartyStatus.UNREACHABLE,
    111: PartyStatus.UNREACHABLE,
    113: PartyStatus.NOT_FOUND,
    124: PartyStatus.REJECTED,
    125: PartyStatus.MISMATCH,
    127: PartyStatus.REJECTED,
    605: PartyStatus.UNREACHABLE,
    628: PartyStatus.UNREACHABLE,
    629: PartyStatus.REJECTED,
}
"""By return code; INTERNAL for the rest. Proxies add 500 to codes of their own."""


class _Row(msgspec.Struct, rename="camel"):
    index: int
    retcode: int
    retmsg: str | None = None
    data: dict[str, Any] | None = None


class _Reply(msgspec.Struct, rename="camel"):
    retcode: int
    retmsg: str | None = None
    data: dict[str, Any] | None = None
    batch_data_list: list[_Row] | None = None


@dataclass(frozen=True, slots=True)
class Sender:
    """This party as its packets show it. `user_id`: the name under which a user's id travels. `app_key` empty: packets
    are not signed. `occasions`: what the callers of running calls say, which packets repeat."""

    party: str
    user_id: str
    app_key: str = ""
    secret: bytes = b""
    occasions: Occasions = field(default_factory=partial(Occasions, asked_for=True))


@dataclass(frozen=True, slots=True)
class _Half:
    """What calls for one model need of the guest's half."""

    name: FateName
    reader: PayloadReader


class FatePeer(Peer):
    """Answers are as of any peer. `now` is Unix seconds, for signatures."""

    def __init__(
        self,
        party: str,
        channel: Channel,
        pool: ModelPool,
        sender: Sender,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(party, channel, clock)
        self._pool = pool
        self._sender = sender
        self._now = now
        self._halves: dict[str, _Half] = {}

    async def infer(
        self,
        model: ModelId,
        binding_digest: str,
        user_ids: Sequence[str],
        wanted: PartialSpec,
        deadline: float,
        purpose: Purpose = Purpose.INFER,
    ) -> PeerAnswer:
        """This peer's partials, only for answers: the protocol cannot say what else they are for, so that the host
        could refuse it. Never raises for what the peer or the network does."""
        if purpose is not Purpose.INFER:
            return failed(PartyStatus.REJECTED, len(user_ids), wanted, f"FATE's protocol has no {purpose.value}")
        handle = self._pool.find(model)
        if handle is None:
            return failed(PartyStatus.MISMATCH, len(user_ids), wanted, f"{model} is not loaded at this party")
        try:
            half = await self._half(handle)
        except (PartnerError, ExportError, ComponentError, LoadError) as error:
            return failed(PartyStatus.MISMATCH, len(user_ids), wanted, str(error))
        except OSError:
            logger.exception("the files of %s cannot be read", model)
            return failed(PartyStatus.INTERNAL, len(user_ids), wanted, f"the files of {model} cannot be read here")
        packets = list(self._packets(model, user_ids))
        told = [([user_ids[place] for place in places], occasion) for occasion, places in packets]
        parts = await asyncio.gather(*(self._ask_part(half, *one, wanted, deadline) for one in told))
        return _joined(parts, [place for _, places in packets for place in places])

    async def status(self, models: Sequence[tuple[ModelId, str]], timeout_s: float) -> PeerStatus:
        raise PeerUnavailableError(f"unmanaged: {UNMANAGED}")

    async def load(self, model: ModelId, binding_digest: str, timeout_s: float) -> list[ReplicaOutcome]:
        return [ReplicaOutcome(self.party, "", LoadState.UNMANAGED, UNMANAGED)]

    async def hold(
        self, holder: Holder, model: ModelId, binding_digest: str, ttl_s: int, replaces: str | None = None
    ) -> None:
        """There are no holds there."""

    async def release(self, holder: Holder, model: ModelId) -> None:
        """There are no holds there."""

    async def _half(self, handle: ModelHandle) -> _Half:
        """Read once: a half never changes. Raises PartnerError for a model that is none of FATE's."""
        digest = handle.artifact.half_digest
        if digest not in self._halves:
            name = name_in(handle.artifact.manifest.provenance)
            if name is None:
                raise PartnerError(f"{handle.id} is no model of FATE, and party {self.party!r} knows no others")
            reader = await asyncio.to_thread(payload_reader, handle.artifact, self.party)
            self._halves[digest] = _Half(FateName(f"host#{self.party}#{name.model_id}", name.table), reader)
        return self._halves[digest]

    def _packets(self, model: ModelId, user_ids: Sequence[str]) -> Iterator[tuple[Occasion, Sequence[int]]]:
        """The places of the users in packets, none larger than such hosts take."""
        for occasion, places in self._sender.occasions.by_packet(model, user_ids).items():
            for start in range(0, len(places), ROWS_AT_ONCE):
                yield occasion, places[start : start + ROWS_AT_ONCE]

    async def _ask_part(
        self, half: _Half, user_ids: Sequence[str], occasion: Occasion, wanted: PartialSpec, deadline: float
    ) -> PeerAnswer:
        left_s = deadline - self._clock()
        if left_s <= 0:
            return failed(PartyStatus.TIMEOUT, len(user_ids), wanted, LATE)
        try:
            packet = self._packet(half.name, user_ids, occasion)
        except RecursionError:
            return failed(PartyStatus.REJECTED, len(user_ids), wanted, "a user is named by values that go too deep")
        try:
            raw = await self._channel.unary(UNARY_CALL, packet.SerializeToString(), left_s)
            if len(user_ids) * wanted.width > BITS_ON_THE_LOOP:
                return await asyncio.to_thread(_answer, raw, half.reader, len(user_ids), wanted)
            return _answer(raw, half.reader, len(user_ids), wanted)
        except RpcError as error:
            return failed_call(error, len(user_ids), wanted)
        except _UNUSABLE as error:
            return failed(PartyStatus.MISMATCH, len(user_ids), wanted, f"its reply cannot be used: {error}")

    def _packet(self, name: FateName, user_ids: Sequence[str], occasion: Occasion) -> wire.Packet:
        case, sender = secrets.token_hex(16), self._sender
        packet = wire.Packet(
            header=wire.Metadata(
                task=wire.Task(model=wire.Model(namespace=name.namespace, tableName=name.table)),
                src=wire.Topic(name="partnerPartyName", partyId=sender.party, role="serving"),
                dst=wire.Topic(name="partyName", partyId=self.party, role="serving"),
                command=wire.Command(name=SINGLE if len(user_ids) == 1 else BATCH),
                operator=VERSION,
            ),
            body=wire.Data(value=msgspec.json.encode(self._body(name, user_ids, case))),
            auth=wire.AuthInfo(
                applyId=occasion.apply_id, nonce=occasion.case or case, version=VERSION, serviceId=occasion.service
            ),
        )
        if sender.app_key:
            sign(packet, sender.app_key, sender.secret, self._now())
        return packet

    def _body(self, name: FateName, user_ids: Sequence[str], case: str) -> dict[str, Any]:
        common = {"caseId": case, "seqno": secrets.token_hex(16)}
        rows = [
            {"featureData": {}, "sendToRemoteFeatureData": _sent(user_id, self._sender.user_id)} for user_id in user_ids
        ]
        if len(rows) == 1:
            return {**common, **rows[0]}
        return {
            **common,
            "hostTableName": name.table,
            "hostNamespace": name.namespace,
            "guestPartyId": self._sender.party,
            "hostPartyId": self.party,
            "batchDataList": [{"index": index, "needCheckFeature": False, **row} for index, row in enumerate(rows)],
        }


def _sent(user_id: str, name: str) -> dict[str, Any]:
    """A user that the caller named by several values is their JSON; the values travel."""
    if user_id.startswith("{"):
        try:
            return msgspec.json.decode(user_id, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            return {name: user_id}
    return {name: user_id}


def _answer(raw: bytes, reader: PayloadReader, rows: int, wanted: PartialSpec) -> PeerAnswer:
    """Raises one of `_UNUSABLE` for a reply that is so."""
    reply = msgspec.json.decode(wire.Packet.FromString(raw).body.value, type=_Reply, strict=False)
    if reply.retcode:
        return failed(status_of(reply.retcode), rows, wanted, _said(reply))
    if reply.batch_data_list is None and rows == 1:
        return PeerAnswer(_partial(reader, reply.data, wanted), [PartyStatus.OK], None)
    found = {row.index: row for row in reply.batch_data_list or ()}
    missing = _Row(index=-1, retcode=-1, retmsg="the reply lacks rows")
    answered = [found.get(index, missing) for index in range(rows)]
    values = [wanted.blank(1) if row.retcode else _partial(reader, row.data, wanted) for row in answered]
    reasons = ["" if row.retcode in {0, 113} else _said(row) for row in answered]
    statuses = [status_of(row.retcode) for row in answered]
    return PeerAnswer(np.concatenate(values), statuses, None, first_of(reasons), reasons=reasons)


def _partial(reader: PayloadReader, answered: Mapping[str, Any] | None, wanted: PartialSpec) -> Any:
    partial = reader.partial(answered or {})
    if partial.shape[1] != wanted.columns:
        raise PartnerError(f"{partial.shape[1]} values where the guest's half takes {wanted.columns}")
    return partial


def status_of(retcode: int) -> PartyStatus:
    """What a host's return code means."""
    return _STATUSES.get(retcode, PartyStatus.INTERNAL)


def said(retcode: int, text: str) -> str:
    """A host's code as FATE-Serving's guests word it."""
    return f"host return code {retcode} host msg :{text}"


def retcode_in(reason: str) -> int | None:
    """The code in a text of `said`; None for any other text."""
    found = _SAID.match(reason)
    return int(found[1]) if found else None


def _said(reply: _Reply | _Row) -> str:
    return said(reply.retcode, (reply.retmsg or "")[:MAX_REASON])


def _failed_whole(answer: PeerAnswer) -> bool:
    return bool(answer.reason) and not answer.reasons


def _joined(parts: Sequence[PeerAnswer], places: Sequence[int]) -> PeerAnswer:
    """`places`: those of the rows of all parts, one after the other, in what was asked for."""
    if len(parts) == 1:
        return parts[0]
    if len({(part.statuses[0], part.reason, bool(part.reasons)) for part in parts}) == 1 and _failed_whole(parts[0]):
        values = np.concatenate([part.values for part in parts])
        return PeerAnswer(values, [parts[0].statuses[0]] * len(places), None, parts[0].reason)
    rows = np.argsort(places)
    statuses = [status for part in parts for status in part.statuses]
    reasons = [reason for part in parts for reason in part.reasons or [part.reason] * len(part.statuses)]
    values = np.concatenate([part.values for part in parts])[rows]
    reasons = [reasons[row] for row in rows]
    return PeerAnswer(values, [statuses[row] for row in rows], None, first_of(reasons), reasons=reasons)
