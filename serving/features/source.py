"""The contract of a feature source: where a host finds its features for a user id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

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


class FeatureSource(ABC):
    """Look-up by user id. `open` before anything else, `close` once."""

    @abstractmethod
    async def open(self) -> None:
        """Connect or read. Raises FeatureSourceError naming path, column or address."""

    @abstractmethod
    def check(self, signature: Signature) -> None:
        """Raise FeatureSourceError naming the features of `signature` that this source does not have."""

    @abstractmethod
    async def lookup(self, user_ids: Sequence[str], signature: Signature) -> FeatureRows:
        """One row per id. An unknown id is a row not found, never zeros. Raises FeatureSourceError."""

    @abstractmethod
    async def close(self) -> None: ...
