"""Another party as this one sees it: one call per batch, a typed result, never half an exception."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from google.protobuf.message import DecodeError, Message

from apps.app import PartyStatus
from loaders.loader import Partial, PartialForm, PartialSpec
from loaders.signature import all_finite
from serving.errors import PeerUnavailableError
from serving.holds import Holder
from serving.lifecycle import LoadState, ReplicaOutcome
from serving.peers.status import PeerStatus, ask_status
from serving.pool import ModelId
from serving.settings import Purpose
from serving.transport import Channel, Code, RpcError
from tessera.v1 import federation_pb2 as wire

PROTOCOL = wire.Protocol(major=1, minor=0)

_SERVICE = "/tessera.v1.Federation"

FIELDS = {PartialForm.NUMBERS: "partials", PartialForm.DIRECTIONS: "directions", PartialForm.LEAVES: "leaves"}
"""Where a reply carries partials of each form."""
_FORMS = tuple(FIELDS)

HOLD_TIMEOUT_S = 5.0
LATE = "no answer within the deadline"
MAX_REASON = 300

_STATUS = {
    Code.DEADLINE_EXCEEDED: PartyStatus.TIMEOUT,
    Code.UNAVAILABLE: PartyStatus.UNREACHABLE,
    Code.FAILED_PRECONDITION: PartyStatus.MISMATCH,
    Code.UNIMPLEMENTED: PartyStatus.MISMATCH,
    Code.PERMISSION_DENIED: PartyStatus.REJECTED,
    Code.UNAUTHENTICATED: PartyStatus.REJECTED,
    Code.RESOURCE_EXHAUSTED: PartyStatus.REJECTED,
    Code.NOT_FOUND: PartyStatus.REJECTED,
}
NO_MODEL, OVER_LIMIT = "rejected, no such model", "rejected, over a limit"
"""What a reason begins with when a call was refused for one of these."""
_REFUSED = {Code.NOT_FOUND: NO_MODEL, Code.RESOURCE_EXHAUSTED: OVER_LIMIT}
_STATUSES = tuple(PartyStatus)
_WORST = max(PartyStatus)
_OWN_TEXT = {PartyStatus.TIMEOUT: LATE, PartyStatus.UNREACHABLE: "unreachable"}
"""Said instead of what the transport says, which names addresses."""


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """Partials of a batch as the peer sent them: `values` as wanted, blank where the status is not OK, one status per
    row, `max_age_ms` per row or None for no limit. A call that failed has its status in every row, and `reason` says
    why; `reasons`: of each row, where rows have their own, and `reason` is the first. `retry_after_s`: when it was
    refused for want of room, when it may pass."""

    values: Partial
    statuses: Sequence[PartyStatus]
    max_age_ms: Sequence[int] | None
    reason: str = ""
    retry_after_s: float | None = None
    reasons: Sequence[str] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every row is OK."""
        return not any(self.statuses)

    def part(self, start: int, end: int) -> PeerAnswer:
        """Of these rows."""
        ages = None if self.max_age_ms is None else self.max_age_ms[start:end]
        reasons = self.reasons[start:end]
        reason = first_of(reasons) if reasons else self.reason
        return PeerAnswer(self.values[start:end], self.statuses[start:end], ages, reason, self.retry_after_s, reasons)


@dataclass(frozen=True, slots=True)
class Ask:
    """One call for partials. `attempt_id`: 16 random bytes, the same when it goes to another address too."""

    model: ModelId
    binding_digest: str
    user_ids: Sequence[str]
    wanted: PartialSpec
    purpose: Purpose
    attempt_id: bytes


class Peer:
    """`clock` is monotonic seconds, as deadlines are."""

    def __init__(self, party: str, channel: Channel, clock: Callable[[], float] = time.monotonic) -> None:
        self.party = party
        self._channel = channel
        self._clock = clock

    async def infer(
        self,
        model: ModelId,
        binding_digest: str,
        user_ids: Sequence[str],
        wanted: PartialSpec,
        deadline: float,
        purpose: Purpose = Purpose.INFER,
    ) -> PeerAnswer:
        """This peer's partials. Never raises for what the peer or the network does."""
        ask = Ask(model, binding_digest, user_ids, wanted, purpose, secrets.token_bytes(16))
        return await self.attempt(ask, deadline)

    async def attempt(self, ask: Ask, deadline: float) -> PeerAnswer:
        """The same, for who says which attempt it is."""
        rows, wanted, left_s = len(ask.user_ids), ask.wanted, deadline - self._clock()
        if left_s <= 0:
            return failed(PartyStatus.TIMEOUT, rows, wanted, LATE)
        own = wire.InferRequest(attempt_id=ask.attempt_id, user_ids=ask.user_ids)
        request = _shared(ask.model, ask.binding_digest, ask.purpose) + own.SerializeToString()
        try:
            raw = await self._channel.unary(f"{_SERVICE}/Infer", request, left_s)
            return _answer(wire.InferReply.FromString(raw), rows, ask.binding_digest, wanted)
        except RpcError as error:
            return failed_call(error, rows, wanted)
        except (DecodeError, _ReplyError) as error:
            return failed(PartyStatus.MISMATCH, rows, wanted, f"its reply cannot be used: {error}")

    async def load(self, model: ModelId, binding_digest: str, timeout_s: float) -> list[ReplicaOutcome]:
        request = wire.LoadRequest(
            model=model.model, version=model.version, binding_digest=bytes.fromhex(binding_digest)
        )
        raw = await self._ask("Load", request, timeout_s)
        try:
            replicas = wire.LoadReply.FromString(raw).replicas
            return [ReplicaOutcome(self.party, one.replica, LoadState(one.state), one.reason) for one in replicas]
        except (DecodeError, ValueError):
            raise PeerUnavailableError(f"party {self.party!r}: its reply to Load cannot be used") from None

    async def hold(
        self, holder: Holder, model: ModelId, binding_digest: str, ttl_s: int, replaces: str | None = None
    ) -> None:
        request = wire.HoldRequest(
            model=model.model,
            version=model.version,
            binding_digest=bytes.fromhex(binding_digest),
            revision=holder.revision,
            ttl_s=ttl_s,
            service=holder.service,
            publish=holder.publish,
            replaces=replaces,
        )
        await self._ask("Hold", request, HOLD_TIMEOUT_S)

    async def release(self, holder: Holder, model: ModelId) -> None:
        request = wire.ReleaseRequest(
            model=model.model, version=model.version, service=holder.service, publish=holder.publish
        )
        await self._ask("Release", request, HOLD_TIMEOUT_S)

    async def status(self, models: Sequence[tuple[ModelId, str]], timeout_s: float) -> PeerStatus:
        """How it stands, for `models` with their binding digests. Raises RpcError or PeerUnavailableError."""
        return await ask_status(self._channel, models, timeout_s)

    async def close(self) -> None:
        await self._channel.close()

    async def _ask(self, method: str, request: Message, timeout_s: float) -> bytes:
        try:
            return await self._channel.unary(f"{_SERVICE}/{method}", request.SerializeToString(), timeout_s)
        except RpcError as error:
            raise PeerUnavailableError(f"party {self.party!r}: {_reason(error)}") from None


class _ReplyError(Exception):
    """A reply that does not keep to the protocol."""


@lru_cache(maxsize=256)
def _shared(model: ModelId, binding_digest: str, purpose: Purpose) -> bytes:
    """What requests for one half have in common. The parts of a message, one after the other, are the message."""
    message = wire.InferRequest(
        protocol=PROTOCOL,
        model=model.model,
        version=model.version,
        binding_digest=bytes.fromhex(binding_digest),
        purpose=f"PURPOSE_{purpose.name}",
    )
    return message.SerializeToString()


def _answer(reply: wire.InferReply, rows: int, binding_digest: str, wanted: PartialSpec) -> PeerAnswer:
    if reply.protocol.major != PROTOCOL.major:
        raise _ReplyError(f"protocol {reply.protocol.major}, ours is {PROTOCOL.major}")
    if reply.binding_digest.hex() != binding_digest:
        raise _ReplyError(f"binding {reply.binding_digest.hex()}, ours is {binding_digest}")
    carried: list[bytes] = [getattr(reply, field) for field in FIELDS.values()]
    raw, statuses, ages = carried[_FORMS.index(wanted.form)], reply.statuses, reply.max_age_ms[:]
    if len(raw) != sum(map(len, carried)) or (reply.width and wanted.width and not raw):
        raise _ReplyError(f"it carries no {wanted.form.name.lower()}, or not only these")
    if reply.width != wanted.width or len(raw) != rows * wanted.row_bytes or len(statuses) != rows:
        raise _ReplyError(f"width {reply.width} and {len(raw)} bytes for {rows} rows of width {wanted.width}")
    if len(ages) not in {0, rows} or max(statuses, default=0) > _WORST:
        raise _ReplyError("ages or statuses that cannot be")
    values = wanted.unpack(raw, rows)
    if wanted.form is PartialForm.NUMBERS and not all_finite(values):
        raise _ReplyError("numbers that are not finite")
    if not any(statuses):
        return PeerAnswer(values, [PartyStatus.OK] * rows, ages or None)
    answered = np.frombuffer(statuses, np.uint8) == PartyStatus.OK
    known = [_STATUSES[status] for status in statuses]
    return PeerAnswer(np.where(answered[:, None], values, wanted.blank(1)), known, ages or None)


def first_of(reasons: Sequence[str]) -> str:
    """ "" where no row has one."""
    return next(filter(None, reasons), "")


def failed_call(error: RpcError, rows: int, wanted: PartialSpec) -> PeerAnswer:
    return failed(_STATUS.get(error.code, PartyStatus.INTERNAL), rows, wanted, _reason(error))


def failed(status: PartyStatus, rows: int, wanted: PartialSpec, reason: str) -> PeerAnswer:
    return PeerAnswer(wanted.blank(rows), [status] * rows, None, reason)


def _reason(error: RpcError) -> str:
    """Public text: the peer's own, unless it comes from the transport."""
    status = _STATUS.get(error.code, PartyStatus.INTERNAL)
    said = _REFUSED.get(error.code, status.name.lower())
    return _OWN_TEXT.get(status) or f"{said}: {error.details[:MAX_REASON] or error.code.name}"
