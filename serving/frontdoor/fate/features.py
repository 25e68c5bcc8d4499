"""The values of a FATE request as the features that a model declares. Names that it does not know are left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from loaders.servables.program import is_whole
from loaders.signature import OTHER, UNREADABLE, FeatureError, Missing, Signature, TensorSpec
from serving.errors import InvalidRequestError
from serving.frontdoor.fate.doubles import java_double

Specs = Mapping[str, TensorSpec]
"""The tensor of every feature, by the feature's name."""
NAN = "NaN"


def specs_of(signatures: Iterable[Signature]) -> Specs:
    return {name: spec for signature in signatures for spec in signature.inputs for name in spec.feature_names()}


def features_in(values: Mapping[str, Any], specs: Specs) -> tuple[dict[str, float], dict[str, str]]:
    """Numbers and texts; a text may spell a number where one is declared. Raises FeatureError."""
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    for name, value in values.items():
        spec = specs.get(name)
        if spec is None or value is None:
            continue
        if spec.is_text:
            texts[name] = _text(name, value)
        else:
            numbers[name] = _number(name, value, spec)
    return numbers, texts


def check_row(numbers: Mapping[str, float], texts: Mapping[str, str], specs: Specs) -> None:
    """What would refuse a whole batch: raises FeatureError naming a feature that is infinite, or missing."""
    for name, spec in specs.items():
        value = numbers.get(name, math.nan)
        missing = name not in texts if spec.is_text else math.isnan(value)
        if missing and spec.missing is Missing.ERROR:
            raise FeatureError(f"feature {name!r} is missing or NaN and has no default")
        if math.isinf(value):
            raise FeatureError(f"feature {name!r} is infinite")


def user_id_in(sent: Mapping[str, Any], name: str) -> str:
    """The user as hosts know it: the value under `name` if that is set, else the only value, else all of them as JSON
    in the order of their names. "" when nothing is sent to hosts. Raises InvalidRequestError."""
    if name and name in sent:
        return _user(sent[name])
    if len(sent) == 1:
        return _user(next(iter(sent.values())))
    return msgspec.json.encode(sent, order="sorted").decode() if sent else ""


def _user(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidRequestError("sendToRemoteFeatureData names a user by a text or a whole number")
    return str(value)


def _number(name: str, value: Any, spec: TensorSpec) -> float:
    if isinstance(value, str):
        return _spelled(name, value, spec)
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_other = OTHER in spec.spellings and isinstance(value, float) and value.is_integer()
        return _meant(spec, OTHER) if is_other else _as_float(name, value)
    if UNREADABLE in spec.spellings:
        return _meant(spec, UNREADABLE)
    what = "is true or false, it must be a number" if isinstance(value, bool) else "must be a number"
    raise FeatureError(f"feature {name!r} {what}")


def _spelled(name: str, text: str, spec: TensorSpec) -> float:
    if text in spec.spellings:
        return _meant(spec, text)
    if OTHER in spec.spellings and not is_whole(text):
        return _meant(spec, OTHER)
    number = java_double(text)
    if number is None and UNREADABLE in spec.spellings:
        return _meant(spec, UNREADABLE)
    if number is None:
        raise FeatureError(f"feature {name!r} is a text that spells no number")
    return _meant(spec, NAN) if math.isnan(number) and NAN in spec.spellings else number


def _meant(spec: TensorSpec, text: str) -> float:
    meant = spec.spellings[text]
    return math.nan if meant is None else meant


def _as_float(name: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise FeatureError(f"feature {name!r} is a whole number beyond float64") from None


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FeatureError(f"feature {name!r} must be a text")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
