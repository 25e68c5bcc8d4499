"""The replay as a picture: the share of requests without a remote call over the share of users warmed up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from bench.replay.play import Point

REPORTED = 0.28
"""The share of requests without a remote call that was reported for a production system of this design."""


class PlotError(RuntimeError):
    """The drawing library is missing."""


def curves(points: Sequence[Point]) -> dict[tuple[float, float, float], list[Point]]:
    """By revisits, TTL and Zipf exponent: points by rising warm-up share."""
    found: dict[tuple[float, float, float], list[Point]] = {}
    for point in sorted(points, key=lambda point: point.levels.warmup_share):
        key = (point.habits.revisits, point.levels.shared_ttl_s, point.habits.zipf)
        found.setdefault(key, []).append(point)
    return dict(sorted(found.items()))


def crossings(points: Sequence[Point], level: float = REPORTED) -> Iterator[tuple[tuple[float, float, float], float]]:
    """Curves that pass `level`, and the warm-up share at which they do (between points, along a line)."""
    for key, curve in curves(points).items():
        for one, other in pairwise(curve):
            if one.not_asked <= level < other.not_asked:
                part = (level - one.not_asked) / (other.not_asked - one.not_asked)
                from_share, to_share = one.levels.warmup_share, other.levels.warmup_share
                yield key, from_share + part * (to_share - from_share)


def draw(points: Sequence[Point], path: Path) -> None:
    """One panel for each TTL and number of revisits; crosses where a curve passes what was reported. Raises
    PlotError."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only who draws pays for it
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise PlotError("the plot needs matplotlib: pip install 'tessera-federated[bench]'") from None
    rows = sorted({point.habits.revisits for point in points})
    columns = sorted({point.levels.shared_ttl_s for point in points})
    figure = Figure(figsize=(4 * len(columns), 3.2 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for (revisits, ttl_s, zipf), curve in curves(points).items():
        panel = panels[rows.index(revisits)][columns.index(ttl_s)]
        shares = [point.levels.warmup_share * 100 for point in curve]
        panel.plot(shares, [point.not_asked * 100 for point in curve], marker="o", markersize=3, label=f"Zipf {zipf:g}")
        panel.set_title(f"L3 for {ttl_s / 3_600:g} h, {revisits:g} revisits", fontsize=9)
    for (revisits, ttl_s, _), share in crossings(points):
        panel = panels[rows.index(revisits)][columns.index(ttl_s)]
        panel.plot([share * 100], [REPORTED * 100], marker="x", color="black", zorder=3)
    for panel in panels.flat:
        panel.axhline(REPORTED * 100, color="grey", linestyle="--", linewidth=1)
        panel.set_ylim(0, 100)
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize=7)
    panels[0][0].annotate("28 % reported", (0, REPORTED * 100 + 1.5), fontsize=7, color="grey")
    figure.supxlabel("share of users warmed up in the night, %")
    figure.supylabel("requests without a remote call, %")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
