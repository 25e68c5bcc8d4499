"""Replies of one row, put together from parts, say what the response says."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from apps.app import CacheLevel, PartyOutcome, PartyStatus, Response
from serving.frontdoor.inference import PredictCodec
from tessera.v1 import inference_pb2 as wire

scores = st.floats(allow_infinity=False)
parties = st.lists(st.sampled_from(["shop", "insurer", "telco"]), unique=True, max_size=3)


@st.composite
def responses(draw):
    """Of one to five rows, each with its own outcome of each party."""
    rows, width = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    each = st.lists(st.sampled_from(PartyStatus), min_size=rows, max_size=rows)
    levels = st.lists(st.sampled_from(CacheLevel), min_size=rows, max_size=rows)
    texts = st.lists(st.text(max_size=200), min_size=rows, max_size=rows)
    return Response(
        scores=np.array(draw(st.lists(scores, min_size=rows * width, max_size=rows * width))).reshape(rows, width),
        model=draw(st.sampled_from(["m", "n"])),
        version="1",
        variants=draw(st.sampled_from([(), ("m:1",)])),
        complete=draw(st.booleans()),
        parties=tuple(PartyOutcome(name, tuple(draw(each)), tuple(draw(levels))) for name in draw(parties)),
        labels=tuple(draw(texts)) if draw(st.booleans()) else (),
        attributions=tuple(text.encode() for text in draw(texts)) if draw(st.booleans()) else (),
    )


@given(st.lists(responses(), min_size=1, max_size=4), st.sampled_from(CacheLevel))
def test_every_row_of_every_response(several, level):
    codec = PredictCodec()
    for response in several:
        for row in range(len(response.scores)):
            _same(wire.PredictReply.FromString(codec.encode_row(response, row, level)), _expected(response, row, level))


def test_scores_that_no_row_shares_the_memory_of():
    """An app may give a part of a larger array, or other numbers than float64."""
    codec, large = PredictCodec(), np.arange(12, dtype=np.float32).reshape(3, 4)
    response = Response(large[:, 1:2], "m", "1", (), True)
    assert [list(wire.PredictReply.FromString(codec.encode_row(response, row, CacheLevel.NONE)).score) for row in
        range(3)] == [[1.0], [5.0], [9.0]]  # fmt: skip
    again = structs.replace(response, scores=large[:, 2:4])
    assert list(wire.PredictReply.FromString(codec.encode(again, CacheLevel.NONE)).score) == [2.0, 3.0]


def _expected(response: Response, row: int, level: CacheLevel) -> wire.PredictReply:
    reply = wire.PredictReply(
        score=response.scores[row].tolist(),
        model=response.model,
        version=response.version,
        variant="".join(response.variants),
        complete=response.complete,
        cache=level.value,
        label=response.labels[row] if response.labels else "",
        attribution=response.attributions[row] if response.attributions else b"",
    )
    for one in response.parties:
        reply.parties.add(party=one.party, status=one.statuses[row].value, level=one.levels[row].value)
    return reply


def _same(reply: wire.PredictReply, expected: wire.PredictReply) -> None:
    for given_score, score in zip(reply.score, expected.score, strict=True):
        assert given_score == score or (math.isnan(given_score) and math.isnan(score))
    for message in (reply, expected):
        del message.score[:]
    assert reply == expected
