"""Missing values and outliers: what a list of them marks, and the columns in which others stand in for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from loaders.fate.component import Columns
from loaders.servables.program import NAN_SENT, Column, Fill, Replace, Step, is_whole, number_in, text_code

UNLISTED = ("", "none", "null", "na", "None", "nan")
"""What FATE marks offline where a list is empty."""
NAN_SPELLINGS = ("nan", "NaN", "NAN")


@dataclass(frozen=True, slots=True)
class Marks:
    """`numbers`, and `texts` with the numbers that stand for them. `missing`: what is not there is marked too."""

    numbers: frozenset[float]
    texts: Mapping[str, float]
    missing: bool

    @property
    def codes(self) -> frozenset[float]:
        return self.numbers | frozenset(self.texts.values())

    @classmethod
    def offline(cls, listed: Iterable[str]) -> Marks:
        """FATE compares texts as they are written; a value that is not there is "" or NaN to it."""
        markers = list(listed) or UNLISTED
        texts = {marker: text_code(marker) for marker in markers if number_in(marker) is None}
        numbers = [number for number in map(number_in, markers) if number is not None]
        finite = frozenset(number for number in numbers if not math.isnan(number))
        return cls(finite, texts, "" in texts or len(finite) < len(numbers))

    @classmethod
    def serving(cls, listed: Iterable[str], missing: bool) -> Marks:
        """FATE-Serving sees values in lower case: markers with capitals never match there, others in any case do. NaN
        is a text like any other."""
        lower = [marker for marker in listed if marker == marker.lower()]
        texts = {
            form: text_code(form)
            for marker in lower
            if number_in(marker) is None
            for form in (marker, marker.upper(), marker.capitalize())
        }
        if "nan" in lower:
            texts |= dict.fromkeys(NAN_SPELLINGS, NAN_SENT)
        numbers = [number for number in map(number_in, lower) if number is not None]
        return cls(frozenset(number for number in numbers if not math.isnan(number)), texts, missing)


def impute(columns: Columns, marks: Marks, replacements: Mapping[str, str]) -> Columns:
    """What is marked becomes the column's replacement. Where missing values do, texts that are marked are missing."""
    spelled = dict.fromkeys(marks.texts) if marks.missing else marks.texts
    columns = _reading(columns, marks, replacements, spelled)
    return columns.next_stage(_marked(marks, replacements) if marks.codes else {})


def replace_outliers(columns: Columns, marks: Marks, replacements: Mapping[str, str]) -> Columns:
    """As above; an outlier of a column without replacement is missing afterwards."""
    columns = _reading(columns, marks, replacements, marks.texts)
    lost = Replace(marks.codes, math.nan)
    marked = {**dict.fromkeys(columns.known, lost), **_marked(marks, replacements)}
    return columns.next_stage(marked if marks.codes else {}, lost if columns.is_open else None)


def _reading(
    columns: Columns, marks: Marks, replacements: Mapping[str, str], spelled: Mapping[str, float | None]
) -> Columns:
    """With the texts that are marked, and missing values replaced where these are."""
    columns = replace(
        columns,
        words=columns.words | marks.texts.keys() | set(replacements.values()),
        spellings={**spelled, **columns.spellings},
    )
    filled = {name: Fill(text_code(value), is_whole(value)) for name, value in replacements.items()}
    return _as_texts(columns, replacements).next_stage(filled if marks.missing else {})


def _marked(marks: Marks, replacements: Mapping[str, str]) -> dict[str, Step]:
    return {name: Replace(marks.codes, text_code(value), is_whole(value)) for name, value in replacements.items()}


def _as_texts(columns: Columns, replacements: Mapping[str, str]) -> Columns:
    """A column that gets a word for a number cannot be computed with."""
    worded = [name for name, value in replacements.items() if number_in(value) is None]
    found = {name: columns.find(name) for name in worded}
    known: dict[str, Column] = {name: replace(one, is_text=True) for name, one in found.items() if one is not None}
    return replace(columns, known={**columns.known, **known})
