"""DataIO and DataTransform: the columns of a request, missing values and outliers replaced.

Offline the columns are those of the header, and what is not there is missing where a list names "" or NaN. FATE-Serving
keeps whatever the request has, replaces what is not there whatever its list names, and compares a value in lower case
with the lists; with the imputer on it keeps only the imputed columns.
"""

from __future__ import annotations

from dataclasses import replace

from loaders.fate.component import Columns, Component, ComponentError
from loaders.fate.replacing import Marks, impute, replace_outliers
from loaders.servables.program import NAN_SENT, Fill, NearZero
from tessera.compat import fate_model_pb2 as wire

KINDS = frozenset({"DataIO", "DataTransform"})

ABSENT_IS_ZERO = {"tag", "sparse"}
"""Input formats whose rows name only some columns."""
MISSING_TEXTS = ("", "NULL", "null", "NA")
"""What is missing offline in dense rows without an imputer."""


def transform(component: Component, columns: Columns) -> Columns:
    meta, param = component.meta(wire.DataIOMeta), component.param(wire.DataIOParam)
    columns = replace(columns, header=frozenset(param.header))
    return _serving(meta, param, columns) if component.site.compat else _offline(meta, param, columns)


def writes(component: Component) -> bool:
    """Whether FATE-Serving's writes into the values that it is given, and passes these on."""
    meta = component.meta(wire.DataIOMeta)
    return meta.input_format not in ABSENT_IS_ZERO and not meta.imputer_meta.is_imputer


def _offline(meta: wire.DataIOMeta, param: wire.DataIOParam, columns: Columns) -> Columns:
    columns = columns.only(param.header)
    named = meta.input_format in ABSENT_IS_ZERO
    imputes = meta.imputer_meta.is_imputer and (meta.input_format != "tag" or meta.tag_with_value)
    if imputes:
        marks = Marks.offline(meta.imputer_meta.missing_value)
        columns = impute(columns, marks, dict(param.imputer_param.missing_replace_value))
    elif named:
        columns = replace(columns, lacks_zeros=True)
    else:
        columns = replace(columns, spellings={**dict.fromkeys(MISSING_TEXTS), **columns.spellings})
    if meta.outlier_meta.is_outlier:
        marks = Marks.offline(meta.outlier_meta.outlier_value)
        columns = replace_outliers(columns.settled(), marks, dict(param.outlier_param.outlier_replace_value))
    if meta.output_format != "sparse":
        return columns.settled()
    return columns if named else _without_zeros(columns)


def _without_zeros(columns: Columns) -> Columns:
    zeros = dict.fromkeys(columns.known, NearZero(0.0))
    return replace(columns.next_stage(zeros), skips_zeros=True)


def _serving(meta: wire.DataIOMeta, param: wire.DataIOParam, columns: Columns) -> Columns:
    named = meta.input_format in ABSENT_IS_ZERO
    columns = columns.only(param.header) if named else columns
    if meta.imputer_meta.is_imputer:
        columns = _imputed(list(meta.imputer_meta.missing_value), param, columns, named)
    elif named:
        zeros = dict.fromkeys(columns.known, Fill(0.0))
        columns = columns.next_stage(zeros).spelled(zeros, {"NaN": NAN_SENT})
    if meta.outlier_meta.is_outlier:
        marks = Marks.serving(meta.outlier_meta.outlier_value, missing=False)
        columns = replace_outliers(columns, marks, dict(param.outlier_param.outlier_replace_value))
    return columns


def _imputed(listed: list[str], param: wire.DataIOParam, columns: Columns, named: bool) -> Columns:
    if named and "" not in listed:
        raise ComponentError(
            'FATE-Serving puts "" where a row has no value, and its list of missing values (missing_value) lacks it: '
            'add "", or load it in mode strict_offline'
        )
    replacements = dict(param.imputer_param.missing_replace_value)
    columns = impute(columns, Marks.serving(listed, missing=True), replacements).only(replacements)
    return columns if "nan" in listed else columns.spelled(replacements, {"NaN": NAN_SENT})
