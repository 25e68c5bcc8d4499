"""What the parts of a node count, as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sized
from typing import Protocol

from prometheus_client.metrics_core import Metric

from serving.admission import Admission
from serving.cache.counts import Counts
from serving.figures.counts import QUANTILES
from serving.figures.effects import Effects
from serving.lifecycle import ModelState
from serving.pool import ModelPool
from serving.publishing import Publishing
from serving.replicas import Replicas
from serving.shadows import Shadows
from serving.telemetry.exposition import Labels, counter, gauge, histogram
from serving.telemetry.lag import LoopLag
from serving.telemetry.served import Served, served_metrics
from serving.telemetry.stages import Stages, stage_metrics
from serving.transport import Server
from serving.warmup_schedule import WarmupSchedule


def cache_metrics(levels: Mapping[str, Counts]) -> Iterable[Metric]:
    """`levels`: counts by the level's name."""
    for kind, about in (
        ("hits", "Look-ups that were answered."),
        ("misses", "Look-ups that were not."),
        ("fills", "Entries stored."),
        ("errors", "Faults of the store."),
        ("shed", "Look-ups and writes not tried while the store was down."),
        (
            "evictions",
            "Entries that went before their end to make room; of l3 its whole server's, the same at every replica.",
        ),
    ):
        values = [({"level": level}, float(getattr(counts, kind))) for level, counts in levels.items()]
        yield counter(f"tessera_cache_{kind}", about, values)


def size_metrics(levels: Mapping[str, Sized]) -> Iterable[Metric]:
    """Of the levels in this process."""
    sizes = [({"level": level}, float(len(entries))) for level, entries in levels.items()]
    yield gauge("tessera_cache_entries", "Entries in this process.", sizes)


def model_metrics(publishing: Publishing, pool: ModelPool) -> Iterable[Metric]:
    statuses = publishing.models()
    ids = [{"model": one.life.model.model, "version": one.life.model.version} for one in statuses]
    yield gauge(
        "tessera_model_state",
        "1 for the state that a model is in.",
        [
            ({**id_, "state": state.value.lower()}, float(status.life.state is state))
            for id_, status in zip(ids, statuses, strict=True)
            for state in ModelState
        ],
    )
    yield gauge(
        "tessera_model_bytes",
        "Memory of a loaded model.",
        [(id_, float(one.handle.bytes)) for id_, one in zip(ids, statuses, strict=True) if one.handle is not None],
    )
    yield gauge(
        "tessera_app_state",
        "1 for the state that a loaded app is in.",
        [
            (
                {"app": one.life.id.name, "version": one.life.id.version, "state": state.value.lower()},
                float(one.life.state is state),
            )
            for one in publishing.apps.statuses()
            for state in (ModelState.LOADING, ModelState.READY, ModelState.FAILED)
        ],
    )
    yield gauge("tessera_pool_bytes", "Memory of all loaded models.", [({}, float(pool.held_bytes))])
    yield gauge("tessera_pool_max_bytes", "limits.pool_max_bytes.", [({}, float(pool.max_bytes))])
    waiting: list[tuple[Labels, float]] = [({}, float(pool.threads.waiting))]
    yield gauge("tessera_model_batches_waiting", "Batches that run on, or wait for, limits.model_threads.", waiting)


def row_metrics(effects: Effects) -> Iterable[Metric]:
    """Of this replica alone."""
    rows = [
        ({"service": one.service, "variant": one.variant, "shadow": str(one.shadow).lower()}, float(count))
        for one, count in effects.rows.items()
    ]
    yield counter("tessera_variant_rows", "Rows that a variant answered, with a score or not: no repeats.", rows)


def figure_metrics(effects: Effects) -> Iterable[Metric]:
    """Sums over all replicas, the same at each: average them over replicas, never add them."""
    found = effects.last
    labels = [
        {"service": one.subject.service, "variant": one.subject.variant, "shadow": str(one.subject.shadow).lower()}
        for one in found
    ]
    pairs = list(zip(labels, found, strict=True))
    yield gauge("tessera_variant_answers", "Answers of a variant.", [(who, float(one.answers)) for who, one in pairs])
    outcomes = (
        ({**who, "label": label}, float(count))
        for who, one in pairs
        for label, count in (("1", one.positives), ("0", one.negatives))
    )
    yield gauge("tessera_variant_outcomes", "Answers whose outcome is known.", outcomes)
    for name, kind, about in (
        ("tessera_variant_auc", "auc", "Area under the ROC curve."),
        ("tessera_variant_ks", "ks", "Kolmogorov and Smirnov's distance."),
        ("tessera_variant_seconds_mean", "seconds_mean", "Mean time to answer."),
        ("tessera_variant_moved", "moved", "Mean difference of a shadow to the answers given."),
    ):
        known = [(who, value) for who, one in pairs if (value := getattr(one, kind)) is not None]
        yield gauge(name, about, known)
    quantiles = (
        ({**who, "quantile": f"{share:g}"}, value)
        for who, one in pairs
        for share, value in zip(QUANTILES, one.score_quantiles, strict=False)
    )
    yield gauge("tessera_variant_score", "Quantiles of the scores.", quantiles)
    times = (
        ({**who, "quantile": quantile}, value)
        for who, one in pairs
        for quantile, value in (("0.5", one.seconds_p50), ("0.99", one.seconds_p99))
        if value is not None
    )
    yield gauge("tessera_variant_seconds", "Quantiles of the times to answer, as bounds of buckets.", times)


def budget_metrics(admission: Admission) -> Iterable[Metric]:
    """What other parties have asked of this one. Workers of a machine share the count."""
    budgets = [({"party": party}, guard.budget) for party, guard in admission.guards.items() if guard.budget]
    spent = [(who, float(budget.spent)) for who, budget in budgets]
    yield gauge("tessera_query_budget_spent", "Users and versions that a party asked about in this window.", spent)
    limits = [(who, float(budget.limit)) for who, budget in budgets]
    yield gauge("tessera_query_budget_limit", "peers.ID.budget.", limits)
    refused = [(who, float(budget.refused)) for who, budget in budgets]
    yield counter("tessera_query_budget_rejected_rows", "Rows over the budget.", refused)


def connection_metrics(servers: Mapping[str, Server]) -> Iterable[Metric]:
    """`servers` by the names of their ports."""
    closed = [
        ({"port": port, "reason": reason}, float(count))
        for port, server in servers.items()
        for reason, count in server.closings().items()
    ]
    yield counter("tessera_connections_closed", "Connections that this side closed, and why.", closed)


class Counting(Protocol):
    """What a pipeline counts."""

    stages: Stages
    served: Served
    shadows: Shadows


def pipeline_metrics(counted: Counting) -> Iterable[Metric]:
    yield from stage_metrics(counted.stages)
    yield from served_metrics(counted.served)
    left_out: list[tuple[Labels, float]] = [({}, float(counted.shadows.left_out))]
    yield counter("tessera_shadows_left_out", "Calls that were not shadowed: no room, or it failed.", left_out)


def replica_metrics(replicas: Replicas) -> Iterable[Metric]:
    reachable, revision = float(not replicas.problem), float(replicas.followed)
    yield gauge(
        "tessera_control_store_up", "1 while the state that replicas share is in reach and followed.", [({}, reachable)]
    )
    yield gauge("tessera_state_revision", "Of the wanted state that this replica follows.", [({}, revision)])


def hold_metrics(publishing: Publishing) -> Iterable[Metric]:
    """Those of other parties here, which replicas share, and this one's at its hosts."""
    parties = Counter(hold.party for hold in publishing.holds.granted)
    held = [({"party": party}, float(count)) for party, count in sorted(parties.items())]
    yield gauge("tessera_holds", "Versions that another party needs here, once for each of its services.", held)
    expired: list[tuple[Labels, float]] = [({}, float(publishing.holds.expired))]
    yield counter("tessera_holds_expired", "Holds that another party let expire here: it lost its way here.", expired)
    refused: list[tuple[Labels, float]] = [({}, float(publishing.host_holds.refused))]
    yield counter("tessera_hold_renewals_refused", "Renewals that a host did not grant, or did not answer.", refused)


def lag_metrics(lag: LoopLag) -> Iterable[Metric]:
    yield histogram("tessera_event_loop_lag_seconds", "How late the event loop was.", [({}, lag.seconds)])


def warmup_metrics(schedule: WarmupSchedule) -> Iterable[Metric]:
    """Of the node's own schedule. The last run is told by every replica, users by the one that asked for them."""
    if not schedule.is_on:
        return
    last = schedule.last
    yield gauge("tessera_warmup_running", "1 while this replica warms the caches.", [({}, float(schedule.running))])
    users = [({"outcome": outcome}, float(count)) for outcome, count in sorted(schedule.users.items())]
    yield counter("tessera_warmup_users", "Users asked for by this replica.", users)
    if last.ended_s:
        ended: list[tuple[Labels, float]] = [({}, last.ended_s)]
        yield gauge("tessera_warmup_last_run_timestamp_seconds", "When the last run ended, Unix time.", ended)
        stopped = [({"service": name}, float(name in last.stopped)) for name in last.services]
        yield gauge("tessera_warmup_last_run_stopped", "1 when it did not come to its end: see the log.", stopped)
        fetched = [({"service": name}, float(one.progress.fetched)) for name, one in last.services.items()]
        yield gauge("tessera_warmup_last_run_fetched_users", "Users whose partials it fetched.", fetched)
