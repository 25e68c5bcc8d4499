"""From the parts of an export to one compiled half: columns through the components, then the model at the end."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import msgspec
import numpy as np

from loaders.artifact import Merge, MergeKind
from loaders.fate import components
from loaders.fate.component import Columns, Component, ComponentError, Model, Site
from loaders.fate.components import one_hot
from loaders.fate.dsl import Node, nodes_of
from loaders.fate.export import Parts
from loaders.fate.order import as_serving_runs
from loaders.loader import Servable
from loaders.servables.program import Prepared, Program, compile_program
from loaders.signature import Batch, Missing, Signature, TensorSpec

LABELS = "LabelTransform"
WITHOUT_EFFECT = frozenset(
    {
        *("Reader", "Intersection", "Intersect", "RawIntersect", "RsaIntersect", "PSI", "Evaluation"),
        *("FederatedSample", "Sampler", "SampleWeight", "HeteroDataSplit", "DataSplit"),
        *("DataStatistics", "Pearson", "HeteroPearson", LABELS),
    }
)
"""Components that change no feature and no score of one request."""


@dataclass(frozen=True, slots=True)
class CompiledHalf:
    """`inputs` and `output` are what a manifest declares. `merge` counts at the guest."""

    name: str
    inputs: tuple[TensorSpec, ...]
    model: Model
    merge: Merge
    words: frozenset[str]

    @property
    def output(self) -> TensorSpec:
        return self.model.output

    def servable(self) -> Servable:
        """Raises ComponentError."""
        signature = Signature(self.inputs, (self.output,))
        with _named(self.name):
            half = self.model.build(signature)
        return Prepared(signature, compile_program(self.model.columns, signature, self.words), half)


def compile_half(parts: Parts, site: Site) -> CompiledHalf:
    """Raises ExportError, and ComponentError naming the component that cannot be served and the reason."""
    nodes = nodes_of(parts, site.role)
    nodes = as_serving_runs(nodes) if site.compat else nodes
    read = [_component(parts, node, site) for node in nodes]
    texts = [one_hot.text_inputs(one) for one in read if one.kind in one_hot.KINDS]
    reading = _Reading(Columns(texts=frozenset[str]().union(*texts)))
    for node, component in zip(nodes, read, strict=True):
        with _named(component.name):
            reading.take(node, component)
    return reading.half()


@dataclass(slots=True)
class _Passed:
    """What a component passes on. For FATE-Serving several may pass on the same, and all of them see what is written
    into it."""

    columns: Columns


class _Reading:
    """The pipeline so far: what each component passes on, and the model once it was met."""

    def __init__(self, request: Columns) -> None:
        self._request = _Passed(request)
        self._behind: dict[str, _Passed] = {}
        self._model: tuple[str, Model, Columns] | None = None
        self._merge: Merge | None = None
        self._relabels = False

    def take(self, node: Node, component: Component) -> None:
        given = self._behind[node.upstream[0]] if node.upstream else self._request
        self._relabels |= node.kind == LABELS
        self._behind[node.name] = given
        if node.kind in WITHOUT_EFFECT:
            return
        if node.kind not in _kinds():
            raise ComponentError(f"components of class {node.kind!r} are not served")
        if node.role not in {"", component.site.role}:
            raise ComponentError(f"it is of the {node.role}, and this is the half of the {component.site.role}")
        module = _kinds()[node.kind]
        columns = given.columns if hasattr(module, "TAKES_ROWS_WITHOUT_ZEROS") else given.columns.settled()
        if hasattr(module, "transform"):
            self._behind[node.name] = _passed(module, component, given, module.transform(component, columns))
        elif hasattr(module, "points"):
            self._merge = module.points(component, self._met()[1].merge)
        else:
            self._meet(component.name, module.model(component, columns), columns)

    def _meet(self, name: str, model: Model, columns: Columns) -> None:
        if self._model is not None:
            raise ComponentError(f"there is a model already, {self._model[0]!r}: deploy only one of them")
        self._model, self._merge = (name, model, columns), model.merge

    def _met(self) -> tuple[str, Model, Columns]:
        if self._model is None:
            raise ComponentError("no model that is served comes before it")
        return self._model

    def half(self) -> CompiledHalf:
        if self._model is None:
            raise ComponentError("the pipeline has no model that is served")
        name, model, columns = self._model
        merge = self._merge or model.merge
        if merge.labels and self._relabels:
            raise ComponentError(f"component {name!r}: labels that {LABELS} has changed are not served")
        return CompiledHalf(name, _inputs(model, columns), model, merge, columns.words)


def _passed(module: ModuleType, component: Component, given: _Passed, made: Columns) -> _Passed:
    if not component.site.compat:
        return _Passed(made)
    if made is given.columns:
        return given
    if not (hasattr(module, "writes") and module.writes(component)):
        return _Passed(made)
    given.columns = made
    return given


def _component(parts: Parts, node: Node, site: Site) -> Component:
    messages = {key.rpartition("/")[2]: raw for key, raw in parts.items() if key.startswith(f"{node.name}/")}
    ending = {
        end: next((raw for name, raw in sorted(messages.items()) if name.endswith(end)), None)
        for end in ("Meta", "Param")
    }
    return Component(node.name, node.kind, ending["Meta"], ending["Param"], node.settings, site)


def _inputs(model: Model, columns: Columns) -> tuple[TensorSpec, ...]:
    """The inputs that the model's columns come from, in the order of these."""
    names = list(dict.fromkeys(column.source for column in model.columns))
    specs = [_spec(name, columns, _spelled(name, model)) for name in names]
    if model.merge.kind is MergeKind.TREE_WALK:
        return tuple(specs)
    signature = Signature(tuple(specs), (model.output,))
    needed = _needed(compile_program(model.columns, signature, columns.words), signature)
    return tuple(
        msgspec.structs.replace(spec, missing=Missing.ERROR) if spec.name in needed else spec for spec in specs
    )


def _spelled(name: str, model: Model) -> dict[str, float | None]:
    """What texts mean to all columns that come from an input."""
    each = [set(column.spellings.items()) for column in model.columns if column.source == name]
    return dict(set.intersection(*each))


def _spec(name: str, columns: Columns, spelled: Mapping[str, float | None]) -> TensorSpec:
    if name in columns.texts:
        return TensorSpec(name=name, dtype="string", shape=(-1,), missing=Missing.NATIVE)
    spellings = {**spelled, **columns.spellings}
    return TensorSpec(name=name, dtype="float64", shape=(-1,), missing=Missing.NATIVE, spellings=spellings)


def _needed(program: Program, signature: Signature) -> set[str]:
    """Inputs without which some column of the model has no number."""
    numbers = np.zeros((1 + len(signature.numbers), len(signature.numbers)))
    numbers[1:][np.diag_indices(len(signature.numbers))] = math.nan
    texts = np.full((numbers.shape[0], len(signature.texts)), "", dtype=np.object_)
    missing = np.isnan(program.run(Batch(numbers, texts))).sum(axis=1)
    return {name for name, count in zip(signature.numbers, missing[1:], strict=True) if count > missing[0]}


@contextmanager
def _named(component: str) -> Iterator[None]:
    try:
        yield
    except ComponentError as error:
        raise ComponentError(f"component {component!r}: {error}") from None


@cache
def _kinds() -> Mapping[str, ModuleType]:
    """The file of every class of components."""
    names: Sequence[str] = [one.name for one in pkgutil.iter_modules(components.__path__)]
    modules = [importlib.import_module(f"{components.__name__}.{name}") for name in names]
    return {kind: module for module in modules for kind in module.KINDS}
