"""Credit points from a probability: offset + factor / ln(base) * ln((1 - p) / p), within bounds.

A probability of 0 gives the upper bound, of 1 the lower one. Points are rounded to two decimals, half to even.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from apps.app import App, AppError, Example, Request, Result, features_of
from loaders.artifact import Points
from loaders.merge import credit_points
from loaders.signature import Batch, Signature


class ScorecardParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`factor` points double, or divide by `factor_base`, the odds. The bounds are `lower_limit` points and
    `upper_limit_ratio` x `offset`."""

    offset: float = 500.0
    factor: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    factor_base: Annotated[float, msgspec.Meta(gt=1)] = 2.0
    upper_limit_ratio: Annotated[float, msgspec.Meta(gt=0)] = 3.0
    lower_limit: float = 0.0
    ignore_unknown: bool = False

    def __post_init__(self) -> None:
        if not self.lower_limit < self.upper_limit:
            raise ValueError(
                f"lower_limit {self.lower_limit:g} must be below upper_limit_ratio x offset, {self.upper_limit:g}"
            )

    @property
    def upper_limit(self) -> float:
        return self.upper_limit_ratio * self.offset


class Scorecard(App):
    name: ClassVar[str] = "scorecard"
    Parameters: ClassVar[type[msgspec.Struct]] = ScorecardParameters
    examples: ClassVar[Sequence[Example]] = (
        Example((0.5,), (500.0,)),
        Example((1 / 3,), (520.0,)),
        Example((0.0,), (1500.0,)),
        Example((1.0,), (0.0,)),
    )
    parameters: ScorecardParameters

    def preprocess(self, request: Request, signature: Signature) -> Batch:
        return features_of(request, signature, self.parameters.ignore_unknown)

    def postprocess(self, request: Request, result: Result) -> Result:
        given = self.parameters
        probability = result.scores
        if not ((probability >= 0) & (probability <= 1)).all():  # NaN is neither
            raise AppError("app 'scorecard' needs a probability; the model's link gives something else")
        rule = Points(
            offset=given.offset,
            factor=given.factor,
            factor_base=given.factor_base,
            upper_limit_ratio=given.upper_limit_ratio,
            lower_limit=given.lower_limit,
        )
        return Result(credit_points(probability, rule))
