from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from bench.cache_replay import RESULTS, main
from bench.replay.day import Habits
from bench.replay.play import Levels, Point
from bench.replay.plot import REPORTED, crossings, draw


def point(warmed: float, share: float, zipf: float = 0.5) -> Point:
    return Point(Habits(100, 100, zipf, 0.0), Levels(3_600.0, warmed), 0.0, 0.0, share, 1 - share, 0)


def test_where_a_curve_passes_what_was_reported() -> None:
    points = [point(0.4, 0.38), point(0.0, 0.18), point(0.0, 0.5, zipf=1.0), point(0.4, 0.6, zipf=1.0)]
    [(curve, warmed)] = crossings(points)
    assert curve == (0.0, 3_600.0, 0.5)
    assert warmed == pytest.approx(0.2)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    draw([point(0.0, 0.2), point(0.4, 0.3)], tmp_path / "new" / "plot.png")
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_points_and_plot(tmp_path: Path) -> None:
    small = {"users": 300, "requests": 300, "zipf": 0.5, "revisits": 0.0, "hours": 24.0, "processes": 1}
    options = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    done = CliRunner().invoke(main, [*options, "--warmup", "0", "--warmup", "1", "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    cold, warm = msgspec.json.decode((tmp_path / "cache_replay.json").read_bytes(), type=list[Point])
    assert cold.not_asked < warm.not_asked
    assert "no remote call" in done.output
    assert (tmp_path / "cache_replay.png").exists()


def test_the_results_kept_are_those_that_the_page_tells() -> None:
    points = msgspec.json.decode((RESULTS / "cache_replay.json").read_bytes(), type=list[Point])
    page = (RESULTS.parents[1] / "docs/performance.md").read_text()
    told = [f"{share:.1%}".replace("%", " %") for _, share in crossings(points)]
    assert len(told) >= 2
    assert all(share in page for share in told)
    assert f"{REPORTED:.0%}".replace("%", " %") in page
