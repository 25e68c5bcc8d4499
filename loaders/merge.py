"""The merge rule of a model: from the halves' outputs to the scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from loaders.artifact import Link, Merge, MergeKind
from loaders.loader import LoadError, Partial, PartialForm, Scores, Servable
from loaders.servables.trees import TreeGuest

MergeRule = Callable[[Sequence[Partial]], Scores]
"""From partials, the guest's first, to scores float64 (rows, width). Raises PartialError."""


def merge_rule(merge: Merge, servable: Servable) -> MergeRule:
    """The rule of the guest's half `servable`; a host's half merges nothing, and its rule is never called. Raises
    LoadError for a rule that is not for this kind of half."""
    link = _LINKS[merge.link]
    match merge.kind:
        case MergeKind.SUM:
            return lambda partials: link(_added(partials))
        case MergeKind.NONE:
            return lambda partials: link(partials[0])
        case MergeKind.TREE_WALK:
            return _tree_walk(servable, link)


def _tree_walk(servable: Servable, link: Callable[[Scores], Scores]) -> MergeRule:
    if isinstance(servable, TreeGuest):
        return lambda partials: link(servable.walk(partials))
    if servable.partial.form is PartialForm.NUMBERS:
        raise LoadError("merge kind 'tree_walk' is for halves of trees; this one gives numbers")
    return lambda partials: link(partials[0])


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
