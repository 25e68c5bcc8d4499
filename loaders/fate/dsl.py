"""The pipeline of an export: its components in the order in which data passes through them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from loaders.fate.export import ExportError, Parts
from tessera.compat import fate_model_pb2 as wire

PIPELINE = "pipeline/pipeline/Pipeline"
ROLES = ("Guest", "Host")


@dataclass(frozen=True, slots=True)
class Node:
    """`kind`: its class without the role; `upstream`: the components whose data it takes; `settings`: its parameters of
    the training run."""

    name: str
    kind: str
    role: str
    upstream: Sequence[str]
    settings: Mapping[str, object]


def nodes_of(parts: Parts, role: str) -> list[Node]:
    """Components, each after those that it takes data from. Raises ExportError."""
    try:
        pipeline = wire.Pipeline.FromString(parts[PIPELINE])
    except DecodeError:
        raise ExportError("the part pipeline.pipeline:Pipeline is no Pipeline") from None
    dsl = _json(pipeline.inference_dsl, "inference_dsl")
    components = dsl.get("components")
    if not isinstance(components, dict) or not components:
        raise ExportError("its inference_dsl has no components; deploy the model before it is exported")
    settings = _settings(pipeline, role)
    nodes = {name: _node(name, one, settings.get(name, {})) for name, one in components.items()}
    try:
        order = list(TopologicalSorter({name: node.upstream for name, node in nodes.items()}).static_order())
    except CycleError:
        raise ExportError("the components of its inference_dsl lead back to themselves") from None
    unknown = [name for name in order if name not in nodes]
    if unknown:
        raise ExportError(f"its inference_dsl takes data from {unknown[0]!r}, which it does not hold")
    return [nodes[name] for name in order]


def _node(name: str, given: Any, settings: Mapping[str, object]) -> Node:
    if not isinstance(given, dict):
        raise ExportError(f"component {name!r} of its inference_dsl is no object")
    path = str(given.get("CodePath") or given.get("module") or "")
    kind = path.rstrip("/").rpartition("/")[2]
    role = next((role for role in ROLES if kind.endswith(role)), "")
    upstream = dict.fromkeys(source for source in _sources(given) if source != "args")
    return Node(name, kind.removesuffix(role), role.lower(), tuple(upstream), settings)


def _sources(given: Mapping[str, Any]) -> Iterator[str]:
    """Components named in `input.data`, as `component.output`."""
    inputs = given.get("input")
    taken = inputs.get("data") if isinstance(inputs, dict) else None
    for entries in taken.values() if isinstance(taken, dict) else ():
        for entry in entries if isinstance(entries, list) else [entries]:
            yield str(entry).partition(".")[0]


def _settings(pipeline: wire.Pipeline, role: str) -> dict[str, dict[str, object]]:
    """Parameters by component: those for all, then those of the first party of this role."""
    raw = pipeline.runtime_conf_on_party or pipeline.train_runtime_conf
    conf = _json(raw, "runtime conf") if raw else {}
    found: dict[str, dict[str, object]] = {}
    parameters = _object(conf, "component_parameters")
    for group in (
        _object(conf, "algorithm_parameters"),
        _object(parameters, "common"),
        _object(_object(_object(parameters, "role"), role), "0"),
    ):
        for name, values in group.items():
            if isinstance(values, dict):
                found.setdefault(name, {}).update(values)
    return found


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _json(raw: bytes, name: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExportError(f"its {name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ExportError(f"its {name} is no JSON object")
    return document
