"""Asks another party how it stands: protocol, clock, and its halves of the versions that this party is guest of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from serving.errors import PeerUnavailableError
from serving.host import HalfState
from serving.pool import ModelId
from serving.transport import Channel, Code, RpcError
from tessera.v1 import federation_pb2 as wire

STATUS = "/tessera.v1.Federation/Status"


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """`skew_s`: its clock minus ours, known to within `round_trip_s`. `caller`: the party that it takes us for."""

    protocol: tuple[int, int]
    software: str
    caller: str
    skew_s: float
    round_trip_s: float
    halves: tuple[HalfState, ...]


async def ask_status(
    link: Channel,
    models: Sequence[tuple[ModelId, str]],
    timeout_s: float,
    clock: Callable[[], float] = time.time,
) -> PeerStatus:
    """`models` with their binding digests (hex). Raises RpcError, PeerUnavailableError for a reply of no use."""
    refs = [
        wire.ModelRef(model=model.model, version=model.version, binding_digest=bytes.fromhex(digest))
        for model, digest in models
    ]
    began_s = clock()
    raw = await link.unary(STATUS, wire.StatusRequest(models=refs).SerializeToString(), timeout_s)
    ended_s = clock()
    try:
        reply = wire.StatusReply.FromString(raw)
        halves = tuple(HalfState(state) for state in reply.halves)
    except (DecodeError, ValueError):
        raise PeerUnavailableError("its reply to Status cannot be used") from None
    if len(halves) != len(models):
        raise PeerUnavailableError(f"its reply to Status names {len(halves)} versions of {len(models)}")
    return PeerStatus(
        protocol=(reply.protocol.major, reply.protocol.minor),
        software=reply.software,
        caller=reply.caller,
        skew_s=reply.time_ms / 1_000 - (began_s + ended_s) / 2,
        round_trip_s=ended_s - began_s,
        halves=halves,
    )


def refusal(error: RpcError) -> str:
    """Why another party does not tell how it stands."""
    match error.code:
        case Code.UNAVAILABLE | Code.DEADLINE_EXCEEDED:
            return f"does not answer at its address: {error.details}"
        case Code.PERMISSION_DENIED | Code.UNAUTHENTICATED:
            return f"does not take us for a party it knows: {error.details}"
        case Code.UNIMPLEMENTED:
            return "something else than a party port of this version answers there"
        case _:
            return f"{error.code.name}: {error.details}"
