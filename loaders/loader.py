"""The contracts of loaders and servables.

A loader turns an artifact into a servable. A servable predicts, synchronously, on arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from loaders.artifact import Artifact
from loaders.signature import Batch, Signature

Outputs = Mapping[str, npt.NDArray[Any]]
Scores = npt.NDArray[np.float64]


class LoadError(Exception):
    """An artifact cannot become a servable; the text names the file and the reason. The artifact's fault."""


class Servable(ABC):
    """A model half in memory. Thread-safe, no I/O, never changes after load."""

    signature: Signature

    @abstractmethod
    def predict(self, batch: Batch) -> Outputs:
        """Outputs by declared name, rows first. The first declared output is the partial or the score, float64
        (rows, width). One row costs microseconds, a thousand rows are vectorised. Raises FeatureError for bad input."""


class Loader(ABC):
    """Turns one artifact into one servable. Cheap to construct.

    Order of calls: `estimate`, `load`, `unload`, each at most once. `load` is slow and runs off the event loop, never
    concurrently with `unload`. `Artifact` has checked the digests before a loader sees it; a loader never unpickles.
    The caller runs the artifact's self-test on the servable before it counts as loaded.
    """

    format: ClassVar[str]

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact

    @abstractmethod
    def estimate(self) -> int:
        """Bytes that the servable will hold, from file sizes and the manifest; reads no array."""

    @abstractmethod
    def load(self) -> Servable:
        """Raises LoadError."""

    def unload(self) -> None:  # noqa: B027 - most servables hold only arrays
        """Release what the garbage collector does not."""
