import json

import numpy as np
import pytest

from apps.app import CacheLevel, PartyOutcome, PartyStatus, Response
from serving.errors import InvalidRequestError
from serving.frontdoor.json_inference import JsonBatchPredict, JsonPredict


def test_a_case_is_read():
    request = JsonPredict().decode(
        b'{"service":"s","user_id":"u","case_id":"c","features":{"a":1,"b":"x","c":null},"parameters":{"p":"q"}}'
    )
    assert request.address == ("s", "", "")
    assert (request.user_ids, request.case_id) == (("u",), "c")
    assert (request.numbers, request.texts, request.parameters) == ({"a": 1.0}, {"b": "x"}, {"p": "q"})


def test_columns_are_read():
    request = JsonBatchPredict().decode(
        b'{"model":"m","version":"1","user_ids":["u","v"],"columns":{"a":[1,null],"b":["x",null]}}'
    )
    assert request.columnar
    assert request.rows == 2
    assert request.numbers["a"][0] == 1.0
    assert np.isnan(request.numbers["a"][1])
    assert request.texts == {"b": ["x", None]}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "is not a Predict request"),
        (b"[1]", "is not a Predict request"),
        (b'{"user":"u"}', "unknown field `user`"),
        (b'{"features":{"a":[1]}}', "features"),
        (b'{"features":{"a":true}}', "features"),
        (b"\xff\x00", "is not a Predict request"),
        (b'{"user_id": "\xff"}', "is not a Predict request"),
        (b'{"features": {"\xff": 1}}', "is not a Predict request"),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong(raw, said):
    with pytest.raises(InvalidRequestError, match=said):
        JsonPredict().decode(raw)


def test_a_column_of_numbers_and_texts_is_named():
    with pytest.raises(InvalidRequestError, match="column 'a' has numbers and texts"):
        JsonBatchPredict().decode(b'{"user_ids":["u","v"],"columns":{"a":[1,"x"]}}')


OUTCOME = PartyOutcome("shop", (PartyStatus.OK, PartyStatus.NOT_FOUND), (CacheLevel.L2, CacheLevel.NONE))


def test_a_batch_answers_with_names_and_null_for_no_score():
    response = Response(np.array([[0.5], [np.nan]]), "m", "1", ("a", "b"), complete=False, parties=(OUTCOME,))
    assert json.loads(JsonBatchPredict().encode(response, CacheLevel.NONE)) == {
        "model": "m",
        "version": "1",
        "scores": [[0.5], [None]],
        "labels": [],
        "variants": ["a", "b"],
        "attributions": [],
        "complete": False,
        "statuses": ["OK", "NOT_FOUND"],
        "parties": [{"party": "shop", "statuses": ["OK", "NOT_FOUND"], "levels": ["L2", "NONE"]}],
    }


def test_a_case_answers_with_its_level():
    response = Response(np.array([[0.25]]), "m", "1", ("a",), complete=True, attributions=(b"\xfb\xff",))
    assert json.loads(JsonPredict().encode(response, CacheLevel.L1)) == {
        "model": "m",
        "version": "1",
        "score": [0.25],
        "label": "",
        "variant": "a",
        "complete": True,
        "cache": "L1",
        "attribution": "+/8=",
        "parties": [],
    }


def test_rows_of_a_batch_are_attributed_when_that_is_asked_for():
    assert not JsonBatchPredict().decode(b'{"user_ids":["u"]}').attributed
    assert JsonBatchPredict().decode(b'{"user_ids":["u"],"attributed":true}').attributed
    response = Response(np.array([[0.5], [np.nan]]), "m", "1", (), complete=False, attributions=(b"\xfb\xff", b""))
    assert json.loads(JsonBatchPredict().encode(response, CacheLevel.NONE))["attributions"] == ["+/8=", ""]
