from __future__ import annotations

from pathlib import Path

from bench.harness.figures import Row
from bench.harness.report import BEGIN, END, keep, write_table


def row(scenario: str, per_s: float, transport: str = "native") -> Row:
    return Row(
        scenario=scenario,
        case="c",
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
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    write_table(page, [row("a", 1_234)])
    once = page.read_text()
    assert "old" not in once
    assert "| a | c | native | 4 x 32 | 1,234 |" in once
    assert "bank worker 30 |" in once
    assert "UNAVAILABLE 2, recovery_s 0.5" in once
    assert once.startswith("# Title")
    assert once.endswith("After\n")
    write_table(page, [row("a", 1_234)])
    assert page.read_text() == once
