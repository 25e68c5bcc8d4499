"""Business rules after the model: the first rule whose condition holds decides about a row."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import partial
from typing import Annotated, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from apps.app import App, AppError, Example, Request, Result, features_of
from apps.expression import Column, Condition, condition
from loaders.signature import Batch, Signature

SCORE = "score"


class Do(Enum):
    """`REJECT` and `OVERRIDE` set the score to `value`; `CAP` lowers it to `value` where it is above, `RAISE` lifts it
    where it is below."""

    REJECT = "reject"
    OVERRIDE = "override"
    CAP = "cap"
    RAISE = "raise"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`when` is a condition over the guest's features and `score` (apps/expression.py). `label` stands in the answer;
    a rejection without one is labelled "rejected"."""

    when: str
    do: Do
    value: float = 0.0
    label: str = ""

    def __post_init__(self) -> None:
        try:
            condition(self.when)
        except ValueError as error:
            raise ValueError(f"rule {self.when!r}: {error}") from None


class RulesParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: Annotated[tuple[Rule, ...], msgspec.Meta(max_length=100)] = ()
    ignore_unknown: bool = False


class Rules(App):
    name: ClassVar[str] = "rules"
    Parameters: ClassVar[type[msgspec.Struct]] = RulesParameters
    examples: ClassVar[Sequence[Example]] = (Example((0.25,), (0.25,)),)

    def __init__(self, parameters: RulesParameters) -> None:
        super().__init__(parameters)
        self._rules: list[tuple[Rule, Condition]] = [(rule, condition(rule.when)) for rule in parameters.rules]

    def check(self, signature: Signature) -> None:
        for rule, when in self._rules:
            for names, known, kind in (
                (when.numbers - {SCORE}, signature.numbers, "number"),
                (when.texts, signature.texts, "text"),
            ):
                absent = sorted(names - set(known))
                if absent:
                    raise ValueError(f"rule {rule.when!r}: the model has no {kind} feature {absent[0]!r}")

    def preprocess(self, request: Request, signature: Signature) -> Batch:
        return features_of(request, signature, self.parameters.ignore_unknown)

    def postprocess(self, request: Request, result: Result) -> Result:
        if not self._rules:
            return result
        scores = result.scores.copy()
        labels = np.full(len(scores), "", dtype=np.object_)
        undecided = np.ones(len(scores), dtype=np.bool_)
        columns = partial(_column, result)
        for rule, when in self._rules:
            rows = undecided & np.broadcast_to(when.holds(columns), undecided.shape)
            _act(rule, scores, rows)
            labels[rows] = rule.label or ("rejected" if rule.do is Do.REJECT else "")
            undecided &= ~rows
        return Result(scores, tuple(labels.tolist()) if labels.any() else ())


def _act(rule: Rule, scores: npt.NDArray[np.float64], rows: npt.NDArray[np.bool_]) -> None:
    match rule.do:
        case Do.REJECT | Do.OVERRIDE:
            scores[rows] = rule.value
        case Do.CAP:
            scores[rows] = np.minimum(scores[rows], rule.value)
        case Do.RAISE:
            scores[rows] = np.maximum(scores[rows], rule.value)


def _column(result: Result, name: str) -> Column:
    """Raises AppError for a name that neither the model nor the answer has."""
    if name == SCORE:
        return result.scores[:, 0]
    column = result.feature(name)
    if column is None:
        raise AppError(f"app 'rules': the model has no feature {name!r}")
    return column
