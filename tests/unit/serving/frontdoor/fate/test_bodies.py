"""What callers of all lines of FATE-Serving send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.errors import InvalidRequestError
from serving.frontdoor.fate.bodies import BatchBody, NamedBody, SingleBody, body_in
from tessera.compat import fate_inference_pb2 as wire


def message(body: object) -> bytes:
    return wire.InferenceMessage(body=json.dumps(body).encode()).SerializeToString()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"serviceId": "s", "caseId": "c"}, ("s", "", "", "", "c")),
        ({"serviceId": 7, "caseid": 8, "appid": 9999}, ("7", "", "", "9999", "8")),
        ({"modelId": "guest#1#m", "modelVersion": 20200804161532389}, ("", "guest#1#m", "20200804161532389", "", "")),
        ({"partyId": "9999", "seqno": "x"}, ("", "", "", "9999", "")),
        ({"appid": "", "partyId": 1, "caseId": None, "caseid": "c"}, ("", "", "", "1", "c")),
    ],
)
def test_names_have_several_spellings(body: dict[str, Any], named: tuple[str, ...]) -> None:
    read = body_in(message(body), NamedBody)
    assert (read.service, read.namespace, read.table, read.party, read.case) == named
    assert read.is_first_line == ("serviceId" not in body)


@pytest.mark.parametrize(
    ("sent", "user_id", "named"),
    [
        ({"sendToRemoteFeatureData": {"device_id": "u"}}, "", {"device_id": "u"}),
        ({"sendToRemoteFeatureData": {}}, "device_id", {}),
        ({}, "device_id", {"device_id": "f"}),
        ({}, "phone", {}),
        ({}, "", {}),
    ],
)
def test_the_user_is_among_the_features_only_where_nothing_is_sent(
    sent: dict[str, Any], user_id: str, named: dict[str, Any]
) -> None:
    body = body_in(message({"serviceId": "s", "featureData": {"device_id": "f", "": "g"}, **sent}), SingleBody)
    assert body.sent(user_id) == named


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"featureData": None},
        {"featureData": []},
        {"featureData": {}, "serviceId": True},
        {"featureData": {}, "serviceId": 1.5},
        {"featureData": {}, "caseid": []},
        {"featureData": {}, "sendToRemoteFeatureData": None},
    ],
)
def test_other_bodies_are_refused(body: object) -> None:
    with pytest.raises(InvalidRequestError):
        body_in(message(body), SingleBody)


def test_messages_that_are_none_are_refused() -> None:
    for raw in (b"\xff", b"", message({})[:-1], wire.InferenceMessage(body=b"[" * 100_000).SerializeToString()):
        with pytest.raises(InvalidRequestError):
            body_in(raw, BatchBody)
