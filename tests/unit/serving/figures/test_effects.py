from __future__ import annotations

import math

import numpy as np
import pytest

from apps.catalog import make_app
from serving.errors import InvalidRequestError, NotReadyError
from serving.figures.effects import MAX_OUTCOMES, Effects
from serving.figures.store import FEEDBACK_DAYS, MemoryFigureStore
from serving.pool import ModelId
from serving.routing import Target
from tests.clock import Clock

SECRET = b"s" * 32
TARGET = Target(ModelId("m", "1"), make_app("passthrough"), "m:1", "credit", 3)
DAY_S = 86_400


class FullDisk(MemoryFigureStore):
    full = True

    def add(self, counted):
        if self.full:
            raise OSError("no space")
        super().add(counted)

    def take(self, outcomes, today):
        raise OSError("no space")


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000 * DAY_S)


def effects(clock: Clock, store: MemoryFigureStore | None = None) -> Effects:
    return Effects(store or MemoryFigureStore(), SECRET, clock)


def answer(one: Effects, score: float, target: Target = TARGET) -> bytes:
    [made] = one.answered(target, np.array([[score]]), [0.001], attributed=True)
    return made


async def test_answers_and_outcomes_of_replicas_are_summed(clock: Clock) -> None:
    store = MemoryFigureStore()
    one, two = effects(clock, store), effects(clock, store)
    made = [answer(replica, score) for replica in (one, two) for score in (0.2, 0.4, 0.6, 0.8)]
    taken = await two.feedback([(made[0], 0), (made[3], 1), (made[5], 0), (made[6], 1)])
    assert (taken.accepted, taken.known, taken.refused) == (4, 0, [])
    await one.figures()
    [found] = await two.figures("credit")
    assert (found.subject.variant, found.answers, found.positives, found.negatives) == ("m:1", 8, 2, 2)
    assert found.auc == found.ks == 1.0
    assert found.score_quantiles[2] == pytest.approx(0.4, abs=0.005)
    assert found.seconds_mean == pytest.approx(0.001)
    assert await two.figures("other") == []


async def test_an_attribution_counts_once_whoever_is_told_and_months_later(clock: Clock) -> None:
    store = MemoryFigureStore()
    one, two = effects(clock, store), effects(clock, store)
    made = answer(one, 0.5)
    clock.tick(200 * DAY_S)
    assert (await one.feedback([(made, 1), (made, 1)])).known == 1
    again = await two.feedback([(made, 0)])
    assert (again.accepted, again.known) == (0, 1)
    assert [one.positives for one in await two.figures()] == [1]


async def test_outcomes_that_are_too_old_or_not_ours_are_refused_by_position(clock: Clock) -> None:
    one = effects(clock)
    old = answer(one, 0.5)
    clock.tick((FEEDBACK_DAYS + 1) * DAY_S)
    taken = await one.feedback([(answer(one, 0.5), 1), (old, 1), (b"junk", 0)])
    assert (taken.accepted, taken.refused) == (1, [1, 2])


@pytest.mark.parametrize("label", [0.5, -1.0, math.nan])
async def test_a_label_that_is_none_refuses_the_call_with_nothing_taken(clock: Clock, label: float) -> None:
    one = effects(clock)
    with pytest.raises(InvalidRequestError, match=r"outcomes\[1\].label"):
        await one.feedback([(answer(one, 0.5), 1), (answer(one, 0.5), label)])
    assert [found.positives for found in await one.figures()] == [0]


async def test_the_size_of_a_call_is_limited(clock: Clock) -> None:
    with pytest.raises(InvalidRequestError, match="at most"):
        await effects(clock).feedback([(b"", 1)] * (MAX_OUTCOMES + 1))


async def test_counts_wait_while_the_disk_is_full(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    store = FullDisk()
    one = effects(clock, store)
    made = answer(one, 0.5)
    assert await one.figures() == []
    with pytest.raises(NotReadyError, match="send them again"):
        await one.feedback([(made, 1)])
    store.full = False
    assert [found.answers for found in await one.figures()] == [1]
    assert "no space" in caplog.text


async def test_a_batch_counts_its_rows_that_have_a_score(clock: Clock) -> None:
    one = effects(clock)
    assert one.answered(TARGET, np.array([[0.1], [math.nan], [0.9]]), [0.002] * 3, attributed=False) == ()
    made = one.answered(TARGET, np.array([[0.1], [math.nan], [0.9]]), [0.002] * 3, attributed=True)
    assert (len(set(made)), made[1]) == (3, b"")
    assert [found.answers for found in await one.figures()] == [4]


async def test_callers_who_named_the_version_are_counted_apart(clock: Clock) -> None:
    one = effects(clock)
    answer(one, 0.5, Target(ModelId("m", "1"), TARGET.app, ""))
    [found] = await one.figures()
    assert (found.subject.service, found.subject.variant) == ("", "m:1")


async def test_a_shadow_has_figures_of_its_own(clock: Clock) -> None:
    one = effects(clock)
    one.shadowed("credit", "m:2", np.array([[0.4], [0.8]]), np.array([[0.5], [math.nan]]), 0.01)
    [found] = await one.figures()
    assert (found.subject, found.answers) == (("credit", "m:2", True), 2)
    assert found.moved == pytest.approx(0.1)


async def test_the_last_counts_are_kept_on_stop(clock: Clock) -> None:
    store = MemoryFigureStore()
    one = effects(clock, store)
    await one.start()
    answer(one, 0.5)
    await one.stop()
    assert [found.answers for found in await effects(clock, store).figures()] == [1]
