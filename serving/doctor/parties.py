"""What other parties say when this one asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loaders.artifact import Artifact
from serving.doctor.finding import TIMEOUT_S, Finding, Findings, Level, skew
from serving.errors import PeerUnavailableError
from serving.host import HalfState
from serving.peers.peer import PROTOCOL
from serving.peers.status import PeerStatus, ask_status, refusal
from serving.pool import ModelId
from serving.transport import Channel, RpcError
from serving.version import SOFTWARE

_HALVES = {
    HalfState.NOT_LOADED: "is not loaded there: `tessera model load` it",
    HalfState.OTHER_BINDING: "is loaded there with another binding: publish the same one at every party",
    HalfState.NO_FEATURES: "has no source for its features there: its log says which are missing",
    HalfState.NOT_YOURS: "belongs to another guest there: compare the halves' bindings",
}


_NO_TLS = "WRONG_VERSION_NUMBER"
_CLOSED = ("closed the connection", "Socket closed")
"""In what the transports say, of whoever answers a greeting with something else, or with nothing."""


async def peer(subject: str, link: Channel, models: Sequence[tuple[ModelId, str]], has_tls: bool = False) -> Findings:
    """Closes `link`. `has_tls`: whether it is one over TLS."""
    try:
        status = await ask_status(link, models, TIMEOUT_S)
    except RpcError as error:
        yield Finding(Level.ERROR, subject, f"{refusal(error)}{_cause(error, has_tls)}")
        return
    except PeerUnavailableError as error:
        yield Finding(Level.ERROR, subject, str(error))
        return
    finally:
        await link.close()
    yield Finding(Level.OK, subject, f"answers in {1_000 * status.round_trip_s:.1f} ms, takes us for {status.caller!r}")
    for finding in (_protocol(subject, status), skew(subject, status.skew_s), *_halves(subject, models, status)):
        yield finding


def _cause(error: RpcError, has_tls: bool) -> str:
    """Where the transport does not say it: what does not fit about TLS."""
    if has_tls and _NO_TLS in error.details:
        return "; this node calls with TLS, and no TLS answers there"
    if not any(one in error.details for one in _CLOSED):
        return ""
    if has_tls:
        return "; it may not trust the certificate of this node (tls.party), if it has not stopped just now"
    return "; it may want TLS, which tls.party is for, if it has not stopped just now"


def _protocol(subject: str, status: PeerStatus) -> Finding:
    own = SOFTWARE
    major, minor = status.protocol
    if major != PROTOCOL.major:
        return Finding(Level.ERROR, subject, f"speaks protocol {major}.{minor}, this node {PROTOCOL.major}")
    if status.software != own:
        return Finding(Level.OK, subject, f"runs version {status.software}, this node {own}; the protocol is the same")
    return Finding(Level.OK, subject, f"runs version {own}, protocol {major}.{minor}")


def _halves(subject: str, models: Sequence[tuple[ModelId, str]], status: PeerStatus) -> list[Finding]:
    return [
        Finding(Level.OK, subject, f"model {model} is ready there")
        if half is HalfState.READY
        else Finding(Level.ERROR, subject, f"model {model} {_HALVES[half]}")
        for (model, _), half in zip(models, status.halves, strict=True)
    ]


def shared_with(party: str, artifacts: Mapping[ModelId, Artifact]) -> list[tuple[ModelId, str]]:
    """Versions that this party is guest of and `party` host."""
    return [
        (model, artifact.binding_digest)
        for model, artifact in artifacts.items()
        if artifact.manifest.role == "guest"
        and any(half.party == party and half.role == "host" for half in artifact.manifest.binding or ())
    ]
