"""What a model takes and gives: declared tensors, and the batch of rows that goes in.

Every input tensor is filled from scalar *features*, in row-major order: a tensor of shape (-1,) is one feature of its
own name; a tensor of shape (-1, k, ...) takes k x ... features, named by `columns` or else `name[0]`, `name[1]`, ...
Number features of all inputs stand side by side in one float64 matrix, text features in one object matrix.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

OTHER = "*"
"""In `spellings`: every text but whole numbers and those that are listed, and every number that is written with a
fraction, 1.0 too."""
UNREADABLE = "?"
"""In `spellings`: every text that spells no number and is not listed, and all that is neither a text nor a number."""

Numbers = npt.NDArray[np.float64]
Texts = npt.NDArray[np.object_]


class Missing(Enum):
    """What an absent or NaN value means: an error, the half imputes it, or the model handles NaN itself."""

    ERROR = "error"
    IMPUTE = "impute"
    NATIVE = "native"


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One declared tensor. `shape` starts with -1 (rows). `dtype` is a numpy name or `string`.

    `range` is a public interval [low, high] from which self-test vectors are drawn; it is not enforced. `spellings`:
    texts that callers may send for a number, and what they mean (None: missing).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    missing: Missing = Missing.ERROR
    range: tuple[float, float] | None = None
    columns: tuple[str, ...] = ()
    spellings: dict[str, float | None] = {}

    @property
    def width(self) -> int:
        """Scalars per row."""
        return math.prod(self.shape[1:])

    @property
    def is_text(self) -> bool:
        return self.dtype == "string"

    def feature_names(self) -> tuple[str, ...]:
        if self.columns:
            return self.columns
        if len(self.shape) == 1:
            return (self.name,)
        return tuple(f"{self.name}[{index}]" for index in range(self.width))


class FeatureError(ValueError):
    """A feature of a request is wrong; the text names it. The caller's fault."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in signature order: `numbers` float64 (rows, number features), NaN = missing; `texts` object (rows, text
    features), None = missing. Both have the same number of rows."""

    numbers: Numbers
    texts: Texts

    @property
    def rows(self) -> int:
        return int(self.numbers.shape[0])

    def take(self, rows: npt.NDArray[np.intp]) -> Batch:
        """Some of the rows, by number."""
        return Batch(self.numbers[rows], self.texts[rows])


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a servable. Built once per load; look-ups are precomputed."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    numbers: tuple[str, ...] = field(init=False)
    texts: tuple[str, ...] = field(init=False)
    digest: bytes = field(init=False)
    _required: npt.NDArray[np.bool_] = field(init=False)
    _required_texts: tuple[int, ...] = field(init=False)
    _index: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        numbers = [spec for spec in self.inputs if not spec.is_text]
        texts = [spec for spec in self.inputs if spec.is_text]
        names = tuple(name for spec in numbers for name in spec.feature_names())
        required = [spec.missing is Missing.ERROR for spec in numbers for _ in spec.feature_names()]
        required_texts = [spec.missing is Missing.ERROR for spec in texts for _ in spec.feature_names()]
        fill = object.__setattr__
        fill(self, "numbers", names)
        fill(self, "texts", tuple(name for spec in texts for name in spec.feature_names()))
        fill(self, "_required", np.array(required, dtype=np.bool_))
        fill(self, "_required_texts", tuple(np.flatnonzero(required_texts).tolist()))
        fill(self, "_index", {name: position for position, name in enumerate(names)})
        described = [[spec.name, spec.dtype, *map(str, spec.shape), *spec.feature_names()] for spec in self.inputs]
        fill(self, "digest", hashlib.sha256(msgspec.json.encode(described)).digest())
        _refuse_duplicates((*self.numbers, *self.texts))

    def row(self, numbers: Mapping[str, float], texts: Mapping[str, str], ignore_unknown: bool = False) -> Batch:
        """One row from two named maps; absent = missing. Unknown names raise unless ignored. Not yet checked."""
        get = numbers.get
        nan = math.nan
        row = np.array([[get(name, nan) for name in self.numbers]], dtype=np.float64)
        if not ignore_unknown:
            self._refuse_unknown(numbers, texts)
        return Batch(row, self._words(texts))

    def columns(
        self,
        rows: int,
        numbers: Mapping[str, Sequence[float] | Numbers],
        texts: Mapping[str, Sequence[str]],
        ignore_unknown: bool = False,
    ) -> Batch:
        """`rows` rows from named columns; an absent column is missing in every row. Raises FeatureError."""
        if not ignore_unknown:
            self._refuse_unknown(numbers, texts)
        matrix = np.full((rows, len(self.numbers)), math.nan)
        for position, name in enumerate(self.numbers):
            if name in numbers:
                matrix[:, position] = _column(name, numbers[name], rows)
        return Batch(matrix, self._word_columns(rows, texts))

    def packed(self, numbers: Numbers, texts: Mapping[str, Any], columnar: bool) -> Batch:
        """Rows whose numbers are in signature order already; texts as in `row` or `columns`. Raises FeatureError."""
        self._refuse_unknown({}, texts)
        return Batch(numbers, self._word_columns(len(numbers), texts) if columnar else self._words(texts))

    def check(self, batch: Batch) -> None:
        """Refuse Inf anywhere, NaN and absent texts where the input declares `error`. Raises FeatureError."""
        numbers = batch.numbers
        if not all_finite(numbers):
            self._refuse_not_finite(numbers)
        if self._required_texts:
            self._refuse_absent_texts(batch.texts)

    def usable(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Which rows `check` would accept: bool (rows,)."""
        if all_finite(batch.numbers):
            usable = np.ones(batch.rows, dtype=np.bool_)
        else:
            wrong = np.isinf(batch.numbers) | (np.isnan(batch.numbers) & self._required)
            usable = np.logical_not(wrong.any(axis=1))
        for position in self._required_texts:
            usable &= np.array([word is not None for word in batch.texts[:, position]])
        return usable

    def _words(self, texts: Mapping[str, str]) -> Texts:
        words = np.empty((1, len(self.texts)), dtype=np.object_)
        if self.texts:
            words[0, :] = [texts.get(name) for name in self.texts]
        return words

    def _word_columns(self, rows: int, texts: Mapping[str, Sequence[str]]) -> Texts:
        words = np.full((rows, len(self.texts)), None, dtype=np.object_)
        for position, name in enumerate(self.texts):
            if name in texts:
                words[:, position] = _column(name, texts[name], rows)
        return words

    def _refuse_not_finite(self, numbers: Numbers) -> None:
        infinite = np.isinf(numbers).any(axis=0)
        if infinite.any():
            raise FeatureError(f"feature {self.numbers[int(infinite.argmax())]!r} is infinite")
        absent = np.isnan(numbers).any(axis=0) & self._required
        if absent.any():
            raise FeatureError(f"feature {self.numbers[int(absent.argmax())]!r} is missing or NaN and has no default")

    def _refuse_unknown(self, numbers: Mapping[str, object], texts: Mapping[str, object]) -> None:
        if not numbers.keys() <= self._index.keys():
            unknown = min(numbers.keys() - self._index.keys())
            wrong = unknown in self.texts
            raise FeatureError(
                f"feature {unknown!r} is a text, send it in `texts`" if wrong else f"unknown feature {unknown!r}"
            )
        if texts and not texts.keys() <= set(self.texts):
            unknown = min(texts.keys() - set(self.texts))
            wrong = unknown in self._index
            raise FeatureError(
                f"feature {unknown!r} is a number, send it in `numbers`" if wrong else f"unknown feature {unknown!r}"
            )

    def _refuse_absent_texts(self, texts: Texts) -> None:
        for position in self._required_texts:
            if None in texts[:, position].tolist():
                raise FeatureError(f"text feature {self.texts[position]!r} is missing and has no default")


def all_finite(values: Numbers) -> bool:
    """Their squares are added first: of few values that takes a third of the time."""
    return math.isfinite(np.vdot(values, values)) or bool(np.isfinite(values).all())


def _column(name: str, values: Sequence[object] | Numbers, rows: int) -> Sequence[object] | Numbers:
    if len(values) != rows:
        raise FeatureError(f"feature {name!r} has {len(values)} values for {rows} rows")
    return values


def _refuse_duplicates(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FeatureError(f"feature {twice!r} is declared twice")
