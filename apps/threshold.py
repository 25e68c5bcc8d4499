"""A label for every score: that of the highest threshold which the score reaches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from apps.app import App, AppError, Example, Request, Result, features_of
from loaders.signature import Batch, Signature


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`label` from the score `at` upwards."""

    at: float
    label: str


class ThresholdParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`steps` rise. A score below the first gets the label `below`."""

    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1, max_length=100)] = (Step(0.5, "1"),)
    below: str = "0"
    ignore_unknown: bool = False

    def __post_init__(self) -> None:
        bounds = [step.at for step in self.steps]
        if any(not low < high for low, high in pairwise(bounds)):
            raise ValueError(f"the steps' bounds {bounds} do not rise")


class Threshold(App):
    name: ClassVar[str] = "threshold"
    Parameters: ClassVar[type[msgspec.Struct]] = ThresholdParameters
    examples: ClassVar[Sequence[Example]] = (
        Example((0.49,), (0.49,), "0"),
        Example((0.5,), (0.5,), "1"),
    )

    def __init__(self, parameters: ThresholdParameters) -> None:
        super().__init__(parameters)
        self._bounds = np.array([step.at for step in parameters.steps])
        self._labels = (parameters.below, *(step.label for step in parameters.steps))

    def preprocess(self, request: Request, signature: Signature) -> Batch:
        return features_of(request, signature, self.parameters.ignore_unknown)

    def postprocess(self, request: Request, result: Result) -> Result:
        if result.scores.shape[1] != 1:
            raise AppError(f"app 'threshold' labels one score per row, the model gives {result.scores.shape[1]}")
        reached = np.searchsorted(self._bounds, result.scores[:, 0], side="right")
        return Result(result.scores, tuple(self._labels[index] for index in reached.tolist()))
