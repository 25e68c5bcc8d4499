"""Triton's classification extension: of an output, the largest values with their places and names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.errors import InvalidRequestError
from serving.frontdoor.oip.tensors import BYTES, Tensor, as_bytes

CLASSIFICATION = "classification"
"""The parameter of an output that says how many."""


def classes_in(parameters: Mapping[str, Any]) -> int:
    """Of a requested output; 0 where it asks for none. Raises InvalidRequestError."""
    if CLASSIFICATION not in parameters:
        return 0
    value = parameters[CLASSIFICATION]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequestError(f"parameter {CLASSIFICATION!r} is a number of classes, from 1 on")
    return value


def classified(tensor: Tensor, most: int, labels: Sequence[str]) -> Tensor:
    """`most` classes of each row at most, the largest first, each as `value:place` or `value:place:label`. Raises
    InvalidRequestError for an output of texts."""
    if tensor.datatype == BYTES:
        raise InvalidRequestError(f"output {tensor.name!r} holds texts, which have no largest")
    rows = tensor.array.reshape(len(tensor.array), math.prod(tensor.array.shape[1:]))
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :most]
    named = [f":{label}" for label in labels] if len(labels) == rows.shape[1] else [""] * rows.shape[1]
    largest = np.take_along_axis(rows, order, axis=1)
    shown = [
        [f"{value:f}:{place}{named[place]}" for value, place in zip(values, places, strict=True)]
        for values, places in zip(largest.tolist(), order.tolist(), strict=True)
    ]
    return Tensor(tensor.name, BYTES, as_bytes(np.array(shown, dtype=np.object_).reshape(order.shape)))
