from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.micro import __main__ as micro


def test_every_benchmark_is_found_and_says_what_it_is() -> None:
    found = dict(micro.benchmarks())
    assert {"predict.linear_1_row", "pool.pool_acquire", "cache.result_cache_hit"} <= found.keys()
    assert all((prepare.__doc__ or "").strip() for prepare in found.values())


def test_a_run_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "micro.json"
    arguments = ["micro", "pool_acquire", "--repeats", "3", "--seconds", "0.001", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    micro.main()
    [figure] = json.loads(output.read_text())["figures"]
    assert figure["name"] == "pool.pool_acquire"
    assert 0 < figure["wall_ns"] < 1e9
