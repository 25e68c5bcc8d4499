"""DataIO and DataTransform: the columns of a request, missing values and outliers replaced.

Offline the columns are those of the header. FATE-Serving keeps whatever the request has, and compares a value in lower
case with the lists; with the imputer on it keeps only the imputed columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from loaders.fate.component import Columns, Component
from loaders.servables.program import Column, Fill, Replace, Step, is_whole, number_in, text_code
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"DataIO", "DataTransform"})

ABSENT_IS_ZERO = {"tag", "sparse"}
"""Input formats whose rows name only some columns."""
MISSING_TEXTS = ("", "NULL", "null", "NA")
"""What is missing offline in dense rows without an imputer."""


def transform(component: Component, columns: Columns) -> Columns:
    meta, param = component.meta(wire.DataIOMeta), component.param(wire.DataIOParam)
    sparse, imputes = meta.input_format in ABSENT_IS_ZERO, meta.imputer_meta.is_imputer
    compat = component.site.compat
    if sparse or not compat:
        columns = replace(columns.only(param.header), sparse=not compat and meta.output_format == "sparse")
    if imputes:
        replacements = dict(param.imputer_param.missing_replace_value)
        columns = impute(columns, _markers(meta.imputer_meta.missing_value, compat), replacements)
        columns = columns.only(replacements) if compat else columns
    elif sparse:
        columns = columns.next_stage(dict.fromkeys(columns.known, Fill(0.0)))
    if meta.outlier_meta.is_outlier:
        markers = _markers(meta.outlier_meta.outlier_value, compat)
        replacements = dict(param.outlier_param.outlier_replace_value)
        columns = _outliers(columns, markers, replacements, not compat and any(map(_marks_missing, markers)))
    if compat or sparse or imputes:
        return columns
    return replace(columns, spellings={**dict.fromkeys(MISSING_TEXTS), **columns.spellings})


def impute(columns: Columns, markers: Iterable[str], replacements: Mapping[str, str], fills: bool = True) -> Columns:
    """Marked values of the columns of `replacements` become these, and missing ones where it `fills`."""
    markers = frozenset(markers)
    texts = {marker for marker in markers if number_in(marker) is None}
    codes = frozenset(code for marker in markers if (code := text_code(marker)) == code)  # NaN is missing by itself
    columns = replace(
        columns,
        words=columns.words | markers | set(replacements.values()),
        spellings={**dict.fromkeys([*texts, ""], None), **columns.spellings},
    )
    columns = _as_texts(columns, replacements)
    marked = {name: Replace(codes, text_code(value), is_whole(value)) for name, value in replacements.items()}
    return columns.next_stage(_filled(replacements) if fills else {}).next_stage(marked if codes else {})


def _outliers(columns: Columns, markers: frozenset[str], replacements: Mapping[str, str], fills: bool) -> Columns:
    """An outlier of a column without replacement is missing afterwards; what is missing is one where it `fills`."""
    codes = frozenset(code for marker in markers if (code := text_code(marker)) == code)
    spelled = {marker: text_code(marker) for marker in markers if number_in(marker) is None}
    columns = replace(
        columns,
        words=columns.words | markers | set(replacements.values()),
        spellings={**spelled, **columns.spellings},
    )
    columns = _as_texts(columns, replacements).next_stage(_filled(replacements) if fills else {})
    lost: dict[str, Step] = dict.fromkeys(columns.known, Replace(codes, math.nan))
    steps = {name: Replace(codes, text_code(value), is_whole(value)) for name, value in replacements.items()}
    return columns.next_stage({**lost, **steps}, Replace(codes, math.nan) if columns.is_open else None)


def _filled(replacements: Mapping[str, str]) -> dict[str, Step]:
    return {name: Fill(text_code(value), is_whole(value)) for name, value in replacements.items()}


def _marks_missing(marker: str) -> bool:
    number = number_in(marker)
    return not marker or (number is not None and math.isnan(number))


def _as_texts(columns: Columns, replacements: Mapping[str, str]) -> Columns:
    """A column that gets a word for a number cannot be computed with."""
    worded = [name for name, value in replacements.items() if number_in(value) is None]
    found = {name: columns.find(name) for name in worded}
    known: dict[str, Column] = {name: replace(one, is_text=True) for name, one in found.items() if one is not None}
    return replace(columns, known={**columns.known, **known})


def _markers(listed: Iterable[str], compat: bool) -> frozenset[str]:
    """FATE-Serving sees values in lower case: markers with capitals never match there, others in any case do."""
    if not compat:
        return frozenset(listed)
    lower = [marker for marker in listed if marker == marker.lower()]
    return frozenset(form for marker in lower for form in (marker, marker.upper(), marker.capitalize()))
