from __future__ import annotations

from bench.harness.counters import Counters
from bench.harness.meter import Usage
from bench.harness.profile import Profile, loop_lag, profile

ANSWERS = 1_000


def histogram(name: str, count: float, total: float, **labels: str) -> dict:
    has = frozenset(labels.items())
    return {(f"{name}_count", has): count, (f"{name}_sum", has): total}


def guest(asked: bool = True) -> Counters:
    """1 000 calls of 2 rows in 100 rounds, 50 of which asked the host, in 25 calls."""
    values = {
        **histogram("tessera_request_seconds", 1_000, 4.0),
        **histogram("tessera_request_rows", 1_000, 2_000),
        **histogram("tessera_stage_seconds", 100, 0.2, stage="gather"),
        **histogram("tessera_stage_seconds", 100, 0.01, stage="prepare"),
        **histogram("tessera_stage_seconds", 50 if asked else 0, 0.15, stage="peers"),
        **histogram("tessera_stage_seconds", 0, 0.0, stage="long"),
    }
    for stage, seconds in (("app", 0.004), ("local", 0.002), ("merge", 0.003), ("reply", 0.005)):
        values |= histogram("tessera_stage_seconds", 100, seconds, stage=stage)
    if asked:
        party = {"party": "shop"}
        values["tessera_peer_batches_total", frozenset(party.items())] = 25
        values["tessera_peer_rows_total", frozenset(party.items())] = 1_500
        values |= histogram("tessera_peer_wait_seconds", 50, 0.05, **party)
        values |= histogram("tessera_peer_call_seconds", 25, 0.1, **party)
    return Counters(values)


def host() -> Counters:
    return Counters(histogram("tessera_request_seconds", 25, 0.01, method="/tessera.v1.Federation/Infer"))


def found(counted: dict[str, Counters], cpu_s: float = 0.1) -> Profile | None:
    return profile(Usage({"bank worker": cpu_s}, {}, counted, "bank", ("shop",)), ANSWERS)


def test_rounds_stages_and_work_are_told_apart() -> None:
    made = found({"bank": guest(), "shop": host()})
    assert made is not None
    assert (made.calls_per_round, made.rows_per_round, made.call_us) == (10, 20, 4_000)
    ends = {"app": 40, "local": 20, "merge": 30, "reply": 50}
    assert made.round_us == {"gather": 2_000, "prepare": 100, "peers": 3_000, **ends}
    assert made.work_us == {"prepare": 10, "app": 4, "local": 2, "merge": 3, "reply": 5, "else": 76}


def test_calls_to_hosts_are_told_with_their_part_in_them() -> None:
    made = found({"bank": guest(), "shop": host()})
    assert made is not None
    calls = made.hosts["shop"]
    assert (calls.users, calls.wait_us, calls.call_us, calls.host_us) == (60, 1_000, 4_000, 400)


def test_a_host_that_began_anew_is_known_by_the_guest_alone() -> None:
    made = found({"bank": guest()})
    assert made is not None
    assert made.hosts["shop"].host_us is None


def test_a_host_that_was_not_asked_is_left_out() -> None:
    made = found({"bank": guest(asked=False), "shop": host()})
    assert made is not None
    assert not made.hosts
    assert "peers" not in made.round_us


def test_work_that_other_processes_interrupted_leaves_nothing_less_than_nothing() -> None:
    made = found({"bank": guest()}, cpu_s=0.001)
    assert made is not None
    assert made.work_us["else"] == 0


def test_a_guest_that_began_anew_has_none() -> None:
    assert found({"shop": host()}) is None


def test_repeats_meet_no_round() -> None:
    made = found({"bank": Counters(histogram("tessera_request_seconds", 4, 0.001))})
    assert made is not None
    assert (made.rows_per_round, made.calls_per_round, made.round_us) == (0, 0, {})


def test_the_event_loops_lag_is_a_mean_and_a_bound_of_the_largest() -> None:
    name = "tessera_event_loop_lag_seconds"
    buckets = {(f"{name}_bucket", frozenset({("le", le)})): n for le, n in (("0.001", 3), ("0.05", 4), ("+Inf", 4))}
    usage = Usage({}, {}, {"bank": Counters({**histogram(name, 4, 0.048), **buckets})}, "bank", ())
    assert loop_lag(usage) == {"loop_lag_mean_ms": 12.0, "loop_lag_max_at_most_ms": 50.0}


def test_a_loop_that_nobody_looked_at_has_no_lag() -> None:
    assert loop_lag(Usage({}, {}, {}, "bank", ())) == {}
    assert loop_lag(Usage({}, {}, {"bank": guest()}, "bank", ())) == {}
