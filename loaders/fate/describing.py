"""What people and other nodes see of a FATE model: its components' parameters, and its parts as one file."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError, Message

from loaders.artifact import Artifact
from loaders.fate import parts_of
from loaders.fate.dsl import nodes_of
from loaders.fate.export import json_of
from tessera.compat import fate_model_pb2 as wire

_BOOSTING = dict.fromkeys(
    ("HeteroSecureBoost", "HeteroSecureBoosting", "HeteroSecureBoostingTree", "HeteroFastSecureBoost"),
    wire.BoostingTreeModelParam,
)
_PARAMS: dict[str, type[Message]] = {
    "DataIO": wire.DataIOParam,
    "DataTransform": wire.DataTransformParam,
    "FeatureImputation": wire.FeatureImputationParam,
    "Scale": wire.ScaleParam,
    "HeteroFeatureBinning": wire.FeatureBinningParam,
    "HeteroFeatureSelection": wire.FeatureSelectionParam,
    "OneHotEncoder": wire.OneHotParam,
    "HeteroLR": wire.LRModelParam,
    "HeteroLinR": wire.LinRModelParam,
    "HeteroPoisson": wire.PoissonModelParam,
    "HeteroFM": wire.FMModelParam,
    **_BOOSTING,
}


def components_of(artifact: Artifact) -> Iterator[tuple[str, str]]:
    """Name and Param (JSON) of every component that has one. Reads files."""
    parts = parts_of(artifact)
    for node in nodes_of(parts, artifact.manifest.role):
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
