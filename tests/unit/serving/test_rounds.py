"""How a round comes apart while its parts arrive."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from apps.app import CacheLevel, PartyOutcome, PartyStatus, Request, Response
from apps.catalog import make_app
from loaders.loader import PartialForm, PartialSpec
from loaders.signature import Batch
from serving.cache.tier import Entry
from serving.calls import Waiting
from serving.peers.partials import Lookup
from serving.pool import ModelId
from serving.rounds import Round
from serving.routing import Target

TARGET = Target(ModelId("m", "1"), make_app("passthrough"), "m:1")
NUMBER = PartialSpec(PartialForm.NUMBERS, 1)


class Handle:
    """Of a model with two hosts, as far as rounds look at it."""

    hosts = ("shop", "insurer")
    wanted = dict.fromkeys(hosts, NUMBER)


def piece(row, level=CacheLevel.L2):
    return Entry(PartyStatus.OK, 0.0, 0.0, np.float64(row).tobytes()), level


def round_of(known):
    """One call a row; `known`: for each row whether shop and insurer are known."""
    calls = [
        Waiting(Request("s", "", "", "", (f"u{row}",)), (0.0, 10.0 - row), lambda response, row: response)
        for row in range(len(known))
    ]
    made = Round(TARGET, Handle(), calls, time.monotonic)
    made.batch = Batch(np.arange(len(known), dtype=float)[:, None], np.empty((len(known), 0), dtype=np.object_))
    made.lookups = [
        Lookup(party, Handle(), made.users, [user.encode() for user in made.users],
            [piece(row) if there[place] else None for row, there in enumerate(known)])
        for place, party in enumerate(Handle.hosts)
    ]  # fmt: skip
    return made


def rows_of(made):
    """Its rows, which everything in it must agree about."""
    rows = [int(user[1:]) for user in made.users]
    assert made.batch.numbers[:, 0].tolist() == rows
    assert [call.request.user_ids[0] for call in made.calls] == made.users
    for lookup in made.lookups:
        assert lookup.user_ids == made.users
        assert lookup.keys == [user.encode() for user in made.users]
        for row, found in zip(rows, lookup.pieces, strict=True):
            assert found is None or found == piece(row)
    return rows


known = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20)


@given(known)
def test_calls_go_on_when_nothing_of_theirs_is_missing(known):
    whole, rest = round_of(known).parted()
    complete = [row for row, there in enumerate(known) if all(there)]
    assert (rows_of(whole) if whole else []) == complete
    assert (rows_of(rest) if rest else []) == [row for row in range(len(known)) if row not in complete]


@given(known)
def test_those_that_lack_the_same_hosts_wait_together_and_no_others(known):
    _, rest = round_of(known).parted()
    parts = rest.by_lacking() if rest else []
    assert sorted(row for part in parts for row in rows_of(part)) == [
        row for row, there in enumerate(known) if not all(there)
    ]
    for part in parts:
        assert len({known[row] for row in rows_of(part)}) == 1
    assert len({known[rows_of(part)[0]] for part in parts}) == len(parts)


@given(known)
def test_rounds_join_as_they_were(known):
    each = [round_of(known).take([row]) for row in range(len(known))]
    whole = Round.joined(each)
    assert whole is not None
    assert rows_of(whole) == list(range(len(known)))
    assert Round.joined([]) is None


def test_a_round_has_the_deadline_of_its_most_urgent_call():
    assert round_of([(True, True)] * 3).deadline == 8.0


def test_what_the_local_half_gave_comes_along():
    made = round_of([(True, True)] * 3)
    made.outputs = {"partial": np.array([[0.0], [1.0], [2.0]])}
    assert made.take([2, 0]).run()["partial"].tolist() == [[2.0], [0.0]]


def test_one_response_a_row():
    whole = Response(
        scores=np.array([[0.1], [0.2]]),
        model="m",
        version="1",
        variants=("m:1",),
        complete=True,
        parties=(PartyOutcome("shop", (PartyStatus.OK,) * 2, (CacheLevel.L2, CacheLevel.NONE)),),
        labels=("low", "high"),
        attributions=(b"a", b"b"),
        outputs={"further": np.array([1, 2])},
    )
    with pytest.raises(ValueError, match="lack a party"):
        structs.replace(whole, complete=False).row(0)
    first, second = whole.row(0), whole.row(1)
    assert (first.scores.tolist(), second.scores.tolist()) == ([[0.1]], [[0.2]])
    assert (first.labels, first.attributions) == (("low",), (b"a",))
    assert second.parties == (PartyOutcome("shop", (PartyStatus.OK,), (CacheLevel.NONE,)),)
    assert second.outputs["further"].tolist() == [2]
    assert first.variants == second.variants == ("m:1",)
