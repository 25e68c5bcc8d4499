"""What another node says of a model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.errors import InvalidRequestError
from serving.frontdoor.fate.descriptions import publication_in

GOOD: dict[str, Any] = {
    "tableName": "1",
    "namespace": "guest#9999#m",
    "partId": "9999",
    "role": "guest",
    "rolePartyMapList": [{"role": "guest", "partId": "9999"}, {"role": "host", "partId": "10000"}],
}


def test_a_description_names_the_model_its_parties_and_its_services() -> None:
    found = publication_in(json.dumps({**GOOD, "serviceIds": ["s"], "allowQps": 7}).encode(), "9999")
    assert (found.name.model, found.name.version, found.guest, found.hosts) == ("m", "1", "9999", ("10000",))
    assert found.services == ("s",)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tableName": ""}, "named by a namespace"),
        ({"namespace": ""}, "named by a namespace"),
        ({"tableName": 1}, "cannot be used"),
        ({"rolePartyMapList": []}, "names no guest"),
        ({"role": "arbiter"}, "names no guest, or another role"),
        ({"partId": "1"}, "is of party '1'"),
        ({"serviceIds": "s"}, "cannot be used"),
    ],
)
def test_others_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        publication_in(json.dumps({**GOOD, **change}).encode(), "9999")


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_description_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be used"):
        publication_in(raw, "9999")
