"""Two days of requests: who comes, when, and how often again."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

DAY_S = 86_400.0
_PEAK_S = 14 * 3_600.0
_SWING = 0.8
"""How much less than the mean the deepest night brings, as a share of it."""
_COUNTED_DAYS = 14
_PAUSE_S = 90.0
"""Mean time between requests of one visit."""


class Habits(msgspec.Struct, frozen=True):
    """What is assumed about users."""

    users: int
    requests: int
    """Of one day, about."""
    zipf: float
    """Visits of the n-th most active user are proportional to n to the power of minus this."""
    revisits: float
    """Further requests of the same user within a visit, on average (geometric)."""
    repeated: float = 0.5
    """The share of those that repeat the case before, as retries do; the others are new cases of the user."""


@dataclass(frozen=True, slots=True)
class Requests:
    """One day, by time. `case` numbers the business cases; a repeated one comes again."""

    times: npt.NDArray[np.float64]
    users: npt.NDArray[np.int64]
    cases: npt.NDArray[np.int64]


def requests_of(habits: Habits, day: int, source: np.random.Generator) -> Requests:
    """Of day 0, 1, ...: user n is equally active on all of them, and each day is drawn anew."""
    visits = max(1, round(habits.requests / (1 + habits.revisits)))
    shares = np.cumsum(_weights(habits))
    visitors = np.minimum(np.searchsorted(shares, source.random(visits)), habits.users - 1)
    begins = day * DAY_S + _times_of_day(visits, source)
    follow = source.geometric(1 / (1 + habits.revisits), visits) - 1
    visit = np.repeat(np.arange(visits), follow + 1)
    first = np.r_[True, visit[1:] != visit[:-1]]
    pauses = np.where(first, 0.0, source.exponential(_PAUSE_S, len(visit)))
    since = np.cumsum(pauses)
    times = begins[visit] + since - since[np.flatnonzero(first)][visit]
    new = first | (source.random(len(visit)) >= habits.repeated)
    order = np.argsort(times, kind="stable")
    return Requests(times[order], visitors[visit][order], (np.cumsum(new) + day * len(visit))[order])


def _times_of_day(count: int, source: np.random.Generator) -> npt.NDArray[np.float64]:
    """Most in the afternoon, few at night."""
    grid = np.linspace(0, DAY_S, 1_441)
    rate = 1 + _SWING * np.cos(2 * np.pi * (grid - _PEAK_S) / DAY_S)
    shares = np.cumsum(rate)
    return np.interp(source.random(count), shares / shares[-1], grid)


def most_active(habits: Habits, share: float, source: np.random.Generator) -> list[int]:
    """The users seen most in the last weeks, `share` of all users at most, as the nightly job picks them from its
    counts: those whom nobody has seen are not among them."""
    visits = round(_COUNTED_DAYS * habits.requests / (1 + habits.revisits))
    counts = source.multinomial(visits, _weights(habits))
    ranked = np.argsort(-counts, kind="stable")[: round(share * habits.users)]
    return [int(user) for user in ranked if counts[user]]


def _weights(habits: Habits) -> npt.NDArray[np.float64]:
    weights = np.arange(1, habits.users + 1, dtype=np.float64) ** -habits.zipf
    return np.asarray(weights / weights.sum())
