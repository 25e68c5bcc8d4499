"""What the parts of a node count, as a scrape shows it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from apps.catalog import make_app
from serving.admission import Asker, make_admission
from serving.errors import LimitError
from serving.figures.effects import Effects
from serving.figures.store import MemoryFigureStore
from serving.limits import make_limiter
from serving.pool import ModelId
from serving.readings import (
    budget_metrics,
    connection_metrics,
    figure_metrics,
    pipeline_metrics,
    row_metrics,
    size_metrics,
)
from serving.routing import Target
from serving.settings import PeerSettings, Settings
from serving.shadows import Shadows
from serving.telemetry.exposition import Exposition, Reading
from serving.telemetry.served import Served
from serving.telemetry.stages import Stages
from serving.transport import Transport, server
from serving.transport.closing import Closing
from serving.transport.native_server import NativeServer

M, APP = ModelId("m", "1"), make_app("passthrough")


def shown(reading: Reading) -> list[str]:
    lines = Exposition((reading,)).text().decode().splitlines()
    return [line for line in lines if line.startswith("tessera_") and "build_info" not in line]


async def test_variants() -> None:
    effects = Effects(MemoryFigureStore(), b"s" * 32)
    target = Target(M, APP, "m:1", "credit", 1)
    made = [effects.answered(target, np.array([[score]]), [0.5], attributed=True)[0] for score in (-0.25, 3.1)]
    await effects.feedback([(made[0], 0.0), (made[1], 1.0)])
    assert shown(partial(figure_metrics, effects)) == []
    await effects.figures()
    lines = shown(partial(figure_metrics, effects))
    who = 'service="credit",shadow="false",variant="m:1"'
    assert f"tessera_variant_answers{{{who}}} 2.0" in lines
    assert f'tessera_variant_outcomes{{label="1",{who}}} 1.0' in lines
    assert f"tessera_variant_auc{{{who}}} 1.0" in lines
    assert f"tessera_variant_seconds_mean{{{who}}} 0.5" in lines
    assert sum("tessera_variant_score{" in line for line in lines) == 5
    assert [one for one in lines if one.startswith("tessera_variant_seconds{")] == [
        f'tessera_variant_seconds{{quantile="{share}",service="credit",shadow="false",variant="m:1"}} 0.5'
        for share in ("0.5", "0.99")
    ]
    assert not any("tessera_variant_moved" in line for line in lines)


async def test_rows_of_a_variant_are_counted_with_a_score_or_not() -> None:
    effects = Effects(MemoryFigureStore(), b"s" * 32)
    assert shown(partial(row_metrics, effects)) == []
    target = Target(M, APP, "m:1", "credit", 1)
    for scores in ([[0.1], [np.nan]], [[0.3]]):
        effects.answered(target, np.array(scores), [0.5] * len(scores), attributed=False)
    await effects.figures()  # what was counted goes into the party's sums; a counter goes on
    effects.shadowed("credit", "m:2", np.array([[0.1]]), np.array([[0.2]]), 0.5)
    assert shown(partial(row_metrics, effects)) == [
        'tessera_variant_rows_total{service="credit",shadow="false",variant="m:1"} 3.0',
        'tessera_variant_rows_total{service="credit",shadow="true",variant="m:2"} 1.0',
    ]


def test_sizes() -> None:
    assert shown(partial(size_metrics, {"l1": [1, 2], "l2": {}})) == [
        'tessera_cache_entries{level="l1"} 2.0',
        'tessera_cache_entries{level="l2"} 0.0',
    ]


def test_budgets(tmp_path: Path) -> None:
    peers = {"bank": PeerSettings(budget=2), "bakery": PeerSettings()}
    settings = Settings(party="shop", state_dir=str(tmp_path), registry="", peers=peers)
    admission = make_admission(settings, b"s" * 32, make_limiter(settings).parties)
    admission.admit(Asker("bank"), M, ["u1", "u2", "u3"])
    with pytest.raises(LimitError):
        admission.admit(Asker("bank"), M, ["u4"])
    assert shown(partial(budget_metrics, admission)) == [
        'tessera_query_budget_spent{party="bank"} 2.0',
        'tessera_query_budget_limit{party="bank"} 2.0',
        'tessera_query_budget_rejected_rows_total{party="bank"} 2.0',
    ]


def test_shadows() -> None:
    effects = Effects(MemoryFigureStore(), b"s" * 32)
    shadows = Shadows(lambda target, request: None, effects, time.monotonic)  # type: ignore[arg-type, return-value]
    shadows.left_out = 3
    counted = SimpleNamespace(stages=Stages(), served=Served(), shadows=shadows)
    assert shown(partial(pipeline_metrics, counted))[-1] == "tessera_shadows_left_out_total 3.0"


async def test_closed_connections() -> None:
    made, other = server(Transport.NATIVE), server(Transport.GRPCIO)
    assert isinstance(made, NativeServer)
    made.count(Closing.SILENT)
    made.count(Closing.SILENT)
    assert shown(partial(connection_metrics, {"service": made, "party": other})) == [
        'tessera_connections_closed_total{port="service",reason="silent"} 2.0'
    ]
    await other.stop(0)
