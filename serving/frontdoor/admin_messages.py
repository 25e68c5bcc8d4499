"""What operators look at, as messages of tessera.v1.Admin."""

from __future__ import annotations

from collections.abc import Iterable

from serving.app_publishing import AppStatus
from serving.figures.counts import VariantFigures
from serving.frontdoor.answer import enum_value
from serving.peer_book import PeerView
from tessera.v1 import admin_pb2 as wire


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
