"""Preprocessing compiled into few array operations: each column is a chain of scalar steps, each stage runs over all.

A column's chain is written down while a model is read; `compile_program` takes the chains of the columns that the model
uses, and lays the steps of one stage side by side.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from loaders.loader import Outputs, Partial, PartialSpec, Scores, Servable
from loaders.signature import Batch, Numbers, Signature, Texts

_WHOLE = re.compile(r"[+-]?[0-9]+")

Transform = Callable[[Numbers], Numbers]

NO_TEXT = -(2.0**900)
"""Stands for a text that the model does not know; multiples of it for texts that it does."""
NAN_SENT = sys.float_info.max
"""Stands for a NaN that a caller sent, where that is something else than a value that is not there."""


def text_code(text: str) -> float:
    """The number that stands for a text: its own when it spells one, else one that nobody sends."""
    spelled = number_in(text)
    if spelled is not None:
        return spelled
    return NO_TEXT * (2 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big"))


def number_in(text: str) -> float | None:
    """The number that a text spells, NaN included; None for any other text."""
    try:
        return float(text)
    except ValueError:
        return None


def is_whole(text: str) -> bool:
    """Whether a text spells a whole number, digit by digit."""
    return _WHOLE.fullmatch(text) is not None


class Step(Protocol):
    """What one stage does to one column."""

    def side_by_side(self, steps: Sequence[Self | None]) -> Transform:
        """The stage: one step or None for each column. Never writes into what it is given."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column while the model is read. `steps` carry the number of their stage. `is_text`: its numbers are codes.
    `spellings`: what texts mean that callers send for its source."""

    source: str
    steps: tuple[tuple[int, Step], ...] = ()
    is_text: bool = False
    spellings: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def is_raw(self) -> bool:
        """Whether its numbers are those of the request, or stand in for them."""
        return all(isinstance(step, Fill | Replace) for _, step in self.steps)

    @property
    def may_be_nan(self) -> bool:
        """Whether NAN_SENT is among its numbers."""
        return NAN_SENT in self.spellings.values() and not self._is_made

    @property
    def _is_made(self) -> bool:
        return any(isinstance(step, Bins | Indicator) for _, step in self.steps)

    def spelled(self, spellings: Mapping[str, float]) -> Column:
        """With meanings for texts that are no numbers; what rescales numbers lets them pass. No change where numbers
        were made of the request's values already."""
        if self._is_made:
            return self
        steps = tuple(
            (stage, replace(step, passes=True) if isinstance(step, Rescale | Above) else step)
            for stage, step in self.steps
        )
        return replace(self, steps=steps, spellings={**self.spellings, **spellings})

    def then(self, stage: int, step: Step) -> Column:
        return replace(self, steps=(*self.steps, (stage, step)))


@dataclass(frozen=True, slots=True)
class Fill:
    """What replaces a missing number. `whole`: it is written as a whole number."""

    value: float
    whole: bool = True

    def side_by_side(self, steps: Sequence[Fill | None]) -> Transform:
        fill = np.array([np.nan if step is None else step.value for step in steps])

        def run(numbers: Numbers) -> Numbers:
            missing = np.isnan(numbers)
            return np.where(missing, fill, numbers) if missing.any() else numbers

        return run


@dataclass(frozen=True, slots=True)
class Replace:
    """`value` in the place of any of `markers`. `whole` as above."""

    markers: frozenset[float]
    value: float
    whole: bool = True

    def side_by_side(self, steps: Sequence[Replace | None]) -> Transform:
        markers = sorted(set().union(*(step.markers for step in steps if step is not None)))
        value = np.array([np.nan if step is None else step.value for step in steps])
        concerned = [
            np.array([step is not None and marker in step.markers for step in steps], dtype=np.bool_)
            for marker in markers
        ]

        def run(numbers: Numbers) -> Numbers:
            found = np.zeros(numbers.shape, dtype=np.bool_)
            for marker, columns in zip(markers, concerned, strict=True):
                found |= (numbers == marker) & columns
            return np.where(found, value, numbers) if found.any() else numbers

        return run


@dataclass(frozen=True, slots=True)
class Rescale:
    """(x - mean) / scale, after x was limited to [lower, upper]. `passes`: what stands for no number stays."""

    lower: float
    upper: float
    mean: float
    scale: float
    passes: bool = False

    def side_by_side(self, steps: Sequence[Rescale | None]) -> Transform:
        table = [(-np.inf, np.inf, 0.0, 1.0) if one is None else _fields(one) for one in steps]
        lower, upper, mean, scale = np.array(table).T
        return _passing(steps, lambda numbers: (np.minimum(np.maximum(numbers, lower), upper) - mean) / scale)


def _fields(step: Rescale) -> tuple[float, float, float, float]:
    return (step.lower, step.upper, step.mean, step.scale)


@dataclass(frozen=True, slots=True)
class Above:
    """`value` for all that lies above `limit`: for rescaled numbers whose limits coincide. `passes` as above."""

    limit: float
    value: float
    inner: Rescale
    passes: bool = False

    def side_by_side(self, steps: Sequence[Above | None]) -> Transform:
        limit = np.array([np.inf if step is None else step.limit for step in steps])
        value = np.array([0.0 if step is None else step.value for step in steps])
        rescale = self.inner.side_by_side([None if step is None else step.inner for step in steps])
        return _passing(steps, lambda numbers: np.where(numbers > limit, value, rescale(numbers)))


def _passing(steps: Sequence[Rescale | Above | None], transform: Transform) -> Transform:
    passes = np.array([step is not None and step.passes for step in steps])
    if not passes.any():
        return transform
    return lambda numbers: np.where(
        passes & ((numbers == NAN_SENT) | (numbers <= NO_TEXT)), numbers, transform(numbers)
    )


@dataclass(frozen=True, slots=True)
class Bins:
    """`values[number of splits below x]`; `missing` for a missing number. `drops_texts`: what stands for a text is
    missing too. `leaves_zero`: 0 stays 0."""

    splits: tuple[float, ...]
    values: tuple[float, ...]
    missing: float
    drops_texts: bool = False
    leaves_zero: bool = False

    def side_by_side(self, steps: Sequence[Bins | None]) -> Transform:
        width = max(len(step.values) for step in steps if step is not None)
        splits = np.full((len(steps), width - 1), np.inf)
        values = np.zeros((len(steps), width))
        missing = np.array([np.nan if step is None else step.missing for step in steps])
        concerned = np.array([step is not None for step in steps])
        for row, step in enumerate(steps):
            if step is not None:
                splits[row, : len(step.splits)] = step.splits
                values[row, : len(step.values)] = step.values
        flat, first = values.reshape(-1), np.arange(0, len(steps) * width, width)
        drops_texts, leaves_zero = self.drops_texts, self.leaves_zero

        def run(numbers: Numbers) -> Numbers:
            place = np.add.reduce(numbers[:, :, None] > splits, axis=2, dtype=np.intp)
            absent = np.isnan(numbers) | (numbers <= NO_TEXT) if drops_texts else np.isnan(numbers)
            binned = np.where(absent, missing, flat.take(first + place))
            return np.where(concerned & (numbers != 0) if leaves_zero else concerned, binned, numbers)

        return run


@dataclass(frozen=True, slots=True)
class Indicator:
    """1 where x equals `value`, else 0. `keeps_missing`: a missing number stays missing. `whole_only`: a number with a
    fraction counts as 0."""

    value: float
    keeps_missing: bool = False
    whole_only: bool = False

    def side_by_side(self, steps: Sequence[Indicator | None]) -> Transform:
        value = np.array([np.nan if step is None else step.value for step in steps])
        concerned = np.array([step is not None for step in steps])
        keeps_missing, whole_only = self.keeps_missing, self.whole_only

        def run(numbers: Numbers) -> Numbers:
            compared = np.where(numbers == np.trunc(numbers), numbers, 0.0) if whole_only else numbers
            indicated = (compared == value).astype(np.float64)
            if keeps_missing:
                indicated = np.where(np.isnan(numbers), np.nan, indicated)
            return np.where(concerned, indicated, numbers)

        return run


@dataclass(frozen=True, slots=True)
class NearZero:
    """Numbers within `limit` of 0 become `value`."""

    value: float
    limit: ClassVar[float] = 1e-8

    def side_by_side(self, steps: Sequence[NearZero | None]) -> Transform:
        concerned = np.array([step is not None for step in steps])
        return lambda numbers: np.where(concerned & (np.abs(numbers) < self.limit), self.value, numbers)


class Vocabulary:
    """The texts that a model knows, by their codes. Any other text counts as the number that it spells, if it does."""

    def __init__(self, words: Iterable[str]) -> None:
        self._codes = {word: text_code(word) for word in words}

    def encode(self, texts: Texts) -> list[float]:
        return [self._code(text) for text in texts]

    def _code(self, text: str | None) -> float:
        if text is None:
            return math.nan
        code = self._codes.get(text)
        if code is not None:
            return code
        spelled = number_in(text)
        return NO_TEXT if spelled is None else spelled


class Program:
    """Compiled preprocessing: from the batch of a request to the model's columns (rows, columns)."""

    def __init__(self, source: npt.NDArray[np.intp], vocabulary: Vocabulary, stages: Sequence[Transform]) -> None:
        self._source = source
        self._vocabulary = vocabulary
        self._stages = tuple(stages)

    def run(self, batch: Batch) -> Numbers:
        numbers = batch.numbers
        if batch.texts.shape[1]:
            codes = np.array(self._vocabulary.encode(batch.texts.ravel())).reshape(batch.texts.shape)
            numbers = np.concatenate([numbers, codes], axis=1)
        numbers = numbers.take(self._source, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            for stage in self._stages:
                numbers = stage(numbers)
        return numbers


def compile_program(columns: Sequence[Column], signature: Signature, words: Iterable[str]) -> Program:
    """`words`: the texts that the model knows. Columns name inputs of the signature."""
    place = {name: position for position, name in enumerate((*signature.numbers, *signature.texts))}
    source = np.array([place[column.source] for column in columns], dtype=np.intp)
    by_stage: dict[int, list[Step | None]] = {}
    for position, column in enumerate(columns):
        for stage, step in column.steps:
            by_stage.setdefault(stage, [None] * len(columns))[position] = step
    stages = [_stage(by_stage[stage]) for stage in sorted(by_stage)]
    return Program(source, Vocabulary(words), stages)


def _stage(steps: list[Step | None]) -> Transform:
    first = next(step for step in steps if step is not None)
    return first.side_by_side(steps)


class Prepared(Servable):
    """A half behind its preprocessing."""

    def __init__(self, signature: Signature, program: Program, half: Servable) -> None:
        self.signature = signature
        self._program = program
        self._half = half

    @property
    def partial(self) -> PartialSpec:
        return self._half.partial

    @property
    def score_width(self) -> int:
        return self._half.score_width

    def wanted(self, host: int) -> PartialSpec:
        return self._half.wanted(host)

    def combine(self, partials: Sequence[Partial]) -> Scores:
        return self._half.combine(partials)

    def predict(self, batch: Batch) -> Outputs:
        return self._half.predict(Batch(self._program.run(batch), np.empty((batch.rows, 0), dtype=np.object_)))
