"""The contract of a feature source: where a host finds its features for a user id."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loaders.signature import Batch, Signature


class FeatureSourceError(Exception):
    """The source cannot answer; the text names the source and the reason. This party's fault."""


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Features for a batch of ids, in the order asked. Rows with `found` False hold NaN.

    `max_age_s`: for how long partials computed from these rows may be cached from now; None = no limit.
    """

    batch: Batch
    found: npt.NDArray[np.bool_]
    max_age_s: float | None


LookUp = Callable[[Sequence[str]], FeatureRows]
"""One row per id, as of `FeatureSource.lookup`."""


def gathered(
    name: str,
    users: Sequence[Mapping[str, Any] | None],
    signature: Signature,
    max_age_s: float | None,
) -> FeatureRows:
    """Rows from one mapping of features per id asked, None for an unknown one. What a mapping lacks is missing.

    Raises FeatureSourceError, naming the source `name` and the feature, when a value is not what the signature says.
    """
    rows = [user or {} for user in users]
    numbers = {one: [_number(name, one, row.get(one)) for row in rows] for one in signature.numbers}
    texts: dict[str, list[Any]] = {one: [_text(name, one, row.get(one)) for row in rows] for one in signature.texts}
    found = np.array([user is not None for user in users], dtype=np.bool_)
    return FeatureRows(signature.columns(len(rows), numbers, texts), found, max_age_s)


def _number(source: str, feature: str, value: Any) -> float:
    if value is None or value == "":
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise FeatureSourceError(f"{source}: feature {feature!r} of some user is not a number") from None


def _text(source: str, feature: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise FeatureSourceError(f"{source}: feature {feature!r} of some user is not a text")
    return value


class FeatureSource(ABC):
    """Look-up by user id. `open` before anything else, `close` once. No text of an error names a user."""

    @abstractmethod
    async def open(self) -> None:
        """Connect or read. Raises FeatureSourceError naming path, column or address."""

    @abstractmethod
    def check(self, signature: Signature) -> None:
        """Raise FeatureSourceError naming the features of `signature` that this source does not have. A source without
        columns (a hash per user, a service) cannot know and raises nothing."""

    @abstractmethod
    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        """One row per id. An unknown id is a row not found, never zeros. Raises FeatureSourceError."""

    def at_hand(self, signature: Signature) -> LookUp | None:
        """How users are looked up without waiting, to be used at once; None when that is not possible now. Raises
        FeatureSourceError."""
        return None

    @abstractmethod
    async def close(self) -> None: ...
