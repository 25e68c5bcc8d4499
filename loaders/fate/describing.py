"""What people and other nodes see of a FATE model: its components' parameters, and its parts as one file."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError, Message

from loaders.artifact import Artifact
from loaders.fate import parts_of
from loaders.fate.components import (
    data_transform,
    feature_binning,
    feature_imputation,
    feature_selection,
    hetero_fm,
    hetero_linr,
    hetero_lr,
    hetero_poisson,
    hetero_secureboost,
    one_hot,
    scale,
)
from loaders.fate.dsl import nodes_of
from loaders.fate.export import Parts, json_of
from tessera.compat import fate_model_pb2 as wire

_MESSAGES: dict[type[Message], frozenset[str]] = {
    wire.DataTransformParam: data_transform.KINDS,
    wire.FeatureImputationParam: feature_imputation.KINDS,
    wire.ScaleParam: scale.KINDS,
    wire.FeatureBinningParam: feature_binning.KINDS,
    wire.FeatureSelectionParam: feature_selection.KINDS,
    wire.OneHotParam: one_hot.KINDS,
    wire.LRModelParam: hetero_lr.KINDS,
    wire.LinRModelParam: hetero_linr.KINDS,
    wire.PoissonModelParam: hetero_poisson.KINDS,
    wire.FMModelParam: hetero_fm.KINDS,
    wire.BoostingTreeModelParam: hetero_secureboost.KINDS,
}
_PARAMS = {kind: message for message, kinds in _MESSAGES.items() for kind in kinds}
"""Scorecard has none."""


def components_of(artifact: Artifact) -> Iterator[tuple[str, str]]:
    """Name and Param (JSON, "" for none) of every component. Reads files."""
    return params_in(parts_of(artifact), artifact.manifest.role)


def params_in(parts: Parts, role: str) -> Iterator[tuple[str, str]]:
    """The same, of the parts."""
    for node in nodes_of(parts, role):
        raw = next(
            (raw for key, raw in parts.items() if key.startswith(f"{node.name}/") and key.endswith("Param")), None
        )
        kind = _PARAMS.get(node.kind)
        yield node.name, "" if raw is None or kind is None else _json(kind, raw)


def cache_file(artifact: Artifact) -> bytes:
    """As FATE-Serving keeps a model. Reads files."""
    return json_of(parts_of(artifact))


def _json(kind: type[Message], raw: bytes) -> str:
    try:
        return MessageToJson(kind.FromString(raw), preserving_proto_field_name=True, indent=None)
    except DecodeError:
        return ""
