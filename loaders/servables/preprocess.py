"""Preprocessing steps of a manifest, compiled into arrays in feature order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loaders.signature import Numbers


class PreprocessError(ValueError):
    """A step that cannot be compiled; the text names it."""


@dataclass(frozen=True, slots=True)
class Steps:
    """`fill` (features,): what replaces NaN, NaN where nothing does; then (x - `mean`) / `scale`."""

    fill: Numbers
    mean: Numbers
    scale: Numbers


def compile_steps(steps: Sequence[Mapping[str, Any]], features: int, read: Callable[[str], Numbers]) -> Steps:
    """`read` gives the array of a file that a step names. Steps: impute {values}, then scale {mean, scale}, each at
    most once and in this order. Raises PreprocessError."""
    kinds = [str(step.get("kind")) for step in steps]
    if kinds not in ([], ["impute"], ["scale"], ["impute", "scale"]):
        raise PreprocessError(f"preprocess {kinds}: known are impute, then scale, each at most once")
    by_kind = dict(zip(kinds, steps, strict=True))
    fill, mean, scale = np.full(features, np.nan), np.zeros(features), np.ones(features)
    if "impute" in by_kind:
        fill = _vector(by_kind["impute"], "values", features, read)
    if "scale" in by_kind:
        mean = _vector(by_kind["scale"], "mean", features, read)
        scale = _vector(by_kind["scale"], "scale", features, read)
        if not (scale > 0).all():
            raise PreprocessError("preprocess scale: every scale must be positive")
    return Steps(fill, mean, scale)


def _vector(step: Mapping[str, Any], key: str, features: int, read: Callable[[str], Numbers]) -> Numbers:
    if not isinstance(step.get(key), str):
        raise PreprocessError(f"preprocess {step['kind']}: {key} must name a file")
    values = read(step[key])
    if values.shape != (features,) or not np.isfinite(values).all():
        raise PreprocessError(f"preprocess {step['kind']}: {step[key]} must hold {features} finite numbers")
    return values
