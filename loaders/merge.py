"""The merge rule of a model: from the halves' outputs to the scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from loaders.artifact import Link, Merge, MergeKind
from loaders.loader import LoadError, Scores

MergeRule = Callable[[Sequence[Scores]], Scores]
"""From partials (rows, width), the guest's first, to scores (rows, width), all float64."""


def merge_rule(merge: Merge) -> MergeRule:
    """Raises LoadError for a rule that this version does not know."""
    link = _LINKS[merge.link]
    match merge.kind:
        case MergeKind.SUM:
            return lambda partials: link(_added(partials))
        case MergeKind.NONE:
            return lambda partials: link(partials[0])
        case MergeKind.TREE_WALK:
            raise LoadError("merge kind 'tree_walk' needs a tree model; this version serves linear and local models")


def _added(partials: Sequence[Scores]) -> Scores:
    total = partials[0]
    for partial in partials[1:]:
        total = total + partial
    return total


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
