"""Flow rules and figures, with a clock that ticks."""

from __future__ import annotations

import pytest

from serving.control import State, WantedLimit
from serving.errors import InvalidRequestError, LimitError
from serving.frontdoor.fate.rules import KEPT_S, Flow
from serving.limits import Limiter
from serving.settings import Limits
from serving.telemetry.worker_files import Told
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(Limits(), clock)


@pytest.fixture
def flow(clock: Clock, limiter: Limiter) -> Flow:
    return Flow(limiter.resources, clock)


def test_without_a_rule_nothing_is_refused(flow: Flow) -> None:
    for _ in range(1_000):
        flow.take("I_inference", 1)


def test_a_rule_lets_so_many_in_each_second(flow: Flow, limiter: Limiter, clock: Clock) -> None:
    limiter.follow(State(limits={"resource": {"M_1": WantedLimit(per_s=2.0)}}))
    flow.take("M_1", 2)
    with pytest.raises(LimitError, match="resource 'M_1' is limited to 2 rows a second"):
        flow.take("M_1", 1)
    flow.take("M_2", 100)
    clock.tick(0.5)
    flow.take("M_1", 1)


async def test_figures_are_kept_by_second_and_resource(flow: Flow, clock: Clock) -> None:
    start = int(clock())
    flow.succeeded("I_inference")
    flow.succeeded("M_1", 3)
    clock.tick(1)
    flow.refused("I_inference", LimitError("too many"))
    flow.refused("I_inference", InvalidRequestError("wrong"))
    flow.refused("M_1", InvalidRequestError("wrong"), 2)
    flow.refused("M_1", LimitError("too many"), 4)
    [(_, _, model)] = await flow.between(1_000 * start + 1, 10**15, "M_1")
    assert (model.passed, model.succeeded, model.blocked, model.failed) == (2, 0, 4, 2)
    seconds = await flow.between(0, 10**15, "I_inference")
    assert [at for at, *_ in seconds] == [1_000 * start, 1_000 * (start + 1)]
    assert [(one.passed, one.succeeded, one.blocked, one.failed) for *_, one in seconds] == [(1, 1, 0, 0), (1, 0, 1, 1)]
    assert [name for _, name, _ in await flow.between(0, 1_000 * start, "")] == ["I_inference", "M_1"]
    assert await flow.between(1_000 * start + 1, 1_000 * start + 2, "") == []


async def test_the_figures_of_all_workers_are_summed(flow: Flow, limiter: Limiter, clock: Clock) -> None:
    other = Flow(limiter.resources, clock)
    start = int(clock())
    other.succeeded("M_2", 5)
    other.refused("I_inference", LimitError("too many"))
    clock.tick(1)
    for each in (flow, other):
        each.succeeded("I_inference")
        each.refused("I_inference", InvalidRequestError("wrong"))

    async def told() -> list[Told]:
        return [Told("b/1", "1", other.encoded()), Told("b/2", "1", b"of another version")]

    flow.others = told
    shown = [
        (at // 1_000 - start, name, one.passed, one.succeeded, one.blocked, one.failed)
        for at, name, one in await flow.between(0, 10**15, "")
    ]
    assert shown == [(0, "I_inference", 0, 0, 1, 0), (0, "M_2", 5, 5, 0, 0), (1, "I_inference", 4, 2, 0, 2)]
    assert await flow.between(0, 10**15, "") == await flow.between(0, 10**15, ""), "asking changes nothing"


async def test_old_seconds_are_forgotten(flow: Flow, clock: Clock) -> None:
    for _ in range(KEPT_S + 5):
        flow.succeeded("I_inference")
        clock.tick(1)
    assert len(await flow.between(0, 10**15, "")) == KEPT_S
