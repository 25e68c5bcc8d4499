"""The generator in its own processes against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.load import Factory, LoadError, LoadResult, Plan, load_now
from bench.load.calls import Caller, Pool
from serving.transport import Transport, server

pytestmark = pytest.mark.usefixtures("untraced")

ROOT = Path(__file__).resolve().parents[3]
ECHO = "/test.Echo/Echo"


def plan(address: str, **fields: object) -> Plan:
    return Plan(**{"target": address, "method": ECHO, "echo": True, "duration_s": 1.0, "warmup_s": 0.2, **fields})


def numbered(every: int, special: str) -> Factory:
    return Factory("tests.integration.bench.bodies:numbered", {"every": every, "special": special})


def near(figure: float, expected: float, share: float = 0.35) -> bool:
    return abs(figure - expected) < expected * share


def test_an_open_loop_keeps_its_rate(echo_address: str) -> None:
    result = load_now(plan(echo_address, rate_per_s=300.0, connections=2))
    assert near(result.calls, 300)
    assert set(result.outcomes) == {"OK"}
    assert near(result.ok_per_s, 300)
    assert 0 < result.latency_ms.p50 <= result.latency_ms.p99 <= result.latency_ms.max
    assert result.generator_cpu_s > 0


def test_a_stall_of_200_ms_shows_in_the_tail_of_an_open_loop(echo_address: str) -> None:
    """One call in 200 blocks the whole server; at 200/s the 40 calls due meanwhile wait too."""
    stalling = numbered(200, "stall 200")
    result = load_now(plan(echo_address, rate_per_s=200.0, make_body=stalling, duration_s=1.5))
    assert result.failed == 0
    assert result.latency_ms.p99 > 150
    assert result.latency_ms.p90 > 20


def test_a_late_answer_delays_no_other_call(echo_address: str) -> None:
    result = load_now(plan(echo_address, rate_per_s=200.0, make_body=numbered(20, "late 300"), duration_s=1.5))
    assert result.failed == 0
    assert result.latency_ms.p99 > 290
    assert result.latency_ms.p90 < 200


def test_a_wrong_reply_is_counted(echo_address: str) -> None:
    result = load_now(plan(echo_address, rate_per_s=200.0, make_body=numbered(10, "wrong")))
    assert near(result.wrong, result.calls / 10)
    assert result.failed == result.wrong


def test_a_check_replaces_the_comparison_with_the_request(echo_address: str) -> None:
    check = Factory("tests.integration.bench.bodies:same_length")
    asked = plan(echo_address, rate_per_s=200.0, echo=False, bodies=(b"wrong 12345678", b"wrong"), make_check=check)
    result = load_now(asked)
    assert near(result.wrong, result.calls / 2)  # "something else" has 14 bytes


def test_errors_are_counted_by_code(echo_address: str) -> None:
    result = load_now(plan(echo_address, rate_per_s=200.0, make_body=numbered(4, "refuse")))
    assert near(result.outcomes["UNAVAILABLE"], result.calls / 4)
    assert result.latency_ms is not None
    assert result.failed_latency_ms is not None


def test_deadlines_end_calls(echo_address: str) -> None:
    result = load_now(plan(echo_address, rate_per_s=50.0, bodies=(b"late 5000",), deadline_s=0.1, warmup_s=0.0))
    assert set(result.outcomes) == {"DEADLINE_EXCEEDED"}
    assert result.latency_ms is None
    assert result.failed_latency_ms.p50 >= 99


def test_calls_without_an_answer_are_given_up(echo_address: str) -> None:
    result = load_now(plan(echo_address, rate_per_s=50.0, bodies=(b"late 60000",), warmup_s=0.0, drain_s=0.2))
    assert set(result.outcomes) == {"UNANSWERED"}


def test_a_deadline_and_a_trace_id_arrive_with_every_call(echo_address: str) -> None:
    fields = {"bodies": (b"headers please",), "deadline_s": 2.0, "spread_deadlines": True, "traceparent": True}
    assert load_now(plan(echo_address, rate_per_s=200.0, **fields)).failed == 0
    assert load_now(plan(echo_address, rate_per_s=200.0, bodies=(b"headers please",))).wrong > 0


def test_a_closed_loop_over_two_processes(echo_address: str) -> None:
    result = load_now(plan(echo_address, connections=3, streams=4), processes=2)
    assert result.failed == 0
    assert result.most_in_flight == 12
    assert near(result.ok_per_s, result.calls / result.duration_s)


async def test_processes_share_the_numbers_of_the_calls() -> None:
    seen: list[bytes] = []
    serving = server(Transport.NATIVE)
    serving.add_bytes_handler(ECHO, lambda payload, call: seen.append(payload) or payload)
    asked = plan(f"127.0.0.1:{serving.add_port('127.0.0.1:0')}", make_body=numbered(9, "x"))
    await serving.start()
    pool = Pool(asked, 2)
    try:
        send = Caller(asked).over(pool, 1, 3)
        assert [await send(turn) for turn in range(3)] == ["OK"] * 3
    finally:
        await pool.close()
        await serving.stop(0)
    assert seen == [b"call 1", b"call 4", b"call 7"]


def test_no_server_is_a_result_and_no_failure(tmp_path: Path) -> None:
    result = load_now(plan("127.0.0.1:1", rate_per_s=50.0, warmup_s=0.0))
    assert set(result.outcomes) == {"UNAVAILABLE"}


def test_a_plan_that_no_process_can_run_is_refused_with_its_reason(echo_address: str) -> None:
    with pytest.raises(LoadError, match="nothing"):
        load_now(plan(echo_address, make_body=Factory("tests.integration.bench.bodies:nothing")))
    left = [child for child in psutil.Process().children() if "bench.load.worker" in " ".join(child.cmdline())]
    assert not left


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"}
    whole = [sys.executable, "-m", "bench.load", *arguments]
    return subprocess.run(whole, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_command_prints_a_result_as_json(echo_address: str, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"hello")
    done = command(
        echo_address,
        ECHO,
        "--bodies",
        str(body),
        "--echo",
        "--rate",
        "100",
        "--duration",
        "0.5",
        "--warmup",
        "0",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    result = LoadResult(**json.loads(done.stdout))
    assert result.mode == "open"
    assert set(result.outcomes) == {"OK"}


def test_the_command_shows_a_table_and_says_what_failed(echo_address: str) -> None:
    shown = command(echo_address, ECHO, "--size", "30", "--echo", "-m", "2", "--duration", "0.3", "--warmup", "0")
    assert "right answers/s" in shown.stdout
    assert "p99.9" in shown.stdout
    nobody = command("127.0.0.1:1", ECHO, "--rate", "50", "--duration", "0.3", "--warmup", "0")
    assert nobody.returncode == 1
    assert "UNAVAILABLE" in nobody.stderr


def test_the_command_teaches() -> None:
    taught = command("--help").stdout
    assert "open loop" in taught
    assert "--rate" in taught
