"""The merge rule of a model: from the halves' outputs to the scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from loaders.artifact import Link, Manifest, Merge, MergeKind, Points
from loaders.loader import LoadError, Partial, PartialForm, Scores, Servable

NEARLY = 1e-8

MergeRule = Callable[[Sequence[Partial]], Scores]
"""From partials, the guest's first, to scores float64 (rows, width). Raises PartialError."""


def merge_rule(merge: Merge, servable: Servable) -> MergeRule:
    """The rule of the guest's half `servable`; a host's half merges nothing, and its rule is never called. Raises
    LoadError for a rule that is not for this kind of half."""
    link = _LINKS[merge.link]
    walks = servable.partial.form is not PartialForm.NUMBERS
    if walks != (merge.kind is MergeKind.TREE_WALK):
        raise LoadError(f"merge kind {merge.kind.value!r} is not for halves that give {servable.partial.form.name}")
    if len(merge.labels) not in {0, servable.score_width}:
        raise LoadError(f"merge names {len(merge.labels)} scores, the half gives {servable.score_width}")
    if merge.kind is MergeKind.NONE:
        return lambda partials: link(partials[0])
    if merge.points is not None:
        points = merge.points
        return lambda partials: credit_points(link(servable.combine(partials)), points)
    return lambda partials: link(servable.combine(partials))


def stand_ins(manifest: Manifest, servable: Servable) -> Mapping[str, Partial]:
    """By host, the partial (1, width) that the artifact declares for when the host does not answer. Raises LoadError
    for a model whose halves' outputs are not added, and for numbers that are not one per output."""
    if manifest.stand_ins and manifest.merge.kind is not MergeKind.SUM:
        raise LoadError(f"stand_ins are for merge kind 'sum', this is {manifest.merge.kind.value!r}")
    width = servable.signature.outputs[0].width
    for party, values in manifest.stand_ins.items():
        if len(values) != width or not all(map(math.isfinite, values)):
            raise LoadError(f"stand_ins: party {party!r} needs {width} finite numbers")
    return {party: np.array([values], dtype=np.float64) for party, values in manifest.stand_ins.items()}


def credit_points(probability: Scores, rule: Points) -> Scores:
    """As `Points` says; a probability within 1e-8 of 0 or 1 gets the upper or lower limit."""
    upper = rule.upper_limit_ratio * rule.offset
    inner = np.clip(probability, NEARLY, 1 - NEARLY)
    points = rule.offset + rule.factor / math.log(rule.factor_base) * np.log((1 - inner) / inner)
    points = np.where(probability <= NEARLY, upper, np.where(probability >= 1 - NEARLY, rule.lower_limit, points))
    bounded: Scores = np.clip(points, rule.lower_limit, upper)
    rounded: Scores = np.floor(bounded * 100 + 0.5) / 100 if rule.half_up else bounded.round(2)
    return rounded


def _identity(linear: Scores) -> Scores:
    return linear


def _sigmoid(linear: Scores) -> Scores:
    """1 / (1 + e^-z) without overflow."""
    probability: Scores = 0.5 * (1.0 + np.tanh(0.5 * linear))
    return probability


def _exp(linear: Scores) -> Scores:
    with np.errstate(over="ignore"):  # infinite is what it is then
        raised: Scores = np.exp(linear)
    return raised


def _softmax(linear: Scores) -> Scores:
    with np.errstate(over="ignore"):  # a difference of -inf is a share of 0
        raised = np.exp(linear - linear.max(axis=1, keepdims=True))
    share: Scores = raised / raised.sum(axis=1, keepdims=True)
    return share


_LINKS: dict[Link, Callable[[Scores], Scores]] = {
    Link.IDENTITY: _identity,
    Link.SIGMOID: _sigmoid,
    Link.EXP: _exp,
    Link.SOFTMAX: _softmax,
}
