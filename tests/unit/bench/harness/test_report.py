from __future__ import annotations

from pathlib import Path

from bench.harness.figures import Row
from bench.harness.profile import HostCalls, Profile
from bench.harness.report import BEGIN, END, PROFILES_BEGIN, PROFILES_END, keep, write_tables

PROFILE = Profile(
    calls_per_round=2.0,
    rows_per_round=100.0,
    call_us=1_234.5,
    work_us={"prepare": 4.4, "local": 0.2, "else": 30.0},
    round_us={"gather": 1_000.4, "peers": 2.0},
    hosts={
        "host0": HostCalls(users=30.0, wait_us=10.0, call_us=900.0, host_us=300.0),
        "host1": HostCalls(users=1.0, wait_us=0.0, call_us=5.0, host_us=None),
    },
)


def row(scenario: str, per_s: float, transport: str = "native", case: str = "c", profile: Profile | None = None) -> Row:
    return Row(
        scenario=scenario,
        case=case,
        transport=transport,
        load="4 x 32",
        per_s=per_s,
        p50_ms=1.0,
        p99_ms=2.0,
        p99_9_ms=3.0,
        outcomes={"OK": 5, "UNAVAILABLE": 2},
        cpu_us={"bank worker": 30.4, "bank supervisor": 0.2},
        rss_mb={"bank worker": 80.0},
        processes=2,
        notes={"recovery_s": 0.5},
        profile=profile,
    )


def test_scenarios_played_again_replace_their_figures_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.json"
    keep(path, [row("a", 1), row("a", 2), row("b", 3), row("a", 4, "grpcio")])
    kept = keep(path, [row("a", 5)])
    assert [(one.scenario, one.transport, one.per_s) for one in kept] == [
        ("a", "grpcio", 4),
        ("a", "native", 5),
        ("b", "native", 3),
    ]


def test_the_table_replaces_the_old_one_and_leaves_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n{PROFILES_BEGIN}{PROFILES_END}\nAfter\n")
    write_tables(page, [row("a", 1_234)])
    once = page.read_text()
    assert "old" not in once
    assert "| a | c | native | 4 x 32 | 1,234 |" in once
    assert "bank worker 30 |" in once
    assert "UNAVAILABLE 2, recovery_s 0.5" in once
    assert once.startswith("# Title")
    assert once.endswith("After\n")
    write_tables(page, [row("a", 1_234)])
    assert page.read_text() == once


def profiles(page: Path) -> list[str]:
    text = page.read_text()
    return text[text.index(PROFILES_BEGIN) : text.index(PROFILES_END)].splitlines()[3:]


def test_profiles_are_a_table_of_their_own(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\nBetween\n{PROFILES_BEGIN}\nold\n{PROFILES_END}\nAfter\n")
    write_tables(page, [row("a", 1, profile=PROFILE), row("a", 2)])
    [line] = profiles(page)
    assert line == (
        "| a | c | native | 4 x 32 | 2.0 (100.0) | 1,234 | else 30, prepare 4 | gather 1,000, peers 2 "
        "| host0: 30.0 users, waits 10, takes 900 (300 there); host1: 1.0 users, waits 0, takes 5 |"
    )
    assert "Between\n" in page.read_text()
    assert page.read_text().endswith("After\n")


def test_loads_at_the_same_time_share_a_profile(tmp_path: Path) -> None:
    path, page = tmp_path / "scenarios.json", tmp_path / "page.md"
    page.write_text("")
    both = [row("a", 1, case=case, profile=PROFILE) for case in ("c", "d")]
    write_tables(page, keep(path, [*both, row("a", 2, "grpcio", profile=PROFILE)]))
    cases = [line.split(" | ")[1:4] for line in profiles(page)]
    assert cases == [["c", "grpcio", "4 x 32"], ["c; d", "native", "4 x 32; 4 x 32"]]
