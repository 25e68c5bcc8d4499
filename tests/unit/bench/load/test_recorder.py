from __future__ import annotations

import msgspec
import pytest

from bench.load.recorder import Recorder, Window, merged
from bench.load.results import OK, LoadResult, Slice


def filled(latencies: list[float], outcome: str = OK) -> Recorder:
    recorder = Recorder(Window(0.0, 0.0, 10.0))
    for number, latency in enumerate(latencies):
        recorder.sent(number / 100, number / 100)
        recorder.ended(number / 100, number / 100 + latency, outcome)
    return recorder


def test_percentiles_of_processes_are_those_of_all_calls_and_no_mean_of_percentiles() -> None:
    quick, slow = filled([0.001] * 980), filled([1.0] * 20)
    whole = merged([quick.result(5.0), slow.result(5.0)])
    assert whole.latency_ms.p50 == pytest.approx(1, rel=1e-3)
    assert whole.latency_ms.p99 == pytest.approx(1_000, rel=1e-3)
    assert whole.calls == 1_000
    assert whole.asked_per_s == 10.0
    assert whole.outcomes == {OK: 1_000}


def test_slices_tell_when_calls_ended() -> None:
    parts = [filled([0.05] * 20), filled([0.31] * 2, "UNAVAILABLE")]
    whole = merged([part.result(None) for part in parts])
    assert whole.slices[0] == Slice(5, 0)
    assert whole.slices[3] == Slice(0, 2)


def test_a_result_travels_as_json() -> None:
    result = filled([0.001, 0.002]).result(3.0)
    assert msgspec.json.decode(msgspec.json.encode(result), type=LoadResult) == result


def test_without_an_answer_there_are_no_percentiles() -> None:
    result = filled([0.1], "UNAVAILABLE").result(3.0)
    assert result.latency_ms is None
    assert result.ok_per_s == 0
    assert result.failed_latency_ms.p50 == pytest.approx(100, rel=1e-3)
