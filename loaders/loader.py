"""The contracts of loaders and servables.

A loader turns an artifact into a servable. A servable predicts, synchronously, on arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from loaders.artifact import Artifact
from loaders.signature import Batch, Signature

Outputs = Mapping[str, npt.NDArray[Any]]
Scores = npt.NDArray[np.float64]
Partial = npt.NDArray[Any]
"""A half's first output for a batch: rows first, in the dtype and width of its `PartialSpec`."""


class LoadError(Exception):
    """An artifact cannot become a servable; the text names the file and the reason. The artifact's fault."""


class PartialError(ValueError):
    """A host's partial names something that the guest's half does not have. The host's fault."""


class PartialForm(Enum):
    """What travels between parties, by the dtype of one item."""

    NUMBERS = "<f8"
    DIRECTIONS = "|u1"
    """Bits, least significant first, each row filled up to whole bytes."""
    LEAVES = "<u4"


NO_LEAF = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class PartialSpec:
    """The partials of one half: `width` numbers, direction bits or leaf ids per row. `columns`: of the array that holds
    them; `blank_row`: the bytes of what stands in for a row that was not answered."""

    form: PartialForm
    width: int
    columns: int = field(init=False, compare=False)
    row_bytes: int = field(init=False, compare=False)
    blank_row: bytes = field(init=False, compare=False)
    _dtype: np.dtype[Any] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        fill, dtype = object.__setattr__, np.dtype(self.form.value)
        fill(self, "columns", -(-self.width // 8) if self.form is PartialForm.DIRECTIONS else self.width)
        fill(self, "row_bytes", self.columns * dtype.itemsize)
        fill(self, "_dtype", dtype)
        fill(self, "blank_row", self.blank(1).tobytes())

    def blank(self, rows: int) -> Partial:
        """Stands in for what a host did not answer: zeros, and for leaves no leaf at all."""
        return np.full((rows, self.columns), NO_LEAF if self.form is PartialForm.LEAVES else 0, dtype=self._dtype)

    def unpack(self, raw: bytes, rows: int) -> Partial:
        """Partials from the bytes of all rows; read-only. `raw` must hold `rows` times `row_bytes`."""
        return np.frombuffer(raw, self._dtype).reshape(rows, self.columns)


class Servable(ABC):
    """A model half in memory. Thread-safe, no I/O, never changes after load."""

    signature: Signature

    @property
    def partial(self) -> PartialSpec:
        """What a host's half sends. Other than numbers only where a half says so."""
        return PartialSpec(PartialForm.NUMBERS, self.signature.outputs[0].width)

    @property
    def score_width(self) -> int:
        """Scores per row, after the merge."""
        return self.signature.outputs[0].width

    def wanted(self, host: int) -> PartialSpec:
        """What a guest's half takes from the host at this place (from 0) among the hosts of the binding."""
        return PartialSpec(PartialForm.NUMBERS, self.signature.outputs[0].width)

    def combine(self, partials: Sequence[Partial]) -> Scores:
        """Linear scores (rows, score width) from the partials of guest and hosts; only of a guest's half. Raises
        PartialError."""
        total: Scores = partials[0]
        for partial in partials[1:]:
            total = total + partial
        return total

    @abstractmethod
    def predict(self, batch: Batch) -> Outputs:
        """Outputs by declared name, rows first. The first declared output is the partial or the score, float64
        (rows, width) unless `partial` says otherwise. One row costs microseconds, a thousand rows are vectorised.
        Raises FeatureError for bad input."""


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
