"""How calls to other parties go, as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric

from serving.peers.batching import Batcher
from serving.peers.breaker import BreakerState, Breaking
from serving.telemetry.exposition import counter, gauge, histogram


def peer_metrics(batchers: Mapping[str, Batcher], breaking: Mapping[str, Breaking]) -> Iterable[Metric]:
    """By party."""
    parties = [({"party": party}, one.figures) for party, one in batchers.items()]
    for kind, about in (
        ("batches", "Calls to a party, each for one or several requests."),
        ("rows", "Users asked for in them."),
        ("refused", "Requests rejected because too many users waited."),
        ("late", "Requests whose deadline passed before the party answered."),
    ):
        yield counter(f"tessera_peer_{kind}", about, [(who, float(getattr(one, kind))) for who, one in parties])
    failed = [({"party": party}, float(one.failed)) for party, one in breaking.items()]
    about = "Calls that the party answered too late, not at all or with a refusal, or that its breaker let not through."
    yield counter("tessera_peer_failed", about, failed)
    queued = [({"party": party}, float(one.queued_rows)) for party, one in batchers.items()]
    yield gauge("tessera_peer_queued_rows", "Users that wait for a call to the party.", queued)
    waits, calls = [(who, one.wait_s) for who, one in parties], [(who, one.call_s) for who, one in parties]
    yield histogram("tessera_peer_wait_seconds", "How long requests waited for their call.", waits)
    yield histogram("tessera_peer_call_seconds", "How long calls to a party took.", calls)
    sizes = [({"party": party}, one.sizes) for party, one in breaking.items()]
    yield histogram("tessera_peer_batch_rows", "Users in a call to a party.", sizes)
    states = (
        ({"party": party, "state": state.value}, float(one.breaker.state is state))
        for party, one in breaking.items()
        for state in BreakerState
    )
    yield gauge("tessera_peer_breaker", "1 for the state that a party's breaker is in.", states)
    opened = [({"party": party}, float(one.breaker.opened)) for party, one in breaking.items()]
    yield counter("tessera_peer_breaker_opened", "How often a party's breaker opened.", opened)
