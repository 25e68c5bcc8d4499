"""The scenarios of `make bench`, as short as can be: real parties, right answers, the levels they are about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.harness.figures import Row
from bench.harness.stage import Stage
from bench.scenarios.__main__ import main, scenarios
from serving.transport import Transport

pytestmark = pytest.mark.usefixtures("untraced")

STAGE = Stage(Transport.NATIVE, 0.3, 20_000)
AT_HAND = {"gather", "prepare", "app", "local", "merge", "reply"}
STAGES = {"l1_hit": set[str](), "local_onnx": AT_HAND, "two_party_miss": {*AT_HAND, "shared", "peers"}}


def played(name: str) -> Iterator[Row]:
    return scenarios()[name](STAGE)


@pytest.mark.parametrize("name", ["l1_hit", "two_party_miss", "local_onnx"])
def test_answers_are_right_and_come_from_where_the_scenario_says(name: str) -> None:
    """The first load of the first case; a score that is wrong or from another level would count as WRONG_REPLY."""
    row = next(iter(played(name)))
    assert set(row.outcomes) == {"OK"}
    assert row.per_s > 0
    assert row.cpu_us["bank worker"] > 0
    assert row.rss_mb["bank worker"] > 1
    assert row.profile is not None
    assert set(row.profile.round_us) == STAGES[name]
    assert set(row.profile.hosts) == ({"host0"} if name == "two_party_miss" else set())
    assert row.profile.work_us["else"] > 0


def test_the_command_keeps_figures_and_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.scenarios.__main__._USERS", 200_000)
    output, page = tmp_path / "scenarios.json", tmp_path / "page.md"
    page.write_text("# Page\n")
    arguments = ["batch", "--seconds", "0.2", "--output", str(output), "--page", str(page)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads(output.read_text())
    assert {row["case"] for row in rows} == {"50 new users a call", "1 000 new users a call"}
    assert all(set(row["outcomes"]) == {"OK"} for row in rows)
    assert all(row["profile"]["hosts"]["host0"]["host_us"] > 0 for row in rows)
    assert {row["profile"]["rows_per_round"] for row in rows} == {50, 1_000}
    assert page.read_text().count("1 000 new users a call") == 4  # two loads, in two tables


def test_a_large_model_is_swapped_meanwhile() -> None:
    quiet, beside = played("model_load")
    assert set(quiet.outcomes) == set(beside.outcomes) == {"OK"}
    assert beside.notes["swaps"] >= 1
    assert beside.notes["p99_by_quiet"] > 0


def test_an_unknown_scenario_is_named() -> None:
    done = CliRunner().invoke(main, ["nothing"])
    assert done.exit_code == 2
    assert "l1_hit" in done.output


@pytest.mark.soak
@pytest.mark.parametrize("name", ["batch", "five_party_miss", "l2_hit", "l3_hit", "mixed_day", "slow_model"])
def test_every_answer_is_right(name: str) -> None:
    rows = list(scenarios()[name](Stage(Transport.NATIVE, 0.3, 200_000)))
    assert len(rows) > 1
    assert all(set(row.outcomes) == {"OK"} for row in rows)


@pytest.mark.soak
def test_a_slow_model_runs_beside_the_event_loop() -> None:
    for row in scenarios()["slow_model"](Stage(Transport.NATIVE, 2.0, 20_000)):
        assert 0 <= row.notes["loop_lag_mean_ms"] <= row.notes["loop_lag_max_at_most_ms"] < 1_000


@pytest.mark.soak
def test_a_host_that_stalls_dies_and_returns_leaves_no_call_without_an_answer() -> None:
    [row] = scenarios()["host_outage"](Stage(Transport.NATIVE, 2.0, 20_000))
    assert set(row.outcomes) <= {"OK", "UNAVAILABLE"}
    assert row.notes["recovery_from_stall_s"] < 2
    assert row.notes["recovery_from_death_s"] < 2


@pytest.mark.soak
def test_callers_do_not_notice_that_redis_stalls_or_dies() -> None:
    for row in scenarios()["redis_outage"](Stage(Transport.NATIVE, 2.0, 20_000)):
        assert set(row.outcomes) == {"OK"}


@pytest.mark.soak
def test_callers_of_one_model_do_not_notice_that_another_is_loaded() -> None:
    quiet, beside = scenarios()["model_load"](Stage(Transport.NATIVE, 4.0, 20_000))
    assert set(quiet.outcomes) == set(beside.outcomes) == {"OK"}
    assert beside.notes["swaps"] >= 2
    assert beside.p99_ms < 5 * quiet.p99_ms  # the goal is 1.5; this machine may do other work too


@pytest.mark.soak
def test_callers_are_answered_while_a_file_of_features_is_read_again() -> None:
    rows = list(scenarios()["feature_reload"](Stage(Transport.NATIVE, 2.0, 20_000)))
    assert [row.notes.get("reloads", 1) >= 1 for row in rows] == [True] * 4
    assert all(set(row.outcomes) == {"OK"} for row in rows)


@pytest.mark.soak
def test_overload_says_what_was_answered_and_what_refused() -> None:
    rows = list(scenarios()["overload"](Stage(Transport.NATIVE, 1.0, 20_000)))
    assert [("goodput_share" in row.notes) for row in rows] == [False, True, False, True]
    for peak, over in zip(rows[::2], rows[1::2], strict=True):
        assert set(peak.outcomes) == {"OK"}
        assert float(over.load.removesuffix("/s").replace(",", "")) == pytest.approx(2 * peak.per_s, abs=1)
        assert over.notes["refused_p50_ms"] < over.notes["refused_p99_ms"]
