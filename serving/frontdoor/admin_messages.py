"""What operators look at, as messages of tessera.v1.Admin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from serving.app_publishing import AppStatus
from serving.errors import InvalidRequestError
from serving.figures.counts import VariantFigures
from serving.frontdoor.answer import enum_value
from serving.lifecycle import ModelState
from serving.limit_kind import LimitKind
from serving.limits import LimitStatus
from serving.peer_book import PeerView
from serving.pool import ModelId
from serving.publishing import ModelStatus
from serving.reports import ReplicaModel, ReplicaReport
from serving.settings import RateLimit
from tessera.v1 import admin_pb2 as wire

_KIND = "LIMIT_KIND_"
_BOUNDS = ("per_s", "burst", "concurrent")


def model_list(here: Iterable[ModelStatus], heard: Sequence[ReplicaReport]) -> wire.ListModelsReply:
    """`heard`: what all replicas say, this one among them."""
    known = {one.life.model: _model_status(one) for one in here}
    for model in {ModelId(*name.split("/", 1)) for report in heard for name in report.models} - known.keys():
        known[model] = wire.ModelStatus(model=model.model, version=model.version, state=ModelState.NEW.value)
    for model, message in known.items():
        said = [(report, report.models[str(model)]) for report in heard if str(model) in report.models]
        message.replicas.extend(_replica_state(*one) for one in said)
    return wire.ListModelsReply(models=[known[model] for model in sorted(known)])


def _model_status(status: ModelStatus) -> wire.ModelStatus:
    life, handle = status.life, status.handle
    message = wire.ModelStatus(
        model=life.model.model,
        version=life.model.version,
        state=life.state.value,
        reason=life.reason,
        since_ms=int(1_000 * life.since_s),
        held_by=status.held_by,
    )
    if handle is not None:
        message.role = handle.artifact.manifest.role
        message.format = handle.artifact.manifest.format
        message.bytes = handle.bytes
        message.binding_digest = bytes.fromhex(handle.artifact.binding_digest)
    return message


def _replica_state(report: ReplicaReport, said: ReplicaModel) -> wire.ReplicaState:
    return wire.ReplicaState(
        replica=report.replica,
        generation=report.generation,
        state=said.state,
        reason=said.reason,
        binding_digest=bytes.fromhex(said.binding_digest),
        age_ms=int(1_000 * report.age_s),
    )


def figures_message(one: VariantFigures) -> wire.VariantFigures:
    return wire.VariantFigures(
        service=one.subject.service,
        variant=one.subject.variant,
        shadow=one.subject.shadow,
        answers=one.answers,
        positives=one.positives,
        negatives=one.negatives,
        auc=one.auc,
        auc_error=one.auc_error,
        ks=one.ks,
        score_quantiles=one.score_quantiles,
        seconds_mean=one.seconds_mean,
        seconds_p50=one.seconds_p50,
        seconds_p99=one.seconds_p99,
        moved=one.moved,
    )


def peer_message(view: PeerView) -> wire.PeerState:
    message = wire.PeerState(
        party=view.party,
        address=view.settings.address,
        problem=view.problem,
        halves=[
            wire.PeerHalf(model=model.model, version=model.version, state=enum_value(state))
            for model, state in sorted(view.halves.items())
        ],
        may_load=view.settings.may_load,
        purposes=[purpose.value for purpose in view.purposes],
        users=view.users,
    )
    if view.status is not None:
        message.round_trip_s = view.status.round_trip_s
        message.protocol = ".".join(map(str, view.status.protocol))
        message.software = view.status.software
        message.takes_us_for = view.status.caller
    if view.spending is not None:
        message.budget, message.spent, message.refused = view.spending.limit, view.spending.spent, view.spending.refused
        message.window_s, message.window_ends_ms = view.spending.window_s, int(1_000 * view.spending.ends_s)
    return message


def limit_kind(kind: wire.LimitKind) -> LimitKind:
    """Raises InvalidRequestError."""
    name = wire.LimitKind.Name(kind).removeprefix(_KIND) if kind in wire.LimitKind.values() else ""
    if name not in LimitKind.__members__:
        raise InvalidRequestError(f"say what is limited: {', '.join(one.value for one in LimitKind)}")
    return LimitKind[name]


def limit_in(message: wire.Limit) -> RateLimit:
    """As it stands: nothing is checked."""
    bounds = {name: getattr(message, name) for name in _BOUNDS if message.HasField(name)}
    return RateLimit(**bounds, across_nodes=message.across_nodes)


def limit_message(status: LimitStatus) -> wire.LimitStatus:
    message = wire.LimitStatus(
        kind=getattr(wire, _KIND + status.kind.name),
        name=status.name,
        limit=_limit(status.limit),
        is_set=status.is_set,
    )
    if status.settings is not None:
        message.settings.CopyFrom(_limit(status.settings))
    return message


def _limit(limit: RateLimit) -> wire.Limit:
    return wire.Limit(**msgspec.structs.asdict(limit))


def app_list(built_in: Iterable[str], loaded: Iterable[AppStatus]) -> wire.ListAppsReply:
    apps = [wire.AppStatus(name=name, state="BUILT_IN") for name in built_in]
    return wire.ListAppsReply(apps=[*apps, *map(_app_status, loaded)])


def _app_status(status: AppStatus) -> wire.AppStatus:
    life = status.life
    return wire.AppStatus(
        name=life.id.name,
        version=life.id.version,
        state=life.state.value,
        reason=life.reason,
        since_ms=int(1_000 * life.since_s),
        digest=bytes.fromhex(life.digest),
        used_by=status.used_by,
    )
