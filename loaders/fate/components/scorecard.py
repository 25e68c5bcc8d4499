"""Scorecard: credit points of the score. Its parameters are those of the training run: it exports no messages.

FATE-Serving has it in a branch only: with the default parameters, and rounding halves up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from loaders.artifact import Link, Merge, Points
from loaders.fate.component import Component, ComponentError

KINDS = frozenset({"Scorecard"})


def points(component: Component, merge: Merge) -> Merge:
    if merge.link is not Link.SIGMOID or merge.labels:
        raise ComponentError("credit points are made of a probability, and the model gives none")
    if component.site.compat:
        return msgspec.structs.replace(merge, points=Points(half_up=True))
    given = component.settings
    if given.get("method", "credit") != "credit":
        raise ComponentError(f"unknown method {given['method']!r}")
    made = Points(
        offset=finite(given, "offset", 500.0),
        factor=finite(given, "factor", 20.0),
        factor_base=finite(given, "factor_base", 2.0),
        upper_limit_ratio=finite(given, "upper_limit_ratio", 3.0),
        lower_limit=finite(given, "lower_limit_value", 0.0),
    )
    if made.factor_base <= 0 or made.factor_base == 1 or made.lower_limit > made.upper_limit_ratio * made.offset:
        raise ComponentError("its factor_base or its limits make no points")
    return msgspec.structs.replace(merge, points=made)


def finite(given: Mapping[str, object], name: str, default: float) -> float:
    value = given.get(name, default)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ComponentError(f"its {name} is no finite number")
    return float(value)
