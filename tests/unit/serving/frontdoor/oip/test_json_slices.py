"""Lists in JSON, some elements at a time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.frontdoor.oip import json_slices
from serving.frontdoor.oip.json_slices import slices

ELEMENTS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(alphabet='a,[]"\\\né ', max_size=6)
LISTS = st.lists(
    st.recursive(ELEMENTS, lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=20), min_size=1
)


def leaves(value: Any) -> list[Any]:
    return [leaf for one in value for leaf in leaves(one)] if isinstance(value, list) else [value]


def depth(value: Any) -> int:
    return 1 + max(map(depth, value)) if isinstance(value, list) else 0


@given(data=LISTS, size=st.integers(1, 40), spaced=st.booleans(), ascii_only=st.booleans())
def test_slices_have_all_elements_in_their_order(data: Any, size: int, spaced: bool, ascii_only: bool) -> None:
    text = json.dumps(data, indent=1 if spaced else None, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_slices, "SLICE_BYTES", size)
        read = list(slices(text, depth(data)))
        assert [one for values in read for one in values] == leaves(data)
        with pytest.raises(ValueError, match="deeper"):
            list(slices(text, depth(data) - 1))


def test_no_slice_is_much_longer_than_one_is_to_be() -> None:
    text = json.dumps([[0.5, 1], [2, None]] * 20_000).encode()
    counts = [len(values) for values in slices(text, 2)]
    assert (sum(counts), len(counts)) == (80_000, -(-len(text) // json_slices.SLICE_BYTES))


@pytest.mark.parametrize("size", [100, 8, 1])
@pytest.mark.parametrize("data", [[], [[], [1]], [1, [], 2], [[1], []], [1, {"a": [2, 3]}, 4]])
def test_lists_without_elements_and_lists_in_objects_are_refused(
    data: list[Any], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_slices, "SLICE_BYTES", size)
    with pytest.raises(ValueError, match=r"malformed|no elements"):
        list(slices(json.dumps(data).encode(), 2))
