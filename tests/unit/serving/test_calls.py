"""Which calls go together, and what they are as one request."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.app import Request, Response, features_of
from apps.catalog import make_app
from loaders.signature import Missing, Signature, TensorSpec
from serving.calls import Gathering, Waiting, together
from serving.pool import ModelId
from serving.routing import Target

APP = make_app("passthrough")
ONE, OTHER = (Target(ModelId("m", version), APP, f"m:{version}") for version in "12")
SIGNATURE = Signature(
    (
        TensorSpec(name="a", dtype="float64", shape=(-1,), missing=Missing.IMPUTE),
        TensorSpec(name="b", dtype="float64", shape=(-1,), missing=Missing.IMPUTE),
        TensorSpec(name="t", dtype="string", shape=(-1,), missing=Missing.IMPUTE),
    ),
    (TensorSpec(name="score", dtype="float64", shape=(-1, 1)),),
)


def named(user="u", **fields):
    return Request("s", "", "", "", (user,), **fields)


def waiting(request, left_s=1.0):
    return Waiting(request, (100.0, 100.0 + left_s), lambda response, row: response)


class Started:
    """Remembers which users were started together, and for what."""

    def __init__(self):
        self.rounds = []

    def __call__(self, target, calls):
        self.rounds.append((target, [call.request.user_ids[0] for call in calls]))


@pytest.fixture
def started():
    return Started()


@pytest.fixture
def gathering(started):
    return Gathering(started, patience_s=1.0)


async def test_calls_of_one_turn_start_together_in_the_next(gathering, started):
    for user in "abc":
        gathering.add(ONE, waiting(named(user)))
    assert started.rounds == []
    await asyncio.sleep(0)
    assert started.rounds == [(ONE, ["a", "b", "c"])]
    gathering.add(ONE, waiting(named("d")))
    await asyncio.sleep(0)
    assert started.rounds[1:] == [(ONE, ["d"])]


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": {"p": "1"}},
        {"attributed": True},
        {"matrix": np.zeros((1, 2)), "signature_hash": b"h"},
    ],
)
async def test_calls_that_differ_in_what_a_batch_shares_go_apart(gathering, started, other):
    gathering.add(ONE, waiting(named("a")))
    gathering.add(ONE, waiting(named("b", **other)))
    await asyncio.sleep(0)
    assert started.rounds == [(ONE, ["a"]), (ONE, ["b"])]


async def test_so_do_those_for_other_versions_and_rows_of_another_width(gathering, started):
    gathering.add(ONE, waiting(named("a")))
    gathering.add(OTHER, waiting(named("b")))
    for width in (2, 3):
        gathering.add(ONE, waiting(named(str(width), matrix=np.zeros((1, width)), signature_hash=b"h")))
    await asyncio.sleep(0)
    assert started.rounds == [(ONE, ["a"]), (OTHER, ["b"]), (ONE, ["2"]), (ONE, ["3"])]


@given(first=st.floats(1e-4, 10.0), second=st.floats(1e-4, 10.0))
def test_nobody_waits_for_who_has_much_more_time(first, second):
    """A round has the deadline of its most urgent call: the others give up little."""

    async def run():
        started = Started()
        gathering = Gathering(started, patience_s=1.0)
        for left_s in (first, second):
            gathering.add(ONE, waiting(named(), left_s))
        await asyncio.sleep(0)
        return len(started.rounds)

    least, most = sorted((min(first, 1.0), min(second, 1.0)))
    if asyncio.run(run()) == 1:
        assert most <= least * 2 ** (1 / 4) * (1 + 1e-9)


async def test_calls_that_ended_before_they_began_are_left_out(gathering, started):
    gone, there = waiting(named("a")), waiting(named("b"))
    gathering.add(ONE, gone)
    gathering.add(ONE, there)
    gone.reply.cancel()
    await asyncio.sleep(0)
    assert started.rounds == [(ONE, ["b"])]


async def test_a_reply_that_cannot_be_made_is_the_callers_to_know():
    def broken(response, row):
        raise ZeroDivisionError

    call = Waiting(named(), (0.0, 1.0), broken)
    call.succeed(Response(np.zeros((1, 1)), "m", "1", (), True), None)
    with pytest.raises(ZeroDivisionError):
        await call.reply
    call.fail(ValueError())  # too late, and no error


features = st.fixed_dictionaries({}, optional={"a": st.floats(-9, 9) | st.just(math.nan), "b": st.floats(-9, 9)})


@given(st.lists(st.tuples(features, st.fixed_dictionaries({}, optional={"t": st.text(max_size=3)})), min_size=1))
def test_together_they_have_the_features_that_each_has_alone(rows):
    requests = [named(str(row), numbers=numbers, texts=texts) for row, (numbers, texts) in enumerate(rows)]
    whole = features_of(together(requests), SIGNATURE)
    alone = [features_of(request, SIGNATURE) for request in requests]
    np.testing.assert_array_equal(whole.numbers, np.concatenate([batch.numbers for batch in alone]))
    assert whole.texts.tolist() == [row for batch in alone for row in batch.texts.tolist()]


def test_packed_rows_stand_below_each_other():
    requests = [
        named(str(row), matrix=np.array([[row, 2.0 * row]]), signature_hash=SIGNATURE.digest) for row in range(3)
    ]
    whole = together(requests)
    assert whole.user_ids == ("0", "1", "2")
    assert features_of(whole, SIGNATURE).numbers.tolist() == [[0, 0], [1, 2], [2, 4]]


def test_one_call_stays_as_it_is_and_several_have_no_case():
    request = Request("s", "", "", "c", ("u",))
    assert together([request]) is request
    assert together([request, request]).case_id == ""
