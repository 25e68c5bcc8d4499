"""What is counted of one variant: answers, their scores and times, and the scores of those whose outcome is known.

All of it is whole numbers in cells, so that counts of replicas, workers and days are sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import msgspec
import numpy as np

from serving.figures import scores
from serving.figures.scores import BINS, Counts, Scores
from serving.telemetry.histogram import BOUNDS_S


class Row(IntEnum):
    """Histograms of a variant, one after the other, and the totals behind them."""

    ANSWERS = 0
    POSITIVES = 1
    NEGATIVES = 2


TIMES = len(Row) * BINS
MICROSECONDS = TIMES + len(BOUNDS_S) + 1
PAIRED = MICROSECONDS + 1
"""Answers of a shadow that stand beside one that was given."""
MOVED = PAIRED + 1
"""By how much these differ from it, summed, in millionths."""
CELLS = MOVED + 1

Cells = dict[int, int]
"""Cell to what is added to it."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


PUT_ASIDE = 2_048


class Subject(NamedTuple):
    """Of what is counted. `service` is "" for callers who named the version; a shadow answers nobody."""

    service: str
    variant: str
    shadow: bool = False

    def key(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def of(cls, key: str) -> Subject:
        return msgspec.json.decode(key, type=cls)


class Tally:
    """Counts of one subject since they were last taken. `rows`: all that were answered, with a score or not, since the
    process began. Used from one thread."""

    __slots__ = ("_cells", "_scores", "_seconds", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self._cells = np.zeros(CELLS, np.int64)
        self._scores: list[float] = []
        self._seconds: list[float] = []

    def answers(self, found: Sequence[float], seconds: Sequence[float]) -> None:
        """One score, or NaN for none, and one time for each row. Put aside until there are many: binned one by one they
        would cost ten times as much."""
        self.rows += len(found)
        self._scores.extend(found)
        self._seconds.extend(seconds)
        if len(self._scores) >= PUT_ASIDE:
            self._bin()

    def paired(self, differences: Scores) -> None:
        self._cells[PAIRED] += len(differences)
        self._cells[MOVED] += round(1e6 * float(np.abs(differences).sum()))

    def take(self) -> Cells:
        """What was counted; begins anew."""
        if self._scores:
            self._bin()
        filled = np.flatnonzero(self._cells)
        taken = dict(zip(filled.tolist(), self._cells[filled].tolist(), strict=True))
        self._cells[filled] = 0
        return taken

    def _bin(self) -> None:
        found, seconds = np.array(self._scores), np.array(self._seconds)
        given = ~np.isnan(found)
        found, seconds = found[given], seconds[given]
        self._cells[:BINS] += np.bincount(scores.bins_of(found), minlength=BINS)
        buckets = np.searchsorted(BOUNDS_S, seconds, side="left")
        self._cells[TIMES:MICROSECONDS] += np.bincount(buckets, minlength=len(BOUNDS_S) + 1)
        self._cells[MICROSECONDS] += round(1e6 * float(seconds.sum()))
        self._scores.clear()
        self._seconds.clear()

    def give_back(self, cells: Cells) -> None:
        for cell, count in cells.items():
            self._cells[cell] += count


def outcome_cell(score: float, positive: bool) -> int:
    return (Row.POSITIVES if positive else Row.NEGATIVES) * BINS + scores.bin_of(score)


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """What the counts of one subject say; None where there is nothing to say it from. `score_quantiles` at QUANTILES;
    `moved`: of a shadow, the mean difference to the answers that were given; `times`: answers by how long they took,
    for each of BOUNDS_S and above."""

    subject: Subject
    answers: int
    positives: int
    negatives: int
    auc: float | None
    auc_error: float
    ks: float | None
    score_quantiles: tuple[float, ...]
    seconds_mean: float | None
    seconds_p50: float | None
    seconds_p99: float | None
    moved: float | None
    times: tuple[int, ...] = ()


def read(subject: Subject, cells: Cells) -> VariantFigures:
    counts = np.zeros(CELLS, np.int64)
    known = [(cell, count) for cell, count in cells.items() if 0 <= cell < CELLS]
    for cell, count in known:
        counts[cell] = count
    answers, positives, negatives = (counts[row * BINS : (row + 1) * BINS] for row in Row)
    times, total, paired = counts[TIMES:MICROSECONDS], int(answers.sum()), int(counts[PAIRED])
    quantiles = (scores.quantile(answers, share) for share in QUANTILES)
    return VariantFigures(
        subject=subject,
        answers=total,
        positives=int(positives.sum()),
        negatives=int(negatives.sum()),
        auc=scores.auc(positives, negatives),
        auc_error=scores.binning_error(positives, negatives),
        ks=scores.ks(positives, negatives),
        score_quantiles=tuple(value for value in quantiles if value is not None),
        seconds_mean=float(counts[MICROSECONDS]) / 1e6 / total if total else None,
        seconds_p50=_time_quantile(times, 0.5),
        seconds_p99=_time_quantile(times, 0.99),
        moved=float(counts[MOVED]) / 1e6 / paired if paired else None,
        times=tuple(times.tolist()),
    )


def _time_quantile(times: Counts, share: float) -> float | None:
    """The upper bound of the bucket in which it lies; the largest bound when it lies above all."""
    total = int(times.sum())
    if not total:
        return None
    place = int(np.searchsorted(np.cumsum(times), share * total, side="left"))
    return BOUNDS_S[min(place, len(BOUNDS_S) - 1)]
