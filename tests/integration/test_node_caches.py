"""Levels of the caches that the settings switch off, in whole nodes."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from bench.harness.population import SERVICE, guest_columns, guest_numbers, user
from tessera.v1 import inference_pb2 as wire
from tests.assembled import parties

FEATURES = dict(zip(guest_columns(), guest_numbers(), strict=True))
COLUMNS = {name: wire.NumberColumn(values=[value] * 2) for name, value in FEATURES.items()}
NONE, L1, L2 = wire.CACHE_LEVEL_NONE, wire.CACHE_LEVEL_L1, wire.CACHE_LEVEL_L2
RESULTS, REMOTE, STRANGERS = "result_ttl_s = 0\n", "remote_ttl_s = 0\n", "not_found_ttl_s = 0\n"


@pytest.mark.parametrize(
    ("off", "repeated", "known", "stranger"),
    [
        ("", L1, L2, L2),
        (REMOTE, L1, NONE, NONE),
        (RESULTS + STRANGERS, NONE, L2, NONE),
    ],
)
async def test_a_level_of_no_time_is_off(tmp_path: Path, off: str, repeated: int, known: int, stranger: int) -> None:
    case = wire.PredictRequest(service=SERVICE, user_id=user(1), case_id="c", numbers=FEATURES)
    batch = wire.BatchPredictRequest(service=SERVICE, user_ids=[user(2), "nobody"], numbers=COLUMNS)
    async with parties(tmp_path, hosts=1, guest=f"[cache]\n{off}") as running, running.calling() as stub:
        assert [(await stub.Predict(case)).cache for _ in range(2)] == [NONE, repeated]
        levels = [(await stub.BatchPredict(batch)).parties[0].levels for _ in range(2)]
        async with httpx.AsyncClient(base_url=f"http://{running.guest.address('http')}") as client:
            shown = (await client.get("/metrics")).text
    assert levels == [bytes([NONE, NONE]), bytes([known, stranger])]
    for level, is_on in (("l1", RESULTS not in off), ("l2", REMOTE not in off)):
        for kind in ("hits", "misses", "fills"):
            assert (f'tessera_cache_{kind}_total{{level="{level}"}} 0.0' in shown) is not is_on
